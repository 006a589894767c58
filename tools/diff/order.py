"""Which definitions may change places with the statements around them.

Two statements of a module or class commute if each only makes a function or a class, without
decorators and out of values that have no effects, and if neither reads what the other binds. So
nothing runs between them. All else has an order: a call can look up any name, and an import can run
a module that imports this one.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from functools import cached_property

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (ast.ClassDef, *_FUNCTIONS)
_BUILTINS = frozenset(dir(builtins))
# Decorators of methods that have no effects.
_PLAIN = frozenset({"property", "staticmethod", "classmethod"})
_VALUES = (
    ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.Subscript, ast.BinOp, ast.BitOr,
    ast.UnaryOp, ast.USub, ast.expr_context, ast.List,
)  # fmt: skip


def start(stmt: ast.stmt) -> int:
    """The first line of a statement, from 0, with its decorators."""
    return min([stmt.lineno, *(d.lineno for d in getattr(stmt, "decorator_list", ()))]) - 1


def bodies(tree: ast.Module) -> Iterator[tuple[str, list[ast.stmt]]]:
    """The body of the module, named "", and of each class at its top or in another class."""
    waiting: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
    for name, body in waiting:
        yield name, body
        prefix = f"{name}." if name else ""
        classes = [s for s in body if isinstance(s, ast.ClassDef)]
        # A metaclass may be told of each name as it is bound.
        waiting += [(prefix + s.name, s.body) for s in classes if not s.keywords]


class Order:
    """What the statements of one module bind and see."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree

    @cached_property
    def _late(self) -> bool:
        """Whether annotations are not evaluated."""
        return any(
            isinstance(s, ast.ImportFrom)
            and s.module == "__future__"
            and any(alias.name == "annotations" for alias in s.names)
            for s in self.tree.body
        )

    @cached_property
    def _bindings(self) -> dict[str, list[ast.stmt]]:
        """The module's statements by the names that they bind."""
        found: dict[str, list[ast.stmt]] = {}
        for stmt in self.tree.body:
            for name in binds(stmt):
                found.setdefault(name, []).append(stmt)
        return found

    def commute(self, a: ast.stmt, b: ast.stmt) -> bool:
        """Whether two statements of one body can change places."""
        if not (isinstance(a, _DEFINITIONS) and isinstance(b, _DEFINITIONS)):
            return False
        if not (self._is_inert(a) and self._is_inert(b)) or a.name == b.name:
            return False
        apart = a.name not in self._reads(b) and b.name not in self._reads(a)
        return apart and not (self._may_act(a) and self._may_act(b))

    def _may_act(self, stmt: ast.stmt) -> bool:
        """Whether what a definition evaluates may have an effect: operators, parts of objects."""
        return any(
            isinstance(node, (ast.Subscript, ast.BinOp, ast.UnaryOp))
            or (isinstance(node, ast.Attribute) and not self._is_of_module(node))
            for part in self._evaluated(stmt)
            for node in ast.walk(part)
        )

    def _is_of_module(self, node: ast.Attribute) -> bool:
        """Whether an attribute is that of an imported module, or of a part of one."""
        value: ast.AST = node
        while isinstance(value, ast.Attribute):
            value = value.value
        bindings = self._bindings.get(value.id, []) if isinstance(value, ast.Name) else []
        return bool(bindings) and all(isinstance(s, ast.Import) for s in bindings)

    def meaning(self, name: str, directory: str) -> str | None:
        """What a name of the module means if it is imported, built in or unbound; else None.

        `directory` is that of the file, in which relative imports are looked up.
        """
        found = []
        for stmt in [*self._bindings.get(name, []), *self._bindings.get("*", [])]:
            if not isinstance(stmt, (ast.Import, ast.ImportFrom)):
                return None
            relative = getattr(stmt, "level", 0)
            module = getattr(stmt, "module", "")
            aliases = [ast.dump(a) for a in stmt.names if name in (a.asname, a.name, "*")]
            found.append(f"{directory if relative else ''} {relative} {module} {aliases or stmt}")
        return "; ".join(found)

    def _evaluated(self, stmt: ast.stmt) -> Iterator[ast.AST]:
        """The expressions that a definition evaluates, and a class's statements."""
        if isinstance(stmt, _FUNCTIONS):
            arguments = stmt.args
            yield from stmt.decorator_list
            yield from arguments.defaults
            yield from (default for default in arguments.kw_defaults if default)
            yield from getattr(stmt, "type_params", ())
            if not self._late:
                every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs,
                         arguments.vararg, arguments.kwarg]  # fmt: skip
                yield from (a.annotation for a in every if a and a.annotation)
                yield from [stmt.returns] if stmt.returns else []
        elif isinstance(stmt, ast.ClassDef):
            yield from (*stmt.decorator_list, *stmt.bases, *(k.value for k in stmt.keywords))
            yield from getattr(stmt, "type_params", ())
            for inner in stmt.body:
                yield from self._evaluated(inner)
        elif isinstance(stmt, ast.AnnAssign) and self._late:
            yield from (part for part in (stmt.target, stmt.value) if part)
        else:
            yield stmt

    def _is_inert(self, stmt: ast.stmt) -> bool:
        """Whether a statement only makes a function or a class."""
        if isinstance(stmt, _FUNCTIONS):
            return not stmt.decorator_list and all(map(_is_value, self._evaluated(stmt)))
        if not isinstance(stmt, ast.ClassDef):
            return False
        bases = all(isinstance(b, ast.Name) and self._is_builtin(b.id) for b in stmt.bases)
        bare = bases and not stmt.decorator_list and not stmt.keywords
        return bare and all(map(self._is_plain, stmt.body))

    def _is_builtin(self, name: str) -> bool:
        return name in _BUILTINS and name not in self._bindings

    def _is_plain(self, stmt: ast.stmt) -> bool:
        """Whether a statement of a class's body has no effects of its own."""
        if isinstance(stmt, _FUNCTIONS):
            special = stmt.name in ("__init_subclass__", "__set_name__", "__class_getitem__")
            decorators = all(
                isinstance(d, ast.Name) and d.id in _PLAIN and self._is_builtin(d.id)
                for d in stmt.decorator_list
            )
            parts = [p for p in self._evaluated(stmt) if p not in stmt.decorator_list]
            return decorators and not special and all(map(_is_value, parts))
        if isinstance(stmt, ast.ClassDef):
            return self._is_inert(stmt)
        if isinstance(stmt, ast.Assign):
            return all(isinstance(t, ast.Name) for t in stmt.targets) and _is_value(stmt.value)
        if isinstance(stmt, ast.AnnAssign):
            value = stmt.value is None or _is_value(stmt.value)
            return value and (self._late or _is_value(stmt.annotation))
        is_text = isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant)
        return is_text or isinstance(stmt, ast.Pass)

    def _reads(self, stmt: ast.stmt) -> set[str]:
        """Names that a definition reads when it is made."""
        return {name for part in self._evaluated(stmt) for name in names(part)}


