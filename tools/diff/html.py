"""A comparison as HTML: one file without scripts that loads nothing.

`page` is a whole document. `fragment` is markup and a style sheet to put into another page, all of
it below the class `gd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.diff.file_html import FileWriter
from tools.diff.file_html import markup as _text
from tools.diff.hunks import Plan, names_only_itself
from tools.diff.model import (
    Change,
    Comparison,
    FileDiff,
    Header,
    beyond_lines,
    plumbing,
    size_rows,
    warning,
)
from tools.diff.sections import CLOSED
from tools.diff.style import PAGE, STYLE

MAX_LISTED = 12
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


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
    plan = Plan(comparison)
    return "".join(
        (
            _header(comparison, header, level),
            _cards(comparison, plan, level + 1),
            _sizes(header, level + 1),
            _knobs(comparison, level + 1),
            _calls(comparison, level + 1),
            _lines(plan, cache, level + 1),
            _rest(comparison, level + 1),
        )
    )


def _header(comparison: Comparison, header: Header, level: int) -> str:
    sides = []
    for label, commit in ((header.new, header.new_commit), (header.old, header.old_commit)):
        commit_text = f" <small>at {_text(commit[:12])}</small>" if commit else ""
        sides.append(f"{_text(label)}{commit_text}")
    counts, substantive = comparison.counts, comparison.substantive
    total = substantive.added + substantive.deleted
    message = warning(comparison, header)
    warning_html = f'<p class="warn"><b>Warning:</b> {_text(message)}</p>\n' if message else ""
    owner = plumbing(comparison, header)
    plumbing_text = f" · plumbing: {_text(owner)}" if owner else ""
    whole = beyond_lines(comparison)
    whole_text = f" · <b>{whole}</b>" if whole else ""
    notes = "".join(f'<p class="warn">{_text(note)}</p>\n' for note in comparison.notes)
    return (
        f'<header>\n<h{level} class="title">{sides[0]} <small>{_text(header.relation)}</small> '
        f"{sides[1]}</h{level}>\n"
        f'<p class="sum"><b>{counts.added:,}</b> added · <b>{counts.deleted:,}</b> deleted · '
        f"<b>{total:,}</b> substantive after renames, moves and formatting "
        f"(+{substantive.added:,} −{substantive.deleted:,}){whole_text}{plumbing_text}</p>\n"
        f"{warning_html}{notes}</header>\n"
    )


def _section(level: int, name: str, title: str, body: str) -> str:
    heading = f'<h{level} class="section" id="gd-{name}">{title}</h{level}>'
    return f'<section aria-labelledby="gd-{name}">\n{heading}\n{body}</section>\n'


def _cards(comparison: Comparison, plan: Plan, level: int) -> str:
    by_bucket: dict[str, list[Change]] = {}
    for change in comparison.changes:
        by_bucket.setdefault(change.bucket, []).append(change)
    if not by_bucket:
        return ""
    number = {file.path: index for index, file in enumerate(comparison.files)}
    order = sorted(by_bucket, key=lambda name: (name == "other", -len(by_bucket[name]), name))
    cards = []
    for bucket in order:
        items = [_item(change, plan, number[change.path]) for change in by_bucket[bucket]]
        body = f"<ul>{''.join(items[:MAX_LISTED])}</ul>"
        if len(items) > MAX_LISTED:
            hidden = f"<ul>{''.join(items[MAX_LISTED:])}</ul>"
            body += _more(len(items) - MAX_LISTED, hidden)
        cards.append(
            f'<div class="card"><h{level + 1}>{_text(bucket)} '
            f'<span class="chip">{len(items)}</span></h{level + 1}>{body}</div>\n'
        )
    body = f'<div class="cards">\n{"".join(cards)}</div>\n'
    return _section(level, "buckets", "Change buckets", body)


def _item(change: Change, plan: Plan, number: int) -> str:
    anchor = plan.anchor(number, "R", change.line)
    old_name = f"<code>{_text(change.old_name)}</code> → " if change.old_name else ""
    label = {"docs": "docstring only", "imports": "imports only"}.get(change.how, change.how)
    if change.decided == "guess":
        label += " · guessed"
    return (
        f'<li><a href="#{anchor}"><code>{_text(change.path)}</code></a> '
        f'{old_name}<code>{_text(change.name)}</code> <span class="chip">{label}</span></li>'
    )


def _table(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()
) -> str:
    """A table of finished markup that can be scrolled with the keyboard, in section `name`."""

    def cells(tag: str, row: Sequence[str]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kinds = [' class="num"' if n in numbers else "" for n in range(len(row))]
        return "".join(
            f"<{tag}{scope}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True)
        )

    def table(part: Sequence[Sequence[str]]) -> str:
        body = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in part)
        return (
            f'<div class="wide" tabindex="0" role="group" aria-labelledby="gd-{name}">'
            '<table class="facts">'
            f"<thead><tr>{cells('th', head)}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
        )

    first, others = rows[:MAX_LISTED], rows[MAX_LISTED:]
    return table(first) + (_more(len(others), table(others)) if others else "")


def _more(number: int, body: str) -> str:
    """What is too long a list for the first screen."""
    return f'<details class="fold"><summary>{number} more</summary>{body}</details>'


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


def _lines(plan: Plan, cache: Path | None, level: int) -> str:
    """The changed lines of all files, beside a list of these files that stays in view."""
    if not plan.groups:
        return ""
    groups = []
    for name, numbers in plan.groups:
        is_open = name not in CLOSED
        files = "".join(FileWriter(plan, n, cache, level + 2, is_open).html() for n in numbers)
        groups.append(f'<h{level + 1} class="group">{name}</h{level + 1}>\n{files}')
    body = f'<div class="split">\n{_tree(plan)}<div>\n{"".join(groups)}</div>\n</div>\n'
    return _section(level, "lines", "Line by line", body)


def _tree(plan: Plan) -> str:
    groups = []
    for name, numbers in plan.groups:
        items = "".join(_branch(plan.files[n], n) for n in numbers)
        groups.append(f"<p>{name}</p>\n<ul>\n{items}</ul>\n")
    return f'<nav class="tree" aria-label="Changed files">\n{"".join(groups)}</nav>\n'


def _branch(file: FileDiff, number: int) -> str:
    plus, minus = file.counts.added, file.counts.deleted
    return (
        f'<li><a href="#f{number}"><code>{_text(file.path)}</code></a> '
        f'<span class="plus">+{plus:,}</span> <span class="minus">−{minus:,}</span></li>\n'
    )


def _rest(comparison: Comparison, level: int) -> str:
    """What need not be read line by line."""
    named = [
        f'<code id="f{number}">{_text(file.path)}</code>'
        for number, file in enumerate(comparison.files)
        if names_only_itself(file)
    ]
    unchanged = [
        f'<code id="f{number}">{_text(file.path)}</code>'
        for number, file in enumerate(comparison.files)
        if file.status == "unchanged"
    ]
    renames = [
        f"<code>{_text(old)}</code> → <code>{_text(new)}</code>" for old, new in comparison.renames
    ]
    body = "".join(
        f"<p>{label}: {', '.join(listed)}</p>\n"
        for label, listed in (
            ("Renamed variables", renames),
            ("Differ in the variant's own name alone", named),
            ("Unchanged", unchanged),
        )
        if listed
    )
    return _section(level, "rest", "Besides", body) if body else ""
