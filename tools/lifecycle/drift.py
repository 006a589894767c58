"""The changes of their origins that copies lack, commit by commit and hunk by hunk.

The commits are those after the fork point that touch the origin's directory, along first parents: a
merge counts as one change, against its first parent. Whether a copy has a hunk is decided by
content, with a three-way merge of that hunk alone, so a change counts as present however it was
ported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tools.common.errors import ToolError
from tools.common.files import File, Mode, Tree, has_files
from tools.common.names import Rename
from tools.common.repository import SHORT, Repository
from tools.common.transaction import Change, carry_out
from tools.ledger import pins
from tools.ledger.files import entry_file
from tools.ledger.ledger import Entry
from tools.ledger.pins import Pin
from tools.lifecycle import entries as ledger
from tools.lifecycle import merge
from tools.lifecycle.merge import CLEAN, CONFLICT, PRESENT, Hunk, State
from tools.lifecycle.renamed_files import moved, renames

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FileChange:
    """One file of a commit: its old and new path within the directory, and its content at each."""

    old: str | None
    new: str | None
    before: File | None
    after: File | None


@dataclass(frozen=True)
class Part:
    """The smallest part that is ported or not: a hunk, or a change of a whole file."""

    path: str
    description: str
    line: int
    lines: int
    state: State
    hunk: Hunk | None = None


@dataclass(frozen=True)
class Commit:
    """A commit of the origin, with what each part of it would be in the copy."""

    commit: str
    subject: str
    parts: tuple[Part, ...]

    def state(self) -> State:
        """The worst state of its parts."""
        states = {part.state for part in self.parts}
        return next((s for s in (CONFLICT, CLEAN) if s in states), PRESENT)


@dataclass(frozen=True)
class Drift:
    """The commits of its origin since one variant's fork point, and how much of each it has."""

    name: str
    path: str
    origin: str
    forked_at: str
    commits: tuple[Commit, ...]


@dataclass(frozen=True)
class Pair:
    """The entries of a living copy and of its origin."""

    copy: Entry
    origin: Entry

    def rename(self) -> Rename:
        """The rename from the origin's directory to the copy's."""
        return Rename(self.origin.path, self.copy.path)


def pairs(repo: Repository, names: Sequence[str]) -> list[Pair]:
    """The copies of these names or directories, or all living ones.

    Raises:
        ToolError: a copy is not there, has no origin, or has no known fork point.
    """
    _, entries = ledger.read(repo.root)
    by_name = {entry.name: entry for entry in entries}
    chosen = [ledger.find(entries, name) for name in names]
    result: list[Pair] = []
    for entry in chosen or entries:
        if not chosen and (entry.status != "active" or entry.origin not in by_name):
            continue
        if entry.status == "deleted" or not has_files(repo.root / entry.path):
            raise ToolError(f"{entry.name}: is {entry.status}: {entry.path} is not there")
        if entry.origin not in by_name:
            raise ToolError(f"{entry.name}: was copied from nothing: it has no origin")
        fork_point(repo, entry, by_name[entry.origin])
        result.append(Pair(entry, by_name[entry.origin]))
    return list({pair.copy.name: pair for pair in result}.values())


def fork_pin(entry: Entry) -> Pin:
    """Where an entry's origin was copied. Raises ToolError if the ledger does not say it."""
    if pin := pins.parse(entry.forked_at):
        return pin
    remedy = f"add '- forked at: COMMIT' to its entry, {entry_file(entry.name)}"
    raise ToolError(f"{entry.name}: its fork point is not known: {remedy}")


def fork_point(repo: Repository, copy: Entry, origin: Entry) -> str:
    """The commit after which a copy can lack commits of its origin.

    Where a squash merge left the fork point in no commit, and its files were kept, it is the commit
    before the one that brought the copy: all that is there is found by content.

    Raises:
        ToolError: there is none.
    """
    pin = fork_pin(copy)
    if commit := pins.find(repo, pin, origin.path):
        return commit
    if pins.kept(repo.root, pin):
        commits = repo.ask("rev-list", "--first-parent", "HEAD", "--", copy.path).split()
        if commits and (parent := repo.commit(f"{commits[-1]}^")):
            return parent
    raise ToolError(f"{copy.name}: {pins.missing(repo, pin)}")


