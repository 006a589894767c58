"""Finds identifiers that were renamed throughout, as opposed to replaced by something else.

A substitution counts as a rename if it occurs at least three times, no other one contradicts it,
the old name nearly vanishes, the new one is new, and the sources themselves define both. So
`jax.nn.relu` that became `jax.nn.gelu` is another function, not another name.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tools.diff.align import Side
from tools.diff.python import bound_names
from tools.diff.words import IDENTIFIER

MIN_SEEN = 3
_RESERVED = frozenset({*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"})


def renames(
    replaced: Iterable[tuple[str, str]], sides: Sequence[tuple[Side, Side]]
) -> dict[str, str]:
    """The renames, as {old name: new name}.

    Args:
        replaced: (old, new) replacements of words, over all pairs of lines.
        sides: all pairs of text files, old and new.
    """
    substitutions = Counter(
        (old, new)
        for old, new in replaced
        if IDENTIFIER.fullmatch(old) and IDENTIFIER.fullmatch(new)
    )
    targets: defaultdict[str, set[str]] = defaultdict(set)
    origins: defaultdict[str, set[str]] = defaultdict(set)
    for old, new in substitutions:
        targets[old].add(new)
        origins[new].add(old)
    candidates = {
        old: new
        for (old, new), n in substitutions.items()
        if n >= MIN_SEEN
        and len(targets[old]) == len(origins[new]) == 1
        and not {old, new} & _RESERVED
    }
    if not candidates:
        return {}
    counts, files = _counted(candidates, sides)
    candidates = {
        old: new
        for old, new in candidates.items()
        if 4 * counts[1][old] <= counts[0][old] and 4 * counts[0][new] <= counts[1][new]
    }
    if not candidates:
        return {}
    bound: list[set[str]] = [set(), set()]
    for names, with_names in zip(bound, files, strict=True):
        for side in with_names:
            names |= bound_names(side.tree) if side.tree else set()
    return {
        old: new
        for old, new in sorted(candidates.items())
        if old in bound[0] - bound[1] and new in bound[1] - bound[0]
    }


def _counted(
    candidates: dict[str, str], sides: Sequence[tuple[Side, Side]]
) -> tuple[tuple[Counter[str], Counter[str]], tuple[list[Side], list[Side]]]:
    """The number of occurrences of the names in old and new files, and the files with any."""
    names = sorted({*candidates, *candidates.values()})
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, names)) + r")\b")
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    files: tuple[list[Side], list[Side]] = ([], [])
    for pair in sides:
        for side, count, with_names in zip(pair, counts, files, strict=True):
            occurrences = pattern.findall("".join(side.plain))
            count.update(occurrences)
            if occurrences:
                with_names.append(side)
    return counts, files


def rename(lines: Sequence[str], names: dict[str, str]) -> tuple[str, ...]:
    """The lines with every old name replaced by its new one."""
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(names))) + r")\b")
    return tuple(pattern.sub(lambda match: names[match[0]], line) for line in lines)
