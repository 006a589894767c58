"""Makes Markdown that anybody may have written harmless for a comment.

The output of `tools.diff.markdown` passes unchanged, byte for byte: headings, lists, quotes and
tables of plain words and code spans. Every other line becomes a code span, in which GitHub renders
no HTML, links, images, mentions or references. Nothing is escaped, so nothing can be escaped
wrongly, and no construct can continue past a line that was not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.diff.markdown import span
from tools.diff.text import hidden

# Text without meaning in Markdown. A colon before a word could make an emoji, which is an image.
_PLAIN = re.compile(r"(?:[A-Za-z0-9 ,.;()+\-−—'\"%/]|\*\*|:(?=[ *]|$))+")
# Text that GitHub turns into links without brackets: addresses, issues (GH-1), commits.
_LINKS = re.compile(r"www\.|[A-Za-z]-[0-9]|\b[0-9a-f]{7,}\b", re.IGNORECASE)
# As in CommonMark, the next run of as many backticks closes a code span.
_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_PIPE = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"\|(?: --- \|)+")


def clean(text: str) -> str:
    """`text` with only words, code spans and known layout; any other line becomes a code span."""
    blocks = []
    for lines in _blocks(text):
        if _is_known(lines):
            blocks.append("\n".join(lines))
        else:
            blocks += [line if _is_known([line]) else span(line) for line in lines]
    return "\n\n".join(blocks) + ("\n" if blocks else "")


def _blocks(text: str) -> Iterator[list[str]]:
    """Lines between blank lines; a heading also begins a block."""
    block: list[str] = []
    for line in text.split("\n"):
        if block and (not line.strip() or line.startswith("### ")):
            yield block
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield block


def _is_known(lines: list[str]) -> bool:
    if any(char == "\t" or hidden(char) for line in lines for char in line):
        return False
    if all(line.startswith("- ") for line in lines):
        return all(_is_inline(line[2:]) for line in lines)
    if len(lines) > 1:
        return _is_table(lines)
    (line,) = lines
    for start in ("### ", "> "):
        if line.startswith(start):
            return _is_inline(line.removeprefix(start))
    return _is_inline(line)


def _is_inline(text: str) -> bool:
    """Whether a line consists of plain words and closed code spans, and is not indented."""
    if text.startswith(" "):
        return False
    position = 0
    while position < len(text):
        match = (
            _SPAN.match(text, position) if text[position] == "`" else _PLAIN.match(text, position)
        )
        if match is None or (text[position] != "`" and _LINKS.search(match[0])):
            return False
        position = match.end()
    return True


def _is_table(lines: list[str]) -> bool:
    """Whether lines are a table, in which a pipe in a code span needs exactly one backslash."""
    if not _RULE.fullmatch(lines[1]):
        return False
    columns = lines[1].count("|") - 1
    for line in [lines[0], *lines[2:]]:
        first, *cells = _PIPE.split(line)
        last = cells.pop() if cells else line  # without a pipe, or with escaped ones alone
        if first or last or len(cells) != columns or "\\\\|" in line:
            return False
        if not all(_is_inline(cell.strip(" ").replace("\\|", "|")) for cell in cells):
            return False
    return True
