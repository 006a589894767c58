"""Pairs of versions of Python files that people made, and what compiled programs say of them."""

from __future__ import annotations

import ast
import dis
import json
import subprocess
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType

from tools.common.files import File
from tools.diff.compare_trees import compare
from tools.diff.read_trees import Source

Pair = tuple[str, bytes, bytes]
"""A name, the old and the new content."""


def prove(pairs: Iterable[Pair]) -> dict[str, int]:
    """Asserts that pairs without substantive lines are one program; returns what was counted."""
    counts = {"pairs": 0, "lines": 0, "substantive": 0, "pairs with 0": 0}
    for name, old, new in pairs:
        before, after = (Source("", {"a.py": File(content)}) for content in (old, new))
        result = compare(before, after)
        substantive = result.substantive.added + result.substantive.deleted
        counts["pairs"] += 1
        counts["lines"] += result.counts.added + result.counts.deleted
        counts["substantive"] += substantive
        if substantive == 0:
            counts["pairs with 0"] += 1
            assert program(old) == program(new), name
    print(counts)
    return counts


def sample() -> Iterator[Pair]:
    """Pairs from this repository's history, kept in histories.json."""
    entries = json.loads(Path(__file__).with_name("histories.json").read_text(encoding="utf-8"))
    for entry in entries:
        yield entry["path"], entry["old"].encode(), entry["new"].encode()


def of_repository(root: Path) -> Iterator[Pair]:
    """Every pair of versions of a Python file in the history of a repository."""
    command = "log --no-merges --format= --raw --no-abbrev -M --diff-filter=MR -- *.py"
    log = _git(root, *command.split()).decode("utf-8", "surrogateescape")
    seen = set()
    for line in log.splitlines():
        facts, *paths = line.split("\t")
        _, _, old, new, _ = facts.split()
        if old != new and (old, new) not in seen and paths[-1].endswith(".py"):
            seen.add((old, new))
            before, after = (_git(root, "cat-file", "blob", blob) for blob in (old, new))
            yield f"{paths[-1]}@{new[:12]}", before, after


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=True).stdout


def of_packages(old: Path, new: Path) -> Iterator[Pair]:
    """The Python files that two directories of packages have, each in another version."""
    for path in sorted(old.rglob("*.py")):
        inside = path.relative_to(old)
        if (new / inside).exists():
            pair = path.read_bytes(), (new / inside).read_bytes()
            if pair[0] != pair[1]:
                yield str(inside), *pair


def program(source: bytes) -> object:
    """What a source compiles to: its instructions, with local variables by number.

    This knows nothing of the report's way to compare. Parameters that callers may name keep their
    names. Functions and classes of a body are sorted, since the report may say that they moved.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef)):
                node.body.sort(key=_place)
            for place in node._attributes:  # a class's first line is a value of its own
                setattr(node, place, 1)
        return _numbered(compile(tree, "source", "exec", dont_inherit=True), {})


def _place(stmt: ast.stmt) -> tuple[int, str]:
    """Docstrings and imports from __future__ first, definitions last by name."""
    defines = isinstance(stmt, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    return (1, stmt.name) if defines else (0, "")


def _numbered(code: CodeType, outer: dict[str, object]) -> object:
    """A code object without names of local variables, lines and positions."""
    numbers = {name: outer[name] for name in code.co_freevars if name in outer}
    depth = len(outer)
    every = code.co_posonlyargcount, code.co_argcount + code.co_kwonlyargcount
    named = code.co_varnames[every[0] : every[1]]
    own = {*code.co_varnames, *code.co_cellvars}
    shown = []
    for name in code.co_varnames[: every[1]]:
        numbers[name] = (depth, len(numbers))
    for step in dis.get_instructions(code):
        value = step.argval
        if isinstance(value, CodeType):
            continue
        if step.opname in ("MAKE_CELL", "COPY_FREE_VARS"):
            continue  # in the order of names
        if isinstance(value, str) and value in own and step.opcode in _LOCAL:
            value = numbers.setdefault(value, (depth, len(numbers)))
        elif isinstance(value, str) and step.opcode in _LOCAL:
            value = numbers.get(value, value)
        elif isinstance(value, tuple) and step.opcode in _LOCAL:
            names = [numbers.setdefault(n, (depth, len(numbers))) for n in value]
            value = tuple(names)
        shown.append((step.opname, repr(value)))
    for name in sorted(own):
        numbers.setdefault(name, (depth, len(numbers)))
    inner = [_numbered(c, numbers) for c in code.co_consts if isinstance(c, CodeType)]
    return code.co_name, code.co_flags, every, named, shown, inner


_LOCAL = frozenset(dis.haslocal) | frozenset(dis.hasfree)
