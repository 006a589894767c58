"""The rule for which files of a variant's directory its runs read. Imports nothing of Pants."""

from __future__ import annotations

import posixpath

TEST_PREFIX, TEST_SUFFIX = "test_", "_test.py"


def is_test(path: str) -> bool:
    name = posixpath.basename(path)
    return name.endswith(".py") and (name.startswith(TEST_PREFIX) or name.endswith(TEST_SUFFIX))


def is_support(path: str) -> bool:
    """Whether only tests use the file: a test or a conftest.py."""
    return is_test(path) or posixpath.basename(path) == "conftest.py"


def is_source(path: str) -> bool:
    """Whether a run may read the file at this path within a variant's directory.

    All files count but hidden ones, __pycache__, BUILD files and tests. A run's record
    (plumbing/sources.py of each variant) and the tools (tools/common/sources.py) use the same rule.
    """
    if any(part.startswith(".") or part == "__pycache__" for part in path.split("/")):
        return False
    name = posixpath.basename(path)
    return not (is_support(path) or name == "BUILD" or name.startswith("BUILD."))
