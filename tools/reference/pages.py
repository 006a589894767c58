"""The reference pages as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.reference.help_text import Section
from tools.reference.pants_help import PantsHelp, Scope
from tools.reference.programs import Said

WRITE = "./pants run tools/reference:write"
GOALS, TARGETS, TOOLS = (f"docs/reference/{name}.md" for name in ("goals", "targets", "tools"))
_NOTICE = f"<!-- Written by `{WRITE}` from the code's own help: edits are lost. -->"
_CODE = re.compile(r"(`[^`]*`)")
# What would begin something in Markdown, where a help text means the character itself.
_SPECIAL = re.compile(r"([\\*<>|\[\]~#])|(?<!\w)(_)|(_)(?!\w)")


def is_stale(path: Path, text: str) -> bool:
    """Whether a page on disk differs from its text."""
    return not path.is_file() or path.read_bytes() != text.encode()


def remedy(name: str) -> str:
    """The line that says how a stale page is written anew."""
    return f"{name} is stale: run {WRITE}"


def inline(text: str) -> str:
    """A help text on one line: its `code` stays code, the rest is plain."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(
        part.replace("|", r"\|") if part[:1] == "`" == part[-1:] else _SPECIAL.sub(r"\\\g<0>", part)
        for part in parts
    )


def code(text: str) -> str:
    """A text as code in a table; empty stays empty."""
    return f"`{text}`".replace("|", r"\|") if text else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _page(*blocks: str) -> str:
    return "\n\n".join((_NOTICE, *(block for block in blocks if block))) + "\n"


# -- goals and options ----------------------------------------------------------------------------


def goals_page(said: PantsHelp) -> str:
    """The page of goals and options."""
    goals = [scope for scope in said.scopes if scope.is_goal]
    others = [scope for scope in said.scopes if not scope.is_goal and scope.options]
    return _page(
        "# Goals and options",
        "What the workspace adds to Pants. `./pants help GOAL` prints the same; Pants' own goals "
        "are in [its documentation](https://www.pantsbuild.org/v2.17/docs).",
        "An option `--SCOPE-NAME` is also `NAME` in the section `[SCOPE]` of pants.toml, and "
        "`PANTS_SCOPE_NAME` in the environment (capitals, `_` for `-`).",
        *(block for goal in goals for block in _scope(goal)),
        "## Options of other scopes" if others else "",
        *(block for scope in others for block in _scope(scope, "###")),
    )


def _scope(scope: Scope, level: str = "##") -> tuple[str, ...]:
    rows = []
    for option in scope.options:
        choices = f" One of {', '.join(map(code, option.choices))}." if option.choices else ""
        rows.append((code(option.flag), code(option.default), inline(option.help) + choices))
    table = _table(("option", "default", "what it does"), rows) if rows else ""
    return f"{level} {scope.name}", inline(scope.help), table


# -- targets --------------------------------------------------------------------------------------


def targets_page(said: PantsHelp) -> str:
    """The page of target types."""
    blocks = []
    for target in said.target_types:
        rows = [
            (
                code(field.name),
                code(field.type),
                "required" if field.required else code(field.default),
                # Pants' own fields say pages; the first paragraph says what they are.
                inline(field.help.partition("\n\n")[0]),
            )
            for field in target.fields
        ]
        paragraphs = [inline(part) for part in target.help.split("\n\n")]
        table = _table(("field", "type", "default", "what it sets"), rows)
        blocks += [f"## {target.name}", *paragraphs, table]
    return _page(
        "# Target types",
        "What a BUILD file of the workspace can hold besides Pants' own targets. `./pants help "
        "grug_variant` says more about each field. What a variant is: [variants](variants.md).",
        *blocks,
    )


# -- tools ----------------------------------------------------------------------------------------


def tools_page(said: Sequence[Said]) -> str:
    """The page of command lines."""
    tops = [one for one in said if not one.words]
    rows = [(f"[{code(one.program.ways[0])}](#{anchor(one)})", _summary(one)) for one in tops]
    return _page(
        "# Tools",
        "Every command line of the workspace, as its `--help` prints it. `./pants run` brings the "
        "packages that a tool needs; for `python -m` they must be installed.",
        _table(("begins with", "what it does"), rows),
        *(block for one in said for block in _tool(one)),
    )


def anchor(one: Said) -> str:
    """Of the heading, as Python-Markdown makes it."""
    return re.sub(r"[^\w\s-]", "", _heading(one).lower()).replace(" ", "-")


def _heading(one: Said) -> str:
    return " ".join((one.program.module, *one.words))


def _summary(one: Said) -> str:
    if one.help.usage is None:
        parts = one.help.prose[0].split("\n\n")
        return inline(next((part for part in parts if not part.startswith("usage:")), ""))
    return inline(one.help.prose[0] if one.help.prose else "")


def _tool(one: Said) -> tuple[str, ...]:
    told = one.help
    heading = f"{'###' if one.words else '##'} {_heading(one)}"
    if told.usage is None:
        return heading, _fenced(told.prose[0])
    begin = [" ".join((way, *one.words)) for way in one.program.ways]
    usage = [f"usage: {begin[0]} {told.usage}", *(f"   or: {other} ..." for other in begin[1:])]
    prose = told.prose or (one.summary,) * bool(one.summary)
    rows = [(code(command.name), inline(command.text)) for command in told.commands]
    return (
        heading,
        *(_fenced(text) if "\n" in text else inline(text) for text in prose),
        _fenced("\n".join(usage)),
        _table(("command", "what it does"), rows) if any(text for _, text in rows) else "",
        *(block for section in told.sections for block in _section(section)),
    )


def _section(section: Section) -> tuple[str, ...]:
    usual = section.title in ("options", "positional arguments")
    head = "argument" if section.title == "positional arguments" else "option"
    if not any(entry.text for entry in section.entries):
        return ()  # the usage line shows as much
    rows = [(code(entry.name), inline(entry.text)) for entry in section.entries]
    title = "" if usual else f"**{inline(section.title)}**"
    return title, inline(section.note), _table((head, "what it does"), rows)


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"
