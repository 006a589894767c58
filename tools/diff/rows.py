"""Turns an alignment into the rows of a report, which say how each line changed."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence

from tools.diff import python, text
from tools.diff.align import Alignment, Item, Side
from tools.diff.histogram import Budget, matches
from tools.diff.model import Kind, Marker, Row
from tools.diff.moves import Place
from tools.diff.words import difference, pair

Shown = tuple[tuple[Row, ...], tuple[Marker, ...]]
"""A file's rows, and markers for definitions that moved."""


def kind_of(old: Side, new: Side, i: int, j: int) -> Kind:
    """How old line i changed, if it became new line j."""
    if old.lines[i] == new.lines[j]:
        return "same"
    if old.raw[i] == new.raw[j]:
        return "name"
    a, b = old.plain[i], new.plain[j]
    if a == b:
        return "rename" if old.nameless[i] != a else "format"
    is_prose = old.is_prose and new.is_prose and i not in old.literal and j not in new.literal
    if a.rstrip("\r\n") == b.rstrip("\r\n"):
        # Python and readers take both kinds of line end; a shell, or a model's prompt, does not.
        return "format" if is_prose or (old.is_python and new.is_python) else "changed"
    if old.is_python and new.is_python:
        if old.tokens is None or new.tokens is None:
            return "changed"
        return "format" if old.tokens[i] == new.tokens[j] else "changed"
    return "format" if is_prose and a.rstrip(" \r\n") == b.rstrip(" \r\n") else "changed"


