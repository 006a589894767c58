"""Updates locks, and adds packages to them or removes them. Each command does all or nothing.

New locks are first made and checked elsewhere. Then they replace the old ones, together with the
edited requirements, in one journaled change.
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
"""The resolve in which tests run."""

Make = Callable[[Repository, Sequence[Resolve], Mapping[str, bytes]], Mapping[str, bytes]]
Locks = Mapping[str, Lock]  # by resolve
Edits = dict[str, bytes]


@dataclass(frozen=True)
class Outcome:
    """The result of a command: paths written, changes of locks, runs concerned, and notes."""

    written: tuple[str, ...]
    changes: tuple[LockChange, ...]
    concerned: Concerned
    notes: tuple[str, ...]


def update(repo: Repository, names: Sequence[str], *, make: Make = generate) -> Outcome:
    """Makes the locks of some resolves again, with the newest versions that fit.

    Raises:
        ToolError: a lock cannot be made, or bundles could not install it; nothing is changed.
    """
    all_resolves = resolves(repo.root)
    chosen = choose(all_resolves, names)
    return _renew(
        repo, all_resolves, chosen, {}, f"update {' '.join(r.name for r in chosen)}", make
    )


def add(repo: Repository, text: str, audience: str = VARIANTS, *, make: Make = generate) -> Outcome:
    """Adds a requirement to every resolve that needs it, and makes their locks.

    Args:
        repo: the workspace.
        text: the requirement, such as "rich>=14".
        audience: "variants", "tests" or a resolve.
        make: makes the locks.

    Raises:
        ToolError: all have it already, or it does not fit one of them; nothing is changed.
    """
    requirement = listing.requirement_of(text)
    name = canonicalize_name(requirement.name)
    all_resolves = resolves(repo.root)
    audience_resolves = _audience(all_resolves, audience)
    lists = {r: _lines(repo, r) for r in audience_resolves}
    having = {r: line for r, lines in lists.items() if (line := listing.find(lines, name))}
    lacking = [resolve for resolve in audience_resolves if resolve not in having]
    if not lacking:
        places = ", ".join(resolve.listing for resolve in having)
        remedy = f"./pants run locks -- update {' '.join(r.name for r in audience_resolves)}"
        raise ToolError(f"{name} is in {places} already; {remedy} takes its newest version")
    requirement = _agreed(requirement, having)
    edits = {r.listing: listing.with_requirement(lists[r], requirement).encode() for r in lacking}

    def finish(locks: Locks) -> tuple[Edits, list[str]]:
        return _map_modules(repo, requirement.name, lacking, locks)

    return _renew(repo, all_resolves, lacking, edits, f"add {requirement}", make, finish)


def remove(
    repo: Repository, text: str, audience: str = VARIANTS, *, make: Make = generate
) -> Outcome:
    """Removes a requirement from every resolve that asks for it, and makes their locks.

    Raises:
        ToolError: no resolve asks for it, or files still import it; nothing is changed.
    """
    name = canonicalize_name(listing.requirement_of(text).name)
    all_resolves = resolves(repo.root)
    audience_resolves = _audience(all_resolves, audience)
    lists = {r: _lines(repo, r) for r in audience_resolves}
    having = [resolve for resolve, lines in lists.items() if listing.find(lines, name)]
    if not having:
        places = ", ".join(resolve.listing for resolve in audience_resolves)
        raise ToolError(f"{name} is in none of {places}: nothing to remove")
    _refuse_users(repo, all_resolves, name, having)
    edits = {r.listing: listing.without_requirement(lists[r], name).encode() for r in having}

    def finish(locks: Locks) -> tuple[Edits, list[str]]:
        remaining = [n for n, lock in locks.items() if name in lock.distributions]
        notes = (
            [f"{name} stays in {', '.join(remaining)}: other packages need it"] if remaining else []
        )
        mapping_edits, mapping_notes = _unmap(repo, name, having)
        return mapping_edits, [*notes, *mapping_notes]

    return _renew(repo, all_resolves, having, edits, f"remove {name}", make, finish)


def _audience(all_resolves: Mapping[str, Resolve], audience: str) -> list[Resolve]:
    if audience == VARIANTS and (variants := accelerators(all_resolves)):
        return variants
    return choose(all_resolves, [TESTS_IN if audience == TESTS else audience])


def _lines(repo: Repository, resolve: Resolve) -> list[listing.Line]:
    content = read(repo.root, resolve.listing)
    if content is None:
        build = f"{PurePosixPath(resolve.lock).parent}/BUILD"
        message = f"{resolve.listing} is not there: {build} says what {resolve.name} needs: edit it"
        raise ToolError(f"{message}, then ./pants run locks -- update {resolve.name}")
    return listing.parse(content.decode(), resolve.listing)


def _agreed(requirement: Requirement, having: Mapping[Resolve, listing.Line]) -> Requirement:
    """The requirement as other resolves have it. Raises ToolError if theirs is different."""
    for resolve, line in having.items():
        theirs = line.requirement
        if theirs is None or str(theirs) == str(requirement):
            continue
        if str(requirement) == requirement.name:
            requirement = theirs
        else:
            raise ToolError(
                f"{resolve.listing} asks for `{theirs}`, not for `{requirement}`: give the "
                "same, or remove it first"
            )
    return requirement


def _renew(
    repo: Repository,
    all_resolves: Mapping[str, Resolve],
    chosen: Sequence[Resolve],
    edits: Mapping[str, bytes],
    command: str,
    make: Make,
    finish: Callable[[Locks], tuple[Edits, list[str]]] = lambda locks: ({}, []),
) -> Outcome:
    """Makes the locks of resolves with edited files, checks them, and puts all in place."""
    build = f"{PurePosixPath(chosen[0].lock).parent}/BUILD"
    paths = {CONFIG, build, *edits, *(p for r in chosen for p in (r.lock, r.listing))}
    before = {path: _file(repo, path) for path in sorted(paths)}
    old = {r.name: _parse(before[r.lock], r.lock) for r in chosen}
    others = [r for r in accelerators(all_resolves) if r not in chosen]
    other_locks = {r.name: _parse(_file(repo, r.lock), r.lock) for r in others}
    _agree_on_pins(all_resolves, chosen, before, edits, other_locks)
    contents = make(repo, chosen, edits)
    new = {r.name: Lock.parse(contents[r.lock].decode(), r.lock) for r in chosen}
    notes = _check(all_resolves, old, new, other_locks)
    finishing_edits, finishing_notes = finish(new)
    changed_locks = {
        r.lock: contents[r.lock] for r in chosen if _content(before[r.lock]) != contents[r.lock]
    }
    written = {**edits, **finishing_edits, **changed_locks}
    _write(repo, before, written, command)
    changes_ = {r.name: changes.compare(r.lock, old[r.name], new[r.name]) for r in chosen}
    return Outcome(
        written=tuple(sorted(written)),
        changes=tuple(changes_.values()),
        concerned=concerned(repo.root, replaced(changes_)),
        notes=(*finishing_notes, *notes),
    )


def _file(repo: Repository, path: str) -> File | None:
    place = repo.root / path
    return transaction.read_file(place) if place.exists() else None


def _content(file: File | None) -> bytes | None:
    return file.content if file else None


def _parse(file: File | None, path: str) -> Lock | None:
    """The lock in a file; None if there is none, or it can't be read (a merge conflict, say)."""
    try:
        return Lock.parse(file.content.decode(), path) if file else None
    except (ToolError, UnicodeDecodeError):
        return None


