"""Compares lines by their words: how alike two lines are, and which words differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

from tools.diff.histogram import Budget
from tools.diff.model import Span

WORD = re.compile(r"[^\W\d]\w*|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|[ \t]+|.", re.S)
IDENTIFIER = re.compile(r"[^\W\d]\w*")
# A block of replaced lines with more pairs than this is paired by position.
MAX_CELLS = 20_000
# Lines with more differing words than this are marked as a whole.
MAX_WORDS = 400
_ALIKE = 0.4


@lru_cache(maxsize=16384)
def _bag(line: str) -> dict[str, int]:
    bag: Counter[str] = Counter()
    for word in WORD.findall(line[:2000]):
        if not word.isspace():
            bag[word] += len(word)
    return dict(bag)


def _likeness(a: dict[str, int], b: dict[str, int]) -> float:
    total = sum(a.values()) + sum(b.values())
    if not total:
        return 0.0
    if len(a) > len(b):
        a, b = b, a
    return 2 * sum(min(n, b[word]) for word, n in a.items() if word in b) / total


def alike(old: Sequence[str], new: Sequence[str]) -> float:
    """The share of text, from 0 to 1, in words that both pieces of source share."""
    bags: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for lines, bag in zip((old, new), bags, strict=True):
        for line in lines:
            bag.update(_bag(line))
    return _likeness(*bags)


def pair(
    old: Sequence[str], new: Sequence[str], budget: Budget
) -> list[tuple[int | None, int | None]]:
    """Pairs of lines of a replaced block, in order, so that their total likeness is largest.

    None stands for a missing partner. Beyond MAX_CELLS pairs, or once the budget is spent, the n-th
    line is paired with the n-th.
    """
    rows, columns = len(old), len(new)
    if not rows or not columns:
        return [(i, None) for i in range(rows)] + [(None, j) for j in range(columns)]
    if rows == columns == 1:
        return [(0, 0)]
    if rows * columns > MAX_CELLS or not budget.take(rows * columns):
        shorter = min(rows, columns)
        result: list[tuple[int | None, int | None]] = [(i, i) for i in range(shorter)]
        result += [(i, None) for i in range(shorter, rows)]
        return result + [(None, j) for j in range(shorter, columns)]
    bags = [_bag(line) for line in old], [_bag(line) for line in new]
    weight = [[_likeness(a, b) for b in bags[1]] for a in bags[0]]
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            likeness = weight[i][j] if weight[i][j] >= _ALIKE else 0.0
            weight[i][j] = likeness
            best[i][j] = max(
                best[i + 1][j],
                best[i][j + 1],
                best[i + 1][j + 1] + likeness if likeness else 0.0,
            )
    result = []
    i = j = 0
    while i < rows or j < columns:
        shorter = i < rows and j < columns
        if shorter and weight[i][j] and best[i][j] == best[i + 1][j + 1] + weight[i][j]:
            result.append((i, j))
            i, j = i + 1, j + 1
        elif i < rows and (j >= columns or best[i][j] == best[i + 1][j]):
            result.append((i, None))
            i += 1
        else:
            result.append((None, j))
            j += 1
    return result


class Difference(NamedTuple):
    """The parts of two lines that differ, and the (old, new) replacements."""

    old: tuple[Span, ...]
    new: tuple[Span, ...]
    replaced: tuple[tuple[str, str], ...]


@lru_cache(maxsize=16384)
def _words(line: str) -> tuple[str, ...]:
    return tuple(WORD.findall(line.rstrip("\n")))


def difference(old: str, new: str, budget: Budget) -> Difference | None:
    """The difference word by word; None if the lines are too long or the budget is spent."""
    a, b = _words(old), _words(new)
    head = 0
    room = min(len(a), len(b))
    while head < room and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < room - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    old_words, new_words = a[head : len(a) - tail], b[head : len(b) - tail]
    if max(len(old_words), len(new_words)) > MAX_WORDS or not budget.take(
        len(old_words) * len(new_words)
    ):
        return None
    starts = [_starts(a), _starts(b)]
    marks: tuple[list[Span], list[Span]] = ([], [])
    replaced = []
    codes = SequenceMatcher(None, old_words, new_words, autojunk=False).get_opcodes()
    for tag, i, i_end, j, j_end in codes:
        if tag != "equal":
            for side, first, last in ((0, i, i_end), (1, j, j_end)):
                if first < last:
                    offsets = starts[side]
                    marks[side].append((offsets[head + first], offsets[head + last]))
            replaced.append(("".join(old_words[i:i_end]), "".join(new_words[j:j_end])))
    joined = _joined(marks[0], old), _joined(marks[1], new)
    common = sum(len(w) for w in a if not w.isspace()) - _length(marks[0], old)
    if common < 0.25 * max(len(old.strip()), len(new.strip())):
        return Difference((), (), tuple(replaced))
    return Difference(*joined, tuple(replaced))


def _starts(words: Sequence[str]) -> list[int]:
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word))
    return starts


def _length(marks: Sequence[Span], line: str) -> int:
    return sum(len("".join(line[first:last].split())) for first, last in marks)


def _joined(marks: Sequence[Span], line: str) -> tuple[Span, ...]:
    """Joins marks that are separated only by blanks."""
    joined: list[Span] = []
    for first, last in marks:
        if joined and not line[joined[-1][1] : first].strip():
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)
