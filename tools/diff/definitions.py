"""The meaning of a change: definitions, their change buckets, knobs and the order of calls."""

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

# Characters of a knob's value; longer ones are cut.
MAX_VALUE = 80
_ALIKE = 0.7
# Renamed definitions are searched among at most this many pairs.
_MAX_RENAMED_PAIRS = 400
_TESTS = ("test_", "conftest.py")
_IMPORTS = (ast.Import, ast.ImportFrom)


def definitions(side: Side) -> dict[str, Definition]:
    """The definitions of a file by qualified name; of equal names, the first."""
    by_name: dict[str, Definition] = {}
    for definition in python.walk(side.outline):
        by_name.setdefault(definition.name, definition)
    for definition in python.constants(side.tree) if side.tree else ():
        by_name.setdefault(definition.name, definition)
    return by_name


def changes(path: str, old: Side, new: Side, bucket_map: buckets.Map) -> list[Change]:
    """The changed definitions of one file, with their buckets from the map or guessed."""
    if path.rpartition("/")[2].startswith(_TESTS):
        return _whole(path, "tests", old, new)
    if any(side.tree is None and side.lines for side in (old, new)):
        return _whole(path, "text", old, new)
    before, after = definitions(old), definitions(new)
    result: list[Change] = []
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
    for name, old_name in _renamed(before, after, removed, added, old, new).items():
        result.append(_change(path, name, "renamed", bucket_map, after[name].start, old_name))
        added.remove(name)
        removed.remove(old_name)
    for name in added:
        result.append(_change(path, name, "added", bucket_map, after[name].start))
    for name in removed:
        result.append(_change(path, name, "removed", bucket_map, None))
    for name in after:
        if name in before and (how := _how(before[name], after[name], old, new)):
            result.append(_change(path, name, how, bucket_map, after[name].start))
    result += _rest(path, old, new, bucket_map)
    order = {name: n for n, name in enumerate(after)}
    return sorted(result, key=lambda c: (order.get(c.name, len(order)), c.name))


def _outer(name: str) -> str:
    return name.rpartition(".")[0]


def _whole(path: str, kind: str, old: Side, new: Side) -> list[Change]:
    if old.plain == new.plain:
        return []
    how = "added" if not old.lines else "removed" if not new.lines else "changed"
    return [Change(path, f"<{kind}>", how, buckets.OTHER, "file", line=0 if new.lines else None)]


def _change(
    path: str, name: str, how: How, bucket_map: buckets.Map, line: int | None, old_name: str = ""
) -> Change:
    bucket = buckets.declared(bucket_map, path, name)
    bucket = bucket or (buckets.declared(bucket_map, path, old_name) if old_name else None)
    if bucket:
        return Change(path, name, how, bucket, "map", old_name, line)
    is_guessed = path.endswith(".py") and not name.startswith("<")
    is_guessed = is_guessed and not buckets.declares_whole(bucket_map, path)
    if is_guessed and (guess := buckets.guess(name) or buckets.guess(old_name)):
        return Change(path, name, how, guess, "guess", old_name, line)
    return Change(path, name, how, buckets.default(bucket_map, path), "file", old_name, line)


def undeclared(changed: Sequence[Change], bucket_map: buckets.Map) -> list[Change]:
    """The changes; the file's default is a guess for a definition that a map of them lacks."""
    return [
        replace(change, decided="guess")
        if change.decided == "file"
        and not change.name.startswith("<")
        and buckets.names_definitions(bucket_map, change.path)
        else change
        for change in changed
    ]


