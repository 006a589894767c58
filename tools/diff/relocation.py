"""Proves that what moved can stand where it stands now.

A definition may pass definitions that cannot see it (tools/diff/order.py). All else that moved is a
change of order: statements in whole, and of definitions the lines before their bodies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence

from tools.diff import order, python
from tools.diff.claims import Claims

_ORDER = "order: moves statements over others that may depend on them, or they on those"
_ELSEWHERE = "defines in another file what others may import from it"


def misplaced(claims: Claims) -> Iterable[int]:
    """The first rows of definitions shown at their new place, if their order can matter."""
    moved = [(a.node, b.node) for a, b in claims.alignment.moved]
    fixed = _out_of_order(claims, moved)
    if fixed and _ORDER not in claims.notes:
        claims.notes.append(_ORDER)
    heads = {n for stmt in fixed for n in _head(stmt)}
    return [n for n, row in enumerate(claims.shown[0]) if row.old in heads]


def _head(stmt: ast.stmt) -> range:
    """The lines of a definition before its body: decorators, names, arguments."""
    first = order.start(stmt)
    body: list[ast.stmt] = getattr(stmt, "body", [])
    return range(first, max(first + 1, body[0].lineno - 1 if body else 0))


def _out_of_order(claims: Claims, moved: Sequence[tuple[ast.stmt, ast.stmt]]) -> list[ast.stmt]:
    """The old nodes of moved definitions that have passed a statement that they must not pass."""
    if not moved or claims.old.tree is None or claims.new.tree is None:
        return []
    rows = claims.shown[0]
    lines = {r.new: r.old for r in rows if r.old is not None and r.new is not None}
    old_bodies = dict(order.bodies(claims.old.tree))
    facts = order.Order(claims.old.tree)
    known = {id(a): b for a, b in moved}
    proven: set[int] = set()
    for name, new_body in order.bodies(claims.new.tree):
        old_body = old_bodies.get(name, [])
        partner = _partners(old_body, new_body, lines, moved)
        for stmt in old_body:
            new = known.get(id(stmt))
            if new is None or not any(s is new for s in new_body):
                continue
            passed = order.crossed(stmt, new, old_body, new_body, partner)
            if all(facts.commute(stmt, other) for other in passed):
                proven.add(id(stmt))
    return [a for a, _ in moved if id(a) not in proven]


def _partners(
    old_body: Sequence[ast.stmt],
    new_body: Sequence[ast.stmt],
    lines: Mapping[int, int],
    moved: Sequence[tuple[ast.stmt, ast.stmt]],
) -> dict[int, ast.stmt]:
    """The old statement of each new one: by its first line, or by the name of a definition."""
    by_line = {order.start(s): s for s in old_body}
    by_name = {s.name: s for s in old_body if isinstance(s, (ast.ClassDef, *python.Function))}
    known = {id(b): a for a, b in moved}
    partner: dict[int, ast.stmt] = {}
    for stmt in new_body:
        old = known.get(id(stmt)) or by_line.get(lines.get(order.start(stmt), -1))
        if old is None and isinstance(stmt, (ast.ClassDef, *python.Function)):
            old = by_name.get(stmt.name)
        if old is not None:
            partner[id(stmt)] = old
    return partner


class Blocks:
    """Blocks of lines that are said to stand elsewhere now, within a file or in another."""

    def __init__(self, files: Sequence[Claims | None]) -> None:
        self.files = files
        # Lines of each file by number: old ones as they are, new ones as -1 - line.
        self._proven: dict[int, set[int]] = {n: set() for n in range(len(files))}
        went: dict[tuple[int, int], tuple[int, int]] = {}
        for number, claims in enumerate(files):
            for row in claims.shown[0] if claims else ():
                if row.kind == "moved" and row.link and row.old is not None:
                    went[number, row.old] = row.link
        for block in _blocks(went):
            self._judge(block)

    def unproven(self, number: int) -> Iterable[int]:
        """Rows of a file that are said to have moved, and of which that is not all."""
        claims = self.files[number]
        proven = self._proven[number]
        for n, row in enumerate(claims.shown[0] if claims else ()):
            if row.kind == "moved":
                line = row.old if row.old is not None else -1 - (row.new or 0)
                if line not in proven:
                    yield n

    def _judge(self, block: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
        (a, _), (b, _) = block[0]
        old_lines, new_lines = [p[1] for p, _ in block], [q[1] for _, q in block]
        before, after = self.files[a], self.files[b]
        if before is None or after is None:
            return
        kept = _kept(before, after, old_lines, new_lines) & set(old_lines)
        self._proven[a].update(kept)
        lines = zip(old_lines, new_lines, strict=True)
        self._proven[b].update(-1 - new for old, new in lines if old in kept)
        if len(kept) < len(old_lines) and before.is_python:
            note = _ORDER if a == b else _ELSEWHERE
            for claims in {id(before): before, id(after): after}.values():
                if note not in claims.notes:
                    claims.notes.append(note)


def _kept(
    before: Claims, after: Claims, old_lines: Sequence[int], new_lines: Sequence[int]
) -> set[int]:
    """The lines of a block that changed nothing by moving: blank ones, comments, definitions."""
    if not (before.is_python and after.is_python):
        return set()
    pairs = _whole(before, after, dict(zip(old_lines, new_lines, strict=True)))
    if not pairs:
        return set()
    if before is after:
        out = _out_of_order(before, pairs)
    elif _same_names(before, after, pairs):
        out = [stmt for stmt, _ in pairs]
    else:
        return set()
    tokens = before.old.tokens
    kept = {n for stmt, _ in pairs for n in _span(stmt)}
    kept |= {n for n in old_lines if tokens and len(python.comments(tokens[n])) == len(tokens[n])}
    return kept - {n for stmt in out for n in _head(stmt)}


def _blocks(
    went: Mapping[tuple[int, int], tuple[int, int]],
) -> list[list[tuple[tuple[int, int], tuple[int, int]]]]:
    """Runs of lines that went from one place to another together."""
    blocks: list[list[tuple[tuple[int, int], tuple[int, int]]]] = []
    for place, to in sorted(went.items()):
        if blocks:
            (a, i), (b, j) = blocks[-1][-1]
            if place == (a, i + 1) and to == (b, j + 1):
                blocks[-1].append((place, to))
                continue
        blocks.append([(place, to)])
    return blocks


Pairs = list[tuple[ast.stmt, ast.stmt]]


def _whole(before: Claims, after: Claims, lines: Mapping[int, int]) -> Pairs:
    """The definitions of which all lines are in a block, given as the new line of each old one."""
    new = {d.name: d.node for d in python.walk(after.new.outline)}
    pairs: Pairs = []
    inside: set[int] = set()
    for definition in python.walk(before.old.outline):
        a, b = definition.node, new.get(definition.name)
        span = _span(a)
        if b is None or span.start in inside or any(n not in lines for n in span):
            continue
        if [lines[n] for n in span] == list(_span(b)) and python.equal(a, b):
            pairs.append((a, b))
            inside.update(span)
    return pairs


def _span(node: ast.stmt) -> range:
    return range(order.start(node), node.end_lineno or node.lineno)


def _same_names(before: Claims, after: Claims, pairs: Pairs) -> bool:
    """Whether definitions see the same under their names in both files."""
    trees = before.old.tree, after.new.tree
    if trees[0] is None or trees[1] is None or any(a not in trees[0].body for a, _ in pairs):
        return False
    own = {getattr(stmt, "name", "") for stmt, _ in pairs}
    facts = order.Order(trees[0]), order.Order(trees[1])
    places = [claims.path.rpartition("/")[0] for claims in (before, after)]
    names = {n for stmt, _ in pairs for n in order.names(stmt)} - own
    return all(
        facts[0].meaning(name, places[0]) == facts[1].meaning(name, places[1]) is not None
        for name in names
    )