class Explained:
    """Makes the rows of one pair of files.

    `moved` holds the destinations of the old file's moved lines, and the origins of the new one's.
    """

    def __init__(
        self,
        old: Side,
        new: Side,
        path: str,
        moved: tuple[dict[int, Place], dict[int, Place]],
        budget: Budget,
    ) -> None:
        self.old, self.new, self.path, self.budget = old, new, path, budget
        self.destinations, self.origins = moved
        self.whole = _equal_data(old, new, path)

    def rows(self, alignment: Alignment) -> Shown:
        """All rows in order, and markers for definitions that moved."""
        self.laid_out = _equal_definitions(self.old, self.new, alignment)
        rows: list[Row] = []
        markers: list[Marker] = []
        waiting = sorted(alignment.moved, key=lambda pair: pair[0].start)
        moved_lines = {line for a, _ in waiting for line in range(a.start, a.end)}
        arrived = {b.start: a for a, b in waiting}
        for item in alignment.items:
            is_in_place = item.old and item.old[0] not in moved_lines
            while is_in_place and waiting and item.old[0] >= waiting[0][0].end:
                markers.append(Marker(len(rows), waiting[0][1].name, waiting[0][1].start))
                waiting.pop(0)
            moved_here = arrived.pop(item.new[0], None) if item.new else None
            if moved_here:
                markers.append(Marker(len(rows), moved_here.name, moved_here.start, True))
            rows += self._matched(item) if item.matched else self._gap(item)
        markers += [Marker(len(rows), b.name, b.start) for _, b in waiting]
        return tuple(rows), tuple(markers)

    def _matched(self, item: Item) -> list[Row]:
        i, j = item.old[0], item.new[0]
        kind = kind_of(self.old, self.new, i, j)
        if kind == "changed" and self._laid_out(i, j):
            kind = "format"
        return [self._row(kind, i, j)]

    def _row(self, kind: Kind, i: int | None, j: int | None) -> Row:
        if kind == "same" or i is None or j is None:
            return Row(kind, i, j)
        words = difference(self.old.lines[i], self.new.lines[j], self.budget)
        return Row(kind, i, j, words.old, words.new) if words else Row(kind, i, j)

    def _laid_out(self, i: int | None, j: int | None) -> bool:
        """Whether lines belong to code that means the same on both sides."""
        before, after = self.laid_out
        return self.whole or (
            (i is None or i in before) and (j is None or j in after) and (i, j) != (None, None)
        )

    def _gap(self, item: Item) -> Iterator[Row]:
        old = [i for i in item.old if i not in self.destinations]
        new = [j for j in item.new if j not in self.origins]
        replaced = self._replaced(old, new)
        if len(old) == len(item.old) and len(new) == len(item.new):
            yield from replaced
            return
        # Moved lines go between the others, at their place in either side's order.
        leaving = [i for i in item.old if i in self.destinations]
        arriving = [j for j in item.new if j in self.origins]
        for row in [*replaced, None]:
            while leaving and (row is None or (row.old is not None and leaving[0] < row.old)):
                yield Row("moved", leaving[0], None, link=self.destinations[leaving.pop(0)])
            while arriving and (row is None or (row.new is not None and arriving[0] < row.new)):
                yield Row("moved", None, arriving[0], link=self.origins[arriving.pop(0)])
            if row:
                yield row

    def _replaced(self, old: list[int], new: list[int]) -> Iterator[Row]:
        """The lines of a gap that did not move."""
        if old and new and self.old.tokens and self.new.tokens:
            yield from self._statements(old, new)
        elif old and new and self._wrapped(old, new):
            yield from (self._row("format", i, j) for i, j in _side_by_side(old, new))
        else:
            yield from self._pairs(old, new)

    def _wrapped(self, old: Sequence[int], new: Sequence[int]) -> bool:
        """Whether paragraphs of prose were only wrapped differently."""
        sides = (self.old, old), (self.new, new)
        for side, lines in sides:
            if not side.is_prose or not side.literal.isdisjoint(lines):
                return False
            if lines[-1] - lines[0] + 1 != len(lines):
                return False  # others between them moved
        a, b = (text.paragraphs(side.plain, lines[0], lines[-1]) for side, lines in sides)
        return a == b

    def _statements(self, old: list[int], new: list[int]) -> Iterator[Row]:
        """Matches whole logical lines with equal tokens, which differ only in layout."""
        a, b = _logical(self.old, old), _logical(self.new, new)
        i = j = 0
        matched = matches([key for key, _ in a], [key for key, _ in b], self.budget)
        for match in [*matched, None]:
            i_end, j_end = (match.i, match.j) if match else (len(a), len(b))
            old_lines = [n for _, lines in a[i:i_end] for n in lines]
            new_lines = [n for _, lines in b[j:j_end] for n in lines]
            yield from self._pairs(old_lines, new_lines)
            if match:
                i, j = i_end + match.size, j_end + match.size
                for (_, old_lines), (_, new_lines) in zip(a[i_end:i], b[j_end:j], strict=True):
                    for x, y in _side_by_side(old_lines, new_lines):
                        yield self._row("format", x, y)

    def _pairs(self, old: list[int], new: list[int]) -> Iterator[Row]:
        """Lines that were replaced, paired by likeness."""
        texts = [self.old.plain[i] for i in old], [self.new.plain[j] for j in new]
        alone: tuple[list[int], list[int]] = ([], [])
        blank = self.old.is_python and not any(text.strip() for side in texts for text in side)
        for x, y in [*pair(*texts, self.budget), (None, None)]:
            if x is not None and y is None:
                alone[0].append(old[x])
            elif y is not None and x is None:
                alone[1].append(new[y])
            else:
                for i, j in _side_by_side(*alone):
                    laid_out = self._laid_out(i, j) or (blank and self._between(i, j))
                    yield Row("format" if laid_out else "changed", i, j)
                alone = ([], [])
                if x is not None and y is not None:
                    kind = kind_of(self.old, self.new, old[x], new[y])
                    if kind == "changed" and self._laid_out(old[x], new[y]):
                        kind = "format"
                    yield self._row(kind, old[x], new[y])

    def _between(self, i: int | None, j: int | None) -> bool:
        """Whether blank lines lie between tokens rather than inside a string."""
        sides = ((self.old.tokens, i), (self.new.tokens, j))
        return all(n is None or (tokens is not None and not tokens[n]) for tokens, n in sides)


def as_git(old: Side, new: Side, git: Alignment, budget: Budget) -> Shown:
    """The rows of git's own diff: every line that it calls changed is substantive."""
    rows: list[Row] = []
    for item in git.items:
        if item.matched:
            i, j = item.old[0], item.new[0]
            rows.append(Row("same" if old.lines[i] == new.lines[j] else "name", i, j))
            continue
        texts = [old.lines[i] for i in item.old], [new.lines[j] for j in item.new]
        for x, y in pair(*texts, budget):
            i, j = (None if x is None else item.old[x]), (None if y is None else item.new[y])
            words = None
            if i is not None and j is not None:
                words = difference(old.lines[i], new.lines[j], budget)
            rows.append(Row("changed", i, j, *((words.old, words.new) if words else ())))
    return tuple(rows), ()


