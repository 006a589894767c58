"""Which lines of a comparison a report writes: those that changed, and a few around them.

The rest is unchanged, and git has it. A file or a report of very many changed lines is cut, and
says so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tools.diff.model import Comparison, FileDiff, Row
from tools.diff.sections import grouped

CONTEXT = 3
# Fewer unchanged lines than this between two changes are written.
MIN_FOLD = 4
MAX_ROWS = 2000  # of one file
MAX_REPORT = 10_000  # of all files, in their order


def is_quiet(file: FileDiff, row: Row) -> bool:
    """Whether a row changes nothing but, at most, the variant's own name or all line endings."""
    if row.kind in ("same", "name"):
        return True
    if row.kind != "format" or not has_other_endings(file) or row.old is None or row.new is None:
        return False
    return file.old[row.old].rstrip("\r\n") == file.new[row.new].rstrip("\r\n")


def has_other_endings(file: FileDiff) -> bool:
    """Whether all of a file's lines end otherwise than they did."""
    return any(note.startswith("line endings: ") and "mixed" not in note for note in file.notes)


def names_only_itself(file: FileDiff) -> bool:
    """Whether a file differs from the origin's in the variant's own name alone."""
    return (
        file.status == "changed"
        and not file.markers
        and (
            any(row.kind == "name" for row in file.rows)
            and all(row.kind in ("same", "name") for row in file.rows)
        )
    )


@dataclass(frozen=True)
class Written:
    """The rows of one file that a report writes."""

    spans: tuple[tuple[int, int], ...]
    """First row and the one after the last, in order."""
    cut: int
    """Changed lines that are left out because there are too many."""


class Plan:
    """What a report writes of each file, so that no link leads to what it leaves out."""

    def __init__(self, comparison: Comparison) -> None:
        self.files = comparison.files
        changed = [
            n
            for n, file in enumerate(self.files)
            if file.status != "unchanged" and not names_only_itself(file)
        ]
        self.groups = grouped(self.files, changed)
        wanted: dict[str, set[int]] = {}
        for change in comparison.changes:
            if change.line is not None:
                wanted.setdefault(change.path, set()).add(change.line)
        self.written: dict[int, Written] = {}
        left = MAX_REPORT
        for _, numbers in self.groups:
            for number in numbers:
                file = self.files[number]
                written = _written(file, wanted.get(file.path, set()), min(MAX_ROWS, left))
                self.written[number] = written
                left -= sum(end - start for start, end in written.spans)

    @cached_property
    def _anchors(self) -> set[str]:
        return {
            anchor
            for number, written in self.written.items()
            for start, end in written.spans
            for row in self.files[number].rows[start:end]
            for anchor in anchors(number, row)
        }

    def anchor(self, number: int, side: str, line: int | None) -> str:
        """The anchor of a line (from 0) of a file, or of the file where that line is left out."""
        exact = f"f{number}{side}{(line or 0) + 1}"
        return exact if line is not None and exact in self._anchors else f"f{number}"


def anchors(number: int, row: Row) -> list[str]:
    """The anchors that a row of a file has: one for each side that it has."""
    sides = (("L", row.old), ("R", row.new))
    return [f"f{number}{side}{line + 1}" for side, line in sides if line is not None]


def _written(file: FileDiff, wanted: set[int], limit: int) -> Written:
    """The rows near changes, those of `wanted` lines of the new file, and where markers lead."""
    rows = file.rows
    loud = [n for n, row in enumerate(rows) if not is_quiet(file, row)]
    visible = bytearray(len(rows))
    for n in loud:
        first, last = max(0, n - CONTEXT), min(len(rows), n + CONTEXT + 1)
        visible[first:last] = b"\1" * (last - first)
    if loud or file.markers:
        _add_lines(file, wanted, visible)
    spans = _spans(visible, bool(loud))
    kept, left = [], limit
    for start, end in spans:
        if left > 0:
            kept.append((start, min(end, start + left)))
            left -= end - start
    last = kept[-1][1] if kept else 0
    cut = len(loud) - bisect_left(loud, last) if spans and spans[-1][1] != last else 0
    return Written(tuple(kept), cut)


def _add_lines(file: FileDiff, wanted: set[int], visible: bytearray) -> None:
    old = {marker.line for marker in file.markers if marker.arrived}
    new = {marker.line for marker in file.markers if not marker.arrived}
    for line in wanted:  # also what stands below a definition's decorators
        while line not in new and line < len(file.new):
            new.add(line)
            line += file.new[line].lstrip().startswith("@")
    for n, row in enumerate(file.rows):
        if row.old in old or row.new in new:
            visible[n] = 1


def _spans(visible: Sequence[int], has_changes: bool) -> list[tuple[int, int]]:
    """The runs of visible rows; runs that are less than MIN_FOLD rows apart are one."""
    spans: list[tuple[int, int]] = []
    for n, shown in enumerate(visible):
        if not shown:
            continue
        if spans and n - spans[-1][1] < MIN_FOLD:
            spans[-1] = (spans[-1][0], n + 1)
        else:
            spans.append((n, n + 1))
    if has_changes and spans:
        if spans[0][0] < MIN_FOLD:
            spans[0] = (0, spans[0][1])
        if len(visible) - spans[-1][1] < MIN_FOLD:
            spans[-1] = (spans[-1][0], len(visible))
    return spans