def origin_paths(repo: Repository, pair: Pair) -> dict[str, str]:
    """For each file that the copy renamed, its path in the origin, by its path in the copy."""
    path = pair.origin.path
    before = pins.files(repo, fork_pin(pair.copy), path)
    copy = repo.working(pair.copy.path)
    # A path of the origin's since then is a file that was ported.
    own = {p: file for p, file in copy.items() if p in before or p not in repo.files("HEAD", path)}
    copied = {
        p: replace(file, content=pair.rename().loose(p, file.content)) for p, file in before.items()
    }
    return {there: here for here, there in renames(copied, own).items()}


# -- reporting -----------------------------------------------------------------------------------


def drift(repo: Repository, names: Sequence[str]) -> list[Drift]:
    """The drift of each of the named copies, or of all living ones. Raises ToolError as `pairs`."""
    drifts = []
    for pair in pairs(repo, names):
        point, path = fork_point(repo, pair.copy, pair.origin), pair.origin.path
        origin = repo.files("HEAD", path)
        copy = moved(repo.working(pair.copy.path), origin_paths(repo, pair))
        commits = []
        for commit, subject in repo.history(f"{point}..HEAD", path):
            parts = [
                part
                for change in changes(repo, commit, path)
                for part in judge(change, copy, pair.rename(), origin)
            ]
            shown = "".join(c if c.isprintable() else "?" for c in subject)
            commits.append(Commit(commit, shown, tuple(parts)))
        entry = pair.copy
        drifts.append(Drift(entry.name, entry.path, entry.origin, entry.forked_at, tuple(commits)))
    return drifts


def changes(repo: Repository, commit: str, path: str) -> list[FileChange]:
    """The files of a directory that a commit changed, against its first parent."""
    parent = repo.commit(f"{commit}^")
    before = repo.files(parent, path) if parent else {}
    after = repo.files(commit, path)
    if not parent:
        return [FileChange(None, name, None, file) for name, file in after.items()]
    command = ("diff-tree", "-r", "-z", "-M", "--name-status", parent, commit, "--", path)
    words = iter(repo.names(*command))
    result = []
    for word in words:
        names = [next(words).removeprefix(f"{repo.prefix}{path}/") for _ in range(_paths(word))]
        old, new = names[0], names[-1]
        result.append(
            FileChange(
                old if word[0] != "A" else None,
                new if word[0] != "D" else None,
                before.get(old) if word[0] != "A" else None,
                after.get(new) if word[0] != "D" else None,
            )
        )
    return [change for change in result if change.before or change.after]


def _paths(status: str) -> int:
    return 2 if status[0] == "R" else 1


def judge(change: FileChange, copy: Tree, rename: Rename, origin: Tree) -> Iterator[Part]:
    """Each part of a file's change, with its state in the copy.

    `origin` is the origin as it is today. If the copy's file equals it, all parts are present: a
    later commit that changed a hunk again makes no conflict.
    """
    path = change.new or change.old or ""
    ours, theirs = copy.get(path), origin.get(path)
    is_the_origins = (
        ours and theirs and replace(theirs, content=rename.loose(path, theirs.content)) == ours
    )
    for part in _judge(change, copy, rename):
        yield replace(part, state=PRESENT) if is_the_origins else part


def _judge(change: FileChange, copy: Tree, rename: Rename) -> Iterator[Part]:
    """As `judge`, from the commit alone.

    The copy is compared under the origin's name, so that merges of equal files hit the cache.
    """
    to_origin = rename.undone()
    path = change.new or change.old or ""
    our_path = path if path in copy else change.old if change.old in copy else None
    before = change.before.content if change.before else None
    after = change.after.content if change.after else None
    ours = to_origin.loose(our_path, copy[our_path].content) if our_path else None
    if before is None or after is None:
        description = "new file" if before is None else "deleted file"
        state = PRESENT if ours == after else CLEAN if ours == before else CONFLICT
        yield Part(path, description, 1, (after or before or b"").count(b"\n"), state)
        return
    if ours is None or our_path is None:
        yield Part(path, "file not in the copy", 1, 0, CONFLICT)
        return
    assert change.before
    assert change.after
    if change.old != change.new:
        state = CLEAN if our_path == change.old else CONFLICT if change.old in copy else PRESENT
        yield Part(path, f"renamed from {change.old}", 1, 0, state)
    if change.before.mode != change.after.mode:
        state = PRESENT if copy[our_path].mode == change.after.mode else CLEAN
        yield Part(path, f"mode {change.after.mode}", 1, 0, state)
    if before == after:
        return
    if not merge.is_text(ours, before, after):
        state = PRESENT if ours == after else CLEAN if ours == before else CONFLICT
        yield Part(path, "binary file", 1, 0, state)
        return
    for hunk in merge.hunks(before, after):
        state = merge.judge(ours, before, after, hunk)
        first = hunk.c + 1
        yield Part(path, "", first, max(1, hunk.d - hunk.c), state, hunk)


