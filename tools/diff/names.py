"""Finds local variables that were renamed, and undoes their renames.

A rename is undone on the origin's side, by scope (tools/diff/scopes.py): each place that belongs to
the variable gets the new name, and nothing else. It is believed only if the new name occurs nowhere
in that scope, and if the renamed source, parsed again, is the same program but for those places. So
`relu = jax.nn.relu(x)` that became `gelu = jax.nn.gelu(x)` is still another function.
"""

from __future__ import annotations

import ast
import keyword
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.diff import python
from tools.diff.scopes import Scope, Scopes
from tools.diff.words import IDENTIFIER

Replaced = tuple[int, str, str]
"""A line of the origin, and a word that another replaced there."""


@dataclass(frozen=True)
class Renamed:
    """A source with the new names of its variables.

    `interface` are the lines, from 0, on which a renamed parameter is declared: such a line is a
    change, whatever else is none, since callers and signatures tell its name.
    """

    lines: tuple[str, ...]
    names: frozenset[tuple[str, str]] = frozenset()
    interface: frozenset[int] = frozenset()


def undo(
    lines: Sequence[str], tree: ast.Module, replaced: Iterable[Replaced], kept: set[int]
) -> Renamed:
    """The origin's lines with the names that the variant gives to its variables.

    Args:
        lines: the origin's lines, with ends, and their syntax tree.
        replaced: words that others replaced, by line.
        kept: lines that the variant has as they are; what occurs there was not renamed.
    """
    unchanged = Renamed(tuple(lines))
    votes = [(n, a, b) for n, a, b in replaced if _usable(a) and _usable(b)]
    if not votes:
        return unchanged
    try:
        chosen = _chosen(Scopes(tree), votes, kept)
    except RecursionError:
        return unchanged
    if not chosen:
        return unchanged
    texts = _replace(lines, chosen)
    renamed = python.parse("".join(texts)) if texts else None
    if not texts or not renamed or not _same_but(tree, renamed, chosen):
        return unchanged
    interface = {
        parameter.lineno - 1
        for scope, name, _ in chosen
        if (parameter := scope.parameters.get(name))
    }
    names = frozenset((old, new) for _, old, new in chosen)
    return Renamed(tuple(texts), names, frozenset(interface))


# A name that was replaced in a part of its places only must have been replaced so often.
MIN_SEEN = 2


def _usable(name: str) -> bool:
    is_name = IDENTIFIER.fullmatch(name) and not keyword.iskeyword(name)
    # `_A__x` is what `__x` is called within a class `A`.
    is_mangled = name.startswith("_") and "__" in name
    return bool(is_name) and name.strip("_") != "" and not is_mangled


Chosen = list[tuple[Scope, str, str]]


def _chosen(scopes: Scopes, votes: Sequence[Replaced], kept: set[int]) -> Chosen:
    """The (scope, old name, new name) that are certain."""
    by_place = _by_place(scopes)
    targets: defaultdict[tuple[Scope, str], Counter[str]] = defaultdict(Counter)
    for line, old, new in votes:
        for scope in by_place.get((line, old), ()):
            targets[scope, old][new] += 1
    origins: defaultdict[tuple[Scope, str], set[str]] = defaultdict(set)
    for (scope, old), new_names in targets.items():
        for new in new_names:
            origins[scope, new].add(old)
    chosen: Chosen = []
    for (scope, old), new_names in targets.items():
        new = min(new_names)
        lines = {node.lineno - 1 for node in scope.places[old]}
        if (
            len(new_names) == len(origins[scope, new]) == 1
            and _is_usual(new_names[new], len(scope.places[old]))
            and lines.isdisjoint(kept)
            and scopes.renamable(scope, old)
            and new not in scope.names | scope.strings
        ):
            chosen.append((scope, old, new))
    return _apart(chosen)


def _is_usual(replaced: int, occurrences: int) -> bool:
    """Whether a name was replaced often enough for a reader to call it renamed."""
    return replaced >= occurrences or (replaced >= MIN_SEEN and 2 * replaced >= occurrences)


def _apart(chosen: Chosen) -> Chosen:
    """Without different variables of nested scopes that would get one name."""
    result: Chosen = []
    for scope, old, new in chosen:
        nested = (
            other is not scope
            and (old != other_old and new == other_new)
            and (_within(scope, other) or _within(other, scope))
            for other, other_old, other_new in chosen
        )
        if not any(nested):
            result.append((scope, old, new))
    return result


def _within(scope: Scope | None, outer: Scope) -> bool:
    while scope:
        if scope is outer:
            return True
        scope = scope.parent
    return False


def _by_place(scopes: Scopes) -> dict[tuple[int, str], list[Scope]]:
    """The scopes whose variable of a name occurs on a line, by (line from 0, name)."""
    by_place: dict[tuple[int, str], list[Scope]] = {}
    for scope in scopes.owners:
        for name, nodes in scope.places.items():
            for node in nodes:
                found = by_place.setdefault((node.lineno - 1, name), [])
                if scope not in found:
                    found.append(scope)
    return by_place


def _replace(lines: Sequence[str], chosen: Chosen) -> list[str] | None:
    """The lines with new names; None if a name is not where the tree says."""
    edits: defaultdict[int, list[tuple[int, bytes, bytes]]] = defaultdict(list)
    for scope, old, new in chosen:
        for node in scope.places[old]:
            edits[node.lineno - 1].append((node.col_offset, old.encode(), new.encode()))
    texts = list(lines)
    for line, places in edits.items():
        text = texts[line].encode()
        for column, old_name, new_name in sorted(places, reverse=True):
            if text[column : column + len(old_name)] != old_name:
                return None
            text = text[:column] + new_name + text[column + len(old_name) :]
        texts[line] = text.decode()
    return texts


def _same_but(tree: ast.Module, renamed: ast.Module, chosen: Chosen) -> bool:
    """Whether two trees differ in the chosen names, at their places, and in nothing else."""
    new_names = {id(node): new for scope, old, new in chosen for node in scope.places[old]}

    def with_new_names(node: ast.AST, name: str, x: Any, y: Any) -> tuple[Any, Any]:
        return (new_names[id(node)] if id(node) in new_names and name in ("id", "arg") else x), y

    return python.equal_as(tree, renamed, with_new_names)
