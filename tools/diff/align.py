"""Aligns the lines of two versions of a file.

Lines are matched by the histogram diff on their text without blanks, after consistent renames and
the variant's own name are undone. If that matches lines of one definition with lines of another,
classes and functions are matched by their qualified names first: an edited class that moved is
compared with itself, and shown at its new place.
"""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tools.diff import python, text
from tools.diff.histogram import Budget, matches
from tools.diff.python import Definition, Tokens


@dataclass(frozen=True)
class Side:
    """One side of a pair of files: its lines, and the same lines with renames undone.

    `lines` and `raw` are as they are written, `nameless` and `plain` as Python decodes them.
    """

    lines: tuple[str, ...]
    plain: tuple[str, ...]
    is_python: bool
    nameless: tuple[str, ...] = ()
    """On the origin's side: the lines with its own name put aside, before renames are undone."""
    interface: frozenset[int] = frozenset()
    """On the origin's side: lines on which a parameter is declared that was renamed (names.py)."""
    raw: tuple[str, ...] = ()
    """The lines with the variant's own name put aside: those that git's counts are of."""
    is_prose: bool = False
    """Whether people read the text, and no program."""

    @cached_property
    def keys(self) -> list[str]:
        """The text by which each line is matched: without blanks."""
        return ["".join(line.split()) for line in self.plain]

    @cached_property
    def tree(self) -> ast.Module | None:
        """The syntax tree; None for what is not Python or cannot be parsed.

        Nor for a source with carriage returns inside lines, which Python takes for line ends.
        """
        if not self.is_python or any("\r" in line.rstrip("\r\n") for line in self.plain):
            return None
        return python.parse("".join(self.plain))

    @cached_property
    def literal(self) -> frozenset[int]:
        """Lines of prose that are shown as they are written: code and tables."""
        return frozenset(text.literal(self.plain)) if self.is_prose else frozenset()

    @cached_property
    def outline(self) -> tuple[Definition, ...]:
        """The definitions at the top of the file."""
        return python.outline(self.tree, self.lines) if self.tree else ()

    @cached_property
    def tokens(self) -> Tokens | None:
        """The tokens by line; None without a tree."""
        return Tokens(self.plain, self.tree) if self.tree else None


@dataclass(frozen=True)
class Item:
    """A pair of matched lines, or a gap: lines of either side without a partner."""

    old: tuple[int, ...]
    new: tuple[int, ...]
    matched: bool = False


@dataclass
class Alignment:
    """Items in the order in which they are shown; each line is in exactly one.

    `moved` are the definitions shown at their new place, as (old, new).
    """

    items: list[Item] = field(default_factory=list)
    moved: list[tuple[Definition, Definition]] = field(default_factory=list)


# Files with more moved definitions than this are aligned by lines alone.
MAX_MOVED = 200


def align_as_git(old: Side, new: Side, budget: Budget) -> Alignment:
    """The histogram diff of the lines as they are, except for the variant's own name."""
    all_lines = range(len(old.lines)), range(len(new.lines))
    return _Aligner(old.raw, new.raw, budget).flow(*all_lines)


def align(
    old: Side, new: Side, git: Alignment, is_same: Callable[[int, int], bool], budget: Budget
) -> Alignment:
    """The alignment to show, which never leaves more lines to explain than git's does.

    `is_same` says whether two matched lines mean the same.
    """
    all_lines = range(len(old.lines)), range(len(new.lines))
    plain = _Aligner(old.keys, new.keys, budget).flow(*all_lines)
    candidates = [plain]
    common = {d.name for d in python.walk(old.outline)} & {d.name for d in python.walk(new.outline)}
    if common and _crosses(plain, old, new, common):
        aligner = _Aligner(old.keys, new.keys, budget)
        aligner.alignment.items = aligner.definitions(*all_lines, old.outline, new.outline)
        if len(aligner.alignment.moved) <= MAX_MOVED:
            candidates.insert(0, aligner.alignment)
    limit = _unexplained(git, is_same)
    return next((c for c in candidates if _unexplained(c, is_same) <= limit), git)


def _unexplained(alignment: Alignment, is_same: Callable[[int, int], bool]) -> int:
    return sum(
        2 * (not is_same(item.old[0], item.new[0]))
        if item.matched
        else len(item.old) + len(item.new)
        for item in alignment.items
    )


def _crosses(plain: Alignment, old: Side, new: Side, common: set[str]) -> bool:
    """Whether lines are matched across two definitions that both sides have.

    Also true if the definitions that both sides have are in another order.
    """
    order = [[d.name for d in python.walk(s.outline) if d.name in common] for s in (old, new)]
    if order[0] != order[1]:
        return True
    owners = [_owners(side) for side in (old, new)]
    for item in plain.items:
        if item.matched:
            a, b = owners[0][item.old[0]], owners[1][item.new[0]]
            if a != b and a in common and b in common:
                return True
    return False