def _how(a: Definition, b: Definition, old: Side, new: Side) -> How | None:
    """How two definitions of one name differ; None if only in layout."""
    if not old.interface.isdisjoint(range(a.start, a.end)):
        return "changed"
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
    """Added definitions that are a removed one under a new name, as {new name: old name}."""
    if len(removed) * len(added) > _MAX_RENAMED_PAIRS:
        return {}
    old_names: dict[str, str] = {}
    candidates = []
    for old_name in removed:
        for name in added:
            a, b = before[old_name], after[name]
            if a.kind == b.kind and _outer(old_name) == _outer(name):
                likeness = alike(old.plain[a.start : a.end], new.plain[b.start : b.end])
                if likeness >= _ALIKE:
                    candidates.append((-likeness, old_name, name))
    for _, old_name, name in sorted(candidates):
        if name not in old_names and old_name not in old_names.values():
            old_names[name] = old_name
    return old_names


def _rest(path: str, old: Side, new: Side, bucket_map: buckets.Map) -> Iterator[Change]:
    """Changes of a module's other statements and of its imports."""
    before, after = (_loose(side.tree) if side.tree else ([], []) for side in (old, new))
    if not python.equal(before[0], after[0]) and old.lines and new.lines:
        yield _change(path, "<module>", "changed", bucket_map, None)
    if not python.equal(before[1], after[1]):
        rebound = _rebound(before[1], after[1])
        if rebound:
            yield _change(path, "<imports>", "changed", bucket_map, None)
        elif old.lines and new.lines:
            yield _change(path, "<imports>", "imports", bucket_map, None)


def _loose(tree: ast.Module) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """(statements that are neither definitions nor docstrings, imports) at a module's top level."""
    constants = {id(d.node) for d in python.constants(tree)}
    imports: list[ast.stmt] = [s for s in tree.body if isinstance(s, _IMPORTS)]
    statements = [
        s
        for s in tree.body
        if not isinstance(s, (*_IMPORTS, ast.ClassDef, *python.Function))
        and id(s) not in constants
        and not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
    ]
    return statements, imports


def _rebound(before: Sequence[ast.stmt], after: Sequence[ast.stmt]) -> set[str]:
    """Names that are now imported from elsewhere."""
    bound: list[dict[str, str]] = [{}, {}]
    for statements, names in zip((before, after), bound, strict=True):
        for statement in statements:
            module = getattr(statement, "module", None) or ""
            for alias in getattr(statement, "names", ()):
                names[alias.asname or alias.name] = f"{module}:{alias.name}"
    return {name for name, source in bound[1].items() if bound[0].get(name, source) != source}


def across(
    changed: Sequence[Change], old: Mapping[str, Side], new: Mapping[str, Side]
) -> list[Change]:
    """Merges the removal and the addition of a definition that moved unchanged to another file.

    `old` and `new` are the sides by path.
    """
    removed = {c.name: c for c in changed if c.how == "removed" and c.path in old}
    moved: dict[Change, Change] = {}
    sources: set[Change] = set()
    for change in changed:
        lost = removed.get(change.name)
        if change.how == "added" and lost and change.path in new:
            a = definitions(old[lost.path]).get(change.name)
            b = definitions(new[change.path]).get(change.name)
            if a and b and python.equal(a.node, b.node):
                old_name = f"{lost.path}: {change.name}"
                move = replace(lost, how="moved", path=change.path, line=b.start, old_name=old_name)
                moved[change] = move
                sources.add(lost)
    return [moved.get(change, change) for change in changed if change not in sources]


def by_users(
    changed: Sequence[Change], sides: Mapping[str, Side], bucket_map: buckets.Map
) -> list[Change]:
    """Gives new definitions the bucket of their users, if neither map nor name tells theirs."""
    undecided = [
        c
        for c in changed
        if c.how == "added" and c.decided == "file" and c.path in sides
        if not buckets.declares_whole(bucket_map, c.path)
    ]
    if not undecided:
        return list(changed)
    decided = {(c.path, c.name): c for c in changed}
    words: dict[tuple[str, str], set[str]] = {}
    for change in changed:
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
                decided[user].bucket
                for user, names in words.items()
                if user != key
                and change.name.rpartition(".")[2] in names
                and (decided[user].how == "added" and decided[user].decided != "file")
            ]
            bucket = buckets.majority(users)
            if bucket and decided[key].decided == "file":
                decided[key] = replace(change, bucket=bucket, decided="guess")
                progress = True
        if not progress:
            break
    return [decided[change.path, change.name] for change in changed]


