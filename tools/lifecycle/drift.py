"""What copies lack of what their origins became, commit by commit and hunk by hunk.

The commits are those after the fork point that touch the origin's directory, along the first
parents: a merge counts as one change, that against its first parent. Whether a copy has a hunk is
told by content, by a three-way merge of that hunk alone, so what was ported by whatever means is
seen to be there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tools.common.errors import ToolError
from tools.common.files import File, Mode, Tree
from tools.common.repository import SHORT, Repository
from tools.common.transaction import Change, carry_out
from tools.ledger.ledger import Entry
from tools.lifecycle import entries as ledger
from tools.lifecycle import merge
from tools.lifecycle.merge import CLEAN, CONFLICT, THERE, Hunk, State
from tools.lifecycle.names import Rename

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FileChange:
    """One file of a commit: by its paths within the directory, and what it was and became."""

    old: str | None
    new: str | None
    before: File | None
    after: File | None


@dataclass(frozen=True)
class Part:
    """The smallest thing that is ported or not: a hunk, or a file as such (`what` says how)."""

    path: str
    what: str
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
        """The worst of its parts'."""
        states = {part.state for part in self.parts}
        return next((s for s in (CONFLICT, CLEAN) if s in states), THERE)


@dataclass(frozen=True)
class Drift:
    """What one variant lacks."""

    name: str
    path: str
    origin: str
    forked_at: str
    commits: tuple[Commit, ...]


@dataclass(frozen=True)
class Pair:
    """A living copy, and its origin's directory."""

    copy: Entry
    origin: Entry

    def rename(self) -> Rename:
        """From the origin's name to the copy's."""
        return Rename(self.origin.path, self.copy.path)


def pairs(repo: Repository, given: Sequence[str]) -> list[Pair]:
    """The named copies, or all living ones. Raises ToolError for one without a fork point."""
    _, entries = ledger.read(repo.root)
    by_name = {entry.name: entry for entry in entries}
    named = [ledger.find(entries, name) for name in given]
    found: list[Pair] = []
    for entry in named or entries:
        if not named and (entry.status != "active" or entry.origin not in by_name):
            continue
        if entry.status == "deleted" or not (repo.root / entry.path).is_dir():
            raise ToolError(f"{entry.name}: is {entry.status}: {entry.path} is not there")
        if entry.origin not in by_name:
            raise ToolError(f"{entry.name}: was copied from nothing: it has no origin")
        fork_point(repo, entry)
        found.append(Pair(entry, by_name[entry.origin]))
    return list({pair.copy.name: pair for pair in found}.values())


def fork_point(repo: Repository, entry: Entry) -> str:
    """The commit that an entry's origin was copied at. Raises ToolError."""
    if not entry.forked_at:
        remedy = f"add '- forked at: COMMIT' to '## {entry.name}' in {ledger.LEDGER}"
        raise ToolError(f"{entry.name}: its fork point is not known: {remedy}")
    if not (commit := repo.commit(entry.forked_at)):
        remedy = "correct it, or fetch it (git fetch --unshallow in a shallow clone)"
        raise ToolError(f"{entry.name}: git knows no commit {entry.forked_at}: {remedy}")
    return commit


# -- what there is -------------------------------------------------------------------------------


def drift(repo: Repository, given: Sequence[str]) -> list[Drift]:
    """What each of the named copies, or of all living ones, lacks."""
    found = []
    for pair in pairs(repo, given):
        point, path = fork_point(repo, pair.copy), pair.origin.path
        copy, now = repo.working(pair.copy.path), repo.files("HEAD", path)
        commits = []
        for commit, subject in repo.history(f"{point}..HEAD", path):
            parts = [
                part
                for change in changes(repo, commit, path)
                for part in judge(change, copy, pair.rename(), now)
            ]
            shown = "".join(c if c.isprintable() else "?" for c in subject)
            commits.append(Commit(commit, shown, tuple(parts)))
        entry = pair.copy
        found.append(Drift(entry.name, entry.path, entry.origin, entry.forked_at, tuple(commits)))
    return found


def changes(repo: Repository, commit: str, path: str) -> list[FileChange]:
    """What a commit did to the files of a directory, against its first parent."""
    parent = repo.commit(f"{commit}^")
    before = repo.files(parent, path) if parent else {}
    after = repo.files(commit, path)
    if not parent:
        return [FileChange(None, name, None, file) for name, file in after.items()]
    asked = ("diff-tree", "-r", "-z", "-M", "--name-status", parent, commit, "--", path)
    words = iter(repo.names(*asked))
    found = []
    for word in words:
        names = [next(words).removeprefix(f"{repo.prefix}{path}/") for _ in range(_paths(word))]
        old, new = names[0], names[-1]
        found.append(
            FileChange(
                old if word[0] != "A" else None,
                new if word[0] != "D" else None,
                before.get(old) if word[0] != "A" else None,
                after.get(new) if word[0] != "D" else None,
            )
        )
    return [change for change in found if change.before or change.after]