def _owners(side: Side) -> list[str]:
    """The innermost definition that each line belongs to."""
    owners = [""] * len(side.lines)
    for definition in python.walk(side.outline):
        owners[definition.start : definition.end] = [definition.name] * (
            definition.end - definition.start
        )
    return owners


class _Aligner:
    def __init__(self, old: Sequence[str], new: Sequence[str], budget: Budget) -> None:
        self.old, self.new, self.budget = old, new, budget
        self.alignment = Alignment()

    def flow(self, old: Iterable[int], new: Iterable[int]) -> Alignment:
        return Alignment(self.lines(old, new))

    def lines(self, old: Iterable[int], new: Iterable[int]) -> list[Item]:
        """The lines of both sides, matched by the histogram diff alone."""
        a, b = list(old), list(new)
        items = []
        i = j = 0
        matched = matches([self.old[n] for n in a], [self.new[n] for n in b], self.budget)
        for match in [*matched, None]:
            i_end, j_end = (match.i, match.j) if match else (len(a), len(b))
            if i < i_end or j < j_end:
                items.append(Item(tuple(a[i:i_end]), tuple(b[j:j_end])))
            if match:
                i, j = i_end + match.size, j_end + match.size
                pairs = zip(a[i_end:i], b[j_end:j], strict=True)
                items += [Item((x,), (y,), True) for x, y in pairs]
        return items

    def definitions(
        self,
        old: Iterable[int],
        new: Iterable[int],
        old_definitions: Sequence[Definition],
        new_definitions: Sequence[Definition],
    ) -> list[Item]:
        """Matches definitions of equal names, then the lines between them."""
        before = _by_name(old_definitions)
        after = _by_name(new_definitions)
        pairs = [(before[name], after[name]) for name in after if name in before]
        kept = _increasing([a.start for a, _ in pairs])
        moved = [pair for n, pair in enumerate(pairs) if n not in kept]
        left_behind = {n for a, _ in moved for n in range(a.start, a.end)}
        arrived = {n for _, b in moved for n in range(b.start, b.end)}
        a_lines = [n for n in old if n not in left_behind]
        b_lines = [n for n in new if n not in arrived]
        items: list[Item] = []
        i = j = 0
        for n in sorted(kept):
            a, b = pairs[n]
            i_start, j_start = bisect_left(a_lines, a.start), bisect_left(b_lines, b.start)
            items += self.lines(a_lines[i:i_start], b_lines[j:j_start])
            i, j = bisect_left(a_lines, a.end), bisect_left(b_lines, b.end)
            items += self.inside(a, b)
        items += self.lines(a_lines[i:], b_lines[j:])
        if len(self.alignment.moved) + len(moved) > MAX_MOVED:
            self.alignment.moved += moved
            return []
        for a, b in moved:
            self.alignment.moved.append((a, b))
            items = _insert(items, b.start, self.inside(a, b))
        return items

    def inside(self, a: Definition, b: Definition) -> list[Item]:
        return self.definitions(range(a.start, a.end), range(b.start, b.end), a.inner, b.inner)


def _by_name(definitions: Sequence[Definition]) -> dict[str, Definition]:
    """Definitions by name, except names defined twice and definitions that share a line."""
    by_name: dict[str, Definition] = {}
    repeated = set()
    end = 0
    for definition in definitions:
        if definition.name in by_name:
            repeated.add(definition.name)
        if definition.start >= end:
            by_name.setdefault(definition.name, definition)
        end = max(end, definition.end)
    return {name: definition for name, definition in by_name.items() if name not in repeated}


def _increasing(starts: Sequence[int]) -> set[int]:
    """The positions of a longest increasing subsequence."""
    tails: list[int] = []  # the position at which the best subsequence of each length ends
    values: list[int] = []  # its last value
    before: list[int] = []
    for n, start in enumerate(starts):
        length = bisect_left(values, start)
        before.append(tails[length - 1] if length else -1)
        tails[length : length + 1], values[length : length + 1] = [n], [start]
    kept = set()
    n = tails[-1] if tails else -1
    while n >= 0:
        kept.add(n)
        n = before[n]
    return kept


def _insert(items: list[Item], line: int, inserted: list[Item]) -> list[Item]:
    """Inserts items at new line `line`; a gap that spans it is split."""
    for index, item in enumerate(items):
        if item.new and item.new[-1] > line:
            if item.matched or item.new[0] > line:
                return [*items[:index], *inserted, *items[index:]]
            cut = bisect_left(item.new, line)
            first, last = Item(item.old, item.new[:cut]), Item((), item.new[cut:])
            return [*items[:index], first, *inserted, last, *items[index + 1 :]]
    return [*items, *inserted]