def _agree_on_pins(
    all_resolves: Mapping[str, Resolve],
    chosen: Sequence[Resolve],
    before: Mapping[str, File | None],
    edits: Mapping[str, bytes],
    other_locks: Mapping[str, Lock | None],
) -> None:
    """Raises ToolError, before minutes of work, if the requirements fix several versions of JAX."""
    versions = {name: lock.version("jax") if lock else None for name, lock in other_locks.items()}
    for resolve in accelerators(all_resolves):
        if resolve in chosen:
            content = edits.get(resolve.listing) or _content(before[resolve.listing]) or b""
            lines = listing.parse(content.decode(), resolve.listing)
            requirements = (line.requirement for line in lines if line.requirement)
            versions[resolve.name] = check_locks.pinned(requirements)
    check_locks.one_jax(versions, accelerators(all_resolves))


def _check(
    all_resolves: Mapping[str, Resolve],
    old: Mapping[str, Lock | None],
    new: Locks,
    other_locks: Mapping[str, Lock | None],
) -> list[str]:
    """Raises ToolError for locks that `package` would refuse; returns notes on lost machines."""
    names = [resolve.name for resolve in accelerators(all_resolves)]
    locks = {n: lock for n in names if (lock := new.get(n) or other_locks.get(n))}
    check_locks.one_jax(
        {n: lock.version("jax") for n, lock in locks.items()}, accelerators(all_resolves)
    )
    notes = []
    for name in names:
        if name not in new:
            continue
        now_on = check_locks.machines(new[name], name, check_locks.shared(name, locks))
        old_locks = {**locks, **{n: lock for n, lock in old.items() if lock and n in names}}
        try:
            before_on = check_locks.machines(
                old_locks[name], name, check_locks.shared(name, old_locks)
            )
        except ToolError:
            before_on = {}
        if lost := sorted(before_on.keys() - now_on.keys()):
            notes.append(
                f"{name}: bundles run on {' and '.join(sorted(now_on))} alone, no more on "
                f"{' and '.join(lost)}: not every package has a wheel for it"
            )
    if differing := check_locks.apart(locks) if names and not new.keys().isdisjoint(names) else []:
        remedy = f"./pants run locks -- update {' '.join(names)} brings them together"
        notes += [*differing, f"variants find other versions on other accelerators: {remedy}"]
    return notes


