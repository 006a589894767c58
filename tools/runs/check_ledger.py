"""Checks the ledger against git, the variants' directories and the run summaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import has_files
from tools.common.git import Git
from tools.ledger import kept_trees, pins, synced
from tools.ledger.files import entry_file, place
from tools.ledger.ledger import AREA, LEDGER, Entry, read, read_ledger
from tools.ledger.pins import Pin
from tools.runs import check_runs, kept_sources, results, run_summary

Fault = tuple[str, int, str]
"""Path from the workspace's root, line, message with its remedy."""


def check(root: Path, git_dir: Path | None = None) -> list[str]:
    """Every fault of the workspace's archive, as `path:line: message`; empty if there is none.

    Args:
        root: the workspace.
        git_dir: its repository; by default the one that `root` lies in.

    Raises:
        ToolError: the ledger cannot be read, or there is no repository.
    """
    text = read_ledger(root)
    entries, ledger_faults = read(text)
    faults: list[Fault] = [(LEDGER, line, message) for line, message in ledger_faults]
    faults += directories(root, entries)
    faults += verdicts(entries)
    faults += commits(entries, root, git_dir)
    runs, malformed = run_summary.load_all(root)
    names = {entry.name for entry in entries}
    for run in runs:
        if run.variant not in names:
            message = f"{run.variant!r} is not recorded: add {entry_file(run.variant)}"
            faults.append((run.path, 3, message))
    if not malformed:
        faults += recorded(entries, runs)
    faults = [
        (*place(text, line), message) if path == LEDGER else (path, line, message)
        for path, line, message in faults
    ]
    lines = [f"{path}:{line}: {message}" for path, line, message in sorted(faults)]
    git = Git(root, git_dir, fetches=False)
    lines += kept_sources.orphans(git, entries, runs) + check_runs.check(git, entries, runs)
    return lines + malformed + kept_sources.check(root, runs)


def directories(root: Path, entries: Iterable[Entry]) -> list[Fault]:
    """Mismatches between the variants' directories and the ledger's entries."""
    faults: list[Fault] = []
    live = {entry.path for entry in entries if entry.status != "deleted"}
    deleted = {entry.path for entry in entries if entry.status == "deleted"}
    for build in sorted((root / AREA).glob("*/BUILD")):
        path = build.parent.relative_to(root).as_posix()
        if path not in live | deleted:
            remedy = f"add {entry_file(build.parent.name)}, or remove the directory"
            faults.append((f"{path}/BUILD", 1, f"{path} is not recorded: {remedy}"))
    for entry in entries:
        if not entry.path:
            continue
        line = entry.lines["path"]
        exists = has_files(root / entry.path)
        if entry.status == "active" and not exists:
            message = (
                f"{entry.name} is active, but {entry.path} is not there: put it back, or set "
                "'status: deleted' and '- last known-good: COMMIT'"
            )
            faults.append((LEDGER, line, message))
        elif entry.status == "deleted" and exists and entry.path not in live:
            message = (
                f"{entry.name} is deleted, but {entry.path} is there: remove the directory, or "
                "set 'status: active'"
            )
            faults.append((LEDGER, line, message))
    return faults


def verdicts(entries: Iterable[Entry]) -> list[Fault]:
    """Experiments that have ended without a verdict."""
    return [
        (
            LEDGER,
            entry.lines["verdict"],
            f"{entry.name} is {entry.status}, but its verdict is pending: say what was learned",
        )
        for entry in entries
        if entry.status in ("superseded", "deleted") and entry.verdict == "pending"
    ]


def recorded(entries: Sequence[Entry], runs: Sequence[run_summary.Run]) -> Iterator[Fault]:
    """Entries whose results in brackets, which people do not write, are not those of their runs."""
    for entry in entries:
        if words := results.untrue(entry, entries, runs):
            yield LEDGER, entry.lines["results"], f"{entry.name}: results: {words}"


@dataclass(frozen=True)
class Reference:
    """A field of an entry that names a place in history, and the directory whose content it is."""

    entry: Entry
    key: str
    path: str

    @property
    def value(self) -> str:
        """What the field holds."""
        return self.entry.fields[self.key]

    @property
    def pin(self) -> Pin | None:
        """The place; None if the field names none."""
        if self.key == "synced":
            value = synced.parse(self.value)
            return value.pin if value else None
        return pins.parse(self.value)

    def fault(self, message: str) -> Fault:
        """A fault of the field."""
        return LEDGER, self.entry.lines[self.key], f"{self.entry.name}: {self.key}: {message}"


