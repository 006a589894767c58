"""Where the statements of a Python source stand: line by line, with the blocks around them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from tools.diff.order import start

_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


@dataclass(frozen=True)
class Place:
    """A statement (or a clause of one) by its first line, from 0, and the block that has it."""

    first: int
    block: str
    parent: Place | None


class Statements:
    """The innermost statement of each line of a module."""

    def __init__(self, tree: ast.Module | None) -> None:
        self._by_line: dict[int, Place] = {}
        waiting: list[tuple[ast.AST, Place | None]] = [(tree, None)] if tree else []
        while waiting:
            node, parent = waiting.pop()
            for block in _BLOCKS:
                for child in _children(node, block):
                    place = Place(_start(child), block, parent)
                    last = getattr(child, "end_lineno", None) or place.first + 1
                    for line in range(place.first, last):
                        # An inner statement replaces the one around it, which came before.
                        self._by_line[line] = place
                    waiting.append((child, place))

    def at(self, line: int) -> Place | None:
        """The innermost statement of a line; None between statements at the module's top."""
        return self._by_line.get(line)

    @staticmethod
    def same_place(a: Place | None, b: Place | None, partner: Mapping[int, int]) -> bool:
        """Whether two statements, and all around them, are partners in the same blocks.

        `partner` is the new line of each old line.
        """
        while a and b:
            if a.block != b.block or partner.get(a.first) != b.first:
                return False
            a, b = a.parent, b.parent
        return a is b is None


def _children(node: ast.AST, block: str) -> list[ast.AST]:
    children = getattr(node, block, None)
    return children if isinstance(children, list) else []


def _start(node: ast.AST) -> int:
    if isinstance(node, ast.stmt):
        return start(node)
    if isinstance(node, ast.match_case):
        return node.pattern.lineno - 1
    return getattr(node, "lineno", 1) - 1
