"""Makes foreign text harmless. Pages hold it as HTML, which Markdown leaves alone."""

from __future__ import annotations

import html
import re

# Experiments' pages, in docs/ and in the site.
PAGES = "reports/variants"
# splice.py replaces this by the experiment's diff.
PLACEHOLDER = "<!-- grug:diff {name} -->"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ADDRESS = r"https?://[^\s<>\"'`]*[^\s<>\"'`.,;:)\]*]"
# Without nesting, so that any text is read in one pass.
_PART = re.compile(
    rf"""`(?P<code>[^`]+)`
    |\[(?P<label>[^\[\]]+)\]\((?P<target>{_ADDRESS})\)
    |(?P<address>{_ADDRESS})
    |\*\*(?P<strong>[^\s*](?:[^*]*[^\s*])?)\*\*
    |(?<![\w*])\*(?P<em>[^\s*](?:[^*]*[^\s*])?)\*(?![\w*])
    |(?<![\w_])_(?P<em_>[^\s_](?:[^_]*[^\s_])?)_(?![\w_])
    |\\(?P<escaped>[][\\`*_(){{}}#+.!<>|-])""",
    re.VERBOSE,
)
_FENCED = re.compile(
    r"^[ ]{0,3}(?P<fence>```+|~~~+)[^`~\n]*\n(?P<code>.*?)(?:^[ ]{0,3}(?P=fence)[ ]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_ITEM = re.compile(r"(?:[-*+]|\d{1,2}[.)])\s+")
_HEADING = re.compile(r"#{1,6}\s+")
# An empty line, and the beginning of a list's item or of a heading.
_BREAK = re.compile(r"\n[ \t]*\n|\n(?=[ ]{0,3}(?:[-*+]|\d{1,2}[.)])\s)|(?<=\n)(?=#{1,6}\s)")


def text(value: str) -> str:
    """Escaped for element content and attribute values."""
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", value), quote=True)


def inline(value: str) -> str:
    """Escaped text in which Markdown within a line works: `code`, *emphasis*, **strong**, links.

    A link leads to an http address; anything else that Markdown has stays as it was written.
    """
    pieces, end = [], 0
    for part in _PART.finditer(value):
        pieces.append(text(value[end : part.start()]))
        found = {name: given for name, given in part.groupdict().items() if given is not None}
        pieces.append(_piece(found))
        end = part.end()
    return "".join(pieces) + text(value[end:])


def _piece(found: dict[str, str]) -> str:
    if address := found.get("target") or found.get("address"):
        label = inline_code(found.get("label", address))
        return f'<a href="{text(address)}" rel="noopener nofollow">{label}</a>'
    ((kind, given),) = found.items()
    tag = {"code": "code", "strong": "strong", "em": "em", "em_": "em"}.get(kind)
    if tag is None:
        return text(given)
    return f"<{tag}>{text(given) if tag == 'code' else inline_code(given)}</{tag}>"


def inline_code(value: str) -> str:
    """Escaped text in which `code` alone works."""
    pieces = re.split(r"`([^`]+)`", value)
    return "".join(f"<code>{text(p)}</code>" if n % 2 else text(p) for n, p in enumerate(pieces))


def blocks(value: str) -> str:
    """Paragraphs, headings, lists and fenced code of Markdown, with what `inline` knows in them."""
    made: list[str] = []
    end = 0
    for fenced in _FENCED.finditer(value):
        made += [_prose(value[end : fenced.start()]), _code(fenced["code"])]
        end = fenced.end()
    return "".join([*made, _prose(value[end:])])


def _code(value: str) -> str:
    # On one line: for Markdown, an empty line would end the block.
    return f"<pre><code>{'&#10;'.join(map(text, value.splitlines()))}</code></pre>"


def _prose(value: str) -> str:
    made: list[str] = []
    for piece in filter(None, (" ".join(p.split()) for p in _BREAK.split(value))):
        if heading_ := _HEADING.match(piece):
            made.append(f"<p><strong>{inline_code(piece[heading_.end() :])}</strong></p>")
        elif item := _ITEM.match(piece):
            kind = "ul" if piece[0] in "-*+" else "ol"
            shown = f"<li>{inline(piece[item.end() :])}</li></{kind}>"
            if made and made[-1].endswith(f"</{kind}>"):
                made[-1] = made[-1].removesuffix(f"</{kind}>") + shown
            else:
                made.append(f"<{kind}>{shown}")
        else:
            made.append(f"<p>{inline(piece)}</p>")
    return "".join(made)


def sentence(value: str) -> str:
    """A text of the ledger, which may begin in lower case, as a sentence begins."""
    return value[:1].upper() + value[1:]


def clip(value: str, length: int) -> str:
    """At most `length` characters, cut between words."""
    if len(value) <= length:
        return value
    cut = value[: length - 1]
    return (cut.rpartition(" ")[0] or cut) + "…"


def slug(value: str) -> str:
    """A text as an anchor: lower case, with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")


def heading(value: str) -> str:
    """Plain text as Markdown, with every special character escaped."""
    return re.sub(r"([^\w\s])|_", r"\\\g<0>", _CONTROL.sub("", value))
