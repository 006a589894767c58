"""Proves what a report claims: whatever is not called substantive changes nothing.

The rows of a report claim that some lines only got another layout, or only moved. Here the claims
of each file are undone, and the syntax trees compared: with its new layout and its old order, the
origin must still be the same program. A claim that fails is taken back, first for a line, then for
the statement at the module's top that has it, then for the file, which then shows git's own diff.

Renames are proven where they are undone (tools/diff/names.py).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tools.diff import order, python
from tools.diff.align import Alignment, Side
from tools.diff.histogram import Budget, Counts
from tools.diff.model import Row
from tools.diff.rows import PROSE, Shown, as_git
from tools.diff.statements import Statements

_ORDER = "order: moves statements over others that may depend on them, or they on those"
_ELSEWHERE = "defines in another file what others may import from it"


@dataclass
class Claims:
    """What a report says of a file: its rows and markers, and what they were made from."""

    path: str
    old: Side
    new: Side
    git: Alignment
    alignment: Alignment
    shown: Shown
    laid_out: tuple[frozenset[int], frozenset[int]]
    """Lines of definitions with equal syntax trees, on both sides."""
    notes: list[str] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        """Whether the texts are equal."""
        return (
            self.old.interface == frozenset()
            and self.old.raw == self.new.raw
            and self.old.plain == self.new.plain
        )

    @property
    def is_python(self) -> bool:
        """Whether both sides have a syntax tree."""
        return self.old.tree is not None and self.new.tree is not None

    def take_back(self, rows: Iterable[int]) -> None:
        """Calls these rows substantive."""
        numbers = set(rows)
        if not numbers:
            return
        changed = tuple(
            row._replace(kind="changed") if n in numbers else row
            for n, row in enumerate(self.shown[0])
        )
        self.shown = changed, self.shown[1]

    def is_substantive(self) -> bool:
        """Whether any row is."""
        return any(row.kind == "changed" for row in self.shown[0])


def prove(files: Sequence[Claims | None], budgets: Sequence[Budget]) -> None:
    """Takes back the claims of files that cannot be proven."""
    for claims, budget in zip(files, budgets, strict=True):
        if claims and budget.refused:
            _give_up(claims, budget)
    moves = _Moves(files)
    for number, (claims, budget) in enumerate(zip(files, budgets, strict=True)):
        if claims is None or budget.refused or claims.is_same:
            continue
        claims.take_back(_contradicted(claims))
        claims.take_back(moves.unproven(number))
        if claims.is_python:
            claims.take_back(_moved_definitions(claims))
            claims.take_back(_strangers(claims))
            claims.take_back(_relaid(claims))
        if not _holds(claims):
            _give_up(claims, budget)


def _give_up(claims: Claims, budget: Budget) -> None:
    """Shows what git shows."""
    claims.shown = as_git(claims.old, claims.new, claims.git, budget)


def _contradicted(claims: Claims) -> Iterable[int]:
    """Rows that no claim covers.

    Lines that a rename would change and that are as they were, and the declarations of parameters
    that callers may name.
    """
    old, new = claims.old, claims.new
    for n, row in enumerate(claims.shown[0]):
        if row.old is None or row.new is None or row.kind == "changed":
            continue
        declares = row.kind == "rename" and row.old in old.interface
        if declares or (row.kind in ("same", "name") and old.plain[row.old] != new.plain[row.new]):
            yield n


# -- layout -----------------------------------------------------------------------------------


def _strangers(claims: Claims) -> Iterable[int]:
    """Rows called layout whose statements stand in different blocks."""
    rows = claims.shown[0]
    if not any(row.kind == "format" for row in rows):
        return
    partner = {r.old: r.new for r in rows if r.old is not None and r.new is not None}
    statements = Statements(claims.old.tree), Statements(claims.new.tree)
    for n, row in enumerate(rows):
        if row.kind != "format" or _is_laid_out(claims, row) or _is_bare(claims, row):
            continue
        a = statements[0].at(row.old) if row.old is not None else None
        b = statements[1].at(row.new) if row.new is not None else None
        if row.old is None or row.new is None:
            known = a or b
            alone = known is not None and _has_partner(known.first, row, partner)
            if not alone:
                yield n
        elif not Statements.same_place(a, b, partner):
            yield n


def _has_partner(first: int, row: Row, partner: Mapping[int, int]) -> bool:
    """Whether the statement of a line that one side lacks stands on the other side too."""
    return first in (partner if row.old is not None else set(partner.values()))


def _is_laid_out(claims: Claims, row: Row) -> bool:
    before, after = claims.laid_out
    return (row.old is None or row.old in before) and (row.new is None or row.new in after)


def _is_bare(claims: Claims, row: Row) -> bool:
    """Whether a row has only blank lines and comments, outside of strings."""
    sides = ((claims.old.tokens, row.old), (claims.new.tokens, row.new))
    return all(
        n is None or (tokens is not None and len(python.comments(tokens[n])) == len(tokens[n]))
        for tokens, n in sides
    )


def _relaid(claims: Claims) -> Iterable[int]:
    """Rows called layout in statements that are not the same with the new layout.

    Every statement at the module's top is parsed as it was and with its lines laid out anew.
    """
    if not claims.old.tokens:
        return
    starts = claims.old.tokens.starts
    chunk_of = [0] * len(claims.old.plain)
    for number, first in enumerate(starts):
        last = starts[number + 1] if number + 1 < len(starts) else len(chunk_of)
        chunk_of[first:last] = [number] * (last - first)
    texts: list[dict[int, str]] = [{} for _ in starts]
    touched: dict[int, list[int]] = {}
    current = -1
    for n, row in enumerate(claims.shown[0]):
        current = current if row.old is None else row.old
        chunk = chunk_of[current] if current >= 0 else 0
        if row.kind == "format":
            touched.setdefault(chunk, []).append(n)
        if row.old is not None:
            text = claims.old.plain[row.old]
            if row.kind == "format":
                text = claims.new.plain[row.new] if row.new is not None else ""
            texts[chunk][row.old] = text + texts[chunk].pop(row.old, "")
        elif row.kind == "format" and row.new is not None:
            texts[chunk][current] = texts[chunk].get(current, "") + claims.new.plain[row.new]
    for chunk, numbers in touched.items():
        first = starts[chunk]
        last = starts[chunk + 1] if chunk + 1 < len(starts) else len(chunk_of)
        before = "".join(claims.old.plain[first:last])
        after = "".join(text for _, text in sorted(texts[chunk].items()))
        if not python.same_program(before, after):
            yield from numbers


# -- order ------------------------------------------------------------------------------------


def _moved_definitions(claims: Claims) -> Iterable[int]:
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


def _out_of_order(claims: Claims, moved: Sequence[tuple[ast.AST, ast.AST]]) -> list[ast.stmt]:
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
    return [a for a, _ in moved if isinstance(a, ast.stmt) and id(a) not in proven]


def _partners(
    old_body: Sequence[ast.stmt],
    new_body: Sequence[ast.stmt],
    lines: Mapping[int, int],
    moved: Sequence[tuple[ast.AST, ast.AST]],
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
        if isinstance(old, ast.stmt):
            partner[id(stmt)] = old
    return partner


class _Moves:
    """Blocks of lines that are said to stand elsewhere now, within a file or in another."""

    def __init__(self, files: Sequence[Claims | None]) -> None:
        self.files = files
        self._unproven: dict[int, set[int]] = {n: set() for n in range(len(files))}
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
        lines = self._unproven[number]
        for n, row in enumerate(claims.shown[0] if claims else ()):
            if row.kind == "moved":
                line = row.old if row.old is not None else -1 - (row.new or 0)
                if line in lines:
                    yield n

    def _judge(self, block: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
        (a, _), (b, _) = block[0]
        old_lines, new_lines = [p[1] for p, _ in block], [q[1] for _, q in block]
        before, after = self.files[a], self.files[b]
        if before is None or after is None:
            return
        if before.path.endswith(PROSE) and after.path.endswith(PROSE):
            return
        pairs = _whole(before, after, old_lines, new_lines)
        kept: set[int] = set()
        if pairs is not None:
            out = (
                pairs if a != b else [(x, y) for x, y in pairs if x in _out_of_order(before, pairs)]
            )
            heads = {n for x, _ in out for n in _head(x)}
            if a == b or _same_names(before, after, pairs):
                kept = set(old_lines) - heads
        taken = [(x, y) for x, y in zip(old_lines, new_lines, strict=True) if x not in kept]
        self._unproven[a].update(x for x, _ in taken)
        self._unproven[b].update(-1 - y for _, y in taken)
        if taken and before.is_python:
            note = _ORDER if a == b else _ELSEWHERE
            for claims in {id(before): before, id(after): after}.values():
                if note not in claims.notes:
                    claims.notes.append(note)


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


def _whole(
    before: Claims, after: Claims, old_lines: Sequence[int], new_lines: Sequence[int]
) -> Pairs | None:
    """The definitions that make up a block of lines; None if there is anything else in it."""
    if not (before.is_python and after.is_python):
        return None
    found = []
    for side, lines in ((before.old, old_lines), (after.new, new_lines)):
        inside = set(lines)
        outer = [d for d in python.walk(side.outline) if inside.issuperset(_span(d.node))]
        nested = {id(i.node) for d in outer for i in python.walk(d.inner)}
        whole = [d for d in outer if id(d.node) not in nested]
        covered = {n for d in whole for n in _span(d.node)}
        tokens = side.tokens
        for n in inside - covered:
            if tokens is None or len(python.comments(tokens[n])) != len(tokens[n]):
                return None
        found.append({d.name: d.node for d in whole})
    old, new = found
    if not old or list(old) != list(new):
        return None
    pairs = [(old[name], new[name]) for name in old]
    equal = all(python.equal(a, b) for a, b in pairs)
    return (
        [(a, b) for a, b in pairs if isinstance(a, ast.stmt) and isinstance(b, ast.stmt)]
        if equal
        else None
    )


def _span(node: ast.AST) -> range:
    assert isinstance(node, ast.stmt)
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


# -- the file ---------------------------------------------------------------------------------


def _holds(claims: Claims) -> bool:
    """Whether the file can be shown as it is now.

    Never more lines than git counts are substantive; and a Python file without any is the same
    program as before, but for the order of definitions.
    """
    if not claims.is_substantive() and claims.is_python:
        return python.same_but_for_order(claims.old.tree, claims.new.tree)
    counts = git_counts(claims.git)
    rows = [row for row in claims.shown[0] if row.kind == "changed"]
    added = sum(row.new is not None for row in rows)
    deleted = sum(row.old is not None for row in rows)
    return added <= counts.added and deleted <= counts.deleted


def git_counts(alignment: Alignment) -> Counts:
    """The lines that git's histogram diff adds and deletes."""
    gaps = [item for item in alignment.items if not item.matched]
    return Counts(sum(len(item.new) for item in gaps), sum(len(item.old) for item in gaps))
