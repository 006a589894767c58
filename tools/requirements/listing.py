"""Reads and edits a list of requirements, tools/locks/*.in: one per line, sorted, with comments.

An edit changes only its own line; comments, order and line ends stay.
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tools.common.errors import ToolError


@dataclass(frozen=True)
class Line:
    """A line of a requirements file."""

    text: str  # with its line end
    requirement: Requirement | None = None  # None: a comment, a blank line or an option

    @property
    def name(self) -> str:
        """The distribution's normalized name; empty for a line without a requirement."""
        return canonicalize_name(self.requirement.name) if self.requirement else ""

    @property
    def is_comment(self) -> bool:
        """Whether the line is a comment."""
        return self.text.lstrip().startswith("#")


def parse(text: str, path: str) -> list[Line]:
    """The lines of a requirements file. Raises ToolError for a line that is no requirement."""
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        content = line.split(" #")[0].strip()
        if not content or content.startswith(("#", "-")):
            lines.append(Line(line))
            continue
        try:
            lines.append(Line(line, Requirement(content)))
        except InvalidRequirement as error:
            message = str(error).splitlines()[0]
            raise ToolError(f"{path}:{number}: is no requirement: {message}") from error
    return lines


def requirement_of(text: str) -> Requirement:
    """A user's requirement: a name, with extras, versions and a marker. Raises ToolError if bad."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        message = str(error).splitlines()[0]
        raise ToolError(
            f"{text!r} is no requirement ({message}): write NAME, or NAME and versions: 'rich>=14'"
        ) from error
    if requirement.url:
        raise ToolError(
            f"{text!r} names a URL: requirements come from a package index, by name and version"
        )
    return requirement


def find(lines: list[Line], name: str) -> Line | None:
    """The line that asks for a distribution; None if there is none."""
    normalized = canonicalize_name(name)
    return next((line for line in lines if line.name == normalized), None)


def with_requirement(lines: list[Line], requirement: Requirement) -> str:
    """The text with one more requirement, sorted into the last paragraph of requirements."""
    end = "\r\n" if any(line.text.endswith("\r\n") for line in lines) else "\n"
    texts = [line.text for line in lines]
    if texts and not texts[-1].endswith("\n"):
        texts[-1] += end
    index = _place(lines, canonicalize_name(requirement.name))
    texts.insert(index, f"{requirement}{end}")
    return "".join(texts)


def _place(lines: list[Line], name: str) -> int:
    """The index of the line before which to insert."""
    indices = [index for index, line in enumerate(lines) if line.requirement]
    if not indices:
        return len(lines)
    start = indices[-1]
    while start > 0 and lines[start - 1].text.strip():
        start -= 1
    for index in (i for i in indices if i >= start):
        if lines[index].name > name:
            above = index
            while above > start and lines[above - 1].is_comment:
                above -= 1
            # A comment belongs to the line below it, but at a paragraph's top to the paragraph.
            return index if above == start else above
    return indices[-1] + 1


def without_requirement(lines: list[Line], name: str) -> str:
    """The text without the line that asks for a distribution."""
    normalized = canonicalize_name(name)
    return "".join(line.text for line in lines if line.name != normalized)
