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
from tools.common.transaction import Change
from tools.ledger import edit, pins, synced
from tools.ledger.files import entry_file
from tools.ledger.ledger import Entry
from tools.ledger.pins import Pin
from tools.ledger.synced import Looked, Synced
from tools.lifecycle import entries as ledger
from tools.lifecycle import merge
from tools.lifecycle.merge import CLEAN, CONFLICT, PRESENT, Hunk, State
from tools.lifecycle.renamed_files import moved, renames
from tools.lifecycle.settled import Names, Settled, trace
from tools.lifecycle.written import write

SCHEMA_VERSION = 2


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
    looked: Looked | None = None
    """What was decided on it, if it was looked at."""

    def state(self) -> State:
        """The worst state of its parts; of one that was looked at, that it is there."""
        if self.looked:
            return PRESENT
        states = {part.state for part in self.parts}
        return next((s for s in (CONFLICT, CLEAN) if s in states), PRESENT)


@dataclass(frozen=True)
class Drift:
    """The commits of its origin since a variant was synced with it, and how much of each it has."""

    name: str
    path: str
    origin: str
    since: str
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
    # A path that the origin had since then is a file that was ported.
    had = paths_since(repo, fork_point(repo, pair.copy, pair.origin), path)
    own = {p: file for p, file in copy.items() if p in before or p not in had}
    copied = {
        p: replace(file, content=pair.rename().loose(p, file.content)) for p, file in before.items()
    }
    return {there: here for here, there in renames(copied, own).items()}


def paths_since(repo: Repository, commit: str, path: str) -> set[str]:
    """Every path within a directory that a commit after that one touched, or that HEAD has."""
    command = ("log", "--first-parent", "-m", "--no-renames", "--name-only", "-z", "--format=")
    touched = repo.names(*command, f"{commit}..HEAD", "--", path)
    inside = f"{repo.prefix}{path}/"
    return {name.strip("\n").removeprefix(inside) for name in touched} | set(
        repo.files("HEAD", path)
    )


# -- reporting -----------------------------------------------------------------------------------


def drift(repo: Repository, names: Sequence[str]) -> list[Drift]:
    """The drift of each of the named copies, or of all living ones. Raises ToolError as `pairs`."""
    drifts = []
    for pair in pairs(repo, names):
        history = History.of(repo, pair)
        copy = moved(repo.working(pair.copy.path), origin_paths(repo, pair))
        commits = tuple(history.judged(copy))
        entry = pair.copy
        drifts.append(Drift(entry.name, entry.path, entry.origin, history.since.pin.label, commits))
    return drifts


@dataclass(frozen=True)
class History:
    """The commits of its origin that a copy can lack, the oldest first."""

    commits: tuple[tuple[str, str, tuple[FileChange, ...]], ...]
    """(digest, subject, what it changed)."""
    start: str
    since: Synced
    settled: Settled

    @classmethod
    def of(cls, repo: Repository, pair: Pair) -> History:
        """The history since the copy was synced. Raises ToolError as `fork_point`."""
        start, since = sync_point(repo, pair)
        path = pair.origin.path
        commits = tuple(
            (commit, subject, tuple(changes(repo, commit, path)))
            for commit, subject in repo.history(f"{start}..HEAD", path)
        )
        now = repo.files("HEAD", path)
        names = trace(((c, ((f.old, f.new) for f in files)) for c, _, files in commits), now)
        settled = Settled(repo.files(start, path), now, pair.rename(), names)
        return cls(commits, start, since, settled)

    def judged(self, copy: Tree) -> Iterator[Commit]:
        """Each commit, with how much of it a copy has."""
        for commit, subject, files in self.commits:
            parts = tuple(
                part for file in files for part in judge(file, copy, self.settled, commit)
            )
            shown = "".join(c if c.isprintable() else "?" for c in subject)
            yield Commit(commit, shown, parts, self.since.at(commit))


def sync_point(repo: Repository, pair: Pair) -> tuple[str, Synced]:
    """The commit up to which all of the origin was looked at, and the ledger's words on it.

    Raises:
        ToolError: the ledger's field is malformed, or there is no fork point.
    """
    copy, path = pair.copy, pair.origin.path
    looked: tuple[Looked, ...] = ()
    if copy.synced:
        if (value := synced.parse(copy.synced)) is None:
            raise ToolError(f"{copy.name}: synced: {copy.synced!r} is not {SYNCED}: correct it")
        looked = value.looked
        if commit := pins.find(repo, value.pin, path):
            return commit, value
    return fork_point(repo, copy, pair.origin), Synced(fork_pin(copy), looked)


SYNCED = "'COMMIT tree TREE', then '; COMMIT applied' or '; COMMIT declined: reason'"


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


