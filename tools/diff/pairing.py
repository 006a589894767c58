"""Pairs the files of the old tree with those of the new one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tools.diff.histogram import Budget
from tools.diff.text import MAX_BYTES, is_binary, split

# The share of equal lines from which a removed and an added file count as a renamed one.
ALIKE = 0.5


def pairs(
    old: Mapping[str, bytes], new: Mapping[str, bytes], budget: Budget
) -> list[tuple[str | None, str | None]]:
    """Pairs of paths: equal paths first, then equal contents, then similar contents.

    Each path is in exactly one pair, alone if the file was added or removed. The pairs are sorted
    by new path, removed files by old path.
    """
    partners: dict[str, str] = {path: path for path in new if path in old}
    removed = [path for path in sorted(old) if path not in new]
    added = [path for path in sorted(new) if path not in old]
    for path in list(added):
        twin = next((old_path for old_path in removed if old[old_path] == new[path] != b""), None)
        if twin is not None:
            partners[path] = twin
            removed.remove(twin)
            added.remove(path)
    lines = {(side, path): _lines(tree[path]) for side, tree, paths in (
        (0, old, removed), (1, new, added)) for path in paths}  # fmt: skip
    candidates = []
    for path in added:
        for old_path in removed:
            likeness = _likeness(lines[0, old_path], lines[1, path], budget)
            if likeness >= ALIKE:
                candidates.append((-likeness, old_path, path))
    for _, old_path, path in sorted(candidates):
        if path not in partners and old_path in removed:
            partners[path] = old_path
            removed.remove(old_path)
    result = [(partners.get(path), path) for path in new] + [(path, None) for path in removed]
    return sorted(result, key=lambda pair: (pair[1] or pair[0] or "", pair[1] is None))


def _lines(content: bytes) -> Counter[str]:
    if is_binary(content) or len(content) > MAX_BYTES:
        return Counter()
    return Counter(line.strip() for line in split(content) if line.strip())


def _likeness(old: Counter[str], new: Counter[str], budget: Budget) -> float:
    sizes = old.total(), new.total()
    if not all(sizes) or 2 * min(sizes) / sum(sizes) < ALIKE or not budget.take(min(sizes)):
        return 0.0
    return 2 * (old & new).total() / sum(sizes)
