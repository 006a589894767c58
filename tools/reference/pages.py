"""The reference pages as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.reference.help_text import Section
from tools.reference.pants_help import PantsHelp, Scope
from tools.reference.programs import ProgramHelp

WRITE = "./pants run tools/reference:write"
GOALS, TARGETS, TOOLS = (f"docs/reference/{name}.md" for name in ("goals", "targets", "tools"))
_NOTICE = f"<!-- Written by `{WRITE}` from the code's own help: edits are lost. -->"
_CODE = re.compile(r"(`[^`]*`)")
# Characters with a meaning in Markdown that a help text does not intend.
_SPECIAL = re.compile(r"([\\*<>|\[\]~#])|(?<!\w)(_)|(_)(?!\w)")


def is_stale(path: Path, text: str) -> bool:
    """Whether a page on disk differs from its text."""
    return not path.is_file() or path.read_bytes() != text.encode()


def remedy(name: str) -> str:
    """The line that says how to write a stale page again."""
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


def goals_page(pants: PantsHelp) -> str:
    """The page of goals and options."""
    goals = [scope for scope in pants.scopes if scope.is_goal]
    other_scopes = [scope for scope in pants.scopes if not scope.is_goal and scope.options]
    return _page(
        "# Goals and options",
        "What the workspace adds to Pants. `./pants help GOAL` prints the same; Pants' own goals "
        "are in [its documentation](https://www.pantsbuild.org/v2.17/docs).",
        "An option `--SCOPE-NAME` is also `NAME` in the section `[SCOPE]` of pants.toml, and "
        "`PANTS_SCOPE_NAME` in the environment (capitals, `_` for `-`).",
        *(block for goal in goals for block in _scope(goal)),
        "## Options of other scopes" if other_scopes else "",
        *(block for scope in other_scopes for block in _scope(scope, "###")),
    )


def _scope(scope: Scope, level: str = "##") -> tuple[str, ...]:
    rows = []
    for option in scope.options:
        choices = f" One of {', '.join(map(code, option.choices))}." if option.choices else ""
        rows.append((code(option.flag), code(option.default), inline(option.help) + choices))
    table = _table(("option", "default", "what it does"), rows) if rows else ""
    return f"{level} {scope.name}", inline(scope.help), table


# -- targets --------------------------------------------------------------------------------------


def targets_page(pants: PantsHelp) -> str:
    """The page of target types."""
    blocks = []
    for target in pants.target_types:
        rows = [
            (
                code(field.name),
                code(field.type),
                "required" if field.required else code(field.default),
                # The help of Pants' own fields fills pages; the first paragraph is enough.
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


def tools_page(programs: Sequence[ProgramHelp]) -> str:
    """The page of command lines."""
    tops = [page for page in programs if not page.words]
    rows = [(f"[{code(page.program.ways[0])}](#{anchor(page)})", _summary(page)) for page in tops]
    return _page(
        "# Tools",
        "Every command line of the workspace, as its `--help` prints it. `./pants run` brings the "
        "packages that a tool needs; for `python -m` they must be installed.",
        _table(("begins with", "what it does"), rows),
        *(block for page in programs for block in _tool(page)),
    )


def anchor(page: ProgramHelp) -> str:
    """The anchor of a program's heading, as Python-Markdown makes it."""
    return re.sub(r"[^\w\s-]", "", _heading(page).lower()).replace(" ", "-")


def _heading(page: ProgramHelp) -> str:
    return " ".join((page.program.module, *page.words))


def _summary(page: ProgramHelp) -> str:
    if page.help.usage is None:
        parts = page.help.prose[0].split("\n\n")
        return inline(next((part for part in parts if not part.startswith("usage:")), ""))
    return inline(page.help.prose[0] if page.help.prose else "")


def _tool(page: ProgramHelp) -> tuple[str, ...]:
    program_help = page.help
    heading = f"{'###' if page.words else '##'} {_heading(page)}"
    if program_help.usage is None:
        return heading, _fenced(program_help.prose[0])
    begin = [" ".join((way, *page.words)) for way in page.program.ways]
    usage = [
        f"usage: {begin[0]} {program_help.usage}",
        *(f"   or: {more} ..." for more in begin[1:]),
    ]
    prose = program_help.prose or (page.summary,) * bool(page.summary)
    rows = [(code(command.name), inline(command.text)) for command in program_help.commands]
    listed = (
        _table(("command", "what it does"), rows) if any(text for _, text in rows) else "",
        *(block for section in program_help.sections for block in _section(section)),
    )
    # A usage says what the table of options says, and what only our own goals start is not searched
    # for by its options.
    unsearched, searched = (_fenced("\n".join(usage)),), listed
    if begin[0].startswith("python -m"):
        unsearched, searched = (*unsearched, *listed), ()
    return (
        heading,
        *(_fenced(text) if "\n" in text else inline(text) for text in prose),
        "<div data-search-exclude markdown>",
        *unsearched,
        "</div>",
        *searched,
    )


def _section(section: Section) -> tuple[str, ...]:
    is_usual = section.title in ("options", "positional arguments")
    head = "argument" if section.title == "positional arguments" else "option"
    if not any(entry.text for entry in section.entries):
        return ()  # the usage line shows as much
    rows = [(code(entry.name), inline(entry.text)) for entry in section.entries]
    title = "" if is_usual else f"**{inline(section.title)}**"
    return title, inline(section.note), _table((head, "what it does"), rows)


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"