# -- knobs ------------------------------------------------------------------------------------


def knobs(path: str, old: Side, new: Side) -> list[Knob]:
    """Defaults, constants and presets' values that differ, except those of new or lost classes."""
    before, after = (knob_values(side.tree) if side.tree else {} for side in (old, new))
    names = [{d.name for d in python.walk(side.outline)} for side in (old, new)]
    one_sided = names[0] ^ names[1]
    differing = []
    for name in {**after, **before}:
        a, b = before.get(name), after.get(name)
        if a != b and one_sided.isdisjoint(_owners(name)):
            differing.append(Knob(path, name, a, b))
    return differing


def _owners(name: str) -> Iterator[str]:
    """The classes and functions that a knob may belong to."""
    parts = name.partition("(")[0].split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def knob_values(tree: ast.Module) -> dict[str, str]:
    """Every knob of a module by name."""
    values: dict[str, str] = {}

    def visit(body: Sequence[ast.stmt], prefix: str) -> None:
        for stmt in body:
            target, value = _binding(stmt)
            if target and value:
                _note(values, f"{prefix}{target}", value)
            elif isinstance(stmt, ast.ClassDef):
                visit(stmt.body, f"{prefix}{stmt.name}.")
            elif isinstance(stmt, python.Function):
                for argument, default in _defaults(stmt.args):
                    values[f"{prefix}{stmt.name}({argument})"] = _written(default)

    visit(tree.body, "")
    return values


def _note(values: dict[str, str], name: str, value: ast.expr) -> None:
    """Adds a knob, or one for each keyword argument of a call and each entry of a dict.

    A config field with a role, `role("cadence", 400)`, gives two: its default, and its role.
    """
    function = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id
    if isinstance(value, ast.Call) and function == "role" and len(value.args) == 2:
        values[f"{name}.role"] = _written(value.args[0])
        value = value.args[1]
    parts: list[tuple[str, ast.expr]] = []
    if isinstance(value, ast.Dict):
        entries = zip(value.keys, value.values, strict=True)
        parts = [(f"[{_written(key)}]", entry) for key, entry in entries if key]
    elif isinstance(value, ast.Call):
        parts = [(f".{keyword.arg}", keyword.value) for keyword in value.keywords if keyword.arg]
    if parts:
        values.pop(name, None)
    else:
        values.setdefault(name, _written(value))
    for suffix, part in parts[:200]:
        _note(values, f"{name}{suffix}", part)


def _binding(stmt: ast.stmt) -> tuple[str, ast.expr | None]:
    """The one name that a statement binds, and its value; no value if it is no knob."""
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
    """`__call__` methods that now make other calls, or make them in another order."""
    before, after = definitions(old), definitions(new)
    result = []
    for name, b in after.items():
        a = before.get(name)
        if name.endswith(".__call__") and a and not python.equal(a.node, b.node):
            orders = _calls(a.node, old), _calls(b.node, new)
            if orders[0] != orders[1]:
                result.append(CallOrder(path, name, *orders))
    return result


def _calls(node: ast.AST, side: Side) -> tuple[str, ...]:
    """Calls of own parts, of the module's functions and of nn modules, in order of evaluation."""
    calls: list[str] = []
    foreign = {*dir(builtins), *_imported(side)}

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            visit(child)
        if isinstance(node, ast.Call) and (name := _called(node.func, foreign)):
            calls.append(name)

    try:
        for stmt in getattr(node, "body", ()):
            visit(stmt)
    except RecursionError:
        return ()
    return tuple(calls)


def _called(func: ast.expr, foreign: Collection[str]) -> str:
    """`name` for a function of this module or of `self`, `nn.name` for one of nn; else empty."""
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
