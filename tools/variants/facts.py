"""How large a variant is, and how many lines separate it from its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.diff.changed_lines import changed_lines
from tools.diff.histogram import Counts
from tools.diff.plumbing import is_plumbing


@dataclass(frozen=True)
class Facts:
    """Of one variant's Python files; the last two are None where there is nothing to compare."""

    files: int
    lines: int
    changed: Counts | None
    own_plumbing: int | None
    """Files of plumbing and planning that are not the origin's, byte for byte."""


def compare(
    variant: Mapping[str, bytes], origin: Mapping[str, bytes] | None, names: tuple[str, str]
) -> Facts:
    """Facts of a variant's files against its origin's; a copy's own name is not a change.

    Args:
        variant: contents by path within the directory.
        origin: the same of the origin's directory.
        names: the directories of variant and origin, from the workspace's root.
    """
    lines = sum(len(content.splitlines()) for content in variant.values())
    if origin is None:
        return Facts(len(variant), lines, None, None)
    directory, source = names
    changed = changed_lines(origin, variant, (source, directory))
    return Facts(len(variant), lines, changed, own_plumbing(variant, origin))


def own_plumbing(variant: Mapping[str, bytes], origin: Mapping[str, bytes]) -> int | None:
    """Files of plumbing and planning that only one of both has, or that differ.

    None where the variant has no plumbing: a speedrun of one file.
    """
    if not any(map(is_plumbing, variant)):
        return None
    paths = {path for path in (*variant, *origin) if is_plumbing(path)}
    return sum(variant.get(path) != origin.get(path) for path in paths)
