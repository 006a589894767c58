"""Finds files that Python imports in place of a module beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

# What the import system takes for a module called NAME, the first that is there: a package, a
# compiled extension, a source. https://docs.python.org/3/reference/import.html
_COMPILED = (".so", ".pyd")
_PACKAGE = (".py", ".pyc", *_COMPILED)


def shadowed(paths: Iterable[str]) -> dict[str, str]:
    """Sources that `import` does not read, by the path of what it reads in their place."""
    known = set(paths)
    found = {}
    for path in sorted(known):
        file = PurePosixPath(path)
        module = file.with_name(file.name.partition(".")[0])
        sources = [f"{module}.py"] if file.suffix in _COMPILED else []
        if module.name == "__init__" and file.suffix in _PACKAGE and file.parent.name:
            sources.append(f"{file.parent}.py")
        if hidden := [source for source in sources if source in known]:
            found[path] = hidden[0]
    return found