def _side_by_side(
    old: Sequence[int], new: Sequence[int]
) -> Iterator[tuple[int | None, int | None]]:
    for n in range(max(len(old), len(new))):
        yield old[n] if n < len(old) else None, new[n] if n < len(new) else None


def _logical(side: Side, lines: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Lines grouped into logical ones, each with its tokens as one text."""
    groups: list[tuple[str, list[int]]] = []
    tokens = side.tokens
    key: list[object] = []
    group: list[int] = []
    for n, line in enumerate(lines):
        line_tokens = tokens[line] if tokens else ()
        key += line_tokens
        group.append(line)
        ends = python.ends_statement(line_tokens) or n + 1 == len(lines)
        if ends or lines[n + 1] != line + 1:
            # A group without tokens is blank. Its key is unique, so that it anchors nothing.
            groups.append((repr(key) if key else f"blank {id(side)} {line}", group))
            key, group = [], []
    return groups


def _number(written: str) -> tuple[str, str]:
    """A number as it is written: a program may read more of it than a float holds."""
    return "number", written


def _read_json(source: str) -> object:
    """The values of a JSON text, with the entries of objects as they are written."""
    return json.loads(
        source,
        object_pairs_hook=lambda entries: ("object", entries),
        parse_float=_number,
        parse_int=_number,
        parse_constant=_number,
    )


def _read_toml(source: str) -> object:
    """The values of a TOML text. Raises ValueError for what programs read differently."""
    if _UNCERTAIN.search(source):
        raise ValueError("a comment may have changed, or what tomllib does not keep")
    return tomllib.loads(source, parse_float=_number)


# Comments, carriage returns beside strings over lines, and times finer than a microsecond.
_UNCERTAIN = re.compile(r"#|\r.*(\"{3}|'{3})|(\"{3}|'{3}).*\r|:\d\d\.\d{7}", re.DOTALL)


def _equal_data(old: Side, new: Side, path: str) -> bool:
    """Whether two JSON or TOML files hold the same values in the same order."""
    read = {".json": _read_json, ".toml": _read_toml}.get(path[path.rfind(".") :])
    if not read:
        return False
    try:
        first, second = ("".join(side.plain) for side in (old, new))
        (first + second).encode()  # bytes that are not UTF-8 are no values
        return repr(read(first)) == repr(read(second))
    except (ValueError, RecursionError):
        return False


def _equal_definitions(
    old: Side, new: Side, alignment: Alignment
) -> tuple[frozenset[int], frozenset[int]]:
    """Lines of definitions whose text changed, but neither their meaning nor their comments."""
    touched: tuple[set[int], set[int]] = (set(), set())
    for item in alignment.items:
        if not item.matched or old.plain[item.old[0]] != new.plain[item.new[0]]:
            touched[0].update(item.old)
            touched[1].update(item.new)
    before = {d.name: d for d in python.walk(old.outline)}
    twice = _twice(old) | _twice(new)
    equal: tuple[set[int], set[int]] = (set(), set())
    for definition in python.walk(new.outline):
        partner = before.get(definition.name)
        if not partner or definition.name in twice or definition.start in equal[1]:
            continue
        spans = range(partner.start, partner.end), range(definition.start, definition.end)
        if not any(not touched[n].isdisjoint(spans[n]) for n in (0, 1)):
            continue
        if python.equal(partner.node, definition.node) and _comments(old, spans[0]) == _comments(
            new, spans[1]
        ):
            equal[0].update(spans[0])
            equal[1].update(spans[1])
    return frozenset(equal[0]), frozenset(equal[1])


def _twice(side: Side) -> set[str]:
    """Names that a file defines more than once."""
    names = Counter(d.name for d in python.walk(side.outline))
    return {name for name, n in names.items() if n > 1}


def _comments(side: Side, lines: range) -> list[tuple[int, bool, bool, str]]:
    """What a syntax tree does not keep, with its place: tools obey a comment where it stands."""
    tokens = side.tokens
    return python.unparsed([tokens[n] for n in lines]) if tokens else []
