"""What a change is about: definitions, their change buckets, knobs and the order of calls."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from tools.diff import buckets, python
from tools.diff.align import Side
from tools.diff.model import CallOrder, Change, How, Knob
from tools.diff.python import Definition
from tools.diff.words import WORD, alike

# Longer values are cut.
MAX_VALUE = 80
_ALIKE = 0.7
# Renamed definitions are looked for among so many pairs at most.
_MAX_RENAMED_PAIRS = 400
_TESTS = ("test_", "conftest.py")
_IMPORTS = (ast.Import, ast.ImportFrom)


def definitions(side: Side) -> dict[str, Definition]:
    """All that a file defines, by qualified name; the first of equal names."""
    found: dict[str, Definition] = {}
    for definition in python.walk(side.outline):
        found.setdefault(definition.name, definition)
    for definition in python.constants(side.tree) if side.tree else ():
        found.setdefault(definition.name, definition)
    return found


def changes(path: str, old: Side, new: Side, known: buckets.Map) -> list[Change]:
    """The definitions of one file that changed; all have what the map knows as their bucket."""
    if path.rpartition("/")[2].startswith(_TESTS):
        return _whole(path, "tests", old, new)
    if any(side.tree is None and side.lines for side in (old, new)):
        return _whole(path, "text", old, new)
    before, after = definitions(old), definitions(new)
    found: list[Change] = []
    added = [
        name
        for name in after
        if name not in before and _outer(name) not in set(after) - set(before)
    ]
    removed = [
        name
        for name in before
        if name not in after and _outer(name) not in set(before) - set(after)
    ]
    for name, was in _renamed(before, after, removed, added, old, new).items():
        found.append(_change(path, name, "renamed", known, after[name].start, was))
        added.remove(name)
        removed.remove(was)
    for name in added:
        found.append(_change(path, name, "added", known, after[name].start))
    for name in removed:
        found.append(_change(path, name, "removed", known, None))
    for name in after:
        if name in before and (how := _how(before[name], after[name], old, new)):
            found.append(_change(path, name, how, known, after[name].start))
    found += _rest(path, old, new, known)
    order = {name: n for n, name in enumerate(after)}
    return sorted(found, key=lambda c: (order.get(c.name, len(order)), c.name))


def _outer(name: str) -> str:
    return name.rpartition(".")[0]


def _whole(path: str, what: str, old: Side, new: Side) -> list[Change]:
    if old.plain == new.plain:
        return []
    how = "added" if not old.lines else "removed" if not new.lines else "changed"
    return [Change(path, f"<{what}>", how, buckets.OTHER, "file", line=0 if new.lines else None)]


def _change(
    path: str, name: str, how: How, known: buckets.Map, line: int | None, old_name: str = ""
) -> Change:
    bucket = buckets.declared(known, path, name)
    bucket = bucket or (buckets.declared(known, path, old_name) if old_name else None)
    if bucket:
        return Change(path, name, how, bucket, "map", old_name, line)
    guessed = buckets.guess(name) if path.endswith(".py") and how == "added" else None
    if guessed:
        return Change(path, name, how, guessed, "guess", old_name, line)
    return Change(path, name, how, buckets.default(known, path), "file", old_name, line)


def _how(a: Definition, b: Definition, old: Side, new: Side) -> How | None:
    """What changed between two definitions of one name; None for nothing but the layout."""
    if old.plain[a.start : a.end] == new.plain[b.start : b.end]:
        return None
    if python.equal(a.node, b.node, inner=False):
        return None
    return "docs" if python.equal(a.node, b.node, inner=False, docs=False) else "changed"


def _renamed(
    before: Mapping[str, Definition],
    after: Mapping[str, Definition],
    removed: Sequence[str],
    added: Sequence[str],
    old: Side,
    new: Side,
) -> dict[str, str]:
    """Added definitions that are a removed one under another name, as new name -> old name."""
    if len(removed) * len(added) > _MAX_RENAMED_PAIRS:
        return {}
    found: dict[str, str] = {}
    candidates = []
    for was in removed:
        for name in added:
            a, b = before[was], after[name]
            if a.kind == b.kind and _outer(was) == _outer(name):
                likeness = alike(old.plain[a.start : a.end], new.plain[b.start : b.end])
                if likeness >= _ALIKE:
                    candidates.append((-likeness, was, name))
    for _, was, name in sorted(candidates):
        if name not in found and was not in found.values():
            found[name] = was
    return found


def _rest(path: str, old: Side, new: Side, known: buckets.Map) -> Iterator[Change]:
    """What stands at the top of a module besides definitions, and its imports."""
    before, after = (_loose(side.tree) if side.tree else ([], []) for side in (old, new))
    if not python.equal(before[0], after[0]) and old.lines and new.lines:
        yield _change(path, "<module>", "changed", known, None)
    if not python.equal(before[1], after[1]):
        rebound = _rebound(before[1], after[1])
        if rebound:
            yield _change(path, "<imports>", "changed", known, None)
        elif old.lines and new.lines:
            yield _change(path, "<imports>", "imports", known, None)


def _loose(tree: ast.Module) -> tuple[list[ast.stmt], list[ast.stmt]]:
    named = {id(d.node) for d in python.constants(tree)}
    imports: list[ast.stmt] = [s for s in tree.body if isinstance(s, _IMPORTS)]
    rest = [
        s
        for s in tree.body
        if not isinstance(s, (*_IMPORTS, ast.ClassDef, *python.Function))
        and id(s) not in named
        and not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
    ]
    return rest, imports


def _rebound(before: Sequence[ast.stmt], after: Sequence[ast.stmt]) -> set[str]:
    """Names that are imported from elsewhere than before."""
    bound: list[dict[str, str]] = [{}, {}]
    for statements, names in zip((before, after), bound, strict=True):
        for statement in statements:
            module = getattr(statement, "module", None) or ""
            for alias in getattr(statement, "names", ()):
                names[alias.asname or alias.name] = f"{module}:{alias.name}"
    return {name for name, source in bound[1].items() if bound[0].get(name, source) != source}


def across(
    found: Sequence[Change], old: Mapping[str, Side], new: Mapping[str, Side]
) -> list[Change]:
    """Makes one change of a definition that one file lost and another got as it was.

    Sides are by path.
    """
    gone = {c.name: c for c in found if c.how == "removed" and c.path in old}
    moved: dict[Change, Change] = {}
    gone_from: set[Change] = set()
    for change in found:
        other = gone.get(change.name)
        if change.how == "added" and other and change.path in new:
            a = definitions(old[other.path]).get(change.name)
            b = definitions(new[change.path]).get(change.name)
            if a and b and python.equal(a.node, b.node):
                was = f"{other.path}: {change.name}"
                went = replace(other, how="moved", path=change.path, line=b.start, old_name=was)
                moved[change] = went
                gone_from.add(other)
    return [moved.get(change, change) for change in found if change not in gone_from]


def by_users(found: Sequence[Change], sides: Mapping[str, Side]) -> list[Change]:
    """Gives new definitions that neither map nor name tells apart the bucket of their users."""
    undecided = [c for c in found if c.how == "added" and c.decided == "file" and c.path in sides]
    if not undecided:
        return list(found)
    decided = {(c.path, c.name): c for c in found}
    words: dict[tuple[str, str], set[str]] = {}
    for change in found:
        side = sides.get(change.path)
        definition = definitions(side).get(change.name) if side else None
        if side and definition:
            text = "".join(side.plain[definition.start : definition.end])
            words[change.path, change.name] = set(WORD.findall(text))
    for _ in range(len(undecided)):
        progress = False
        for change in undecided:
            key = change.path, change.name
            users = [
                decided[other].bucket
                for other, used in words.items()
                if other != key
                and change.name.rpartition(".")[2] in used
                and (decided[other].how == "added" and decided[other].decided != "file")
            ]
            bucket = buckets.majority(users)
            if bucket and decided[key].decided == "file":
                decided[key] = replace(change, bucket=bucket, decided="guess")
                progress = True
        if not progress:
            break
    return [decided[change.path, change.name] for change in found]


# -- knobs ------------------------------------------------------------------------------------


def knobs(path: str, old: Side, new: Side) -> list[Knob]:
    """Defaults, constants and presets' values that differ, but for those of added classes."""
    before, after = (knob_values(side.tree) if side.tree else {} for side in (old, new))
    names = [{d.name for d in python.walk(side.outline)} for side in (old, new)]
    one_sided = names[0] ^ names[1]
    found = []
    for name in {**after, **before}:
        a, b = before.get(name), after.get(name)
        if a != b and one_sided.isdisjoint(_owners(name)):
            found.append(Knob(path, name, a, b))
    return found


