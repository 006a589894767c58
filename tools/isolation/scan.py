"""What one variant's own source says about reaching outside its directory.

A variant is a copy that stands alone: it uses its own files and third-party packages. The build
refuses every dependency it can see; this reads the syntax tree for those it cannot, and gives each
a line. What no syntax tree shows (a name put together at run time) fails in the sandbox, where the
file is not there.
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Directories at the top of the workspace that hold importable code or documents.
FIRST_PARTY = ("experiments", "tools", "tests", "docs")
# Data that every variant may read: the locks are third-party requirements by another name.
SHARED_DATA = ("tools/locks/",)

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w[\w-]*)+")
_PATH = re.compile(r"(\./|(\.\./)+)?[\w.-]+(/[\w.-]+)*/?")

# Import machinery, by the module that holds it. A variant has nothing to load at run time.
_LOADERS = {
    "importlib": "importlib",
    "importlib.machinery": "importlib.machinery",
    "importlib.util": "importlib.util",
    "imp": "imp",
    "pkgutil": "pkgutil",
    "runpy": "runpy",
    "site": "site",
    "zipimport": "zipimport",
}
_BUILTINS = ("__import__", "compile", "eval", "exec")
_SYS = ("meta_path", "modules", "path", "path_hooks", "path_importer_cache")


@dataclass(frozen=True, order=True)
class Finding:
    """One way out of the variant: `path:line: message`."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def scan(path: str, text: str, variant: str) -> list[Finding]:
    """Findings of one file, by line.

    Args:
        path: of the file, from the workspace's root.
        text: what it holds.
        variant: the directory it may not leave, from the workspace's root.
    """
    try:
        tree = ast.parse(text, path)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        return [Finding(path, line, f"cannot be read as Python: {error}")]
    visitor = _Visitor(path, variant)
    visitor.visit(tree)
    return sorted(set(visitor.findings))


def links(root: Path, variant: str) -> list[Finding]:
    """Symbolic links of the variant, itself among them, that lead outside it.

    Args:
        root: the workspace.
        variant: directory, from the workspace's root.
    """
    found = []
    candidates = [root / variant, *(root / variant).rglob("*")]
    for path in (path for path in candidates if path.is_symlink()):
        name, target = path.relative_to(root).as_posix(), os.readlink(path)
        end = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if os.path.isabs(target) or not _within(end, variant):
            message = f"is a symbolic link to {target}, outside {variant}/"
            found.append(Finding(name, 1, f"{message}: {remedy(variant)}"))
    return sorted(found)


def remedy(variant: str) -> str:
    """What to do instead of reaching out of a variant."""
    return f"copy the code into {variant}/"


def _within(path: str, variant: str) -> bool:
    return path == variant or path.startswith(variant + "/")