def _paths(status: str) -> int:
    return 2 if status[0] == "R" else 1


def judge(change: FileChange, copy: Tree, rename: Rename, now: Tree) -> Iterator[Part]:
    """What each part of a file's change would be in the copy; all there if the file is `now`'s.

    `now` is the origin as it is today: what a later commit did to a hunk is no conflict.
    """
    path = change.new or change.old or ""
    mine, its = copy.get(path), now.get(path)
    is_the_origins = mine and its and replace(its, content=rename.loose(path, its.content)) == mine
    for part in _judge(change, copy, rename):
        yield replace(part, state=THERE) if is_the_origins else part


def _judge(change: FileChange, copy: Tree, rename: Rename) -> Iterator[Part]:
    """The same of a file by the commit alone.

    It is looked at under the origin's name, so that copies with equal files have equal answers,
    which are found once.
    """
    back = rename.undone()
    path = change.new or change.old or ""
    here = path if path in copy else change.old if change.old in copy else None
    before = change.before.content if change.before else None
    after = change.after.content if change.after else None
    ours = back.loose(here, copy[here].content) if here else None
    if before is None or after is None:
        what = "new file" if before is None else "deleted file"
        state = THERE if ours == after else CLEAN if ours == before else CONFLICT
        yield Part(path, what, 1, (after or before or b"").count(b"\n"), state)
        return
    if ours is None or here is None:
        yield Part(path, "file not in the copy", 1, 0, CONFLICT)
        return
    assert change.before
    assert change.after
    if change.old != change.new:
        state = CLEAN if here == change.old else CONFLICT if change.old in copy else THERE
        yield Part(path, f"renamed from {change.old}", 1, 0, state)
    if change.before.mode != change.after.mode:
        state = THERE if copy[here].mode == change.after.mode else CLEAN
        yield Part(path, f"mode {change.after.mode}", 1, 0, state)
    if before == after:
        return
    if not merge.is_text(ours, before, after):
        state = THERE if ours == after else CLEAN if ours == before else CONFLICT
        yield Part(path, "binary file", 1, 0, state)
        return
    for hunk in merge.hunks(before, after):
        state = merge.judge(ours, before, after, hunk)
        first = hunk.c + 1
        yield Part(path, "", first, max(1, hunk.d - hunk.c), state, hunk)


def as_json(found: Sequence[Drift]) -> str:
    """The report for machines."""
    variants = [
        {
            "name": one.name,
            "path": one.path,
            "origin": one.origin,
            "forked_at": one.forked_at,
            "commits": [
                {
                    "commit": commit.commit,
                    "subject": commit.subject,
                    "state": commit.state(),
                    "parts": [
                        {key: getattr(part, key) for key in ("path", "what", "line", "lines")}
                        | {"state": part.state}
                        for part in commit.parts
                    ],
                }
                for commit in one.commits
            ],
        }
        for one in found
    ]
    return json.dumps({"schema_version": SCHEMA_VERSION, "variants": variants}, indent=1)


def as_text(found: Sequence[Drift]) -> str:
    """A block a variant; a commit that the copy has whole is one line."""
    lines: list[str] = []
    lacking: list[tuple[str, str]] = []
    for one in found:
        open_ = [commit for commit in one.commits if commit.state() != THERE]
        since = f"of {one.origin} since {one.forked_at[:SHORT]}"
        if not open_:
            lines.append(f"{one.name}: lacks nothing {since}")
        else:
            noun = "commit" if len(open_) == 1 else "commits"
            lines.append(f"{one.name}: lacks {len(open_)} {noun} {since}")
        for commit in one.commits:
            shown = f"  {commit.commit[:SHORT]}  {commit.subject}"
            if commit.state() == THERE:
                lines.append(f"{shown}  ({THERE})")
                continue
            lacking.append((commit.commit[:SHORT], one.path))
            lines.append(shown)
            places = [(_place(part), part.state) for part in commit.parts]
            wide = max(len(place) for place, _ in places)
            lines += [f"    {place.ljust(wide)}  {state}" for place, state in places]
    if lacking:
        lines.append("next: ./pants drift --drift-apply={} {}".format(*lacking[0]))
    return "\n".join(lines) or "No copy here."


def _place(part: Part) -> str:
    if part.what:
        return f"{part.path} ({part.what})"
    last = part.line + part.lines - 1
    return f"{part.path}:{part.line}-{last}"


# -- porting it ----------------------------------------------------------------------------------