def _owners(name: str) -> Iterator[str]:
    """The classes and functions that a knob may belong to."""
    parts = name.partition("(")[0].split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def knob_values(tree: ast.Module) -> dict[str, str]:
    """Every knob of a module by name."""
    found: dict[str, str] = {}

    def visit(body: Sequence[ast.stmt], prefix: str) -> None:
        for stmt in body:
            target, value = _binding(stmt)
            if target and value:
                _note(found, f"{prefix}{target}", value)
            elif isinstance(stmt, ast.ClassDef):
                visit(stmt.body, f"{prefix}{stmt.name}.")
            elif isinstance(stmt, python.Function):
                for argument, default in _defaults(stmt.args):
                    found[f"{prefix}{stmt.name}({argument})"] = _written(default)

    visit(tree.body, "")
    return found


def _note(found: dict[str, str], name: str, value: ast.expr) -> None:
    """Adds a knob; one for each keyword value of a call and each entry of a dict.

    A config field with a role, `role("cadence", 400)`, is its default, and its role beside it.
    """
    called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id
    if isinstance(value, ast.Call) and called == "role" and len(value.args) == 2:
        found[f"{name}.role"] = _written(value.args[0])
        value = value.args[1]
    parts: list[tuple[str, ast.expr]] = []
    if isinstance(value, ast.Dict):
        entries = zip(value.keys, value.values, strict=True)
        parts = [(f"[{_written(key)}]", entry) for key, entry in entries if key]
    elif isinstance(value, ast.Call):
        parts = [(f".{keyword.arg}", keyword.value) for keyword in value.keywords if keyword.arg]
    if parts:
        found.pop(name, None)
    else:
        found.setdefault(name, _written(value))
    for suffix, part in parts[:200]:
        _note(found, f"{name}{suffix}", part)


