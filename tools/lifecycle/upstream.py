"""Merges a variant's change since its fork point into its origin, as uncommitted edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.common.errors import ToolError
from tools.common.files import File, Mode, Tree, has_files
from tools.common.names import Rename
from tools.common.repository import Repository
from tools.common.transaction import Change
from tools.ledger import edit, pins
from tools.ledger.files import file_of
from tools.ledger.ledger import Entry
from tools.lifecycle import entries as ledger
from tools.lifecycle import keep, merge
from tools.lifecycle.drift import fork_pin
from tools.lifecycle.renamed_files import align
from tools.lifecycle.written import write
from tools.variants.facts import compare


@dataclass(frozen=True)
class Merged:
    """The origin after the merge, and the files that need a person, with the reason."""

    tree: dict[str, File]
    conflicts: dict[str, str]


def upstream(
    repo: Repository, name: str, verdict: str, sizes: str = "", *, check: bool = False
) -> tuple[list[str], bool]:
    """Merges a variant; (lines to print, whether conflicts were left, so that nothing is marked).

    With `check` only what would be refused is refused, and nothing is changed.

    Raises:
        ToolError: the variant cannot be merged; nothing is changed.
    """
    text, variant, origin = _pair(repo, name)
    verdict = ledger.verdict(variant, verdict)
    point = fork_pin(variant)
    for path in (origin.path, variant.path):
        repo.refuse_dirty(path)
    rename = Rename(variant.path, origin.path)
    base = pins.files(repo, point, origin.path)
    ours, copy = repo.tracked(origin.path), repo.tracked(variant.path)
    theirs = restored(copy, rename.undone(), (base, ours))
    merged = merge_trees(ours, base, theirs, (origin.path, point.label, variant.path))
    if theirs == base:
        raise ToolError(f"{variant.name}: changes nothing of {origin.name}: retire it instead")
    if check:
        return [], False
    change = Change(f"merge of {variant.path} into {origin.path}")
    for inside in sorted({*ours, *merged.tree}):
        if ours.get(inside) != merged.tree.get(inside):
            path = f"{origin.path}/{inside}"
            change.put(path, ours.get(inside), merged.tree.get(inside))
    for inside, file in copy.items():
        change.rest_on(f"{variant.path}/{inside}", file)
    # The merge changes the origin: what the copy was made from may be left nowhere else.
    if commit := pins.find(repo, point, origin.path):
        keep.keep_commit(repo, change, commit, origin.path)
    if not merged.conflicts:
        _mark(repo, change, text, variant, verdict)
    keep.keep_sizes(repo, change, variant, (origin,), sizes)
    records = keep.uncommitted_records(repo, variant)
    command = write(repo, change, records, conflicted=bool(merged.conflicts))
    paths = (*change.writes, *change.removes)
    changed = sum(path.startswith(f"{origin.path}/") for path in paths)
    lines = [f"{origin.path}: {changed} files changed by {variant.name}, not committed"]
    against = f"{variant.name} against {origin.name}"
    counts = [_lines(copy, tree, rename) for tree in (ours, merged.tree)]
    lines.append(f"{against}: {counts[0]} lines before, {counts[1]} lines after")
    if merged.conflicts:
        lines += [f"{origin.path}/{p}: {why}" for p, why in sorted(merged.conflicts.items())]
        marks = f"./pants upstream {variant.path} --upstream-resolved"
        lines.append(f"next: resolve them, then mark it superseded: {marks}")
        return lines, True
    lines.append(f"{file_of(text, variant.line)}: {variant.name} is superseded by {variant.origin}")
    lines.append(f"next: ./pants fmt lint check test {origin.path}::, then {command}")
    return lines, False


def resolved(repo: Repository, name: str, verdict: str, sizes: str = "") -> list[str]:
    """Marks a variant whose conflicts a person has resolved; returns the lines to print.

    Raises:
        ToolError: the origin still has conflict markers, or the variant cannot be marked.
    """
    text, variant, origin = _pair(repo, name)
    verdict = ledger.verdict(variant, verdict)
    repo.refuse_dirty(variant.path)
    change = Change(f"mark of {variant.name} as superseded")
    for inside, file in repo.working(origin.path).items():
        if merge.has_markers(file.content):
            raise ToolError(f"{origin.path}/{inside}: still holds conflict markers")
        change.rest_on(f"{origin.path}/{inside}", file)
    _mark(repo, change, text, variant, verdict)
    keep.keep_sizes(repo, change, variant, (origin,), sizes)
    beside = [*repo.dirty(origin.path), *keep.uncommitted_records(repo, variant)]
    command = write(repo, change, beside)
    return [
        f"{file_of(text, variant.line)}: {variant.name} is superseded by {variant.origin}",
        f"next: ./pants fmt lint check test {origin.path}::, then {command}",
    ]


def _pair(repo: Repository, name: str) -> tuple[str, Entry, Entry]:
    """The ledger's text, an active variant's entry and its origin's. Raises ToolError."""
    text, entries = ledger.read(repo.root)
    variant = ledger.find(entries, name)
    if variant.status != "active":
        raise ToolError(f"{variant.name}: is {variant.status}: only an active one is merged")
    if variant.origin == "none":
        raise ToolError(f"{variant.name}: was copied from nothing: it has no origin")
    origin = next(entry for entry in entries if entry.name == variant.origin)
    for entry in (origin, variant):
        if not has_files(repo.root / entry.path):
            raise ToolError(f"{entry.path}: is not there ({entry.name} is {entry.status})")
    return text, variant, origin