def port(repo: Repository, commits: Sequence[str], given: Sequence[str]) -> tuple[list[str], bool]:
    """Merges commits into copies; (what is to be printed, whether conflicts were left).

    Raises:
        ToolError: before anything is written: a copy is dirty, or lacks nothing.
    """
    known = [_commit(repo, name) for name in commits]
    lines: list[str] = []
    conflicted = False
    change = Change(f"port of {', '.join(commit[:SHORT] for commit in known)}")
    touched: set[str] = set()
    for pair in pairs(repo, given):
        path = pair.copy.path
        repo.refuse_dirty(path)
        copy = before = dict(repo.working(path))
        now = repo.files("HEAD", pair.origin.path)
        for commit in known:
            files = changes(repo, commit, pair.origin.path)
            if not files and given:
                message = f"does not touch {pair.origin.path}, which {pair.copy.name} is a copy of"
                raise ToolError(f"{commit[:SHORT]}: {message}")
            touched |= {commit} if files else set()
            copy, said, conflicts = _ported(copy, files, pair, commit[:SHORT], now)
            lines += said
            if conflicts:
                conflicted = True
                break  # what follows would be merged into markers
        for inside in sorted({*before, *copy}):
            if before.get(inside) != copy.get(inside):
                change.put(f"{path}/{inside}", before.get(inside), copy.get(inside))
    if len(touched) < len(known) and not conflicted:
        missed = next(commit for commit in known if commit not in touched)
        raise ToolError(f"{missed[:SHORT]}: touches no living copy's origin")
    if change.seen:
        carry_out(repo.root, repo.state(), change)
    return [*lines, next_step(changed=bool(change.seen), conflicted=conflicted)], conflicted


def _commit(repo: Repository, name: str) -> str:
    commit = repo.commit(name)
    if commit is None:
        raise ToolError(f"{name}: git knows no such commit: `./pants drift` lists them")
    return commit


def next_step(*, changed: bool, conflicted: bool = False) -> str:
    """What to do after commits, or files, were brought into copies."""
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
    now: Tree,
) -> tuple[dict[str, File], list[str], bool]:
    """(the copy with a commit's changes, what to say of each, whether there are conflicts)."""
    result = dict(copy)
    lines: list[str] = []
    conflicted = False
    for change in files:
        parts = list(judge(change, copy, pair.rename(), now))
        states = [part.state for part in parts]
        counts = [f"{states.count(state)} {state}" for state in _ORDER if state in states]
        name = change.new or change.old
        whole = "".join(f" ({p.what})" for p in parts if p.what and p.state == CONFLICT)
        lines.append(f"{pair.copy.path}/{name}: {commit}: {', '.join(counts)}{whole}")
        conflicted |= CONFLICT in states
        if set(states) != {THERE}:
            result |= _merged(copy, change, parts, pair.rename(), commit)
            if change.old and change.old != change.new and _leaves(change, parts):
                result.pop(change.old, None)
    return result, lines, conflicted


_ORDER: tuple[State, ...] = (CLEAN, THERE, CONFLICT)


def _leaves(change: FileChange, parts: Sequence[Part]) -> bool:
    """Whether a file's old path goes: it was deleted or renamed, and the copy had not edited it."""
    return parts[0].state != CONFLICT and (change.new is None or bool(parts[0].what))


def _merged(
    copy: Mapping[str, File],
    change: FileChange,
    parts: Sequence[Part],
    rename: Rename,
    commit: str,
) -> dict[str, File]:
    """The file as it becomes, by its path; none where there is no telling, or it is deleted."""
    if change.after is None or change.new is None:
        return {}
    after = rename.loose(change.new, change.after.content)
    if change.before is None or change.old is None:
        ours = copy.get(change.new)
        base = b""
    else:
        here = change.new if change.new in copy else change.old
        ours = copy.get(here)
        base = rename.loose(change.old, change.before.content)
    if ours is None:
        return {change.new: replace(change.after, content=after)} if change.before is None else {}
    mode: Mode = change.after.mode if _changes_mode(change) else ours.mode
    if not merge.is_text(ours.content, base, after):
        chosen = any(p.what == "binary file" and p.state == CLEAN for p in parts)
        return {change.new: File(after if chosen else ours.content, mode)}
    if any(part.state == THERE and part.hunk for part in parts):
        after = _without(base, after, parts)
    labels = (rename.new, f"{commit}^", commit)
    content, _ = merge.merge(ours.content, base, after, labels, "--diff3")
    return {change.new: File(content, mode)}


def _without(base: bytes, after: bytes, parts: Sequence[Part]) -> bytes:
    """The change without the hunks that are already there: they might conflict with themselves."""
    all_ = merge.hunks(base, after)
    states = [part.state for part in parts if part.hunk]
    chosen = (hunk for hunk, state in zip(all_, states, strict=True) if state != THERE)
    return merge.only(base, after, tuple(chosen))


def _changes_mode(change: FileChange) -> bool:
    return bool(change.before and change.after and change.before.mode != change.after.mode)