def _is_value(node: ast.AST) -> bool:
    return all(isinstance(part, _VALUES) for part in ast.walk(node))


def names(node: ast.AST) -> set[str]:
    """The names in a piece of source."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def binds(stmt: ast.AST) -> set[str]:
    """Names that a statement may bind in its scope, "*" for any; `global` ones of functions too."""
    names: set[str] = set()
    waiting: list[ast.AST] = [stmt]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            names |= {name for n in ast.walk(node) if isinstance(n, ast.Global) for name in n.names}
            names |= {node.name} if isinstance(node, _FUNCTIONS) else set()
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            names.update(node.names)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, (ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            names |= {node.name} if node.name else set()
        waiting += ast.iter_child_nodes(node)
    return names


def crossed(
    moved: ast.stmt, new: ast.stmt, old_body: Sequence[ast.stmt], new_body: Sequence[ast.stmt],
    partner: dict[int, ast.stmt],
) -> list[ast.stmt]:  # fmt: skip
    """The old statements that a moved one has passed.

    Args:
        moved, new: the statement in both bodies.
        partner: the old statement of each new one, by the id of the new.
    """
    before = {id(s) for s in old_body[: _index(old_body, moved)]}
    here = _index(new_body, new)
    passed = []
    for at, stmt in enumerate(new_body):
        old = partner.get(id(stmt))
        if old is not None and old is not moved and (id(old) in before) != (at < here):
            passed.append(old)
    return passed


def _index(body: Sequence[ast.stmt], stmt: ast.AST) -> int:
    return next(n for n, other in enumerate(body) if other is stmt)
