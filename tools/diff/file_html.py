"""One file of a report as HTML, and how text becomes markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from tools.diff import text
from tools.diff.highlight import Paint, highlight
from tools.diff.hunks import Plan, is_quiet
from tools.diff.model import FileDiff, Kind, Row, Span

# Of a longer line this much is written, from shortly before its first change.
MAX_LINE = 10_000
BEFORE = 200

_ROW_CLASS: dict[Kind, str] = {
    "same": "s",
    "name": "m",
    "rename": "m",
    "format": "m f",
    "moved": "v",
    "changed": "",
}
_EMPTY = '<td class="n"></td><td class="e"></td>'


@dataclass
class FileWriter:
    """Writes one file's rows."""

    plan: Plan
    index: int
    cache: Path | None
    level: int
    is_open: bool

    def __post_init__(self) -> None:
        self.file: FileDiff = self.plan.files[self.index]

    def html(self) -> str:
        """The file as an element that can be closed."""
        file = self.file
        self.old_paint = highlight(file.old_path or "", file.old, self.cache)
        self.new_paint = highlight(file.new_path or "", file.new, self.cache)
        # A file that was added or removed takes the full width.
        self.one_sided = not file.old or not file.new
        renamed = file.status == "renamed"
        title = f"{file.old_path} → {file.new_path}" if renamed else file.path
        counts = file.counts
        notes = "".join(f'<p class="note">{markup(note)}</p>\n' for note in file.notes)
        is_open = " open" if self.is_open else ""
        return (
            f'<details class="file" id="f{self.index}"{is_open}><summary>'
            f"<h{self.level}><code>{markup(title)}</code></h{self.level}> "
            f'<span class="chip">{file.status}</span> '
            f'<span class="plus">+{counts.added:,}</span> '
            f'<span class="minus">−{counts.deleted:,}</span>{"".join(self._chips())}</summary>\n'
            f"{notes}{''.join(self._chunks())}</details>\n"
        )

    def _chips(self) -> Iterator[str]:
        names: tuple[tuple[Kind, str], ...] = (
            ("changed", "substantive"),
            ("moved", "moved"),
            ("rename", "renamed only"),
            ("format", "layout only"),
            ("name", "own name only"),
        )
        for kind, label in names:
            lines = self.file.lines(kind)
            both = lines.added, lines.deleted
            if size := sum(both) if kind == "changed" else max(both):
                yield f'<span class="chip">{size:,} {label}</span>'
        if self.file.as_whole:
            yield '<span class="chip">as a whole</span>'

    def _chunks(self) -> Iterator[str]:
        """Tables of the rows near changes, what is said of those between, and markers."""
        written = self.plan.written[self.index]
        rows = self.file.rows
        markers = self._markers()
        enclosing = self._enclosing()
        last = written.spans[-1][1] if written.spans else 0
        end_of_all = last if written.cut else len(rows)
        spans = [*written.spans, (end_of_all, end_of_all)]
        position = 0
        for start, end in spans:
            for first, after, is_shown in ((position, start, False), (start, end, True)):
                cuts = sorted({first, after, *(m for m in markers if first <= m < after)})
                for a, b in pairwise(cuts):
                    yield from markers.pop(a, ())
                    yield self._table(a, b) if is_shown else self._fold(a, b, enclosing)
            position = end
        for number in sorted(markers):
            yield from markers[number]
        if written.cut:
            yield (
                f'<p class="was">{written.cut:,} more changed lines are left out: '
                "<code>git diff</code> shows them</p>\n"
            )

    def _markers(self) -> dict[int, list[str]]:
        markers: dict[int, list[str]] = {}
        for row, name, line, arrived in self.file.markers:
            anchor = self.plan.anchor(self.index, "L" if arrived else "R", line)
            link = f'<a href="#{anchor}">line {line + 1}</a>'
            place = f"moved here from {link}" if arrived else f"moved from here to {link}"
            marker = f'<p class="was"><code>{markup(name)}</code> {place}</p>\n'
            markers.setdefault(row, []).append(marker)
        return markers

    def _fold(self, start: int, end: int, enclosing: Sequence[str]) -> str:
        rows = self.file.rows
        size = end - start
        own = sum(row.kind == "name" for row in rows[start:end])
        after = rows[end].new if end < len(rows) else None
        place = enclosing[after] if after is not None else ""
        label = f" · <code>{markup(place)}</code>" if place else ""
        named = f", {own:,} of them with the variant's name" if own else ""
        return (
            f'<p class="was">{size:,} unchanged line{"s" if size > 1 else ""}{named}{label}</p>\n'
        )

    def _enclosing(self) -> list[str]:
        """For each line of the new file, the definition or heading that it is under."""
        result: list[str] = []
        open_: list[tuple[int, str]] = []
        is_python = self.file.path.endswith(".py")
        for line in self.file.new:
            bare = line.strip()
            indent = len(line) - len(line.lstrip())
            begins = re.match(r"(async def|def|class) " if is_python else r"#+ ", bare)
            if begins or (bare and is_python and not bare.startswith(("#", ")", "]", "}"))):
                while open_ and open_[-1][0] >= indent:
                    open_.pop()
            result.append(open_[-1][1] if open_ else "")
            if begins:
                open_.append((indent if is_python else 0, bare.rstrip(":")[:90]))
        return result

    def _table(self, start: int, end: int) -> str:
        rows = self.file.rows
        body = "".join(self._row(rows[n], rows[n - 1] if n else None) for n in range(start, end))
        columns = "<col>" * (2 if self.one_sided else 4)
        return f'<table class="d"><colgroup>{columns}</colgroup><tbody>{body}</tbody></table>\n'

    def _row(self, row: Row, before: Row | None) -> str:
        kind = "same" if row.kind == "format" and is_quiet(self.file, row) else row.kind
        old_cells = new_cells = "" if self.one_sided else _EMPTY
        if kind == "same" and row.old is not None and row.new is not None:
            content = self._line(self.file.new, row.new, self.new_paint, (), "ins")
            old_cells = self._cell("L", row.old, "", content)
            new_cells = self._cell("R", row.new, "", content)
            return f'<tr class="s">{old_cells}{new_cells}</tr>\n'
        link = self._link(row, before)
        if row.old is not None:
            end = self._end(row, self.file.old, row.old)
            content = self._line(self.file.old, row.old, self.old_paint, row.old_marks, "del")
            old_cells = self._cell("L", row.old, ' class="r"', f"{link}{content}{end}")
        if row.new is not None:
            end = self._end(row, self.file.new, row.new)
            content = self._line(self.file.new, row.new, self.new_paint, row.new_marks, "ins")
            new_cells = self._cell("R", row.new, ' class="a"', f"{link}{content}{end}")
        name = _ROW_CLASS[kind]
        style = f' class="{name}"' if name else ""
        return f"<tr{style}>{old_cells}{new_cells}</tr>\n"

    def _cell(self, side: str, line: int, name: str, content: str) -> str:
        anchor = f"f{self.index}{side}{line + 1}"
        return (
            f'<td class="n" id="{anchor}"><a href="#{anchor}" tabindex="-1">{line + 1}</a></td>'
            f"<td{name}>{content}</td>"
        )

    def _link(self, row: Row, before: Row | None) -> str:
        """A link from the first line of a moved block to its other place."""
        if not row.link:
            return ""
        file, line = row.link
        if before and before.link == (file, line - 1) and (before.old is None) == (row.old is None):
            return ""
        side, verb = ("R", "moved to") if row.old is not None else ("L", "moved from")
        place = f"line {line + 1}"
        if file != self.index:
            place = f"{markup(self.plan.files[file].path)} {place}"
        return f'<a class="go" href="#{self.plan.anchor(file, side, line)}">{verb} {place}</a>'

    def _end(self, row: Row, lines: Sequence[str], line: int) -> str:
        """Codes for what a line's end has and its partner's lacks."""
        marks = ""
        if row.old is not None and row.new is not None:
            ends = [_ending(self.file.old[row.old]), _ending(self.file.new[row.new])]
            if ends[0] != ends[1] and _ending(lines[line]) == "\r\n":
                marks += _code("U+000D")
        if not lines[line].endswith("\n"):
            marks += _code("no newline")
        return marks

    def _line(
        self,
        lines: Sequence[str],
        line: int,
        paints: Sequence[tuple[Paint, ...]],
        marks: Sequence[Span],
        tag: str,
    ) -> str:
        content, painted = lines[line].rstrip("\n").removesuffix("\r"), paints[line]
        if len(content) <= MAX_LINE:
            return _painted(content, painted, marks, tag)
        first = max(0, marks[0][0] - BEFORE) if marks else 0
        last = min(len(content), first + MAX_LINE)
        inside = [(max(a, first) - first, min(b, last) - first) for a, b in marks if a < last]
        part = _painted(content[first:last], _within(painted, first, last), inside, tag)
        left = [_code(f"{n:,} characters") if n else "" for n in (first, len(content) - last)]
        return f"{left[0]}{part}{left[1]}"