class _Visitor(ast.NodeVisitor):
    def __init__(self, path: str, variant: str) -> None:
        self.path, self.variant = path, variant
        self.own = variant.replace("/", ".")
        self.package = list(PurePosixPath(path).parent.parts)
        self.findings: list[Finding] = []
        self.sys_names = {"sys"}

    def add(self, node: ast.AST, message: str) -> None:
        self.findings.append(Finding(self.path, getattr(node, "lineno", 1), message))

    # -- import statements --------------------------------------------------------------------

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.check_module(node, alias.name)
            if alias.name == "sys":
                self.sys_names.add(alias.asname or "sys")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level:
            base = self.package[: max(0, len(self.package) - node.level + 1)]
            module = ".".join(part for part in (*base, node.module) if part)
            outside = self.outside(module, node)
            if outside:
                dots = "." * node.level + (node.module or "")
                self.refuse_import(node, f"{module} (`from {dots} import {', '.join(outside)}`)")
            return
        module = node.module or ""
        for alias in node.names:
            if module == "sys" and alias.name in _SYS:
                self.add(node, f"takes sys.{alias.name}: {self.no_machinery()}")
            elif module == "builtins" and alias.name in _BUILTINS:
                self.add(node, f"takes builtins.{alias.name}: {self.no_machinery()}")
        names = [alias.name for alias in node.names]
        if module.split(".")[0] in FIRST_PARTY:
            if outside := self.outside(module, node):
                self.refuse_import(node, f"{module} ({', '.join(outside)})")
        elif module == "importlib" and set(names) <= {"metadata", "resources"}:
            pass
        else:
            loaders = [f"{module}.{name}" for name in names if f"{module}.{name}" in _LOADERS]
            self.check_module(node, loaders[0] if loaders else module)

    def outside(self, module: str, node: ast.ImportFrom) -> list[str]:
        """Names of `from module import ...` that are neither the variant's nor the variant."""
        if self.is_own(module):
            return []
        return [a.name for a in node.names if not self.is_own(f"{module}.{a.name}".lstrip("."))]

    def check_module(self, node: ast.AST, module: str) -> None:
        if module in _LOADERS:
            self.add(node, f"imports {module}: {self.no_machinery()}")
        elif module.split(".")[0] in FIRST_PARTY and not self.is_own(module):
            self.refuse_import(node, module)

    def refuse_import(self, node: ast.AST, module: str) -> None:
        self.add(node, f"imports {module}, outside {self.variant}/: {remedy(self.variant)}")

    def is_own(self, module: str) -> bool:
        return module == self.own or module.startswith(self.own + ".")

    def no_machinery(self) -> str:
        return (
            f"a variant loads code by import statements alone; {remedy(self.variant)} and import "
            "it there"
        )

    # -- names that load or find code at run time ------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        called = node.id in _BUILTINS and isinstance(node.ctx, ast.Load)
        if called or node.id in ("__loader__", "__builtins__"):
            self.add(node, f"uses {node.id}: {self.no_machinery()}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value.id if isinstance(node.value, ast.Name) else None
        if owner in self.sys_names and node.attr in _SYS:
            self.add(node, f"uses sys.{node.attr}: {self.no_machinery()}")
        elif owner == "builtins" and node.attr in _BUILTINS:
            self.add(node, f"uses builtins.{node.attr}: {self.no_machinery()}")
        elif owner == "importlib" and node.attr not in ("metadata", "resources"):
            self.add(node, f"uses importlib.{node.attr}: {self.no_machinery()}")
        self.generic_visit(node)

    # -- strings that name a module or a path ----------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring: prose
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        whole = _folded(node)
        if whole is None:
            self.generic_visit(node)
        else:
            self.check_string(node, whole)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.check_string(node, node.value)

    def visit_Call(self, node: ast.Call) -> None:
        whole = _folded(node)
        if whole is not None:
            self.check_string(node, whole)
            return
        if isinstance(node.func, ast.Attribute) and node.func.attr == "syspath_prepend":
            self.add(node, f"uses syspath_prepend: {self.no_machinery()}")
        self.generic_visit(node)

    def check_string(self, node: ast.AST, value: str) -> None:
        first = value.split(".", 1)[0]
        if _DOTTED.fullmatch(value) and first in FIRST_PARTY and "/" not in value:
            if not self.is_own(value) and not _is_file_name(value):
                message = f"names the module {value}, outside {self.variant}/"
                self.add(node, f"{message}: {remedy(self.variant)}")
        elif "/" in value and _PATH.fullmatch(value):
            self.check_path(node, value)

    def check_path(self, node: ast.AST, value: str) -> None:
        """A path is read from the working directory, which `run` sets to the workspace."""
        path = posixpath.normpath(value)
        climbs = path.startswith("..")
        if climbs:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(self.path), value))
        first_party = path.split("/")[0] in FIRST_PARTY
        if not (climbs or first_party):
            return
        shared = any(f"{path}/".startswith(prefix) for prefix in SHARED_DATA)
        # `experiments/grug` alone, the start of a path put together at run time, leads nowhere.
        prefix = _within(self.variant, path)
        if not (_within(path, self.variant) or shared or prefix):
            message = f"names the path {value}, outside {self.variant}/"
            self.add(node, f"{message}: {remedy(self.variant)}")


def _is_file_name(value: str) -> bool:
    return value.endswith((".py", ".md", ".json", ".toml", ".lock"))


def _folded(node: ast.AST) -> str | None:
    """The text that a constant expression of strings or paths spells; None for any other."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Div)):
        between = "/" if isinstance(node.op, ast.Div) else ""
        return _joined([node.left, node.right], between)
    if isinstance(node, ast.Call) and node.args and not node.keywords:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in ("Path", "PurePath", "PurePosixPath", "join"):
            return _joined(node.args, "/")
    return None


def _joined(nodes: list[ast.expr], between: str) -> str | None:
    parts = [_folded(node) for node in nodes]
    return None if None in parts else between.join(part for part in parts if part is not None)
