"""The result of a comparison: frozen values for the renderers, with little logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from tools.common.quantities import flop
from tools.diff.histogram import Counts
from tools.diff.plumbing import is_plumbing, whose

# How a line changed:
#   same     not at all             name     it names the variant instead of its origin
#   rename   consistent new names   format   other layout, equal tokens
#   moved    it is elsewhere        changed  anything else: substantive
Kind = Literal["same", "name", "rename", "format", "moved", "changed"]
KINDS: tuple[Kind, ...] = ("same", "name", "rename", "format", "moved", "changed")

Span = tuple[int, int]


class Row(NamedTuple):
    """A line of the report: a line of each side, or of one side alone. Lines count from 0.

    The marks are the parts of the text that differ; `link` is the (file, line) of a moved line on
    the other side.
    """

    kind: Kind
    old: int | None
    new: int | None
    old_marks: tuple[Span, ...] = ()
    new_marks: tuple[Span, ...] = ()
    link: tuple[int, int] | None = None


class Marker(NamedTuple):
    """Before row `row`: the definition `name` was here and is now at `line` of the new file.

    If it `arrived`, it is here now and was at `line` of the old file.
    """

    row: int
    name: str
    line: int
    arrived: bool = False


Status = Literal["unchanged", "changed", "added", "removed", "renamed"]


NO_COUNTS = Counts(0, 0)


@dataclass(frozen=True)
class FileDiff:
    """One file of both trees. Rows are in the new file's order; each line is in exactly one row."""

    old_path: str | None
    new_path: str | None
    status: Status
    notes: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    markers: tuple[Marker, ...] = ()
    counts: Counts = NO_COUNTS
    as_whole: bool = False
    """Whether the file changed in a way that its lines don't tell: it came, went or has another
    name without a line to show, has another mode, or is no text that is compared by lines.
    """

    @property
    def path(self) -> str:
        """The path in the new tree, or in the old one if the file was removed."""
        return self.new_path or self.old_path or ""

    def lines(self, kind: Kind) -> Counts:
        """The number of lines of a kind, on the new and on the old side."""
        rows = [row for row in self.rows if row.kind == kind]
        return Counts(
            sum(row.new is not None for row in rows), sum(row.old is not None for row in rows)
        )


How = Literal["added", "removed", "changed", "renamed", "moved", "docs", "imports"]


@dataclass(frozen=True)
class Change:
    """A definition that changed, and the change bucket it belongs to.

    `how`: added, removed, changed, renamed; `moved` unchanged to another file; `docs`: only its
    docstring changed; `imports`.
    `decided`: what chose the bucket: the `map`, a `guess`, or the default of its `file`.
    """

    path: str
    name: str
    how: How
    bucket: str
    decided: Literal["map", "guess", "file"]
    old_name: str = ""
    line: int | None = None  # in the new file, from 0; None if it was removed

    @property
    def counts(self) -> bool:
        """Whether the change can alter what is computed."""
        return self.how not in ("docs", "imports", "moved")


class Knob(NamedTuple):
    """A default or a preset's value on both sides; None if that side lacks it."""

    path: str
    name: str
    old: str | None
    new: str | None


class CallOrder(NamedTuple):
    """The calls that a `__call__` makes on both sides, in the order of evaluation."""

    path: str
    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True)
class Size:
    """The sizes from one side's plan, or the error why there are none."""

    preset: str = ""
    parameters: int | None = None
    active_parameters: int | None = None
    flops_per_token: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """Everything that a report shows."""

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
        """Lines added and deleted that are not explained by renames, moves and layout."""
        return sum((file.lines("changed") for file in self.files), Counts(0, 0))

    @property
    def as_whole(self) -> tuple[FileDiff, ...]:
        """Files with a change that no line tells, beside which no number of lines is all."""
        return tuple(file for file in self.files if file.as_whole)

    @property
    def own_plumbing(self) -> int | None:
        """The number of files of plumbing and planning that differ from the origin's.

        None if the variant has no plumbing.
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
        """The buckets of the changes that can alter what is computed, most changes first."""
        names = [change.bucket for change in self.changes if change.counts]
        return tuple(sorted(set(names), key=lambda name: (-names.count(name), name)))


@dataclass(frozen=True)
class Header:
    """The labels, commits and sizes of a report's two sides."""

    old: str
    new: str
    old_commit: str = ""
    new_commit: str = ""
    origin_found: bool = False
    """Whether the origin was found by likeness rather than recorded."""
    declared: str = ""
    """The change bucket that the ledger declares, if any."""
    sizes: tuple[Size, Size] | None = None

    @property
    def relation(self) -> str:
        """The relation of the variant to its origin, in words."""
        return "closest to (found, not recorded)" if self.origin_found else "copied from"


# Buckets that the recipe does not count when it asks for a change in one bucket.
UNCOUNTED = ("launch/config", "other")


def warning(comparison: Comparison, header: Header) -> str:
    """A warning if more than one change bucket is touched, or another than is declared."""
    touched = [name for name in comparison.buckets if name not in UNCOUNTED]
    declared = f"the ledger declares {header.declared}" if header.declared else ""
    listed = ", ".join(touched)
    if len(touched) > 1:
        more = f" and {declared}" if declared and header.declared not in touched else ""
        return f"Touches {len(touched)} change buckets ({listed}); the recipe asks for one{more}."
    if touched and declared and touched != [header.declared]:
        return f"Touches {listed}, but {declared}."
    return ""


def beyond_lines(comparison: Comparison) -> str:
    """The number of files with a change that no line tells, in words; empty if there is none."""
    number = len(comparison.as_whole)
    return f"{number:,} file{'s' if number > 1 else ''} changed as a whole" if number else ""


def plumbing(comparison: Comparison, header: Header) -> str:
    """Whose plumbing the variant has, in words; empty if it has none."""
    own = comparison.own_plumbing
    return "" if own is None else whose(own, header.old)


def size_rows(sizes: tuple[Size, Size]) -> list[tuple[str, str, str, str]]:
    """Rows of (measure, the origin's value, the variant's, the difference in per cent)."""
    old, new = sizes
    rows = []
    for measure, a, b, shown in (
        ("parameters", old.parameters, new.parameters, "{:,d}".format),
        ("active parameters", old.active_parameters, new.active_parameters, "{:,d}".format),
        ("FLOPs per token", old.flops_per_token, new.flops_per_token, flop),
    ):
        if a is None and b is None:
            continue
        delta = f"{100 * (b / a - 1):+.1f}%" if a and b is not None else ""
        before, after = ("—" if n is None else shown(n) for n in (a, b))
        rows.append((measure, before, after, delta))
    return rows