def judge(change: FileChange, copy: Tree, settled: Settled, commit: str) -> Iterator[Part]:
    """Each part of a file's change in a commit, with its state in the copy.

    What the origin has become decides first: a later commit that changed a hunk again, or took it
    back, makes no conflict.
    """
    then: Names = (change.old, change.new)
    names = settled.names.get((commit, then), then)
    for part in _judge(change, copy, settled.rename):
        if part.description.startswith("mode "):
            is_there = settled.has_mode(copy, names)
        elif part.description.startswith("renamed "):
            is_there = settled.has_path(copy, names)
        elif part.state != PRESENT and part.hunk and change.before and change.after:
            texts = (change.before.content, change.after.content)
            is_there = settled.has_file(copy, names, then) or settled.has_hunk(
                copy, names, texts, part.hunk
            )
        else:
            is_there = part.state != PRESENT and settled.has_file(copy, names, then)
        yield replace(part, state=PRESENT) if is_there else part


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
            "since": copy.since,
            "commits": [
                {
                    "commit": commit.commit,
                    "subject": commit.subject,
                    "state": commit.state(),
                    "looked_at": str(commit.looked) if commit.looked else None,
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
        since = f"of {copy.origin} since {copy.since}"
        if not missing:
            lines.append(f"{copy.name}: lacks nothing {since}")
        else:
            noun = "commit" if len(missing) == 1 else "commits"
            lines.append(f"{copy.name}: lacks {len(missing)} {noun} {since}")
        for commit in copy.commits:
            shown = f"  {commit.commit[:SHORT]}  {commit.subject}"
            if commit.state() == PRESENT:
                said = str(commit.looked).partition(" ")[2] if commit.looked else PRESENT
                lines.append(f"{shown}  ({said})")
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
    text, _ = ledger.read(repo.root)
    marked = text
    for pair in pairs(repo, names):
        ported = _port_into(repo, pair, digests, change)
        if names and len(ported.touched) < len(digests) and not ported.conflicted:
            untouched = next(c for c in digests if c not in ported.touched)
            message = f"does not touch {pair.origin.path}, which {pair.copy.name} is a copy of"
            raise ToolError(f"{untouched[:SHORT]}: {message}")
        touched |= ported.touched
        conflicted |= ported.conflicted
        lines += ported.lines
        if ported.synced:
            marked = _mark(marked, pair.copy, ported.synced)
    if len(touched) < len(digests) and not conflicted:
        untouched = next(commit for commit in digests if commit not in touched)
        raise ToolError(f"{untouched[:SHORT]}: touches no living copy's origin")
    if marked != text:
        ledger.put(change, repo.root, text, marked)
    changed = change.writes or change.removes
    command = write(repo, change, conflicted=conflicted) if changed else ""
    return [*lines, next_step(command, conflicted=conflicted)], conflicted


@dataclass(frozen=True)
class Ported:
    """What was done to one copy; `synced` is what the ledger is to say, None to say no more."""

    lines: list[str]
    touched: set[str]
    conflicted: bool
    synced: Synced | None


def _port_into(repo: Repository, pair: Pair, digests: Sequence[str], change: Change) -> Ported:
    """Adds to a change the merge of commits into one copy. Raises ToolError if it is dirty."""
    path = pair.copy.path
    repo.refuse_dirty(path)
    origin_path = origin_paths(repo, pair)
    own_path = {there: here for here, there in origin_path.items()}
    copy = before = moved(repo.working(path), origin_path)
    history = History.of(repo, pair)
    lines: list[str] = []
    done: list[str] = []
    touched: set[str] = set()
    conflicted = False
    for commit in digests:
        if (looked := history.since.at(commit)) and not looked.reason:
            lines.append(f"{path}: {commit[:SHORT]}: was applied before")
            touched.add(commit)
            continue
        files = changes(repo, commit, pair.origin.path)
        touched |= {commit} if files else set()
        settled = history.settled
        if all(commit != digest for digest, *_ in history.commits):
            # One of a merged branch, or one that was looked at: it is judged by itself.
            parent = repo.commit(f"{commit}^")
            now = repo.files(commit, pair.origin.path)
            base = repo.files(parent, pair.origin.path) if parent else {}
            settled = Settled(base, now, pair.rename())
        copy, messages, conflicted = _ported(copy, files, pair, commit, settled)
        lines += messages
        if conflicted:
            break  # later commits would be merged into conflict markers
        done += [commit] if files else []
    for inside in sorted({*before, *copy}):
        if before.get(inside) != copy.get(inside):
            place = f"{path}/{own_path.get(inside, inside)}"
            change.put(place, before.get(inside), copy.get(inside))
    value = advanced(repo, pair, history, copy, [Looked(commit[:SHORT]) for commit in done])
    return Ported(lines, touched, conflicted, value if done else None)


def advanced(
    repo: Repository, pair: Pair, history: History, copy: Tree, more: Sequence[Looked]
) -> Synced:
    """The ledger's words once more commits were looked at; the watermark rises as far as it can."""
    new = {looked.commit for looked in more}
    looked = [one for one in history.since.looked if one.commit[:SHORT] not in new]
    looked += more
    pin, last = history.since.pin, history.start
    for commit in history.judged(copy):
        is_looked_at = any(one.means(commit.commit) for one in looked)
        if not is_looked_at and commit.state() != PRESENT:
            break
        last = commit.commit
    if last != history.start:
        pin = pins.at(repo, last, pair.origin.path)
    looked = [one for one in looked if one.reason or not repo.is_reachable(one.commit, last)]
    return Synced(pin, tuple(looked))


def _mark(text: str, copy: Entry, value: Synced) -> str:
    """The ledger's text with what was looked at for a copy."""
    entry = next(entry for entry in ledger.parse(text) if entry.name == copy.name)
    if str(value) == entry.synced:
        return text
    return edit.changed(text, entry, {"synced": str(value)}, after="forked at")


def decline(
    repo: Repository, commits: Sequence[str], reason: str, names: Sequence[str]
) -> list[str]:
    """Writes into the ledger that copies do without commits, and why; returns the lines to print.

    Raises:
        ToolError: no copy is named, there is no reason, or a commit is not its origin's.
    """
    words = synced.check_reason(reason)
    digests = [_commit(repo, name) for name in commits]
    return _write_synced(repo, names, digests, [Looked(c[:SHORT], words) for c in digests])


def sync(repo: Repository, commit: str, names: Sequence[str]) -> list[str]:
    """Writes into the ledger that all up to a commit was looked at; returns the lines to print.

    Raises:
        ToolError: no copy is named, or HEAD does not have the commit.
    """
    digest = _commit(repo, commit)
    if not repo.is_reachable(digest, "HEAD"):
        raise ToolError(f"{commit}: is not in the history of HEAD: merge it first")
    return _write_synced(repo, names, [], [], digest)


def _write_synced(
    repo: Repository,
    names: Sequence[str],
    digests: Sequence[str],
    looked: Sequence[Looked],
    upto: str = "",
) -> list[str]:
    if not names:
        raise ToolError("name the copies: ./pants drift ... experiments/grug/NAME")
    text, _ = ledger.read(repo.root)
    marked, lines = text, []
    for pair in pairs(repo, names):
        path = pair.origin.path
        for digest in digests:
            if not changes(repo, digest, path):
                message = f"does not touch {path}, which {pair.copy.name} is a copy of"
                raise ToolError(f"{digest[:SHORT]}: {message}")
        history = History.of(repo, pair)
        copy = moved(repo.working(pair.copy.path), origin_paths(repo, pair))
        value = advanced(repo, pair, history, copy, looked)
        if upto:
            last = repo.ask("rev-list", "-1", "--first-parent", upto, "--", path).strip() or upto
            rest = [o for o in value.looked if o.reason or not repo.is_reachable(o.commit, last)]
            value = Synced(pins.at(repo, last, path), tuple(rest))
        marked = _mark(marked, pair.copy, value)
        lines.append(f"{pair.copy.name}: synced: {value}")
    change = Change("note of what was looked at")
    if marked == text:
        return [*lines, "nothing to do"]
    ledger.put(change, repo.root, text, marked)
    return [*lines, f"next: {write(repo, change)}"]


def _commit(repo: Repository, name: str) -> str:
    commit = repo.commit(name)
    if commit is None:
        raise ToolError(f"{name}: git knows no such commit: `./pants drift` lists them")
    return commit


def next_step(command: str, *, conflicted: bool = False) -> str:
    """The line that says what to do after commits or files were brought into copies.

    Args:
        command: the one that commits what changed; empty if nothing did.
        conflicted: whether conflicts were left.
    """
    if conflicted:
        return (
            "next: resolve what conflicts (git diff shows it), test, commit; then say so: "
            "./pants drift --drift-synced=COMMIT VARIANT"
        )
    if command:
        return f"next: ./pants --changed-since=HEAD fmt lint check test, then {command}"
    return "nothing to do"


def _ported(
    copy: Mapping[str, File],
    files: Sequence[FileChange],
    pair: Pair,
    commit: str,
    settled: Settled,
) -> tuple[dict[str, File], list[str], bool]:
    """(the copy with a commit's changes, a line per file, whether there are conflicts)."""
    result = dict(copy)
    lines: list[str] = []
    conflicted = False
    for change in files:
        parts = list(judge(change, copy, settled, commit))
        states = [part.state for part in parts]
        counts = [f"{states.count(state)} {state}" for state in _ORDER if state in states]
        name = change.new or change.old
        notes = "".join(
            f" ({p.description})" for p in parts if p.description and p.state == CONFLICT
        )
        lines.append(f"{pair.copy.path}/{name}: {commit[:SHORT]}: {', '.join(counts)}{notes}")
        conflicted |= CONFLICT in states
        if set(states) != {PRESENT}:
            result |= _merged(copy, change, parts, pair.rename(), commit[:SHORT])
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