def _binding(stmt: ast.stmt) -> tuple[str, ast.expr | None]:
    """The one name that a statement binds, and the value; no value where that is no knob."""
    if isinstance(stmt, ast.AnnAssign) and isinstance(stmt.target, ast.Name):
        return stmt.target.id, stmt.value
    if isinstance(stmt, ast.Assign) and len(stmt.targets) == 1:
        target = stmt.targets[0]
        if isinstance(target, ast.Name) and not isinstance(stmt.value, (ast.Lambda, ast.Subscript)):
            return target.id, stmt.value
    return "", None


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    first = len(positional) - len(arguments.defaults)
    yield from zip((a.arg for a in positional[first:]), arguments.defaults, strict=True)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default:
            yield argument.arg, default


def _written(value: ast.expr) -> str:
    try:
        text = " ".join(ast.unparse(value).split())
    except (ValueError, RecursionError):
        text = "..."
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"


# -- the order of calls -----------------------------------------------------------------------


def call_orders(path: str, old: Side, new: Side) -> list[CallOrder]:
    """`__call__` methods of both sides that call other things, or in another order."""
    before, after = definitions(old), definitions(new)
    found = []
    for name, b in after.items():
        a = before.get(name)
        if name.endswith(".__call__") and a and not python.equal(a.node, b.node):
            orders = _calls(a.node, old), _calls(b.node, new)
            if orders[0] != orders[1]:
                found.append(CallOrder(path, name, *orders))
    return found


def _calls(node: ast.AST, side: Side) -> tuple[str, ...]:
    """Own parts, functions of the module and of nn modules that a body calls, as evaluated."""
    found: list[str] = []
    foreign = {*dir(builtins), *_imported(side)}

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            visit(child)
        if isinstance(node, ast.Call) and (name := _called(node.func, foreign)):
            found.append(name)

    try:
        for stmt in getattr(node, "body", ()):
            visit(stmt)
    except RecursionError:
        return ()
    return tuple(found)


def _called(func: ast.expr, foreign: Collection[str]) -> str:
    """`name` of this module, of `self`, or `nn.name`, where nn may be a module's; else empty."""
    if isinstance(func, ast.Name):
        return "" if func.id in foreign else func.id
    if not isinstance(func, ast.Attribute):
        return ""
    owner = ""
    if isinstance(func.value, ast.Name):
        owner = func.value.id
    elif isinstance(func.value, ast.Attribute) and func.value.attr == "nn":
        owner = "nn"
    return {"self": func.attr, "nn": f"nn.{func.attr}"}.get(owner, "")


def _imported(side: Side) -> set[str]:
    """Names that a module imports."""
    statements = [s for s in side.tree.body if isinstance(s, _IMPORTS)] if side.tree else []
    return {alias.asname or alias.name for s in statements for alias in s.names}
