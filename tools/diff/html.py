"""A comparison as HTML: one file without scripts that loads nothing.

`page` is a whole document. `fragment` is markup and a style sheet to put into another page, all of
it below the class `gd`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tools.diff import text
from tools.diff.highlight import Paint, highlight
from tools.diff.model import (
    Change,
    Comparison,
    FileDiff,
    Header,
    Kind,
    Row,
    Span,
    plumbing,
    size_rows,
    warning,
)
from tools.diff.style import PAGE, STYLE

CONTEXT = 3
# Fewer unchanged lines than this are not folded.
MIN_FOLD = 4
MAX_LISTED = 12
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_ROW_CLASS: dict[Kind, str] = {
    "same": "s",
    "name": "m",
    "rename": "m",
    "format": "m f",
    "moved": "v",
    "changed": "",
}
_EMPTY = '<td class="n"></td><td class="e"></td>'


def page(comparison: Comparison, header: Header, cache: Path | None = None) -> str:
    """The comparison as a whole HTML document; `cache` is a directory for syntax colours."""
    body = _report(comparison, header, cache, 1)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(header.new)}: changes</title>\n"
        f"<style>\n{PAGE}\n{STYLE}\n</style>\n</head>\n<body>\n"
        f'<main class="gd">\n{body}</main>\n</body>\n</html>\n'
    )


def fragment(comparison: Comparison, header: Header, cache: Path | None = None) -> str:
    """The comparison as markup for a page with a heading of its own: headings start at level 2."""
    body = _report(comparison, header, cache, 2)
    return f'<style>\n{STYLE}\n</style>\n<div class="gd">\n{body}</div>\n'


# -- the summary ------------------------------------------------------------------------------


def _report(comparison: Comparison, header: Header, cache: Path | None, level: int) -> str:
    number = {file.path: index for index, file in enumerate(comparison.files)}
    parts = [
        _header(comparison, header, level),
        _cards(comparison, number, level + 1),
        _sizes(header, level + 1),
        _knobs(comparison, level + 1),
        _calls(comparison, level + 1),
        _files(comparison, level + 1),
    ]
    shown = [n for n, file in enumerate(comparison.files) if file.status != "unchanged"]
    if shown:
        parts.append('<section aria-labelledby="gd-lines">\n')
        parts.append(f'<h{level + 1} class="section" id="gd-lines">Line by line</h{level + 1}>\n')
        for index in shown:
            parts.append(_File(comparison.files, index, cache, level + 2).html())
        parts.append("</section>\n")
    return "".join(parts)


def _header(comparison: Comparison, header: Header, level: int) -> str:
    sides = []
    for label, commit in ((header.new, header.new_commit), (header.old, header.old_commit)):
        commit_text = f" <small>at {_text(commit[:12])}</small>" if commit else ""
        sides.append(f"{_text(label)}{commit_text}")
    counts, substantive = comparison.counts, comparison.substantive
    total = substantive.added + substantive.deleted
    message = warning(comparison)
    warning_html = f'<p class="warn"><b>Warning:</b> {_text(message)}</p>\n' if message else ""
    owner = plumbing(comparison, header)
    plumbing_text = f" · plumbing: {_text(owner)}" if owner else ""
    notes = "".join(f'<p class="warn">{_text(note)}</p>\n' for note in comparison.notes)
    return (
        f'<header>\n<h{level} class="title">{sides[0]} <small>{_text(header.relation)}</small> '
        f"{sides[1]}</h{level}>\n"
        f'<p class="sum"><b>{counts.added:,}</b> added · <b>{counts.deleted:,}</b> deleted · '
        f"<b>{total:,}</b> substantive after renames, moves and formatting "
        f"(+{substantive.added:,} −{substantive.deleted:,}){plumbing_text}</p>\n"
        f"{warning_html}{notes}</header>\n"
    )


def _section(level: int, name: str, title: str, body: str) -> str:
    heading = f'<h{level} class="section" id="gd-{name}">{title}</h{level}>'
    return f'<section aria-labelledby="gd-{name}">\n{heading}\n{body}</section>\n'


def _cards(comparison: Comparison, number: dict[str, int], level: int) -> str:
    by_bucket: dict[str, list[Change]] = {}
    for change in comparison.changes:
        by_bucket.setdefault(change.bucket, []).append(change)
    if not by_bucket:
        return ""
    order = sorted(by_bucket, key=lambda name: (name == "other", -len(by_bucket[name]), name))
    cards = []
    for bucket in order:
        items = [_item(change, number) for change in by_bucket[bucket]]
        body = f"<ul>{''.join(items[:MAX_LISTED])}</ul>"
        if len(items) > MAX_LISTED:
            hidden = f"<ul>{''.join(items[MAX_LISTED:])}</ul>"
            label = f"{len(items) - MAX_LISTED} more"
            body += f'<details class="fold"><summary>{label}</summary>{hidden}</details>'
        cards.append(
            f'<div class="card"><h{level + 1}>{_text(bucket)} '
            f'<span class="chip">{len(items)}</span></h{level + 1}>{body}</div>\n'
        )
    body = f'<div class="cards">\n{"".join(cards)}</div>\n'
    return _section(level, "buckets", "Change buckets", body)


def _item(change: Change, number: dict[str, int]) -> str:
    file = number[change.path]
    anchor = f"f{file}" if change.line is None else f"f{file}R{change.line + 1}"
    old_name = f"<code>{_text(change.old_name)}</code> → " if change.old_name else ""
    label = {"docs": "docstring only", "imports": "imports only"}.get(change.how, change.how)
    if change.decided == "guess":
        label += " · guessed"
    return (
        f'<li><a href="#{anchor}"><code>{_text(change.path)}</code></a> '
        f'{old_name}<code>{_text(change.name)}</code> <span class="chip">{label}</span></li>'
    )


def _table(
    name: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()
) -> str:
    """A table of finished markup that can be scrolled with the keyboard, in section `name`."""

    def cells(tag: str, row: Sequence[str]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kinds = [' class="num"' if n in numbers else "" for n in range(len(row))]
        return "".join(
            f"<{tag}{scope}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="group" aria-labelledby="gd-{name}">'
        '<table class="facts">'
        f"<thead><tr>{cells('th', head)}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def _sizes(header: Header, level: int) -> str:
    if not header.sizes:
        return ""
    rows = [[_text(cell) for cell in row] for row in size_rows(header.sizes)]
    preset = next((size.preset for size in header.sizes if size.preset), "")
    errors = [
        f"<p>{side}: {_text(size.error)}</p>\n"
        for side, size in zip(("origin", "variant"), header.sizes, strict=True)
        if size.error
    ]
    head = (f"preset {_text(preset)}" if preset else "measure", "origin", "variant", "difference")
    body = _table("sizes", head, rows, (1, 2, 3)) if rows else ""
    return _section(level, "sizes", "Size", body + "".join(errors))


def _value(value: str | None, tag: str) -> str:
    return "—" if value is None else f"<{tag}><code>{_text(value)}</code></{tag}>"


def _knobs(comparison: Comparison, level: int) -> str:
    rows = [
        (
            f"<code>{_text(knob.path)}</code>",
            f"<code>{_text(knob.name)}</code>",
            _value(knob.old, "del"),
            _value(knob.new, "ins"),
        )
        for knob in comparison.knobs
    ]
    if not rows:
        return ""
    table = _table("knobs", ("file", "knob", "origin", "variant"), rows)
    return _section(level, "knobs", "Config knobs", table)


def _calls(comparison: Comparison, level: int) -> str:
    rows = []
    for calls in comparison.calls:
        orders = (_text(" → ".join(side) or "nothing") for side in (calls.old, calls.new))
        place = f"<code>{_text(calls.path)}: {_text(calls.name)}</code>"
        rows.append((place, *(f"<code>{order}</code>" for order in orders)))
    if not rows:
        return ""
    table = _table("calls", ("where", "origin", "variant"), rows)
    return _section(level, "calls", "Call order", table)


def _files(comparison: Comparison, level: int) -> str:
    rows = []
    for index, file in enumerate(comparison.files):
        if file.status == "unchanged":
            continue
        substantive = file.lines("changed")
        explained = [file.lines(kind).added + file.lines(kind).deleted for kind in
                  ("moved", "rename", "format")]  # fmt: skip
        rows.append(
            (
                f'<a href="#f{index}"><code>{_text(file.path)}</code></a>',
                file.status,
                f"+{file.counts.added:,}",
                f"−{file.counts.deleted:,}",
                f"{substantive.added + substantive.deleted:,}",
                *(f"{n:,}" if n else "" for n in explained),
                "; ".join(_text(note) for note in file.notes),
            )
        )
    head = (
        "file",
        "status",
        "added",
        "deleted",
        "substantive",
        "moved",
        "renamed",
        "layout",
        "notes",
    )
    body = ""
    if rows:
        table = _table("files", head, rows, (2, 3, 4, 5, 6, 7))
        body = f'<nav aria-label="Files">\n{table}</nav>\n'
    unchanged = [file.path for file in comparison.files if file.status == "unchanged"]
    if unchanged:
        listed = ", ".join(f"<code>{_text(path)}</code>" for path in unchanged)
        body += f"<p>Unchanged: {listed}</p>\n"
    if comparison.renames:
        listed = ", ".join(
            f"<code>{_text(old)}</code> → <code>{_text(new)}</code>"
            for old, new in comparison.renames
        )
        body += f"<p>Renamed variables: {listed}</p>\n"
    return _section(level, "files", "Files", body)


# -- one file ---------------------------------------------------------------------------------


@dataclass
class _File:
    """Writes one file's rows."""

    files: Sequence[FileDiff]
    index: int
    cache: Path | None
    level: int

    def html(self) -> str:
        file = self.file = self.files[self.index]
        self.old_paint = highlight(file.old_path or "", file.old, self.cache)
        self.new_paint = highlight(file.new_path or "", file.new, self.cache)
        # A file that was added or removed takes the full width.
        self.one_sided = not file.old or not file.new
        self.uniform = any(note.startswith("line endings: ") and "mixed" not in note
                           for note in file.notes)  # fmt: skip
        renamed = file.status == "renamed"
        title = f"{file.old_path} → {file.new_path}" if renamed else file.path
        counts = file.counts
        chips = "".join(self._chips())
        opened = " open" if any(not self._quiet(row) for row in file.rows) or not file.rows else ""
        notes = "".join(f'<p class="note">{_text(note)}</p>\n' for note in file.notes)
        return (
            f'<details class="file" id="f{self.index}"{opened}><summary>'
            f"<h{self.level}><code>{_text(title)}</code></h{self.level}> "
            f'<span class="chip">{file.status}</span> '
            f'<span class="plus">+{counts.added:,}</span> '
            f'<span class="minus">−{counts.deleted:,}</span>{chips}</summary>\n'
            f"{notes}{''.join(self._chunks())}</details>\n"
        )

    def _chips(self) -> Iterator[str]:
        names: tuple[tuple[Kind, str], ...] = (
            ("moved", "moved"),
            ("rename", "renamed only"),
            ("format", "layout only"),
            ("name", "own name only"),
        )
        for kind, label in names:
            lines = self.file.lines(kind)
            if size := max(lines.added, lines.deleted):
                yield f'<span class="chip">{size:,} {label}</span>'

    def _quiet(self, row: Row) -> bool:
        """Whether a row may be folded away."""
        if row.kind in ("same", "name"):
            return True
        if row.kind != "format" or not self.uniform or row.old is None or row.new is None:
            return False
        return self.file.old[row.old].rstrip("\r\n") == self.file.new[row.new].rstrip("\r\n")

    def _chunks(self) -> Iterator[str]:
        """Tables of the rows near changes, folds of the others, and markers between them."""
        rows = self.file.rows
        loud = [n for n, row in enumerate(rows) if not self._quiet(row)]
        visible = bytearray(len(rows))
        for n in loud:
            first, last = max(0, n - CONTEXT), min(len(rows), n + CONTEXT + 1)
            visible[first:last] = b"\1" * (last - first)
        markers: dict[int, list[str]] = {}
        for row, name, line, arrived in self.file.markers:
            link = (
                f'<a href="#f{self.index}{"L" if arrived else "R"}{line + 1}">line {line + 1}</a>'
            )
            place = f"moved here from {link}" if arrived else f"moved from here to {link}"
            marker = f'<p class="was"><code>{_text(name)}</code> {place}</p>\n'
            markers.setdefault(row, []).append(marker)
        enclosing = self._enclosing()
        start = 0
        while start < len(rows):
            end = start + 1
            while end < len(rows) and visible[end] == visible[start] and end not in markers:
                end += 1
            yield from markers.pop(start, ())
            table = self._table(start, end)
            if visible[start] or (end - start < MIN_FOLD and len(loud)):
                yield table
            else:
                after = rows[end].new if end < len(rows) else None
                place = enclosing[after] if after is not None else ""
                label = f" · <code>{_text(place)}</code>" if place else ""
                lines = f"{end - start:,} unchanged line{'s' if end - start > 1 else ''}"
                yield (
                    f'<details class="fold"><summary>{lines}{label}</summary>{table}</details>\n'
                )
            start = end
        for marker in markers.values():
            yield from marker

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
        kind = "same" if row.kind == "format" and self._quiet(row) else row.kind
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
            place = f"{_text(self.files[file].path)} {place}"
        return f'<a class="go" href="#f{file}{side}{line + 1}">{verb} {place}</a>'

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
        return _painted(lines[line].rstrip("\n").removesuffix("\r"), paints[line], marks, tag)


def _ending(line: str) -> str:
    return "\r\n" if line.endswith("\r\n") else "\n" if line.endswith("\n") else ""


def _code(name: str) -> str:
    return f'<span class="u">{name}</span>'


def _text(raw: str) -> str:
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
                parts.append(_text(line[position:first]))
            parts.append(f'<i class="{name}">{_text(line[first:last])}</i>')
            position = last
        parts.append(_text(line[position:]))
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