def _ending(line: str) -> str:
    return "\r\n" if line.endswith("\r\n") else "\n" if line.endswith("\n") else ""


def _code(name: str) -> str:
    return f'<span class="u">{name}</span>'


def markup(raw: str) -> str:
    """Escaped text, with hidden characters written as codes."""
    if (raw.isascii() and raw.isprintable()) or raw.isalnum():
        return escape(raw)
    parts = []
    position = 0
    for match in text.hidden_in(raw):
        parts += [escape(raw[position : match.start()]), _code(text.code(match[0]))]
        position = match.end()
    return "".join([*parts, escape(raw[position:])])


def _painted(line: str, paints: Sequence[Paint], marks: Sequence[Span], tag: str) -> str:
    """A line with its colours, and marks around the words that differ."""
    if not marks:
        parts = []
        position = 0
        for first, last, name in paints:
            if position < first:
                parts.append(markup(line[position:first]))
            parts.append(f'<i class="{name}">{markup(line[first:last])}</i>')
            position = last
        parts.append(markup(line[position:]))
        return "".join(parts)
    parts = []
    position = 0
    for first, last in marks:
        if position < first:
            parts.append(_painted(line[position:first], _within(paints, position, first), (), tag))
        inside = _painted(line[first:last], _within(paints, first, last), (), tag)
        parts.append(f"<{tag}>{inside}</{tag}>")
        position = last
    parts.append(_painted(line[position:], _within(paints, position, len(line)), (), tag))
    return "".join(parts)


def _within(paints: Sequence[Paint], start: int, end: int) -> list[Paint]:
    return [
        (max(first, start) - start, min(last, end) - start, name)
        for first, last, name in paints
        if first < end and last > start
    ]