def references(entries: Sequence[Entry]) -> list[Reference]:
    """Every field that must name a place in history."""
    by_name = {entry.name: entry for entry in entries}
    found: list[Reference] = []
    for entry in entries:
        origin = by_name.get(entry.origin)
        paths = {
            "forked at": origin.path if origin else "",
            "introduced": entry.path,
            "last known-good": entry.path,
            "synced": origin.path if origin else "",
        }
        for key, path in paths.items():
            value = entry.fields.get(key, "")
            if value and not (key == "introduced" and value == "pending"):
                found.append(Reference(entry, key, path))
        if entry.superseded_by and entry.superseded_by not in by_name:
            found.append(Reference(entry, "superseded by", ""))
    return found


def commits(entries: Sequence[Entry], root: Path, git_dir: Path | None) -> list[Fault]:
    """Fields that name no place in a history that a clone of the main branch would have.

    Raises:
        ToolError: there is no repository.
    """
    git = Git(root, git_dir, fetches=False)
    named = references(entries)
    faults = [ref.fault(_malformed(ref)) for ref in named if not _is_well_formed(ref)]
    named = [ref for ref in named if _is_well_formed(ref)]
    try:
        known = git.known_commits({pin.commit for ref in named if (pin := ref.pin) and pin.commit})
    except ToolError as error:
        raise ToolError(f"{error}: name the repository with --git-dir DIR") from error
    lost = git.unreachable(set(known.values()), *pins.tips(git))
    reached = {name: commit for name, commit in known.items() if commit not in lost}
    beside = git.unreachable(set(reached.values()), *git.main_branches())
    trees = git.objects(
        {f"{c}:{git.prefix}{r.path}" for r, c in _commits_of(named, reached)}, "tree"
    )
    for ref in named:
        pin = ref.pin
        assert pin
        commit = reached.get(pin.commit)
        if commit is None:
            message = _lost(git, ref, pin)
        else:
            tree = trees.get(f"{commit}:{git.prefix}{ref.path}", "")
            message = _reached(git, ref, pin, tree, is_beside=commit in beside)
        faults += [ref.fault(message)] if message else []
    return faults


def _commits_of(
    named: Iterable[Reference], reached: Mapping[str, str]
) -> Iterator[tuple[Reference, str]]:
    for ref in named:
        if (pin := ref.pin) and ref.path and pin.commit in reached:
            yield ref, reached[pin.commit]


def _is_well_formed(ref: Reference) -> bool:
    return ref.pin is not None and (ref.key != "superseded by" or not ref.pin.tree)


def _malformed(ref: Reference) -> str:
    rule = "a commit: 7 or more hexadecimal digits"
    if ref.key == "superseded by":
        rule = f"an experiment of this ledger, nor {rule}"
    if ref.key == "synced":
        rule = "'COMMIT tree TREE', then '; COMMIT applied' or '; COMMIT declined: reason'"
    alternative = ", or 'pending'" if ref.key == "introduced" else ""
    return f"{ref.value!r} is not {rule}{alternative}"


def _lost(git: Git, ref: Reference, pin: Pin) -> str:
    """What is wrong with a place whose commit no clone has; empty if its content is elsewhere."""
    if pin.tree and ref.path:
        if pins.newest_with(git, pin.tree, ref.path, pins.tips(git)):
            return ""
        if pins.kept(git.root, pin):
            try:
                kept_trees.load(git, pin.tree)
            except ToolError as error:
                return str(error)
            return ""
    return pins.missing(git, pin)


def _reached(git: Git, ref: Reference, pin: Pin, tree: str, *, is_beside: bool) -> str:
    """What is wrong with a place whose commit is there; empty if nothing is."""
    if pin.tree and tree and not tree.startswith(pin.tree):
        return (
            f"{ref.path} in {pin.commit} is tree {tree[: pins.SHORT]}, not {pin.tree}: correct it"
        )
    if not is_beside or not tree or ref.key in ("introduced", "synced"):
        return ""
    # A squash merge keeps what the branch ends with.
    stays = git.object("HEAD", ref.path) == tree
    if stays or pins.newest_with(git, tree, ref.path, git.main_branches()):
        return ""
    if pins.kept(git.root, Pin("", tree)):
        return ""
    return pins.only_here(pin)