def as_json(drifts: Sequence[Drift]) -> str:
    """The report for machines."""
    variants = [
        {
            "name": copy.name,
            "path": copy.path,
            "origin": copy.origin,
            "forked_at": copy.forked_at,
            "commits": [
                {
                    "commit": commit.commit,
                    "subject": commit.subject,
                    "state": commit.state(),
                    "parts": [
                        {
                            "path": part.path,
                            "what": part.description,
                            "line": part.line,
                            "lines": part.lines,
                            "state": part.state,
                        }
                        for part in commit.parts
                    ],
                }
                for commit in copy.commits
            ],
        }
        for copy in drifts
    ]
    return json.dumps({"schema_version": SCHEMA_VERSION, "variants": variants}, indent=1)


def as_text(drifts: Sequence[Drift]) -> str:
    """One block per variant; a commit that the copy has in full is one line."""
    lines: list[str] = []
    lacking: list[tuple[str, str]] = []
    for copy in drifts:
        missing = [commit for commit in copy.commits if commit.state() != PRESENT]
        since = f"of {copy.origin} since {_label(copy.forked_at)}"
        if not missing:
            lines.append(f"{copy.name}: lacks nothing {since}")
        else:
            noun = "commit" if len(missing) == 1 else "commits"
            lines.append(f"{copy.name}: lacks {len(missing)} {noun} {since}")
        for commit in copy.commits:
            shown = f"  {commit.commit[:SHORT]}  {commit.subject}"
            if commit.state() == PRESENT:
                lines.append(f"{shown}  ({PRESENT})")
                continue
            lacking.append((commit.commit[:SHORT], copy.path))
            lines.append(shown)
            places = [(_place(part), part.state) for part in commit.parts]
            width = max(len(place) for place, _ in places)
            lines += [f"    {place.ljust(width)}  {state}" for place, state in places]
    if lacking:
        commit, path = lacking[0]
        lines.append(f"next: ./pants drift --drift-apply={commit} {path}")
    return "\n".join(lines) or "No copy here."


def _label(forked_at: str) -> str:
    pin = pins.parse(forked_at)
    return pin.label[:SHORT] if pin and pin.commit else forked_at


def _place(part: Part) -> str:
    if part.description:
        return f"{part.path} ({part.description})"
    last = part.line + part.lines - 1
    return f"{part.path}:{part.line}-{last}"


# -- porting -------------------------------------------------------------------------------------


def port(repo: Repository, commits: Sequence[str], names: Sequence[str]) -> tuple[list[str], bool]:
    """Merges commits into copies; (lines to print, whether conflicts were left).

    Raises:
        ToolError: a copy is dirty, or a commit touches no copy's origin; nothing is written.
    """
    digests = [_commit(repo, name) for name in commits]
    lines: list[str] = []
    conflicted = False
    change = Change(f"port of {', '.join(commit[:SHORT] for commit in digests)}")
    touched: set[str] = set()
    for pair in pairs(repo, names):
        path = pair.copy.path
        repo.refuse_dirty(path)
        origin_path = origin_paths(repo, pair)
        own_path = {there: here for here, there in origin_path.items()}
        copy = before = moved(repo.working(path), origin_path)
        origin = repo.files("HEAD", pair.origin.path)
        for commit in digests:
            files = changes(repo, commit, pair.origin.path)
            if not files and names:
                message = f"does not touch {pair.origin.path}, which {pair.copy.name} is a copy of"
                raise ToolError(f"{commit[:SHORT]}: {message}")
            touched |= {commit} if files else set()
            copy, messages, conflicts = _ported(copy, files, pair, commit[:SHORT], origin)
            lines += messages
            if conflicts:
                conflicted = True
                break  # later commits would be merged into conflict markers
        for inside in sorted({*before, *copy}):
            if before.get(inside) != copy.get(inside):
                place = f"{path}/{own_path.get(inside, inside)}"
                change.put(place, before.get(inside), copy.get(inside))
    if len(touched) < len(digests) and not conflicted:
        untouched = next(commit for commit in digests if commit not in touched)
        raise ToolError(f"{untouched[:SHORT]}: touches no living copy's origin")
    if change.fingerprints:
        carry_out(repo.root, repo.state(), change)
    return [*lines, next_step(changed=bool(change.fingerprints), conflicted=conflicted)], conflicted