def restored(copy: Tree, rename: Rename, origins: Sequence[Tree]) -> dict[str, File]:
    """The variant's files under the origin's name; `rename` is what the fork did.

    A file that nobody touched is what it was in one of the `origins`, byte for byte.
    """
    tree: dict[str, File] = {}
    for path, file in copy.items():
        states = [origin[path].content for origin in origins if path in origin]
        tree[path] = File(rename.restored(path, file.content, states), file.mode)
    return tree


def _mark(repo: Repository, change: Change, text: str, variant: Entry, verdict: str) -> None:
    """Adds to a change that the ledger marks the variant as superseded by its origin."""
    good = str(pins.at(repo, repo.ask("rev-parse", "HEAD").strip(), variant.path))
    fields = {"status": "superseded", "last known-good": good, "superseded by": variant.origin}
    fields |= {"verdict": verdict} if verdict else {}
    fields = introduced(repo, variant) | fields
    ledger.put(change, repo.root, text, edit.changed(text, variant, fields))


def introduced(repo: Repository, entry: Entry) -> dict[str, str]:
    """The field `introduced`, if it is still pending and the main branch has the directory.

    It is the first commit of the main branch that has it: one of another branch may be squashed.
    """
    if entry.introduced != "pending":
        return {}
    tips = [commit for commit in map(repo.commit, repo.main_branches()) if commit]
    commits = repo.ask("rev-list", "--reverse", *tips, "--", entry.path).split()
    first = next((c for c in commits if repo.object(c, entry.path)), None)
    return {"introduced": str(pins.at(repo, first, entry.path))} if first else {}


def _lines(variant: Tree, origin: Tree, rename: Rename) -> str:
    """`+ADDED -DELETED` lines of Python between the two."""

    def python(tree: Tree) -> Mapping[str, bytes]:
        return {path: file.content for path, file in tree.items() if path.endswith(".py")}

    counts = compare(python(variant), python(origin), (rename.old, rename.new)).changed
    return f"+{counts.added} -{counts.deleted}" if counts else "+0 -0"


def merge_trees(ours: Tree, base: Tree, theirs: Tree, labels: merge.Labels) -> Merged:
    """`ours` with the changes from `base` to `theirs`; files in conflict by path stay as ours.

    A file that either side has renamed is merged with what it was.
    """
    sides = align(ours, base, theirs)
    merged = Merged(dict(sides.ours), dict(sides.clashes))
    for path in sorted({*sides.base, *sides.theirs}):
        mine, old, new = sides.ours.get(path), sides.base.get(path), sides.theirs.get(path)
        if new in (old, mine):
            continue
        if mine == old:
            merged.tree.pop(path, None)
            merged.tree.update({path: new} if new else {})
        elif new is None:
            merged.conflicts[path] = "was deleted in the variant, and edited in its origin"
        elif mine is None:
            merged.conflicts[path] = "was edited in the variant, and deleted in its origin"
        else:
            content, why = _merge(mine.content, old.content if old else b"", new.content, labels)
            mode: Mode = new.mode if old is None or new.mode != old.mode else mine.mode
            merged.tree[path] = File(content, mode)
            merged.conflicts.update({path: why} if why else {})
    return merged


def _merge(mine: bytes, old: bytes, new: bytes, labels: merge.Labels) -> tuple[bytes, str]:
    """(content, the reason why a person must look at it, if any)."""
    if mine == new or new == old:
        return mine, ""
    if mine == old:
        return new, ""
    if not merge.is_text(mine, old, new):
        return mine, "is binary, and edited in both: it stays as it was"
    content, conflicts = merge.merge(mine, old, new, labels, "--diff3")
    noun = "conflict" if conflicts == 1 else "conflicts"
    return content, f"{conflicts} {noun}" if conflicts else ""
