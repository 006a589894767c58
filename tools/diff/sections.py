"""The order in which a report shows files: what a change is about first, what copies share last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from tools.diff.model import FileDiff
from tools.diff.plumbing import is_plumbing

TEMPLATE = ("model.py", "train.py", "launch.py")
GROUPS = ("Template", "Other files", "Tests", "Plumbing and planning")
# Groups whose files begin closed: a reader who wants the idea need not pass them.
CLOSED = ("Tests", "Plumbing and planning")


def group_of(path: str) -> str:
    """The group of GROUPS that a path within a variant's directory belongs to."""
    if path in TEMPLATE:
        return "Template"
    if is_plumbing(path):
        return "Plumbing and planning"
    parts = PurePosixPath(path).parts
    name = parts[-1] if parts else ""
    if name.startswith("test_") or name == "conftest.py" or "tests" in parts[:-1]:
        return "Tests"
    return "Other files"


def grouped(files: Sequence[FileDiff], numbers: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The groups that have any of the numbered files, each with its files in order."""
    by_group: dict[str, list[int]] = {name: [] for name in GROUPS}
    for number in numbers:
        by_group[group_of(files[number].path)].append(number)
    for numbers_of_group in by_group.values():
        numbers_of_group.sort(key=lambda number: _place(files[number].path))
    return [(name, members) for name, members in by_group.items() if members]


def _place(path: str) -> tuple[int, str]:
    return (TEMPLATE.index(path) if path in TEMPLATE else len(TEMPLATE)), path
