"""A list of requirements, tools/locks/*.in: one per line, sorted, with comments.

An edit changes the one line that it is about; comments, order and line ends stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tools.common.errors import ToolError


@dataclass(frozen=True)
class Line:
    """A line of a requirements file."""

    text: str  # with its end
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
    """Raises ToolError for a line that is no requirement."""
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        content = line.split(" #")[0].strip()
        if not content or content.startswith(("#", "-")):
            lines.append(Line(line))
            continue
        try:
            lines.append(Line(line, Requirement(content)))
        except InvalidRequirement as error:
            said = str(error).splitlines()[0]
            raise ToolError(f"{path}:{number}: is no requirement: {said}") from error
    return lines


def requirement_of(text: str) -> Requirement:
    """What a user asks for: a name, with extras, versions and a marker. Raises ToolError."""
    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        said = str(error).splitlines()[0]
        raise ToolError(
            f"{text!r} is no requirement ({said}): write NAME, or NAME and versions: 'rich>=14'"
        ) from error
    if found.url:
        raise ToolError(
            f"{text!r} names a URL: requirements come from a package index, by name and version"
        )
    return found


def find(lines: list[Line], name: str) -> Line | None:
    """The line that asks for a distribution."""
    wanted = canonicalize_name(name)
    return next((line for line in lines if line.name == wanted), None)


def with_requirement(lines: list[Line], requirement: Requirement) -> str:
    """The text with one more requirement, in its place by name in the last paragraph of them."""
    end = "\r\n" if any(line.text.endswith("\r\n") for line in lines) else "\n"
    texts = [line.text for line in lines]
    if texts and not texts[-1].endswith("\n"):
        texts[-1] += end
    at = _place(lines, canonicalize_name(requirement.name))
    texts.insert(at, f"{requirement}{end}")
    return "".join(texts)


def _place(lines: list[Line], name: str) -> int:
    """The index to insert before."""
    asked = [index for index, line in enumerate(lines) if line.requirement]
    if not asked:
        return len(lines)
    start = asked[-1]
    while start > 0 and lines[start - 1].text.strip():
        start -= 1
    for index in (i for i in asked if i >= start):
        if lines[index].name > name:
            above = index
            while above > start and lines[above - 1].is_comment:
                above -= 1
            # A comment belongs to the line below it, but at a paragraph's top to the paragraph.
            return index if above == start else above
    return asked[-1] + 1


def without_requirement(lines: list[Line], name: str) -> str:
    """The text without the line that asks for a distribution."""
    wanted = canonicalize_name(name)
    return "".join(line.text for line in lines if line.name != wanted)