def _commit(repo: Repository, name: str) -> str:
    commit = repo.commit(name)
    if commit is None:
        raise ToolError(f"{name}: git knows no such commit: `./pants drift` lists them")
    return commit


def next_step(*, changed: bool, conflicted: bool = False) -> str:
    """The line that says what to do after commits or files were brought into copies."""
    if conflicted:
        return "next: resolve what conflicts (git diff shows it), test, commit"
    if changed:
        return "next: ./pants --changed-since=HEAD fmt lint check test, then commit"
    return "nothing to do"


def _ported(
    copy: Mapping[str, File],
    files: Sequence[FileChange],
    pair: Pair,
    commit: str,
    origin: Tree,
) -> tuple[dict[str, File], list[str], bool]:
    """(the copy with a commit's changes, a line per file, whether there are conflicts)."""
    result = dict(copy)
    lines: list[str] = []
    conflicted = False
    for change in files:
        parts = list(judge(change, copy, pair.rename(), origin))
        states = [part.state for part in parts]
        counts = [f"{states.count(state)} {state}" for state in _ORDER if state in states]
        name = change.new or change.old
        notes = "".join(
            f" ({p.description})" for p in parts if p.description and p.state == CONFLICT
        )
        lines.append(f"{pair.copy.path}/{name}: {commit}: {', '.join(counts)}{notes}")
        conflicted |= CONFLICT in states
        if set(states) != {PRESENT}:
            result |= _merged(copy, change, parts, pair.rename(), commit)
            if change.old and change.old != change.new and _leaves(change, parts):
                result.pop(change.old, None)
    return result, lines, conflicted


_ORDER: tuple[State, ...] = (CLEAN, PRESENT, CONFLICT)


def _leaves(change: FileChange, parts: Sequence[Part]) -> bool:
    """Whether to remove a file's old path: it was deleted or renamed, and the copy had no edits."""
    return parts[0].state != CONFLICT and (change.new is None or bool(parts[0].description))


def _merged(
    copy: Mapping[str, File],
    change: FileChange,
    parts: Sequence[Part],
    rename: Rename,
    commit: str,
) -> dict[str, File]:
    """The merged file by its path; empty if it is deleted, or if the copy has no such file."""
    if change.after is None or change.new is None:
        return {}
    after = rename.loose(change.new, change.after.content)
    if change.before is None or change.old is None:
        ours = copy.get(change.new)
        base = b""
    else:
        our_path = change.new if change.new in copy else change.old
        ours = copy.get(our_path)
        base = rename.loose(change.old, change.before.content)
    if ours is None:
        return {change.new: replace(change.after, content=after)} if change.before is None else {}
    mode: Mode = change.after.mode if _changes_mode(change) else ours.mode
    if not merge.is_text(ours.content, base, after):
        chosen = any(p.description == "binary file" and p.state == CLEAN for p in parts)
        return {change.new: File(after if chosen else ours.content, mode)}
    if any(part.state == PRESENT and part.hunk for part in parts):
        after = _without(base, after, parts)
    labels = (rename.new, f"{commit}^", commit)
    content, _ = merge.merge(ours.content, base, after, labels, "--diff3")
    return {change.new: File(content, mode)}


def _without(base: bytes, after: bytes, parts: Sequence[Part]) -> bytes:
    """The change without the hunks already present, which might conflict with themselves."""
    hunks = merge.hunks(base, after)
    states = [part.state for part in parts if part.hunk]
    chosen = (hunk for hunk, state in zip(hunks, states, strict=True) if state != PRESENT)
    return merge.only(base, after, tuple(chosen))


def _changes_mode(change: FileChange) -> bool:
    return bool(change.before and change.after and change.before.mode != change.after.mode)
