"""Resolves the names of a Python source to the scopes that bind them.

Only what can be renamed without a trace is offered: a variable that a function, a lambda or a
comprehension binds, by assignment, as a loop's target or as a parameter. Attributes, keywords,
imports, strings, definitions, names in classes and modules, `global` and `nonlocal` names never.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

# These see the variables of the function that calls them by their names.
_DYNAMIC = frozenset({"locals", "vars", "eval", "exec", "dir"})
# These read names of other functions' variables, or their order, from frames, code and sources.
_READERS = (
    r"inspect|pydoc|dis|_getframe|_current_frames|settrace|setprofile|capture_locals|__code__|"
    r"co_\w+|f_code|f_locals|f_back|ag_frame|cr_frame|gi_frame|tb_frame|__closure__|cell_contents"
)
_READER = re.compile(rf"\b(?:{_READERS})\b".encode())
_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(eq=False)
class Scope:
    """A module, class, function, lambda or comprehension, and what is known of its names."""

    node: ast.AST
    parent: Scope | None
    bound: set[str] = field(default_factory=set)
    # Names that cannot be renamed, and parameters by their nodes: callers and signatures tell them.
    fixed: set[str] = field(default_factory=set)
    parameters: dict[str, ast.arg] = field(default_factory=dict)
    # Where a name that this scope binds occurs, in inner scopes too.
    places: defaultdict[str, list[ast.Name | ast.arg]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @cached_property
    def names(self) -> set[str]:
        """All identifiers within the scope, also of attributes, keywords and inner scopes."""
        names: set[str] = set()
        for node in ast.walk(self.node):
            if not isinstance(node, ast.Constant):
                for _, value in ast.iter_fields(node):
                    values = value if isinstance(value, list) else [value]
                    names.update(item for item in values if isinstance(item, str))
        return names

    @cached_property
    def strings(self) -> set[str]:
        """The words of the strings within the scope, except docstrings."""
        nodes = list(ast.walk(self.node))
        docs = {id(doc) for node in nodes if (doc := _docstring(node))}
        return {
            word
            for node in nodes
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if id(node) not in docs
            for word in _WORD.findall(node.value)
        }


def _docstring(node: ast.AST) -> ast.Constant | None:
    body = getattr(node, "body", None)
    if isinstance(node, (ast.ClassDef, *_FUNCTIONS)) and body and isinstance(body[0], ast.Expr):
        value = body[0].value
        return value if isinstance(value, ast.Constant) else None
    return None


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def reader_of_names(source: bytes) -> str:
    """What a source uses to read the names of variables that are not its own; empty if nothing."""
    found = _READER.search(source)
    return found[0].decode() if found else ""


class Scopes:
    """The scopes of a module that have names, in the order of the source.

    Raises:
        RecursionError: the source is nested too deeply.
    """

    def __init__(self, tree: ast.Module) -> None:
        visitor = _Visitor(tree)
        self.owners = tuple(visitor.owners)
        self._fixed = visitor.global_names
        self._is_dynamic = _passes_on(tree, _DYNAMIC)

    def renamable(self, scope: Scope, name: str) -> bool:
        """Whether a name can be renamed in a scope and those inside it."""
        return (
            not self._is_dynamic
            and not isinstance(scope.node, (ast.Module, ast.ClassDef))
            and name in scope.bound
            and name not in scope.fixed | self._fixed | scope.strings
            and not name.startswith("__")
            and _DYNAMIC.isdisjoint(scope.names)
        )


def _passes_on(tree: ast.Module, names: frozenset[str]) -> bool:
    """Whether one of these functions is used other than by a call under its own name.

    Then a call under another name may be one of it.
    """
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names and id(node) not in called:
            return True
        if isinstance(node, ast.Attribute) and node.attr in names and id(node) not in called:
            return True
        if isinstance(node, ast.alias) and node.name in names:
            return True
        if isinstance(node, ast.Constant) and node.value in names:
            return True  # getattr(builtins, "eval")
    return False


class _Visitor(ast.NodeVisitor):
    """Visits all names, and then finds the scope of each."""

    def __init__(self, tree: ast.Module) -> None:
        self._scope = Scope(tree, None)
        self._uses: list[tuple[Scope, ast.Name | ast.arg, bool]] = []
        self._annotated = False
        self.global_names: set[str] = set()  # `nonlocal` ones too
        self.owners: dict[Scope, None] = {}
        self.visit(tree)
        for scope, node, annotated in self._uses:
            name = node.id if isinstance(node, ast.Name) else node.arg
            owner = self._owner(scope, name)
            if name not in owner.places:
                self.owners.setdefault(owner)
            owner.places[name].append(node)
            # A class's body looks for a name in its own namespace first, which may be any mapping.
            if annotated or isinstance(scope.node, ast.ClassDef):
                owner.fixed.add(name)

    @staticmethod
    def _owner(scope: Scope, name: str) -> Scope:
        """The scope that a name in `scope` belongs to; the module for what nothing binds."""
        current = scope
        while current.parent and not (
            name in current.bound
            and (current is scope or not isinstance(current.node, ast.ClassDef))
        ):
            current = current.parent
        return current

    @contextmanager
    def _inside(self, node: ast.AST) -> Generator[Scope]:
        outer, self._scope = self._scope, Scope(node, self._scope)
        try:
            yield self._scope
        finally:
            self._scope = outer

    def _annotation(self, *nodes: ast.AST | None) -> None:
        before, self._annotated = self._annotated, True
        for node in nodes:
            if node:
                self.visit(node)
        self._annotated = before

    def _bind_fixed(self, name: str | None) -> None:
        if name:
            self._scope.bound.add(name)
            self._scope.fixed.add(name)

    def _visit_all(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            if node:
                self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._scope.bound.add(node.id)
        self._uses.append((self._scope, node, self._annotated))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        scope = self._scope
        while isinstance(scope.node, _COMPREHENSIONS) and scope.parent:
            scope = scope.parent
        scope.bound.add(node.target.id)
        self._uses.append((scope, node.target, self._annotated))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        starred = [a for a in (arguments.vararg, arguments.kwarg) if a]
        self._visit_all(*arguments.defaults, *arguments.kw_defaults)
        self._annotation(*(a.annotation for a in (*every, *starred)))
        self._annotation(getattr(node, "returns", None))
        with self._inside(node) as scope:
            for argument in (*every, *starred):
                scope.bound.add(argument.arg)
                self._uses.append((scope, argument, False))
            scope.parameters = {a.arg: a for a in (*every, *starred)}
            self._visit_all(*(node.body if isinstance(node.body, list) else [node.body]))
            if getattr(node, "type_params", None):
                scope.fixed |= scope.bound

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._bind_fixed(node.name)
        self._visit_all(*node.decorator_list)
        self._annotation(*getattr(node, "type_params", ()))
        self._function(node)

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_Lambda = _function

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind_fixed(node.name)
        self._visit_all(*node.decorator_list, *node.bases, *node.keywords)
        self._annotation(*getattr(node, "type_params", ()))
        with self._inside(node):
            self._visit_all(*node.body)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        self.visit(node.generators[0].iter)
        with self._inside(node):
            for number, generator in enumerate(node.generators):
                self._visit_all(generator.target, *([generator.iter] if number else ()))
                self._visit_all(*generator.ifs)
            if isinstance(node, ast.DictComp):
                self._visit_all(node.key, node.value)
            else:
                self.visit(node.elt)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        self._visit_all(node.value, node.target)

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.global_names.update(node.names)

    visit_Nonlocal = visit_Global

    def visit_TypeAlias(self, node: ast.AST) -> None:
        self._annotation(*ast.iter_child_nodes(node))

    def visit_alias(self, node: ast.alias) -> None:
        self._bind_fixed(node.asname or node.name.partition(".")[0])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._bind_fixed(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self._bind_fixed(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._bind_fixed(node.rest)
        self.generic_visit(node)
