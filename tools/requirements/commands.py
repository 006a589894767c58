"""Updates of locks, and packages added to or removed from them. Each happens whole or not at all.

New locks are made and checked elsewhere first; then they replace the old ones together with the
requirements they answer, in one journaled change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.bundle.imports import first_import
from tools.bundle.lock import Lock
from tools.common import transaction
from tools.common.errors import ToolError
from tools.common.files import File
from tools.common.repository import Repository
from tools.requirements import changes, check_locks, listing, mapping, wheels
from tools.requirements.changes import LockChange
from tools.requirements.generate import generate
from tools.requirements.records import Concerned, concerned, replaced
from tools.requirements.workspace import (
    CONFIG,
    Resolve,
    accelerators,
    choose,
    read,
    resolves,
)

VARIANTS, TESTS = "variants", "tests"
TESTS_IN = "cpu"
"""The resolve of tests."""

Make = Callable[[Repository, Sequence[Resolve], Mapping[str, bytes]], Mapping[str, bytes]]
Locks = Mapping[str, Lock]  # by resolve
Edits = dict[str, bytes]


@dataclass(frozen=True)
class Outcome:
    """What was done: paths written, how each lock changed, and what follows from it."""

    written: tuple[str, ...]
    changes: tuple[LockChange, ...]
    concerned: Concerned
    notes: tuple[str, ...]


def update(repo: Repository, names: Sequence[str], *, make: Make = generate) -> Outcome:
    """Makes the locks of some resolves anew, with the newest versions that fit.

    Raises:
        ToolError: one can't be made, or bundles could not install them; nothing has changed.
    """
    known = resolves(repo.root)
    chosen = choose(known, names)
    return _renew(repo, known, chosen, {}, f"update {' '.join(r.name for r in chosen)}", make)


def add(repo: Repository, text: str, audience: str = VARIANTS, *, make: Make = generate) -> Outcome:
    """Adds a requirement to every resolve that needs it, and makes their locks.

    Args:
        repo: the workspace.
        text: the requirement, such as "rich>=14".
        audience: "variants", "tests" or a resolve.
        make: makes the locks.

    Raises:
        ToolError: it is there already, or can't be had for one of them; nothing has changed.
    """
    requirement = listing.requirement_of(text)
    name = canonicalize_name(requirement.name)
    known = resolves(repo.root)
    asked = _audience(known, audience)
    lists = {r: _lines(repo, r) for r in asked}
    there = {r: line for r, lines in lists.items() if (line := listing.find(lines, name))}
    lacking = [resolve for resolve in asked if resolve not in there]
    if not lacking:
        places = ", ".join(resolve.listing for resolve in there)
        remedy = f"./pants run locks -- update {' '.join(r.name for r in asked)}"
        raise ToolError(f"{name} is in {places} already; {remedy} takes its newest version")
    requirement = _agreed(requirement, there)
    edits = {r.listing: listing.with_requirement(lists[r], requirement).encode() for r in lacking}

    def finish(locks: Locks) -> tuple[Edits, list[str]]:
        return _map_modules(repo, requirement.name, lacking, locks)

    return _renew(repo, known, lacking, edits, f"add {requirement}", make, finish)


def remove(
    repo: Repository, text: str, audience: str = VARIANTS, *, make: Make = generate
) -> Outcome:
    """Removes a requirement from every resolve that asks for it, and makes their locks.

    Raises:
        ToolError: no resolve asks for it, or files still import it; nothing has changed.
    """
    name = canonicalize_name(listing.requirement_of(text).name)
    known = resolves(repo.root)
    asked = _audience(known, audience)
    lists = {r: _lines(repo, r) for r in asked}
    having = [resolve for resolve, lines in lists.items() if listing.find(lines, name)]
    if not having:
        places = ", ".join(resolve.listing for resolve in asked)
        raise ToolError(f"{name} is in none of {places}: nothing to remove")
    _refuse_users(repo, known, name, having)
    edits = {r.listing: listing.without_requirement(lists[r], name).encode() for r in having}

    def finish(locks: Locks) -> tuple[Edits, list[str]]:
        left = [n for n, lock in locks.items() if name in lock.distributions]
        said = [f"{name} stays in {', '.join(left)}: other packages need it"] if left else []
        edited, told = _unmap(repo, name, having)
        return edited, [*said, *told]

    return _renew(repo, known, having, edits, f"remove {name}", make, finish)


def _audience(known: Mapping[str, Resolve], audience: str) -> list[Resolve]:
    if audience == VARIANTS and (found := accelerators(known)):
        return found
    return choose(known, [TESTS_IN if audience == TESTS else audience])


def _lines(repo: Repository, resolve: Resolve) -> list[listing.Line]:
    content = read(repo.root, resolve.listing)
    if content is None:
        where = f"{PurePosixPath(resolve.lock).parent}/BUILD"
        message = f"{resolve.listing} is not there: {where} says what {resolve.name} needs: edit it"
        raise ToolError(f"{message}, then ./pants run locks -- update {resolve.name}")
    return listing.parse(content.decode(), resolve.listing)


def _agreed(asked: Requirement, there: Mapping[Resolve, listing.Line]) -> Requirement:
    """The requirement as other resolves have it. Raises ToolError where it is another."""
    for resolve, line in there.items():
        have = line.requirement
        if have is None or str(have) == str(asked):
            continue
        if str(asked) == asked.name:
            asked = have
        else:
            raise ToolError(
                f"{resolve.listing} asks for `{have}`, not for `{asked}`: give the same, or remove "
                "it first"
            )
    return asked


def _renew(
    repo: Repository,
    known: Mapping[str, Resolve],
    chosen: Sequence[Resolve],
    edits: Mapping[str, bytes],
    what: str,
    make: Make,
    finish: Callable[[Locks], tuple[Edits, list[str]]] = lambda locks: ({}, []),
) -> Outcome:
    """Makes the locks of resolves with edited files, checks them, and puts all in place."""
    build = f"{PurePosixPath(chosen[0].lock).parent}/BUILD"
    paths = {CONFIG, build, *edits, *(p for r in chosen for p in (r.lock, r.listing))}
    before = {path: _file(repo, path) for path in sorted(paths)}
    old = {r.name: _parse(before[r.lock], r.lock) for r in chosen}
    others = [r for r in accelerators(known) if r not in chosen]
    rest = {r.name: _parse(_file(repo, r.lock), r.lock) for r in others}
    _agree_on_pins(known, chosen, before, edits, rest)
    made = make(repo, chosen, edits)
    new = {r.name: Lock.parse(made[r.lock].decode(), r.lock) for r in chosen}
    notes = _check(known, old, new, rest)
    more, told = finish(new)
    fresh = {r.lock: made[r.lock] for r in chosen if _content(before[r.lock]) != made[r.lock]}
    written = {**edits, **more, **fresh}
    _write(repo, before, written, what)
    found = {r.name: changes.compare(r.lock, old[r.name], new[r.name]) for r in chosen}
    return Outcome(
        written=tuple(sorted(written)),
        changes=tuple(found.values()),
        concerned=concerned(repo.root, replaced(found)),
        notes=(*told, *notes),
    )


def _file(repo: Repository, path: str) -> File | None:
    place = repo.root / path
    return transaction.read_file(place) if place.exists() else None


def _content(file: File | None) -> bytes | None:
    return file.content if file else None


def _parse(file: File | None, path: str) -> Lock | None:
    """The lock as it was; None where there is none, or it can't be read (a merge's conflict)."""
    try:
        return Lock.parse(file.content.decode(), path) if file else None
    except (ToolError, UnicodeDecodeError):
        return None


def _agree_on_pins(
    known: Mapping[str, Resolve],
    chosen: Sequence[Resolve],
    before: Mapping[str, File | None],
    edits: Mapping[str, bytes],
    rest: Mapping[str, Lock | None],
) -> None:
    """Stops before minutes of work where the requirements say already that JAX would differ."""
    versions = {name: lock.version("jax") if lock else None for name, lock in rest.items()}
    for resolve in accelerators(known):
        if resolve in chosen:
            content = edits.get(resolve.listing) or _content(before[resolve.listing]) or b""
            lines = listing.parse(content.decode(), resolve.listing)
            wanted = (line.requirement for line in lines if line.requirement)
            versions[resolve.name] = check_locks.pinned(wanted)
    check_locks.one_jax(versions, accelerators(known))


def _check(
    known: Mapping[str, Resolve],
    old: Mapping[str, Lock | None],
    new: Locks,
    rest: Mapping[str, Lock | None],
) -> list[str]:
    """What package would refuse is refused; machines that are lost are told of."""
    names = [resolve.name for resolve in accelerators(known)]
    locks = {n: lock for n in names if (lock := new.get(n) or rest.get(n))}
    check_locks.one_jax({n: lock.version("jax") for n, lock in locks.items()}, accelerators(known))
    notes = []
    for name in names:
        if name not in new:
            continue
        found = check_locks.machines(new[name], name, check_locks.shared(name, locks))
        was = {**locks, **{n: lock for n, lock in old.items() if lock and n in names}}
        try:
            had = check_locks.machines(was[name], name, check_locks.shared(name, was))
        except ToolError:
            had = {}
        if lost := sorted(had.keys() - found.keys()):
            notes.append(
                f"{name}: bundles run on {' and '.join(sorted(found))} alone, no more on "
                f"{' and '.join(lost)}: not every package has a wheel for it"
            )
    if parted := check_locks.apart(locks) if names and not new.keys().isdisjoint(names) else []:
        remedy = f"./pants run locks -- update {' '.join(names)} brings them together"
        notes += [*parted, f"variants find other versions on other accelerators: {remedy}"]
    return notes


def _write(
    repo: Repository, before: Mapping[str, File | None], written: Mapping[str, bytes], what: str
) -> None:
    if not written:
        return
    change = transaction.Change(f"./pants run locks -- {what}")
    for path, was in before.items():
        change.rest_on(path, was)
    for path, content in written.items():
        was = before[path]
        change.put(path, was, File(content, was.mode if was else "file"))
    state = repo.state()
    with transaction.locked(state):
        transaction.recover(repo.root, state)
        transaction.carry_out(repo.root, state, change)


def _map_modules(
    repo: Repository, name: str, lacking: Sequence[Resolve], locks: Locks
) -> tuple[Edits, list[str]]:
    """The BUILD file that knows the modules of an added distribution, where it must be told."""
    path = f"{PurePosixPath(lacking[0].lock).parent}/BUILD"
    text = (read(repo.root, path) or b"").decode()
    by_hand = (
        f"if it is imported by another name than `{mapping.expected(name)}`, write that into "
        f"{mapping.FIELD} in {path}"
    )
    try:
        modules = _known_modules(text, path, name, resolves(repo.root).values())
        modules = modules or wheels.modules_of(locks[lacking[0].name], canonicalize_name(name))
        if not modules:
            return {}, [f"{name}: its wheel has no module to import; {by_hand}"]
        said = [f"{name}: import {', '.join(modules)}"]
        if modules == (mapping.expected(name),):
            return {}, said
        edited = text
        for resolve in lacking:
            edited = mapping.with_modules(edited, path, resolve.listing, name, modules)
    except ToolError as error:
        return {}, [f"{error}; {by_hand}"]
    return {path: edited.encode()} if edited != text else {}, said


def _known_modules(text: str, path: str, name: str, known: Iterable[Resolve]) -> tuple[str, ...]:
    """The modules that another resolve's mapping says a distribution has."""
    for resolve in known:
        try:
            mapped = mapping.read(text, path, resolve.listing)
        except ToolError:
            continue
        for key, modules in mapped.items():
            if canonicalize_name(key) == canonicalize_name(name):
                return tuple(modules)
    return ()


