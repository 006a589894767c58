"""A comparison as HTML: one file that needs no script and asks for nothing.

`page` is a whole document, `fragment` what another page takes in: its markup and the style sheet,
all of it below the class `gd`.
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
# Fewer unchanged lines than this are not worth a fold.
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
    """A whole document."""
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
    """To be put into a page that has a heading of its own: headings begin at the second level."""
    body = _report(comparison, header, cache, 2)
    return f'<style>\n{STYLE}\n</style>\n<div class="gd">\n{body}</div>\n'


# -- the summary ------------------------------------------------------------------------------


def _report(comparison: Comparison, header: Header, cache: Path | None, level: int) -> str:
    number = {file.path: at for at, file in enumerate(comparison.files)}
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
        for at in shown:
            parts.append(_File(comparison.files, at, cache, level + 2).html())
        parts.append("</section>\n")
    return "".join(parts)


def _header(comparison: Comparison, header: Header, level: int) -> str:
    sides = []
    for label, commit in ((header.new, header.new_commit), (header.old, header.old_commit)):
        at = f" <small>at {_text(commit[:12])}</small>" if commit else ""
        sides.append(f"{_text(label)}{at}")
    counts, left = comparison.counts, comparison.substantive
    total = left.added + left.deleted
    said = warning(comparison)
    warn = f'<p class="warn"><b>Warning:</b> {_text(said)}</p>\n' if said else ""
    owner = plumbing(comparison, header)
    whose = f" · plumbing: {_text(owner)}" if owner else ""
    notes = "".join(f'<p class="warn">{_text(note)}</p>\n' for note in comparison.notes)
    return (
        f'<header>\n<h{level} class="title">{sides[0]} <small>{_text(header.relation)}</small> '
        f"{sides[1]}</h{level}>\n"
        f'<p class="sum"><b>{counts.added:,}</b> added · <b>{counts.deleted:,}</b> deleted · '
        f"<b>{total:,}</b> substantive after renames, moves and formatting "
        f"(+{left.added:,} −{left.deleted:,}){whose}</p>\n{warn}{notes}</header>\n"
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
            rest = f"<ul>{''.join(items[MAX_LISTED:])}</ul>"
            more = f"{len(items) - MAX_LISTED} more"
            body += f'<details class="fold"><summary>{more}</summary>{rest}</details>'
        cards.append(
            f'<div class="card"><h{level + 1}>{_text(bucket)} '
            f'<span class="chip">{len(items)}</span></h{level + 1}>{body}</div>\n'
        )
    body = f'<div class="cards">\n{"".join(cards)}</div>\n'
    return _section(level, "buckets", "Change buckets", body)


def _item(change: Change, number: dict[str, int]) -> str:
    at = number[change.path]
    anchor = f"f{at}" if change.line is None else f"f{at}R{change.line + 1}"
    was = f"<code>{_text(change.old_name)}</code> → " if change.old_name else ""
    how = {"docs": "docstring only", "imports": "imports only"}.get(change.how, change.how)
    if change.decided == "guess":
        how += " · guessed"
    return (
        f'<li><a href="#{anchor}"><code>{_text(change.path)}</code></a> '
        f'{was}<code>{_text(change.name)}</code> <span class="chip">{how}</span></li>'
    )


def _table(
    name: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()
) -> str:
    """A table of ready markup, scrolled with the keyboard too; `name` is that of its section."""

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
    said = [
        f"<p>{side}: {_text(size.error)}</p>\n"
        for side, size in zip(("origin", "variant"), header.sizes, strict=True)
        if size.error
    ]
    head = (f"preset {_text(preset)}" if preset else "measure", "origin", "variant", "difference")
    body = _table("sizes", head, rows, (1, 2, 3)) if rows else ""
    return _section(level, "sizes", "Size", body + "".join(said))


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
        where = f"<code>{_text(calls.path)}: {_text(calls.name)}</code>"
        rows.append((where, *(f"<code>{order}</code>" for order in orders)))
    if not rows:
        return ""
    table = _table("calls", ("where", "origin", "variant"), rows)
    return _section(level, "calls", "Call order", table)


def _files(comparison: Comparison, level: int) -> str:
    rows = []
    for at, file in enumerate(comparison.files):
        if file.status == "unchanged":
            continue
        left = file.lines("changed")
        others = [file.lines(kind).added + file.lines(kind).deleted for kind in
                  ("moved", "rename", "format")]  # fmt: skip
        rows.append(
            (
                f'<a href="#f{at}"><code>{_text(file.path)}</code></a>',
                file.status,
                f"+{file.counts.added:,}",
                f"−{file.counts.deleted:,}",
                f"{left.added + left.deleted:,}",
                *(f"{n:,}" if n else "" for n in others),
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
    same = [file.path for file in comparison.files if file.status == "unchanged"]
    if same:
        listed = ", ".join(f"<code>{_text(path)}</code>" for path in same)
        body += f"<p>Unchanged: {listed}</p>\n"
    if comparison.renames:
        listed = ", ".join(
            f"<code>{_text(old)}</code> → <code>{_text(new)}</code>"
            for old, new in comparison.renames
        )
        body += f"<p>Renamed throughout: {listed}</p>\n"
    return _section(level, "files", "Files", body)


# -- one file ---------------------------------------------------------------------------------


@dataclass
class _File:
    """Writes one file's rows."""

    files: Sequence[FileDiff]
    at: int
    cache: Path | None
    level: int

    def html(self) -> str:
        file = self.file = self.files[self.at]
        self.old_paint = highlight(file.old_path or "", file.old, self.cache)
        self.new_paint = highlight(file.new_path or "", file.new, self.cache)
        # A file that is wholly new, or gone, takes the whole width.
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
            f'<details class="file" id="f{self.at}"{opened}><summary>'
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
        for kind, what in names:
            lines = self.file.lines(kind)
            if most := max(lines.added, lines.deleted):
                yield f'<span class="chip">{most:,} {what}</span>'

    def _quiet(self, row: Row) -> bool:
        """Whether a row may be folded away."""
        if row.kind in ("same", "name"):
            return True
        if row.kind != "format" or not self.uniform or row.old is None or row.new is None:
            return False
        return self.file.old[row.old].rstrip("\r\n") == self.file.new[row.new].rstrip("\r\n")

    def _chunks(self) -> Iterator[str]:
        """Tables of rows to see, folds of the others, and notes between them."""
        rows = self.file.rows
        loud = [n for n, row in enumerate(rows) if not self._quiet(row)]
        seen = bytearray(len(rows))
        for n in loud:
            first, last = max(0, n - CONTEXT), min(len(rows), n + CONTEXT + 1)
            seen[first:last] = b"\1" * (last - first)
        markers: dict[int, list[str]] = {}
        for row, name, line, came in self.file.markers:
            link = f'<a href="#f{self.at}{"L" if came else "R"}{line + 1}">line {line + 1}</a>'
            where = f"moved here from {link}" if came else f"moved from here to {link}"
            said = f'<p class="was"><code>{_text(name)}</code> {where}</p>\n'
            markers.setdefault(row, []).append(said)
        enclosing = self._enclosing()
        start = 0
        while start < len(rows):
            end = start + 1
            while end < len(rows) and seen[end] == seen[start] and end not in markers:
                end += 1
            yield from markers.pop(start, ())
            table = self._table(start, end)
            if seen[start] or (end - start < MIN_FOLD and len(loud)):
                yield table
            else:
                after = rows[end].new if end < len(rows) else None
                where = enclosing[after] if after is not None else ""
                label = f" · <code>{_text(where)}</code>" if where else ""
                lines = f"{end - start:,} unchanged line{'s' if end - start > 1 else ''}"
                yield (
                    f'<details class="fold"><summary>{lines}{label}</summary>{table}</details>\n'
                )
            start = end
        for said in markers.values():
            yield from said

    def _enclosing(self) -> list[str]:
        """For each line of the new file, the definition or heading it stands below."""
        found: list[str] = []
        open_: list[tuple[int, str]] = []
        is_python = self.file.path.endswith(".py")
        for line in self.file.new:
            bare = line.strip()
            indent = len(line) - len(line.lstrip())
            begins = re.match(r"(async def|def|class) " if is_python else r"#+ ", bare)
            if begins or (bare and is_python and not bare.startswith(("#", ")", "]", "}"))):
                while open_ and open_[-1][0] >= indent:
                    open_.pop()
            found.append(open_[-1][1] if open_ else "")
            if begins:
                open_.append((indent if is_python else 0, bare.rstrip(":")[:90]))
        return found

    def _table(self, start: int, end: int) -> str:
        rows = self.file.rows
        body = "".join(self._row(rows[n], rows[n - 1] if n else None) for n in range(start, end))
        columns = "<col>" * (2 if self.one_sided else 4)
        return f'<table class="d"><colgroup>{columns}</colgroup><tbody>{body}</tbody></table>\n'

    def _row(self, row: Row, before: Row | None) -> str:
        kind = "same" if row.kind == "format" and self._quiet(row) else row.kind
        left = right = "" if self.one_sided else _EMPTY
        if kind == "same" and row.old is not None and row.new is not None:
            content = self._line(self.file.new, row.new, self.new_paint, (), "ins")
            left = self._cell("L", row.old, "", content)
            right = self._cell("R", row.new, "", content)
            return f'<tr class="s">{left}{right}</tr>\n'
        link = self._link(row, before)
        if row.old is not None:
            end = self._end(row, self.file.old, row.old)
            content = self._line(self.file.old, row.old, self.old_paint, row.old_marks, "del")
            left = self._cell("L", row.old, ' class="r"', f"{link}{content}{end}")
        if row.new is not None:
            end = self._end(row, self.file.new, row.new)
            content = self._line(self.file.new, row.new, self.new_paint, row.new_marks, "ins")
            right = self._cell("R", row.new, ' class="a"', f"{link}{content}{end}")
        name = _ROW_CLASS[kind]
        style = f' class="{name}"' if name else ""
        return f"<tr{style}>{left}{right}</tr>\n"

    def _cell(self, side: str, line: int, name: str, content: str) -> str:
        anchor = f"f{self.at}{side}{line + 1}"
        return (
            f'<td class="n" id="{anchor}"><a href="#{anchor}" tabindex="-1">{line + 1}</a></td>'
            f"<td{name}>{content}</td>"
        )

    def _link(self, row: Row, before: Row | None) -> str:
        """Where a moved block went or came from, at its first line."""
        if not row.link:
            return ""
        file, line = row.link
        if before and before.link == (file, line - 1) and (before.old is None) == (row.old is None):
            return ""
        side, way = ("R", "moved to") if row.old is not None else ("L", "moved from")
        where = f"line {line + 1}"
        if file != self.at:
            where = f"{_text(self.files[file].path)} {where}"
        return f'<a class="go" href="#f{file}{side}{line + 1}">{way} {where}</a>'

    def _end(self, row: Row, lines: Sequence[str], line: int) -> str:
        """What a line's end has that its partner's has not."""
        said = ""
        if row.old is not None and row.new is not None:
            ends = [_ending(self.file.old[row.old]), _ending(self.file.new[row.new])]
            if ends[0] != ends[1] and _ending(lines[line]) == "\r\n":
                said += _code("U+000D")
        if not lines[line].endswith("\n"):
            said += _code("no newline")
        return said

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
    """Escaped, with what cannot be seen written as codes."""
    if (raw.isascii() and raw.isprintable()) or raw.isalnum():
        return escape(raw)
    parts = []
    at = 0
    for match in text.hidden_in(raw):
        parts += [escape(raw[at : match.start()]), _code(text.code(match[0]))]
        at = match.end()
    return "".join([*parts, escape(raw[at:])])


def _painted(line: str, paints: Sequence[Paint], marks: Sequence[Span], tag: str) -> str:
    """A line with its colours, and marks around the words that differ."""
    if not marks:
        parts = []
        at = 0
        for first, last, name in paints:
            if at < first:
                parts.append(_text(line[at:first]))
            parts.append(f'<i class="{name}">{_text(line[first:last])}</i>')
            at = last
        parts.append(_text(line[at:]))
        return "".join(parts)
    parts = []
    at = 0
    for first, last in marks:
        if at < first:
            parts.append(_painted(line[at:first], _within(paints, at, first), (), tag))
        inside = _painted(line[first:last], _within(paints, first, last), (), tag)
        parts.append(f"<{tag}>{inside}</{tag}>")
        at = last
    parts.append(_painted(line[at:], _within(paints, at, len(line)), (), tag))
    return "".join(parts)


def _within(paints: Sequence[Paint], start: int, end: int) -> list[Paint]:
    return [
        (max(first, start) - start, min(last, end) - start, name)
        for first, last, name in paints
        if first < end and last > start
    ]
