"""The rule for which files of a variant's directory its runs read."""

from __future__ import annotations


def is_source(path: str) -> bool:
    """Whether a run may read the file at this path within a variant's directory.

    All files count but hidden ones, __pycache__, BUILD files and tests. A run's record
    (plumbing/sources.py of each variant) and the build (sources.py of the plugin) use the same
    rule, and can import neither this one nor each other's.
    """
    *folders, name = path.split("/")
    if any(part.startswith(".") or part == "__pycache__" for part in (*folders, name)):
        return False
    if name == "BUILD" or name.startswith("BUILD."):
        return False
    is_test = name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
    return not (is_test and name.endswith(".py"))
