"""Compares two trees of files: bytes first, then text, then meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tools.common.files import File
from tools.diff import buckets, definitions
from tools.diff.align import Alignment, Item, Side, align, align_as_git
from tools.diff.changed_lines import MAX_STEPS, own_names_aside
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
"""A file's rows, and markers for definitions that moved."""


@dataclass
class _Pair:
    """A pair of text files on its way to a FileDiff."""

    path: str
    old: Side
    new: Side
    git: Alignment
    alignment: Alignment


def compare(
    old: Source, new: Source, bucket_map: buckets.Map | None = None, budget: Budget | None = None
) -> Comparison:
    """The changes from one tree to another.

    A copy's own name is no change: `experiments.grug.moe` in the variant matches
    `experiments.grug.base` in its origin.

    Args:
        old: the origin.
        new: the variant.
        bucket_map: the change buckets of definitions (buckets.parse).
        budget: limits the work, by default to MAX_STEPS; when it is spent, the remaining lines are
            paired by position, and a note says so.
    """
    bucket_map, budget = bucket_map or {}, budget or Budget(MAX_STEPS)
    contents = [{path: file.content for path, file in side.tree.items()} for side in (old, new)]
    plain = own_names_aside(contents[0], contents[1], (old.name, new.name))
    paths = pairs(*plain, budget)
    compared = [_read(a, b, old.tree, new.tree, plain, budget) for a, b in paths]
    names = renames(_replaced(compared, budget), [(p.old, p.new) for p in compared if p])
    if names:
        for texts in compared:
            if texts and texts.old.nameless != texts.new.plain:
                side = texts.old
                texts.old = replace(side, plain=rename(side.nameless, names))
                _align(texts, budget)
    moves = Moves([(p.old, p.new, p.alignment) if p else None for p in compared], budget)
    files = []
    for number, ((a, b), texts) in enumerate(zip(paths, compared, strict=True)):
        sides = old.tree.get(a) if a else None, new.tree.get(b) if b else None
        shown = (texts, _explained(number, texts, moves, budget)) if texts else None
        files.append(_file_diff((a, b), sides, shown))
    inexact = "too much changed for an exact diff: some lines are paired by position"
    return Comparison(
        old.name,
        new.name,
        tuple(files),
        tuple(sorted(names.items())),
        *_meaning([texts for texts in compared if texts], bucket_map),
        (inexact,) if budget.refused else (),
    )


def _meaning(
    compared: Sequence[_Pair], bucket_map: buckets.Map
) -> tuple[tuple[Change, ...], tuple[Knob, ...], tuple[CallOrder, ...]]:
    """Changed definitions, knobs and orders of calls."""
    changes: list[Change] = []
    for texts in compared:
        if texts.old.plain != texts.new.plain:
            changes += definitions.changes(texts.path, texts.old, texts.new, bucket_map)
    old_sides = {texts.path: texts.old for texts in compared}
    new_sides = {texts.path: texts.new for texts in compared}
    changes = definitions.across(changes, old_sides, new_sides)
    python = [
        texts
        for texts in compared
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
    plain: tuple[Mapping[str, bytes], Mapping[str, bytes]],
    budget: Budget,
) -> _Pair | None:
    """The lines of a pair of texts, aligned; None if either side is not a text.

    `plain` holds the contents of both trees with the variant's own name put aside.
    """
    before, after = old.get(a) if a else None, new.get(b) if b else None
    if not (_is_text(before) and _is_text(after)):
        return None
    path = b or a or ""
    lines = split(before.content) if before else ()
    is_python = path.endswith(".py")
    nameless = split(plain[0][a]) if a else ()
    old_side = Side(lines, nameless, is_python and (a or path).endswith(".py"), nameless)
    lines = split(after.content) if after else ()
    new_side = Side(lines, split(plain[1][b]) if b else (), is_python)
    if old_side.plain == new_side.plain:
        items = [Item((n,), (n,), True) for n in range(len(old_side.lines))]
        return _Pair(path, old_side, new_side, Alignment(items), Alignment(items))
    texts = _Pair(path, old_side, new_side, align_as_git(old_side, new_side, budget), Alignment())
    _align(texts, budget)
    return texts


def _align(texts: _Pair, budget: Budget) -> None:
    def same(i: int, j: int) -> bool:
        return kind_of(texts.old, texts.new, i, j) != "changed"

    texts.alignment = align(texts.old, texts.new, texts.git, same, budget)


def _replaced(compared: list[_Pair | None], budget: Budget) -> list[tuple[str, str]]:
    """(old, new) replacements of words, in all pairs of lines that differ."""
    replaced: list[tuple[str, str]] = []
    for file in compared:
        for item in file.alignment.items if file else ():
            if file and not item.matched and item.old and item.new:
                a = [file.old.plain[i] for i in item.old]
                b = [file.new.plain[j] for j in item.new]
                for i, j in pair(a, b, budget):
                    if i is not None and j is not None:
                        words = difference(a[i], b[j], budget)
                        replaced += words.replaced if words else ()
    return replaced


def _explained(number: int, texts: _Pair, moves: Moves, budget: Budget) -> Shown:
    """The rows of file `number`."""
    destinations = {line: to for (file, line), to in moves.destinations.items() if file == number}
    origins = {line: origin for (file, line), origin in moves.origins.items() if file == number}
    explained = Explained(texts.old, texts.new, texts.path, (destinations, origins), budget)
    return explained.rows(texts.alignment)


def _file_diff(
    paths: tuple[str | None, str | None],
    sides: tuple[File | None, File | None],
    texts: tuple[_Pair, Shown] | None,
) -> FileDiff:
    """The part of the report on one file; `texts` is given if both sides are text."""
    (a, b), (before, after) = paths, sides
    status: Status = "removed" if b is None else "added" if a is None else "renamed"
    if a == b:
        status = "unchanged" if before == after else "changed"
    remarks = list(_kinds(before, after))
    if texts is None:
        return FileDiff(a, b, status, tuple(remarks))
    compared, (rows, markers) = texts
    if before and after:
        remarks += notes(
            before.content, "".join(compared.new.plain).encode("utf-8", "surrogateescape")
        )
        if before.content != after.content and compared.old.nameless == compared.new.plain:
            remarks.append("only names the variant where the origin named itself")
    for side, when in ((compared.old, "before"), (compared.new, "now")):
        if side.is_python and side.lines and side.tree is None:
            remarks.append(f"cannot be read as Python {when}: compared as text")
    if not (before and after) and (alone := _about(before or after)):
        remarks.append(alone)
    items = [item for item in compared.git.items if not item.matched]
    counts = Counts(sum(len(item.new) for item in items), sum(len(item.old) for item in items))
    lines = compared.old.lines, compared.new.lines
    return FileDiff(a, b, status, tuple(remarks), *lines, rows, markers, counts)


def _about(file: File | None) -> str:
    """A note on a text that only one tree has."""
    if file is None or not file.content:
        return "empty" if file else ""
    return "; ".join(n for n in notes(b"", file.content) if "hidden" in n or "UTF-8" in n)


def _kinds(before: File | None, after: File | None) -> Iterator[str]:
    """Notes on files that are not plain text, or whose kind or mode has changed."""
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
