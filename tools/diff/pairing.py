"""Which file of the old tree a file of the new one is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tools.diff.histogram import Budget
from tools.diff.text import MAX_BYTES, is_binary, split

# Shares of equal lines from which a removed and an added file count as one that was renamed.
ALIKE = 0.5


def pairs(
    old: Mapping[str, bytes], new: Mapping[str, bytes], budget: Budget
) -> list[tuple[str | None, str | None]]:
    """Paths of both trees, each in one pair: equal paths, then equal contents, then alike ones.

    In the order of their new paths, removed files by their old ones.
    """
    found: dict[str, str] = {path: path for path in new if path in old}
    gone = [path for path in sorted(old) if path not in new]
    come = [path for path in sorted(new) if path not in old]
    for path in list(come):
        same = next((other for other in gone if old[other] == new[path] != b""), None)
        if same is not None:
            found[path] = same
            gone.remove(same)
            come.remove(path)
    lines = {(side, path): _lines(tree[path]) for side, tree, paths in (
        (0, old, gone), (1, new, come)) for path in paths}  # fmt: skip
    candidates = []
    for path in come:
        for other in gone:
            likeness = _likeness(lines[0, other], lines[1, path], budget)
            if likeness >= ALIKE:
                candidates.append((-likeness, other, path))
    for _, other, path in sorted(candidates):
        if path not in found and other in gone:
            found[path] = other
            gone.remove(other)
    every = [(found.get(path), path) for path in new] + [(path, None) for path in gone]
    return sorted(every, key=lambda pair: (pair[1] or pair[0] or "", pair[1] is None))


def _lines(content: bytes) -> Counter[str]:
    if is_binary(content) or len(content) > MAX_BYTES:
        return Counter()
    return Counter(line.strip() for line in split(content) if line.strip())


def _likeness(old: Counter[str], new: Counter[str], budget: Budget) -> float:
    sizes = old.total(), new.total()
    if not all(sizes) or 2 * min(sizes) / sum(sizes) < ALIKE or not budget.take(min(sizes)):
        return 0.0
    return 2 * (old & new).total() / sum(sizes)
