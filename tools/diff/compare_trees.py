"""Compares two trees of files: bytes first, then text, then meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tools.common.errors import ToolError
from tools.common.files import File
from tools.diff import buckets, definitions, notebook, python
from tools.diff.align import Alignment, Item, Side, align, align_as_git
from tools.diff.changed_lines import MAX_STEPS, own_names_aside
from tools.diff.claims import Claims
from tools.diff.histogram import Budget
from tools.diff.model import CallOrder, Change, Comparison, FileDiff, Knob, Status
from tools.diff.moves import Moves
from tools.diff.names import Replaced, undo
from tools.diff.pairing import pairs
from tools.diff.proof import git_counts, prove
from tools.diff.read_trees import Source
from tools.diff.rows import Explained, kind_of
from tools.diff.scopes import reader_of_names
from tools.diff.shadows import shadowed
from tools.diff.spelling import as_python, foreign, not_python
from tools.diff.text import MAX_BYTES, PROSE, is_binary, notes, split
from tools.diff.words import difference, pair


@dataclass
class _Pair:
    """A pair of text files on its way to a FileDiff.

    `counting` limits the search for the lines that git calls changed, `explaining` all else.
    """

    path: str
    old: Side
    new: Side
    git: Alignment
    alignment: Alignment
    counting: Budget
    explaining: Budget
    names: frozenset[tuple[str, str]] = frozenset()


def compare(
    old: Source, new: Source, bucket_map: buckets.Map | None = None, budget: Budget | None = None
) -> Comparison:
    """The changes from one tree to another.

    A copy's own name is no change: `experiments.grug.moe` in the variant matches
    `experiments.grug.base` in its origin.

    Args:
        old: the origin.
        new: the variant.
        bucket_map: the change buckets of definitions (buckets.parse), to which the trees' own maps
            are added.
        budget: limits the work for each file, by default to MAX_STEPS. Beyond it, a file's lines
            are shown as git shows them, and a note says so.
    """
    budget = budget or Budget(MAX_STEPS)
    bucket_map, faults = _own_buckets(bucket_map or {}, (old.tree, new.tree))
    contents = [{path: file.content for path, file in side.tree.items()} for side in (old, new)]
    plain = own_names_aside(contents[0], contents[1], (old.name, new.name)), contents[1]
    paths = pairs(*plain, budget.alike())
    compared = [_read(a, b, old.tree, new.tree, plain, budget) for a, b in paths]
    readers = _readers_of_names((old.tree, new.tree))
    for texts in compared:
        if texts and not readers:
            _undo_renames(texts)
    moves = Moves([(p.old, p.new, p.alignment) if p else None for p in compared], budget.alike())
    claims = [_claims(n, texts, moves) if texts else None for n, texts in enumerate(compared)]
    prove(claims, [texts.explaining if texts else Budget() for texts in compared])
    files = []
    for (a, b), texts, claim in zip(paths, compared, claims, strict=True):
        sides = old.tree.get(a) if a else None, new.tree.get(b) if b else None
        files.append(_file_diff((a, b), sides, (texts, claim) if texts and claim else None))
    names = {name for texts in compared if texts for name in texts.names}
    return Comparison(
        old.name,
        new.name,
        tuple(files),
        tuple(sorted(names)),
        *_meaning([texts for texts in compared if texts], bucket_map),
        (*faults, *readers, *_shadows(old.tree, new.tree), *_limits(compared)),
    )


def _readers_of_names(trees: Sequence[Mapping[str, File]]) -> list[str]:
    """Notes on files that read the names of other files' variables: there, a rename is a change."""
    found = {}
    for path, file in (item for tree in trees for item in tree.items()):
        if path.endswith((".py", ".ipynb")) and (what := reader_of_names(file.content)):
            found[path] = what
    return [
        f"{path} uses {what}, by which the names of variables can be read: renamed lines count"
        for path, what in sorted(found.items())
    ]


def _shadows(old: Mapping[str, File], new: Mapping[str, File]) -> Iterator[str]:
    """Sources that the origin reads, and in place of which the variant reads another file."""
    before = shadowed(old)
    for path, source in shadowed(new).items():
        if before.get(path) != source:
            yield f"{path} hides {source}: `import` reads the former"


def _limits(compared: Sequence[_Pair | None]) -> Iterator[str]:
    """What was too much work, file by file."""
    for texts in compared:
        if texts and texts.counting.refused:
            reason = "some lines are paired by position"
            yield f"{texts.path}: too much changed for an exact diff: {reason}"
        elif texts and texts.explaining.refused:
            reason = "all lines that git counts are substantive"
            yield f"{texts.path}: too much changed to be explained: {reason}"


