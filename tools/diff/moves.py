"""Blocks of lines that stand elsewhere now, in the same file or in another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tools.diff.align import Alignment, Side
from tools.diff.histogram import Budget

MIN_LINES = 3
MIN_CHARACTERS = 40
# A block does not begin with a line as short as this, nor is it looked for in more places.
_SHORT = 3
_PLACES = 32

Place = tuple[int, int]  # file, line
Aligned = tuple[Side, Side, Alignment]


class Moves:
    """Where moved lines of the old files went, and where those of the new ones came from.

    A block is at least MIN_LINES lines with text and MIN_CHARACTERS characters besides blanks.
    """

    def __init__(self, files: Sequence[Aligned | None], budget: Budget) -> None:
        self.went: dict[Place, Place] = {}
        self.came: dict[Place, Place] = {}
        self._keys = [pair[0].keys if pair else [] for pair in files]
        self._budget = budget
        self._deleted: set[Place] = set()
        self._places: defaultdict[str, list[Place]] = defaultdict(list)
        for at, pair in enumerate(files):
            for item in pair[2].items if pair else ():
                if not item.matched:
                    self._deleted |= {(at, line) for line in item.old}
                    for line in item.old:
                        self._places[self._keys[at][line]].append((at, line))
        for at, pair in enumerate(files):
            for item in pair[2].items if pair else ():
                if pair and not item.matched:
                    self._find(at, item.new, pair[1].keys)

    def _find(self, at: int, lines: Sequence[int], keys: Sequence[str]) -> None:
        """Takes blocks from inserted lines, each the longest from its first line on."""
        first = 0
        while first < len(lines):
            size, start = self._longest(lines, first, keys)
            for n in range(size):
                old, new = (start[0], start[1] + n), (at, lines[first + n])
                self.went[old], self.came[new] = new, old
            first += max(size, 1)

    def _longest(self, lines: Sequence[int], first: int, keys: Sequence[str]) -> tuple[int, Place]:
        """The longest deleted block that begins like these lines: its size and its start."""
        best, start = 0, (0, 0)
        if len(keys[lines[first]]) <= _SHORT:
            return best, start
        for place in self._places.get(keys[lines[first]], [])[:_PLACES]:
            size = text = characters = 0
            for n in range(len(lines) - first):
                key, at = keys[lines[first + n]], (place[0], place[1] + n)
                if at not in self._deleted or at in self.went or not self._budget.take(1):
                    break
                if self._keys[at[0]][at[1]] != key:
                    break
                if key:
                    size, text, characters = n + 1, text + 1, characters + len(key)
            if text >= MIN_LINES and characters >= MIN_CHARACTERS and size > best:
                best, start = size, place
        return best, start
