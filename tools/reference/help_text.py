"""Parses the output of `--help`, without what differs between Pythons, terminals and parsers.

It reads the help texts of argparse (CPython 3.12 to 3.14) and of tyro, which draws boxes. Lines are
joined, so that neither columns nor line breaks matter; `-o X, --opt X` becomes `-o, --opt X`, as
3.13 writes it; and the default that argparse before 3.13 appends to `--x, --no-x` is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_RULE = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
_BOX_TOP = re.compile(r"╭─ (.*?) ─*╮")
_CHOICES = re.compile(r"\{[\w,.-]+\}")
_COMMANDS = re.compile(r"(?<!\S)\{([\w,.-]+)\} \.\.\.")
_SHORT_AND_LONG = re.compile(r"(-\w) (\S.*), (--[\w-]+ \2)")
_ON_AND_OFF = re.compile(r"(?:.*, )?--(\S+), --no-\1")
_DEFAULT = re.compile(r" *\(default: [^()]*\)$")


@dataclass(frozen=True)
class Entry:
    """An option, an argument or a command, with its help."""

    name: str
    text: str


@dataclass(frozen=True)
class Section:
    """A titled part of a help text: a note and its entries."""

    title: str
    note: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Help:
    """A parsed help text.

    `usage` is the usage without the program's name, or None if the text could not be parsed: then
    `prose` holds all of it, as printed.
    """

    usage: str | None
    prose: tuple[str, ...]
    sections: tuple[Section, ...] = ()
    commands: tuple[Entry, ...] = ()


@dataclass
class _Open:
    """A section that is being read."""

    title: str
    note: str = ""
    entries: list[list[str]] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    gap: bool = False

    def add(self, line: str) -> None:
        indent, content = len(line) - len(line.lstrip()), line.strip()
        if not content or set(content) == {_RULE}:
            self.gap = True
        elif indent == 2:
            if self.gap and not self.commands:  # a blank line ends what a group says of itself
                self.note = join([part for entry in self.entries for part in entry])
                self.entries = []
            self.entries.append(re.split(r" {2,}", content, maxsplit=1))
            self.gap = False
        elif indent == 4:
            self.commands.append(re.split(r" {2,}", content.removeprefix("• "), maxsplit=1))
        else:
            (self.commands or self.entries)[-1].append(content)


def join(lines: list[str]) -> str:
    """The lines as one; a word broken after its hyphen is joined."""
    return re.sub(r"(?<=\w-)\n(?=\w)", "", "\n".join(lines)).replace("\n", " ").strip()


def parse(text: str) -> Help:
    """Reads what argparse or tyro prints for --help."""
    boxed = "╭" in text
    lines = [_unboxed(line) for line in text.rstrip().splitlines()]
    end = lines.index("") if "" in lines else len(lines)
    usage = " ".join(" ".join(lines[:end]).split())
    _, help_flag, usage = usage.partition(" [-h]") if usage.startswith("usage:") else ("", "", "")
    if not help_flag:
        return Help(None, (text.strip(),))
    prose: list[list[str]] = [[]]
    sections: list[_Open] = []
    inside = False
    for number, line in enumerate(lines[end:], end):
        if line and not line.startswith(" "):
            inside = (
                line.endswith(":")
                and lines[number + 1 : number + 2] != [""]
                and number + 1 < len(lines)
            )
            if inside:
                sections.append(_Open(line[:-1]))
                continue
        if inside:
            sections[-1].add(line)
        elif line:
            prose[-1].append(line)
        elif prose[-1]:
            prose.append([])
    return Help(
        usage.strip(),
        tuple(_paragraph(part) for part in prose if part),
        tuple(s for section in sections if (s := _closed(section, boxed)).entries),
        _commands(usage, sections),
    )


def _unboxed(line: str) -> str:
    if top := _BOX_TOP.fullmatch(line):
        return f"{top[1]}:"
    if line.startswith("╰"):
        return ""
    if line.startswith("│"):
        return " " + line[1:].removesuffix("│").rstrip()
    return line.rstrip()


def _paragraph(lines: list[str]) -> str:
    """A paragraph as one line, or unchanged if an indented line shows that it has a layout."""
    return "\n".join(lines) if any(line.startswith(" ") for line in lines) else join(lines)


def _commands(usage: str, sections: list[_Open]) -> tuple[Entry, ...]:
    """Commands from a `{a,b} ...` of the usage and from the sections, with their help."""
    listed = {name: join(texts) for section in sections for name, *texts in section.commands}
    named = [name for match in _COMMANDS.findall(usage) for name in match.split(",")]
    return tuple(Entry(name, listed.get(name, "")) for name in dict.fromkeys([*named, *listed]))


def _closed(section: _Open, boxed: bool) -> Section:
    """A finished section, without `--help`, which every program has, and bare names of commands."""
    entries = []
    for name, *texts in section.entries:
        text = join(texts)
        bare = not text and (
            _CHOICES.fullmatch(name) or (section.commands and name == "(required)")
        )
        if bare or name == "-h, --help":
            continue
        if not boxed and _ON_AND_OFF.fullmatch(name):
            text = _DEFAULT.sub("", text)
        entries.append(Entry(_SHORT_AND_LONG.sub(r"\1, \3", name), text))
    return Section(section.title, section.note, tuple(entries))