def _meaning(
    compared: Sequence[_Pair], bucket_map: buckets.Map
) -> tuple[tuple[Change, ...], tuple[Knob, ...], tuple[CallOrder, ...]]:
    """Changed definitions, knobs and orders of calls."""
    changes: list[Change] = []
    for texts in compared:
        if texts.old.plain != texts.new.plain or texts.old.interface:
            changes += definitions.changes(texts.path, texts.old, texts.new, bucket_map)
    old_sides = {texts.path: texts.old for texts in compared}
    new_sides = {texts.path: texts.new for texts in compared}
    changes = definitions.across(changes, old_sides, new_sides)
    python = [
        texts
        for texts in compared
        if texts.old.is_python and texts.new.is_python and not _test(texts.path)
        if texts.old.plain != texts.new.plain
    ]
    knobs = (knob for p in python for knob in definitions.knobs(p.path, p.old, p.new))
    calls = (order for p in python for order in definitions.call_orders(p.path, p.old, p.new))
    changes = definitions.by_users(changes, new_sides, bucket_map)
    changes = definitions.undeclared(changes, bucket_map)
    return tuple(changes), tuple(knobs), tuple(calls)


def _own_buckets(
    bucket_map: buckets.Map, trees: Sequence[Mapping[str, File]]
) -> tuple[buckets.Map, list[str]]:
    """The map with what the compared trees declare of their own, and notes on faults."""
    faults = []
    for tree in trees:
        if buckets.OWN in tree:
            try:
                text = tree[buckets.OWN].content.decode()
                bucket_map = buckets.joined(bucket_map, buckets.parse(text, buckets.OWN))
            except (ToolError, UnicodeDecodeError) as error:
                faults.append(f"the variant's own buckets do not count: {error}")
    return bucket_map, sorted(set(faults))


def _test(path: str) -> bool:
    return path.rpartition("/")[2].startswith(("test_", "conftest.py"))


def _is_text(file: File | None) -> bool:
    if file is None:
        return True
    big = len(file.content) > MAX_BYTES
    return file.mode in ("file", "executable") and not big and not is_binary(file.content)


def _read(
    a: str | None,
    b: str | None,
    old: Mapping[str, File],
    new: Mapping[str, File],
    plain: tuple[Mapping[str, bytes], Mapping[str, bytes]],
    budget: Budget,
) -> _Pair | None:
    """The lines of a pair of texts, aligned; None if either side is not a text.

    `plain` holds the contents of both trees, the origin's under the variant's name.
    """
    before, after = old.get(a) if a else None, new.get(b) if b else None
    if not (_is_text(before) and _is_text(after)):
        return None
    path = b or a or ""
    contents = (
        before.content if before else None,
        after.content if after else None,
        plain[0][a] if a else None,
        plain[1][b] if b else None,
    )
    lines = [split(content or b"") for content in _cells(path, contents)]
    ends_py = path.endswith(".py"), path.endswith(".py") and (a or path).endswith(".py")
    decoded = [as_python(raw) if ends_py[0] else raw for raw in lines[2:]]
    of_python = ends_py[1] and not not_python(lines[2])
    is_python = ends_py[0] and not not_python(lines[3])
    prose = [(name or path).endswith(PROSE) for name in (a, b)]
    old_side = Side(lines[0], decoded[0], of_python, decoded[0], raw=lines[2], is_prose=prose[0])
    new_side = Side(lines[1], decoded[1], is_python, raw=lines[3], is_prose=prose[1])
    budgets = budget.alike(), budget.alike()
    if old_side.raw == new_side.raw and old_side.plain == new_side.plain:
        items = [Item((n,), (n,), True) for n in range(len(old_side.lines))]
        return _Pair(path, old_side, new_side, Alignment(items), Alignment(items), *budgets)
    git = align_as_git(old_side, new_side, budgets[0])
    texts = _Pair(path, old_side, new_side, git, Alignment(), *budgets)
    _align(texts)
    return texts


def _cells(path: str, contents: Sequence[bytes | None]) -> Sequence[bytes | None]:
    """The contents of a notebook as text; any others as they are."""
    if not path.endswith(".ipynb"):
        return contents
    texts = [None if content is None else notebook.cells(content) for content in contents]
    unread = any(text is None and raw for text, raw in zip(texts, contents, strict=True))
    return contents if unread else texts


def _align(texts: _Pair) -> None:
    def same(i: int, j: int) -> bool:
        return kind_of(texts.old, texts.new, i, j) != "changed"

    texts.alignment = align(texts.old, texts.new, texts.git, same, texts.explaining)


def _undo_renames(texts: _Pair) -> None:
    """Gives the old side the new names of its variables, and aligns it anew."""
    old = texts.old
    if not old.is_python or not old.tree or old.plain == texts.new.plain:
        return
    kept = {
        item.old[0]
        for item in texts.alignment.items
        if item.matched and old.plain[item.old[0]] == texts.new.plain[item.new[0]]
    }
    renamed = undo(old.plain, old.tree, _replaced(texts), kept)
    if renamed.names:
        texts.old = replace(old, plain=renamed.lines, interface=renamed.interface)
        texts.names = renamed.names
        _align(texts)