def _unmap(repo: Repository, name: str, having: Sequence[Resolve]) -> tuple[Edits, list[str]]:
    path = f"{PurePosixPath(having[0].lock).parent}/BUILD"
    text = edited = (read(repo.root, path) or b"").decode()
    try:
        for resolve in having:
            edited = mapping.with_modules(edited, path, resolve.listing, name, None)
    except ToolError as error:
        return {}, [str(error)]
    return {path: edited.encode()} if edited != text else {}, []


def _refuse_users(
    repo: Repository, known: Mapping[str, Resolve], name: str, having: Sequence[Resolve]
) -> None:
    """Raises ToolError with a line for each file that a removal would break."""
    for resolve in known.values():
        content = read(repo.root, resolve.listing) if resolve not in having else None
        if content and listing.find(listing.parse(content.decode(), resolve.listing), name):
            return  # what still imports it may have it from there
    modules = _modules_of_locked(repo, name, having[0], known)
    found = []
    for path in sorted(repo.names("ls-files", "-co", "--exclude-standard", "-z")):
        place = PurePosixPath(path)
        if place.suffix != ".py" and place.name != "BUILD":
            continue
        try:
            text = (repo.root / path).read_text("utf-8")
        except (OSError, ValueError):
            continue
        if place.suffix == ".py" and (at := first_import(text, modules)):
            found.append(f"{path}:{at[0]}: {at[1]}")
        for number, line in enumerate(text.splitlines() if place.name == "BUILD" else (), 1):
            if any(f":{r.name}#{name}" in line.lower().replace("_", "-") for r in having):
                found.append(f"{path}:{number}: {line.strip()}")
    if found:
        raise ToolError("\n".join([*found, f"these need {name}: change them first"]))


def _modules_of_locked(
    repo: Repository, name: str, resolve: Resolve, known: Mapping[str, Resolve]
) -> tuple[str, ...]:
    """The modules of a distribution that is locked; its own name where they can't be found."""
    path = f"{PurePosixPath(resolve.lock).parent}/BUILD"
    text = (read(repo.root, path) or b"").decode()
    if modules := _known_modules(text, path, name, known.values()):
        return modules
    lock = _parse(_file(repo, resolve.lock), resolve.lock)
    if lock and name in lock.distributions:
        try:
            return wheels.modules_of(lock, name) or (mapping.expected(name),)
        except ToolError:
            pass
    return (mapping.expected(name),)
