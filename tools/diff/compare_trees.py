"""Two trees of files, compared: bytes first, then text, then meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tools.common.files import File
from tools.diff import buckets, definitions
from tools.diff.align import Alignment, Item, Side, align, align_as_git
from tools.diff.changed_lines import MAX_STEPS, own_name_undone
from tools.diff.histogram import Budget, Counts
from tools.diff.model import CallOrder, Change, Comparison, FileDiff, Knob, Marker, Row, Status
from tools.diff.moves import Moves
from tools.diff.names import rename, renames
from tools.diff.pairing import pairs
from tools.diff.read_trees import Source
from tools.diff.rows import Explained, kind_of
from tools.diff.text import MAX_BYTES, is_binary, notes, split
from tools.diff.words import difference, pair

Shown = tuple[tuple[Row, ...], tuple[Marker, ...]]
"""A file's rows, and where definitions stood that are shown where they are now."""


@dataclass
class _Pair:
    """A pair of text files on its way to a FileDiff."""

    path: str
    old: Side
    new: Side
    git: Alignment
    alignment: Alignment


def compare(
    old: Source, new: Source, known: buckets.Map | None = None, budget: Budget | None = None
) -> Comparison:
    """What changed from one tree to another.

    A copy's own name is no change: `experiments.grug.moe` in the variant stands for
    `experiments.grug.base` in its origin.

    Args:
        old: the origin.
        new: the variant.
        known: which change bucket definitions belong to (buckets.parse).
        budget: counts the work; past MAX_STEPS, lines are paired by position and said to be.
    """
    known, budget = known or {}, budget or Budget(MAX_STEPS)
    contents = {path: file.content for path, file in old.tree.items()}
    plain = {
        path: own_name_undone(file.content, old.name, new.name) for path, file in new.tree.items()
    }
    paths = pairs(contents, plain, budget)
    found = [_read(a, b, old.tree, new.tree, plain, budget) for a, b in paths]
    names = renames(_replaced(found, budget), [(p.old, p.new) for p in found if p])
    if names:
        for texts in found:
            if texts and texts.old.lines != texts.new.plain:
                lines = texts.old.lines
                texts.old = Side(lines, rename(lines, names), texts.old.is_python)
                _align(texts, budget)
    moves = Moves([(p.old, p.new, p.alignment) if p else None for p in found], budget)
    files = []
    for number, ((a, b), texts) in enumerate(zip(paths, found, strict=True)):
        sides = old.tree.get(a) if a else None, new.tree.get(b) if b else None
        shown = (texts, _explained(number, texts, moves, budget)) if texts else None
        files.append(_file_diff((a, b), sides, shown))
    inexact = "too much changed for an exact diff: some lines are paired by position"
    return Comparison(
        old.name,
        new.name,
        tuple(files),
        tuple(sorted(names.items())),
        *_meaning([texts for texts in found if texts], known),
        (inexact,) if budget.refused else (),
    )


def _meaning(
    found: Sequence[_Pair], known: buckets.Map
) -> tuple[tuple[Change, ...], tuple[Knob, ...], tuple[CallOrder, ...]]:
    """What the change is about: definitions, knobs and the order of calls."""
    changes: list[Change] = []
    for texts in found:
        if texts.old.plain != texts.new.plain:
            changes += definitions.changes(texts.path, texts.old, texts.new, known)
    old_sides = {texts.path: texts.old for texts in found}
    new_sides = {texts.path: texts.new for texts in found}
    changes = definitions.across(changes, old_sides, new_sides)
    python = [
        texts
        for texts in found
        if texts.old.is_python and texts.new.is_python and not _test(texts.path)
        if texts.old.plain != texts.new.plain
    ]
    knobs = (knob for p in python for knob in definitions.knobs(p.path, p.old, p.new))
    calls = (order for p in python for order in definitions.call_orders(p.path, p.old, p.new))
    return tuple(definitions.by_users(changes, new_sides)), tuple(knobs), tuple(calls)


def _test(path: str) -> bool:
    return path.rpartition("/")[2].startswith(("test_", "conftest.py"))


def _is_text(file: File | None) -> bool:
    if file is None:
        return True
    big = len(file.content) > MAX_BYTES
    return file.mode in ("file", "executable") and not big and not is_binary(file.content)


