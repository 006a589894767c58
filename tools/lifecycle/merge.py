"""Three-way merges by git, of whole files and of one hunk alone."""

from __future__ import annotations

import difflib
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from tools.common.errors import ToolError
from tools.common.git import Git

State = Literal["applies cleanly", "conflicts", "already there"]
CLEAN: State = "applies cleanly"
CONFLICT: State = "conflicts"
THERE: State = "already there"
MARKERS = (b"<<<<<<< ", b"||||||| ", b">>>>>>> ")
CONTEXT = 3

Labels = tuple[str, str, str]
_PLAIN: Labels = ("ours", "before", "theirs")


@dataclass(frozen=True)
class Hunk:
    """Lines [a, b) before, counted from 0, became [c, d) after; some context included."""

    a: int
    b: int
    c: int
    d: int


def is_text(*contents: bytes) -> bool:
    """Whether none of the contents has a NUL byte."""
    return not any(b"\0" in content for content in contents)


def has_markers(content: bytes) -> bool:
    """Whether a line begins as git's conflict markers do."""
    return any(line.startswith(MARKERS) for line in content.splitlines())


@lru_cache(maxsize=4096)
def merge(
    ours: bytes, base: bytes, theirs: bytes, labels: Labels = _PLAIN, style: str = ""
) -> tuple[bytes, int]:
    """(the merged file, conflicts left in it).

    Args:
        labels: what the three sides are called at conflicts.
        style: `--diff3` shows the base at conflicts, `--union` keeps both sides of them.
    """
    if theirs in (base, ours):
        return ours, 0
    if ours == base:
        return theirs, 0
    with tempfile.TemporaryDirectory() as directory:
        names = ("ours", "base", "theirs")
        for name, content in zip(names, (ours, base, theirs), strict=True):
            Path(directory, name).write_bytes(content)
        named = [word for label in labels for word in ("-L", label)]
        styled = [style] if style else []
        done = Git(Path(directory)).run("merge-file", "-p", "-q", *styled, *named, *names)
    if not 0 <= done.returncode <= 127:
        raise ToolError(f"git merge-file: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout, done.returncode


@lru_cache(maxsize=4096)
def hunks(before: bytes, after: bytes) -> tuple[Hunk, ...]:
    """The changes from one text to the other, each with lines of context."""
    a, b = before.splitlines(keepends=True), after.splitlines(keepends=True)
    groups = difflib.SequenceMatcher(None, a, b, autojunk=False).get_grouped_opcodes(CONTEXT)
    return tuple(Hunk(g[0][1], g[-1][2], g[0][3], g[-1][4]) for g in groups)


def only(before: bytes, after: bytes, chosen: tuple[Hunk, ...]) -> bytes:
    """`before` with these hunks of its change alone."""
    a, b = before.splitlines(keepends=True), after.splitlines(keepends=True)
    for hunk in sorted(chosen, key=lambda hunk: hunk.a, reverse=True):
        a[hunk.a : hunk.b] = b[hunk.c : hunk.d]
    return b"".join(a)


def judge(ours: bytes, before: bytes, after: bytes, hunk: Hunk) -> State:
    """What one hunk would be in `ours`."""
    theirs = only(before, after, (hunk,))
    merged, conflicts = merge(ours, before, theirs)
    if not conflicts:
        return THERE if merged == ours else CLEAN
    # Ours may hold all that it brings, with more around it: then keeping both sides adds nothing.
    old = before.splitlines()[hunk.a : hunk.b]
    new = after.splitlines()[hunk.c : hunk.d]
    gone, brought = set(old) - set(new), [line for line in new if line not in old]
    may_have = brought and not gone & set(ours.splitlines())
    if may_have and merge(ours, before, theirs, style="--union")[0] == ours:
        return THERE
    return CONFLICT