def _write(
    repo: Repository, before: Mapping[str, File | None], written: Mapping[str, bytes], command: str
) -> None:
    if not written:
        return
    change = transaction.Change(f"./pants run locks -- {command}")
    for path, old_file in before.items():
        change.rest_on(path, old_file)
    for path, content in written.items():
        old_file = before[path]
        change.put(path, old_file, File(content, old_file.mode if old_file else "file"))
    state = repo.state()
    with transaction.locked(state):
        transaction.recover(repo.root, state)
        transaction.carry_out(repo.root, state, change)


def _map_modules(
    repo: Repository, name: str, lacking: Sequence[Resolve], locks: Locks
) -> tuple[Edits, list[str]]:
    """(the edited BUILD file, notes): maps an added distribution to its modules, if necessary."""
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
        notes = [f"{name}: import {', '.join(modules)}"]
        if modules == (mapping.expected(name),):
            return {}, notes
        edited = text
        for resolve in lacking:
            edited = mapping.with_modules(edited, path, resolve.listing, name, modules)
    except ToolError as error:
        return {}, [f"{error}; {by_hand}"]
    return {path: edited.encode()} if edited != text else {}, notes


def _known_modules(
    text: str, path: str, name: str, all_resolves: Iterable[Resolve]
) -> tuple[str, ...]:
    """The modules of a distribution according to any resolve's mapping."""
    for resolve in all_resolves:
        try:
            modules_by_name = mapping.read(text, path, resolve.listing)
        except ToolError:
            continue
        for key, modules in modules_by_name.items():
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
    repo: Repository, all_resolves: Mapping[str, Resolve], name: str, having: Sequence[Resolve]
) -> None:
    """Raises ToolError with a line for each file that a removal would break."""
    for resolve in all_resolves.values():
        content = read(repo.root, resolve.listing) if resolve not in having else None
        if content and listing.find(listing.parse(content.decode(), resolve.listing), name):
            return  # files that import it may get it from there
    modules = _modules_of_locked(repo, name, having[0], all_resolves)
    users = []
    for path in sorted(repo.names("ls-files", "-co", "--exclude-standard", "-z")):
        place = PurePosixPath(path)
        if place.suffix != ".py" and place.name != "BUILD":
            continue
        try:
            text = (repo.root / path).read_text("utf-8")
        except (OSError, ValueError):
            continue
        if place.suffix == ".py" and (first_use := first_import(text, modules)):
            users.append(f"{path}:{first_use[0]}: {first_use[1]}")
        for number, line in enumerate(text.splitlines() if place.name == "BUILD" else (), 1):
            if any(f":{r.name}#{name}" in line.lower().replace("_", "-") for r in having):
                users.append(f"{path}:{number}: {line.strip()}")
    if users:
        raise ToolError("\n".join([*users, f"these need {name}: change them first"]))


def _modules_of_locked(
    repo: Repository, name: str, resolve: Resolve, all_resolves: Mapping[str, Resolve]
) -> tuple[str, ...]:
    """The modules of a locked distribution; its own name if they cannot be found."""
    path = f"{PurePosixPath(resolve.lock).parent}/BUILD"
    text = (read(repo.root, path) or b"").decode()
    if modules := _known_modules(text, path, name, all_resolves.values()):
        return modules
    lock = _parse(_file(repo, resolve.lock), resolve.lock)
    if lock and name in lock.distributions:
        try:
            return wheels.modules_of(lock, name) or (mapping.expected(name),)
        except ToolError:
            pass
    return (mapping.expected(name),)