def _read(
    a: str | None,
    b: str | None,
    old: Mapping[str, File],
    new: Mapping[str, File],
    plain: Mapping[str, bytes],
    budget: Budget,
) -> _Pair | None:
    """The lines of a pair of texts, aligned; None where they are no texts, or the same bytes."""
    before, after = old.get(a) if a else None, new.get(b) if b else None
    if not (_is_text(before) and _is_text(after)):
        return None
    path = b or a or ""
    lines = split(before.content) if before else ()
    is_python = path.endswith(".py")
    left = Side(lines, lines, is_python and (a or path).endswith(".py"))
    lines = split(after.content) if after else ()
    right = Side(lines, split(plain[b]) if b else (), is_python)
    if left.plain == right.plain:
        items = [Item((n,), (n,), True) for n in range(len(left.lines))]
        return _Pair(path, left, right, Alignment(items), Alignment(items))
    found = _Pair(path, left, right, align_as_git(left, right, budget), Alignment())
    _align(found, budget)
    return found


def _align(found: _Pair, budget: Budget) -> None:
    def same(i: int, j: int) -> bool:
        return kind_of(found.old, found.new, i, j) != "changed"

    found.alignment = align(found.old, found.new, found.git, same, budget)


def _replaced(found: list[_Pair | None], budget: Budget) -> list[tuple[str, str]]:
    """(old, new) replacements, in all pairs of lines that differ."""
    replaced: list[tuple[str, str]] = []
    for file in found:
        for item in file.alignment.items if file else ():
            if file and not item.matched and item.old and item.new:
                a = [file.old.plain[i] for i in item.old]
                b = [file.new.plain[j] for j in item.new]
                for i, j in pair(a, b, budget):
                    if i is not None and j is not None:
                        words = difference(a[i], b[j], budget)
                        replaced += words.replaced if words else ()
    return replaced


def _explained(number: int, found: _Pair, moves: Moves, budget: Budget) -> Shown:
    """The rows of the file of that number."""
    went = {line: to for (file, line), to in moves.went.items() if file == number}
    came = {line: origin for (file, line), origin in moves.came.items() if file == number}
    explained = Explained(found.old, found.new, found.path, (went, came), budget)
    return explained.rows(found.alignment)


def _file_diff(
    paths: tuple[str | None, str | None],
    sides: tuple[File | None, File | None],
    texts: tuple[_Pair, Shown] | None,
) -> FileDiff:
    """What is to be shown of one file; `texts` where both sides are text."""
    (a, b), (before, after) = paths, sides
    status: Status = "removed" if b is None else "added" if a is None else "renamed"
    if a == b:
        status = "unchanged" if before == after else "changed"
    said = list(_kinds(before, after))
    if texts is None:
        return FileDiff(a, b, status, tuple(said))
    found, (rows, markers) = texts
    if before and after:
        said += notes(before.content, "".join(found.new.plain).encode("utf-8", "surrogateescape"))
        if before.content != after.content and found.old.lines == found.new.plain:
            said.append("only names the variant where the origin named itself")
    for side, what in ((found.old, "before"), (found.new, "now")):
        if side.is_python and side.lines and side.tree is None:
            said.append(f"cannot be read as Python {what}: compared as text")
    if not (before and after) and (alone := _about(before or after)):
        said.append(alone)
    items = [item for item in found.git.items if not item.matched]
    counts = Counts(sum(len(item.new) for item in items), sum(len(item.old) for item in items))
    lines = found.old.lines, found.new.lines
    return FileDiff(a, b, status, tuple(said), *lines, rows, markers, counts)


def _about(file: File | None) -> str:
    """What is to be said of a text that stands alone."""
    if file is None or not file.content:
        return "empty" if file else ""
    return "; ".join(n for n in notes(b"", file.content) if "hidden" in n or "UTF-8" in n)


def _kinds(before: File | None, after: File | None) -> Iterator[str]:
    """What is to be said of files that are not plain text, or are another kind of file now."""
    for file, when in ((before, "before"), (after, "now")):
        if file is None or (before and after and before == after):
            continue
        if file.mode == "link":
            yield f"symbolic link to {file.content.decode('utf-8', 'replace')!r} {when}"
        elif file.mode == "submodule":
            yield f"submodule at {file.content.decode('ascii', 'replace')[:12]} {when}"
        elif len(file.content) > MAX_BYTES:
            yield f"{len(file.content):,} bytes {when}: too large to be compared line by line"
        elif is_binary(file.content):
            yield f"binary, {len(file.content):,} bytes {when}"
    if before and after and before.mode != after.mode:
        yield f"mode: {before.mode} before, {after.mode} now"
