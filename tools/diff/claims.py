"""What a report says of a file before it is proven."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tools.diff.align import Alignment, Side
from tools.diff.rows import Shown


@dataclass
class Claims:
    """What a report says of a file: its rows and markers, and what they were made from."""

    path: str
    old: Side
    new: Side
    git: Alignment
    alignment: Alignment
    shown: Shown
    laid_out: tuple[frozenset[int], frozenset[int]]
    """Lines of definitions with equal syntax trees, on both sides."""
    notes: list[str] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        """Whether the texts are equal."""
        return (
            self.old.interface == frozenset()
            and self.old.raw == self.new.raw
            and self.old.plain == self.new.plain
        )

    @property
    def is_python(self) -> bool:
        """Whether both sides have a syntax tree."""
        return self.old.tree is not None and self.new.tree is not None

    def take_back(self, rows: Iterable[int]) -> None:
        """Calls these rows substantive."""
        numbers = set(rows)
        if not numbers:
            return
        changed = tuple(
            row._replace(kind="changed") if n in numbers else row
            for n, row in enumerate(self.shown[0])
        )
        self.shown = changed, self.shown[1]

    def is_substantive(self) -> bool:
        """Whether any row is."""
        return any(row.kind == "changed" for row in self.shown[0])
