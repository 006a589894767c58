"""What a program's `--help` says, without what differs between Pythons, terminals and parsers.

Read are the help texts of argparse (CPython 3.12 to 3.14) and of tyro, which draws boxes. Lines are
joined again, so that neither the columns nor the place of a line break matter; `-o X, --opt X`
becomes `-o, --opt X`, as 3.13 writes it; and the default that argparse appends to `--x, --no-x`
before 3.13 is left out.
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
    """An option, an argument or a command, and what is said of it."""

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
    """`usage` is what follows the program's name; None where `prose` is all, as it was printed."""

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
    """One line; a word that was broken after its hyphen is whole again."""
    return re.sub(r"(?<=\w-)\n(?=\w)", "", "\n".join(lines)).replace("\n", " ").strip()


def parse(text: str) -> Help:
    """Reads what argparse or tyro prints for --help."""
    boxed = "╭" in text
    lines = [_unboxed(line) for line in text.rstrip().splitlines()]
    end = lines.index("") if "" in lines else len(lines)
    usage = " ".join(" ".join(lines[:end]).split())
    _, known, usage = usage.partition(" [-h]") if usage.startswith("usage:") else ("", "", "")
    if not known:
        return Help(None, (text.strip(),))
    prose: list[list[str]] = [[]]
    sections: list[_Open] = []
    inside = False
    for at, line in enumerate(lines[end:], end):
        if line and not line.startswith(" "):
            inside = line.endswith(":") and lines[at + 1 : at + 2] != [""] and at + 1 < len(lines)
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
        tuple(s for one in sections if (s := _closed(one, boxed)).entries),
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
    """As it was where it has a layout of its own, which an indented line shows."""
    return "\n".join(lines) if any(line.startswith(" ") for line in lines) else join(lines)


def _commands(usage: str, sections: list[_Open]) -> tuple[Entry, ...]:
    """Those in a `{a,b} ...` of the usage, and those that a section lists, with what it says."""
    listed = {name: join(texts) for one in sections for name, *texts in one.commands}
    named = [name for found in _COMMANDS.findall(usage) for name in found.split(",")]
    return tuple(Entry(name, listed.get(name, "")) for name in dict.fromkeys([*named, *listed]))


def _closed(section: _Open, boxed: bool) -> Section:
    """Without `--help`, which every program has, and without the bare names of commands."""
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
