"""What a variant's files import of third parties, held against the lock of its bundle."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from packaging.utils import canonicalize_name

from tools.bundle.lock import Lock
from tools.common.errors import ToolError


@dataclass(frozen=True, order=True)
class Import:
    """The file `path` imports from the distribution `requirement`, which has the module."""

    path: str
    requirement: str
    module: str

    @classmethod
    def parse(cls, text: str) -> Import:
        """Reads `REQUIREMENT:MODULE:PATH`. Raises ToolError for any other form."""
        requirement, _, rest = text.partition(":")
        module, _, path = rest.partition(":")
        if not (requirement and module and path):
            raise ToolError(f"--import={text}: write REQUIREMENT:MODULE:PATH")
        return cls(path, requirement, module)


def check(lock: Lock, imports: Iterable[Import], root: Path) -> None:
    """Whether the lock has what the files below `root` import.

    Raises:
        ToolError: it lacks a distribution; a line for each file that imports it.
    """
    modules: dict[tuple[str, str], set[str]] = {}
    for each in imports:
        if canonicalize_name(each.requirement) not in lock.distributions:
            modules.setdefault((each.path, each.requirement), set()).add(each.module)
    listing = PurePath(lock.name).with_suffix(".in")
    faults = [
        f"{path}{_place(root / path, names)} needs {requirement}, which {listing} lacks: "
        f"./pants run locks -- add {requirement}"
        for (path, requirement), names in sorted(modules.items())
    ]
    if faults:
        raise ToolError("\n".join(faults))


def _place(path: Path, modules: Collection[str]) -> str:
    """`:12: import yaml:`; nothing where the file is not at hand or imports none of them."""
    try:
        found = first_import(path.read_text("utf-8"), modules)
    except (OSError, ValueError):
        return ""
    return f":{found[0]}: {found[1]}:" if found else ""


def first_import(text: str, modules: Collection[str]) -> tuple[int, str] | None:
    """The line, from 1, and the text of the first statement that imports of any of the modules."""
    try:
        tree = ast.parse(text)
    except (ValueError, SyntaxError):
        return None
    numbers = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and any(name == m or name.startswith(f"{m}.") for name in _named(node) for m in modules)
    ]
    return (min(numbers), text.splitlines()[min(numbers) - 1].strip()) if numbers else None


def loaded(text: str) -> set[str]:
    """Top-level names of what a module imports as it is loaded itself; none if it can't be read."""
    try:
        body = ast.parse(text).body
    except (ValueError, SyntaxError):
        return set()
    nodes = (node for node in body if isinstance(node, (ast.Import, ast.ImportFrom)))
    return {name.partition(".")[0] for node in nodes for name in _named(node)}


def _named(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The modules that a statement may import: of `from a import b`, a and a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif not node.level and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
