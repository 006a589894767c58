"""Proves what a report claims: whatever is not called substantive changes nothing.

The rows of a report claim that some lines only got another layout, or only moved. Here the claims
of each file are undone, and the syntax trees compared: with its new layout and its old order, the
origin must still be the same program. A claim that fails is taken back, first for a line, then for
the statement at the module's top that has it, then for the file, which then shows git's own diff.

Renames are proven where they are undone (tools/diff/names.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tools.diff import python
from tools.diff.align import Alignment
from tools.diff.claims import Claims
from tools.diff.histogram import Budget, Counts
from tools.diff.model import Row
from tools.diff.relocation import Blocks, misplaced
from tools.diff.rows import as_git
from tools.diff.statements import Statements


def prove(files: Sequence[Claims | None], budgets: Sequence[Budget]) -> None:
    """Takes back the claims of files that cannot be proven."""
    for claims, budget in zip(files, budgets, strict=True):
        if claims and budget.refused:
            _give_up(claims, budget)
    blocks = Blocks(files)
    for number, (claims, budget) in enumerate(zip(files, budgets, strict=True)):
        if claims is None or budget.refused or claims.is_same:
            continue
        claims.take_back(_contradicted(claims))
        claims.take_back(blocks.unproven(number))
        if claims.is_python:
            claims.take_back(misplaced(claims))
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
    paired = set(partner), set(partner.values())
    statements = Statements(claims.old.tree), Statements(claims.new.tree)
    for n, row in enumerate(rows):
        if row.kind != "format" or _is_laid_out(claims, row) or _is_bare(claims, row):
            continue
        a = statements[0].at(row.old) if row.old is not None else None
        b = statements[1].at(row.new) if row.new is not None else None
        if row.old is None or row.new is None:
            # A line that only one side has belongs to a statement that both have.
            statement, known = (a, paired[0]) if row.new is None else (b, paired[1])
            if statement is None or statement.first not in known:
                yield n
        elif not Statements.same_place(a, b, partner):
            yield n


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
