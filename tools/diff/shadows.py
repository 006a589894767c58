"""Finds files that Python imports in place of a module beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

# What the import system takes for a module called NAME, the first that is there: a package, a
# compiled extension, a source. https://docs.python.org/3/reference/import.html
_PACKAGE = "__init__."
_COMPILED = (".so", ".pyd")


def shadowed(paths: Iterable[str]) -> dict[str, str]:
    """Sources that `import` does not read, by the path of what it reads in their place."""
    known = set(paths)
    found = {}
    for path in sorted(known):
        file = PurePosixPath(path)
        if file.name.startswith(_PACKAGE) and file.parent.name:
            module = file.parent
        elif file.suffix in _COMPILED:
            module = file.with_name(file.name.partition(".")[0])
        else:
            continue
        if (source := f"{module}.py") in known:
            found[path] = source
    return found
