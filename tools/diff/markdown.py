"""A comparison as a short piece of Markdown, for a comment on a pull request.

All text from the sources is in code spans, in which GitHub creates no mentions, references or
links.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tools.diff import text
from tools.diff.model import Change, Comparison, Header, beyond_lines, plumbing, size_rows, warning

MAX_ROWS = 20
MAX_LISTED = 8


def comment(comparison: Comparison, header: Header) -> str:
    """The summary: counts, buckets, knobs, sizes and files; long tables are cut."""
    counts, substantive = comparison.counts, comparison.substantive
    sides = []
    for label, commit in ((header.new, header.new_commit), (header.old, header.old_commit)):
        sides.append(span(label) + (f" at {span(commit[:12])}" if commit else ""))
    parts = [
        f"### {sides[0]} {header.relation} {sides[1]}",
        f"**{counts.added:,}** added, **{counts.deleted:,}** deleted, "
        f"**{substantive.added + substantive.deleted:,}** substantive after renames, moves and "
        "formatting.",
    ]
    if whole := beyond_lines(comparison):
        parts[-1] += f" **{whole}**."
    if owner := plumbing(comparison, header):
        parts[-1] += f" Plumbing: {span(owner)}."
    if message := warning(comparison, header):
        parts.append(f"> **Warning:** {message}")
    parts += [f"> {span(note)}" for note in comparison.notes]
    parts += _buckets(comparison)
    if header.sizes:
        rows = [[span(cell) if cell else "" for cell in row] for row in size_rows(header.sizes)]
        if rows:
            parts.append(_table(("size", "origin", "variant", "difference"), rows))
        parts += [f"Size not known: {span(s.error)}" for s in header.sizes if s.error]
    knobs = [
        (span(f"{k.path}: {k.name}"), *("—" if v is None else span(v) for v in (k.old, k.new)))
        for k in comparison.knobs
    ]
    if knobs:
        parts.append(_table(("knob", "origin", "variant"), knobs))
    files = [
        (
            span(file.path),
            file.status,
            f"+{file.counts.added:,}",
            f"−{file.counts.deleted:,}",
            "; ".join(span(note) for note in file.notes),
        )
        for file in comparison.files
        if file.status != "unchanged"
    ]
    if files:
        parts.append(_table(("file", "status", "added", "deleted", ""), files))
    return "\n\n".join(parts) + "\n"


def _buckets(comparison: Comparison) -> list[str]:
    by_bucket: dict[str, list[Change]] = {}
    for change in comparison.changes:
        by_bucket.setdefault(change.bucket, []).append(change)
    lines = []
    for bucket in sorted(
        by_bucket, key=lambda name: (name == "other", -len(by_bucket[name]), name)
    ):
        changes = by_bucket[bucket]
        shown = [
            f"{span(f'{change.path}: {change.name}')} {change.how}"
            + (" (guessed)" if change.decided == "guess" else "")
            for change in changes[:MAX_LISTED]
        ]
        if len(changes) > MAX_LISTED:
            shown.append(f"{len(changes) - MAX_LISTED} more")
        lines.append(f"- **{bucket}**: {', '.join(shown)}")
    return ["\n".join(lines)] if lines else []


def span(raw: str) -> str:
    """A code span of any text: one line, hidden characters as codes."""
    pieces, position = [], 0
    for match in text.hidden_in(raw):
        pieces += [raw[position : match.start()], text.code(match[0])]
        position = match.end()
    shown = " ".join("".join([*pieces, raw[position:]]).split())
    runs = re.findall("`+", shown)
    fence = "`" * (max(map(len, runs), default=0) + 1)
    room = " " if shown.startswith("`") or shown.endswith("`") or not shown else ""
    return f"{fence}{room}{shown}{room}{fence}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    all_rows = list(rows)
    rows = [[cell.replace("|", "\\|") for cell in row] for row in all_rows[:MAX_ROWS]]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\n{len(all_rows) - MAX_ROWS} more rows." if len(all_rows) > MAX_ROWS else table
    )