def _replaced(texts: _Pair) -> Iterator[Replaced]:
    """The words that others replaced, in all pairs of lines that differ."""
    old, new = texts.old.plain, texts.new.plain
    for item in texts.alignment.items:
        if item.matched or not (item.old and item.new):
            continue
        a, b = [old[i] for i in item.old], [new[j] for j in item.new]
        for i, j in pair(a, b, texts.explaining):
            if i is not None and j is not None:
                words = difference(a[i], b[j], texts.explaining)
                for before, after in words.replaced if words else ():
                    yield item.old[i], before, after


def _claims(number: int, texts: _Pair, moves: Moves) -> Claims:
    """The rows of file `number`, as they are to be proven."""
    destinations = {line: to for (file, line), to in moves.destinations.items() if file == number}
    origins = {line: origin for (file, line), origin in moves.origins.items() if file == number}
    moved = destinations, origins
    explained = Explained(texts.old, texts.new, texts.path, moved, texts.explaining)
    shown = explained.rows(texts.alignment)
    sides = texts.old, texts.new, texts.git, texts.alignment
    return Claims(texts.path, *sides, shown, explained.laid_out)


def _file_diff(
    paths: tuple[str | None, str | None],
    sides: tuple[File | None, File | None],
    texts: tuple[_Pair, Claims] | None,
) -> FileDiff:
    """The part of the report on one file; `texts` is given if both sides are text."""
    (a, b), (before, after) = paths, sides
    status: Status = "removed" if b is None else "added" if a is None else "renamed"
    if a == b:
        status = "unchanged" if before == after else "changed"
    remarks = list(_kinds(before, after))
    if texts is None:
        return FileDiff(a, b, status, tuple(remarks), as_whole=before != after or a != b)
    compared, claims = texts
    remarks += claims.notes
    if before and after:
        remarks += _differences(before, after, compared)
    for side, when in ((compared.old, "before"), (compared.new, "now")):
        if side.is_python and side.lines and side.tree is None:
            remarks.append(f"cannot be read as Python {when}: compared as text")
        elif compared.path.endswith(".py") and (why := not_python(side.raw)):
            remarks.append(f"{why} {when}: compared as text")
    if not (before and after) and (alone := _about(before or after)):
        remarks.append(alone)
    lines = compared.old.lines, compared.new.lines
    counts = git_counts(compared.git)
    as_whole = _as_whole(status, before, after, any(lines))
    return FileDiff(a, b, status, tuple(remarks), *lines, *claims.shown, counts, as_whole)


def _as_whole(status: Status, before: File | None, after: File | None, has_lines: bool) -> bool:
    """Whether a pair of texts changed in a way that its lines don't tell."""
    if before and after:
        return status == "renamed" or before.mode != after.mode
    return not has_lines


def _differences(before: File, after: File, texts: _Pair) -> Iterator[str]:
    """Notes on a pair of texts."""
    sides = texts.old.lines, texts.new.raw
    old, new = ("".join(side).encode("utf-8", "surrogateescape") for side in sides)
    yield from notes(old, new)
    if texts.path.endswith(".ipynb") and old != before.content:
        yield notebook.NOTE
        if texts.old.lines == texts.new.lines and before.content != after.content:
            yield "no cell differs"
    elif before.content != after.content and texts.old.raw == texts.new.raw:
        yield "only names the variant where the origin named itself"
    if found := foreign(_names(texts.new) - _names(texts.old)):
        yield f"names that look like others: {found}"


def _names(side: Side) -> set[str]:
    """The names of a Python source that are not of ASCII alone."""
    if not side.tokens or all(line.isascii() for line in side.plain):
        return set()
    tokens = (token for n in range(len(side.plain)) for token in side.tokens[n])
    return {text for kind, text in tokens if python.is_name(kind) and not text.isascii()}


def _about(file: File | None) -> str:
    """A note on a text that only one tree has."""
    if file is None or not file.content:
        return "empty" if file else ""
    return "; ".join(
        n for n in notes(b"", file.content) if "hidden" in n or "UTF-8" in n or "bidi" in n
    )


def _kinds(before: File | None, after: File | None) -> Iterator[str]:
    """Notes on files that are not plain text, or whose kind or mode has changed."""
    for file, when in ((before, "before"), (after, "now")):
        if file is None or (before and after and before == after):
            continue
        if file.mode == "link":
            yield f"symbolic link to {file.content.decode('utf-8', 'replace')!r} {when}"
        elif file.mode == "submodule":
            yield f"submodule at {file.content.decode('ascii', 'replace')[:12]} {when}"
        elif len(file.content) > MAX_BYTES:
            yield f"{len(file.content):,} bytes {when}: too large to be compared line by line"
        elif is_binary(file.content):
            yield f"binary, {len(file.content):,} bytes {when}"
    if before and after and before.mode != after.mode:
        yield f"mode: {before.mode} before, {after.mode} now"
