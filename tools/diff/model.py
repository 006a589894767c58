"""What a comparison finds. Frozen values that a renderer writes out; nothing here computes much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from tools.diff.histogram import Counts
from tools.diff.plumbing import is_plumbing, whose

# What became of a line:
#   same     not at all             name     it names the variant in the place of its origin
#   rename   consistent new names   format   other layout, equal tokens
#   moved    stands elsewhere       changed  what is left: substantive
Kind = Literal["same", "name", "rename", "format", "moved", "changed"]
KINDS: tuple[Kind, ...] = ("same", "name", "rename", "format", "moved", "changed")

Span = tuple[int, int]


class Row(NamedTuple):
    """A line of the report: one of each side, or one alone. Lines count from 0.

    `marks` are the parts of the text that differ; `link` is (file, line) on the other side of a
    moved line.
    """

    kind: Kind
    old: int | None
    new: int | None
    old_marks: tuple[Span, ...] = ()
    new_marks: tuple[Span, ...] = ()
    link: tuple[int, int] | None = None


class Marker(NamedTuple):
    """Before row `row`: the definition `name` stood here and stands at `line` of the new file now.

    Where it `came`, it stands here and stood at `line` of the old file.
    """

    row: int
    name: str
    line: int
    came: bool = False


Status = Literal["unchanged", "changed", "added", "removed", "renamed"]


NO_COUNTS = Counts(0, 0)


@dataclass(frozen=True)
class FileDiff:
    """One file of both trees. Rows are in the new file's order; each line stands in one row."""

    old_path: str | None
    new_path: str | None
    status: Status
    notes: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    markers: tuple[Marker, ...] = ()
    counts: Counts = NO_COUNTS

    @property
    def path(self) -> str:
        """The path in the new tree, or in the old one where it was removed."""
        return self.new_path or self.old_path or ""

    def lines(self, kind: Kind) -> Counts:
        """Lines of a kind, on the new and on the old side."""
        rows = [row for row in self.rows if row.kind == kind]
        return Counts(
            sum(row.new is not None for row in rows), sum(row.old is not None for row in rows)
        )


How = Literal["added", "removed", "changed", "renamed", "moved", "docs", "imports"]


@dataclass(frozen=True)
class Change:
    """A definition that changed, and the change bucket it belongs to.

    `how`: added, removed, changed, renamed; `moved` to another file as it is; `docs`: only its
    docstring changed; `imports`.
    `decided`: by the declared `map`, by a `guess`, or by the `file` it stands in.
    """

    path: str
    name: str
    how: How
    bucket: str
    decided: Literal["map", "guess", "file"]
    old_name: str = ""
    line: int | None = None  # in the new file, from 0; None where it was removed

    @property
    def counts(self) -> bool:
        """Whether the change can alter what is computed."""
        return self.how not in ("docs", "imports", "moved")


class Knob(NamedTuple):
    """A default or a preset's value; None where that side has none."""

    path: str
    name: str
    old: str | None
    new: str | None


class CallOrder(NamedTuple):
    """What a `__call__` calls, in the order of evaluation."""

    path: str
    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True)
class Size:
    """What one side's plan says of itself, or why it says nothing."""

    preset: str = ""
    parameters: int | None = None
    active_parameters: int | None = None
    flops_per_token: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that a report shows."""

    old_name: str
    new_name: str
    files: tuple[FileDiff, ...]
    renames: tuple[tuple[str, str], ...]
    changes: tuple[Change, ...]
    knobs: tuple[Knob, ...]
    calls: tuple[CallOrder, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> Counts:
        """Lines added and deleted, as git's histogram diff counts them."""
        return sum((file.counts for file in self.files), Counts(0, 0))

    @property
    def substantive(self) -> Counts:
        """What is left of them after renames, moves and layout."""
        return sum((file.lines("changed") for file in self.files), Counts(0, 0))

    @property
    def own_plumbing(self) -> int | None:
        """Files of plumbing and planning that are not the origin's.

        None where the variant has no plumbing.
        """
        if not any(is_plumbing(file.new_path or "") for file in self.files):
            return None
        return sum(
            file.status != "unchanged"
            and (is_plumbing(file.new_path or "") or is_plumbing(file.old_path or ""))
            for file in self.files
        )

    @property
    def buckets(self) -> tuple[str, ...]:
        """The change buckets that changes which count fall into, most changes first."""
        names = [change.bucket for change in self.changes if change.counts]
        return tuple(sorted(set(names), key=lambda name: (-names.count(name), name)))


@dataclass(frozen=True)
class Header:
    """What a report says of its two sides; the labels stand for their names."""

    old: str
    new: str
    old_commit: str = ""
    new_commit: str = ""
    found: bool = False
    """The origin was found by likeness; nobody recorded it."""
    sizes: tuple[Size, Size] | None = None

    @property
    def relation(self) -> str:
        """How the variant is related to its origin, in words."""
        return "closest to (found, not recorded)" if self.found else "copied from"


# Changes of these do not make a change of two things at once: the recipe counts neither.
UNCOUNTED = ("launch/config", "other")


def warning(comparison: Comparison) -> str:
    """That more than one change bucket is touched; empty where that is not so."""
    touched = [name for name in comparison.buckets if name not in UNCOUNTED]
    if len(touched) < 2:
        return ""
    listed = ", ".join(touched)
    return f"Touches {len(touched)} change buckets ({listed}); the recipe asks for one."


def plumbing(comparison: Comparison, header: Header) -> str:
    """Whose plumbing the variant has, in words; empty where it has none."""
    own = comparison.own_plumbing
    return "" if own is None else whose(own, header.old)


def size_rows(sizes: tuple[Size, Size]) -> list[tuple[str, str, str, str]]:
    """What is measured, the origin's, the variant's, and the difference in per cent."""
    old, new = sizes
    found = []
    for what, a, b, form in (
        ("parameters", old.parameters, new.parameters, ",d"),
        ("active parameters", old.active_parameters, new.active_parameters, ",d"),
        ("FLOPs per token", old.flops_per_token, new.flops_per_token, ".3g"),
    ):
        if a is None and b is None:
            continue
        delta = f"{100 * (b / a - 1):+.1f}%" if a and b is not None else ""
        before, after = ("—" if n is None else format(n, form) for n in (a, b))
        found.append((what, before, after, delta))
    return found
