"""What of an origin's changes a copy has, judged by where the origin stands now.

A commit of the origin is history: a later one may have changed its lines again, or taken them back.
So a file has it all if merging everything since the copy was synced into it changes nothing; and a
hunk is there if all that became of its lines is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tools.common.files import Tree
from tools.common.names import Rename
from tools.lifecycle import merge
from tools.lifecycle.merge import PRESENT, Hunk

Names = tuple[str | None, str | None]
"""A file's path when the copy was synced, and now; None where there was, or is, none."""


def trace(
    commits: Iterable[tuple[str, Iterable[Names]]], now: Tree
) -> dict[tuple[str, Names], Names]:
    """For each (commit, (old path, new path)) of a history, the same file's paths before and now.

    Args:
        commits: each commit, oldest first, with the old and new path of each file it changed.
        now: the files after the last one.
    """
    born: dict[str, str | None] = {}  # by the path that a file has so far: its path at first
    steps: list[tuple[str, Names, str | None, int]] = []
    files: dict[str, int] = {}  # by the path so far: a number for the file
    for commit, changed in commits:
        for old, new in changed:
            number = files.pop(old, len(steps)) if old else len(steps)
            first = born.pop(old, old) if old else None
            if new:
                files[new], born[new] = number, first
            steps.append((commit, (old, new), first, number))
    last = {number: path for path, number in files.items()}
    found: dict[tuple[str, Names], Names] = {}
    for commit, (old, new), first, number in steps:
        path = last.get(number) or new or old
        found[commit, (old, new)] = first, path if path in now else None
    return found


@dataclass(frozen=True)
class Settled:
    """The origin as it was when the copy was synced, and as it is now; and the copy's names."""

    base: Tree
    now: Tree
    rename: Rename
    names: Mapping[tuple[str, Names], Names] = field(default_factory=dict)

    def has_file(self, copy: Tree, names: Names, then: Names) -> bool:
        """Whether the copy lacks nothing of what became of a file since.

        Args:
            copy: the copy's files.
            names: the origin's file's path when the copy was synced, and now.
            then: its path before and after the commit that is judged.
        """
        ours, base, now = self._contents(copy, names)
        if now is None:  # it is gone, though under way it may have had another path
            return not any(path in copy for path in then if path)
        if ours is None:
            return False
        if ours == now:
            return True
        if base is None or not merge.is_text(ours, base, now):
            return False
        merged, conflicts = merge.merge(ours, base, now)
        return not conflicts and merged == ours

    def has_mode(self, copy: Tree, names: Names) -> bool:
        """Whether the copy's file has the mode of the origin's now."""
        path = next((path for path in reversed(names) if path and path in copy), None)
        now = self.now.get(names[1] or "")
        return bool(path and now and copy[path].mode == now.mode)

    def has_path(self, copy: Tree, names: Names) -> bool:
        """Whether the copy's file has the path of the origin's now, if there is one."""
        return names[1] in copy or (names[1] is None and names[0] not in copy)

    def has_hunk(self, copy: Tree, names: Names, change: tuple[bytes, bytes], hunk: Hunk) -> bool:
        """Whether the copy has all that became of a hunk of the `change` from one text to another.

        Either its lines are now the origin's, or merging what became of them changes nothing.
        """
        before, after = change
        ours, base, now = self._contents(copy, names)
        if ours is None or base is None or now is None or not merge.is_text(ours, base, now, after):
            return False
        edits = [
            _follow(after, now, c, d)
            for tag, _, _, c, d in _opcodes(before, after)
            if tag != "equal" and hunk.c <= c and d <= hunk.d
        ]
        if all(_agrees(now, ours, start, end) for start, end in edits):
            return True
        start, end = _follow(after, now, hunk.c, hunk.d)
        became = [h for h in merge.hunks(base, now) if h.c < end and start < h.d]
        return all(merge.judge(ours, base, now, h) == PRESENT for h in became)

    def _contents(
        self, copy: Tree, names: Names
    ) -> tuple[bytes | None, bytes | None, bytes | None]:
        """(the copy's file as the origin's, the origin's when synced, the origin's now)."""
        first, last = names
        base, now = self.base.get(first or ""), self.now.get(last or "")
        path = next((path for path in (last, first) if path and path in copy), None)
        ours = self.rename.undone().loose(path, copy[path].content) if path else None
        return ours, base.content if base else None, now.content if now else None


@lru_cache(maxsize=1024)
def _opcodes(before: bytes, after: bytes) -> tuple[tuple[str, int, int, int, int], ...]:
    lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return tuple(difflib.SequenceMatcher(None, *lines, autojunk=False).get_opcodes())


def _follow(before: bytes, after: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the lines [start, end) of a text are in a later one."""
    places = list(_places(_opcodes(before, after), start, end))
    return (min(a for a, _ in places), max(b for _, b in places)) if places else (0, 0)


def _agrees(now: bytes, ours: bytes, start: int, end: int) -> bool:
    """Whether the lines [start, end) of a text, and those around them, are in another in a row."""
    return any(
        tag == "equal" and a <= max(0, start - 1) and min(end + 1, _count(now)) <= b
        for tag, a, b, _, _ in _opcodes(now, ours)
    )


@lru_cache(maxsize=1024)
def _count(text: bytes) -> int:
    return len(text.splitlines())


def _places(
    opcodes: Iterable[tuple[str, int, int, int, int]], start: int, end: int
) -> Iterator[tuple[int, int]]:
    for tag, a, b, c, d in opcodes:
        if b < start or end < a:
            continue
        if tag == "equal":
            if a < end and start < b:
                yield c + max(0, start - a), d - max(0, b - end)
        else:
            yield c, d
