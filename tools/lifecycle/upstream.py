"""A variant's change since its fork point, merged into its origin as uncommitted edits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.common.errors import ToolError
from tools.common.files import File, Mode, Tree
from tools.common.repository import SHORT, Repository
from tools.common.transaction import Change, carry_out
from tools.ledger import edit
from tools.ledger.ledger import LEDGER, Entry
from tools.lifecycle import entries as ledger
from tools.lifecycle import merge
from tools.lifecycle.drift import fork_point
from tools.lifecycle.names import Rename
from tools.variants.facts import compare


@dataclass(frozen=True)
class Merged:
    """What the origin becomes, and which of its files a person has to look at, with why."""

    tree: dict[str, File]
    conflicts: dict[str, str]


def upstream(repo: Repository, given: str) -> tuple[list[str], bool]:
    """Merges; (what is to be printed, whether conflicts were left, and so nothing is marked)."""
    text, variant, origin = _pair(repo, given)
    point = fork_point(repo, variant)
    for path in (origin.path, variant.path):
        repo.refuse_dirty(path)
    rename = Rename(variant.path, origin.path)
    base = repo.files(point, origin.path)
    if not base:
        raise ToolError(f"{variant.name}: {origin.path} is not in its fork point {point}")
    ours, copy = repo.tracked(origin.path), repo.tracked(variant.path)
    theirs = _renamed(copy, rename)
    merged = merge_trees(ours, base, theirs, (origin.path, point[:SHORT], variant.path))
    if theirs == base:
        raise ToolError(f"{variant.name}: changes nothing of {origin.name}: retire it instead")
    change = Change(f"merge of {variant.path} into {origin.path}")
    for inside in sorted({*ours, *merged.tree}):
        if ours.get(inside) != merged.tree.get(inside):
            path = f"{origin.path}/{inside}"
            change.put(path, ours.get(inside), merged.tree.get(inside))
    for inside, file in copy.items():
        change.rest_on(f"{variant.path}/{inside}", file)
    if not merged.conflicts:
        _mark(repo, change, text, variant)
    carry_out(repo.root, repo.state(), change)
    changed = len(change.writes) + len(change.removes) - (not merged.conflicts)
    lines = [f"{origin.path}: {changed} files changed by {variant.name}, not committed"]
    against = f"{variant.name} against {origin.name}"
    counts = [_lines(copy, tree, rename) for tree in (ours, merged.tree)]
    lines.append(f"{against}: {counts[0]} lines before, {counts[1]} lines after")
    if merged.conflicts:
        lines += [f"{origin.path}/{p}: {why}" for p, why in sorted(merged.conflicts.items())]
        again = f"./pants upstream {variant.path} --upstream-resolved"
        lines.append(f"next: resolve them, then mark it superseded: {again}")
        return lines, True
    lines.append(f"{LEDGER}: {variant.name} is superseded by {variant.origin}")
    lines.append(f"next: ./pants fmt lint check test {origin.path}::, then git add and commit")
    return lines, False


def resolved(repo: Repository, given: str) -> list[str]:
    """Marks a variant whose conflicts a person has resolved; gives what is to be printed."""
    text, variant, origin = _pair(repo, given)
    repo.refuse_dirty(variant.path)
    change = Change(f"mark of {variant.name} as superseded")
    for inside, file in repo.working(origin.path).items():
        if merge.has_markers(file.content):
            raise ToolError(f"{origin.path}/{inside}: still holds conflict markers")
        change.rest_on(f"{origin.path}/{inside}", file)
    _mark(repo, change, text, variant)
    carry_out(repo.root, repo.state(), change)
    return [
        f"{LEDGER}: {variant.name} is superseded by {variant.origin}",
        f"next: ./pants fmt lint check test {origin.path}::, then git add and commit",
    ]


def _pair(repo: Repository, given: str) -> tuple[str, Entry, Entry]:
    """The ledger's text, an active variant's entry and its origin's. Raises ToolError."""
    text, entries = ledger.read(repo.root)
    variant = ledger.find(entries, given)
    if variant.status != "active":
        raise ToolError(f"{variant.name}: is {variant.status}: only an active one is merged")
    if variant.origin == "none":
        raise ToolError(f"{variant.name}: was copied from nothing: it has no origin")
    origin = next(entry for entry in entries if entry.name == variant.origin)
    for entry in (origin, variant):
        if not (repo.root / entry.path).is_dir():
            raise ToolError(f"{entry.path}: is not there ({entry.name} is {entry.status})")
    return text, variant, origin


def _renamed(copy: Tree, rename: Rename) -> dict[str, File]:
    """The variant's files under the origin's name."""
    return {path: File(rename.loose(path, file.content), file.mode) for path, file in copy.items()}


def _mark(repo: Repository, change: Change, text: str, variant: Entry) -> None:
    """Has the ledger say that the origin, as it will be, takes the variant's place."""
    head = repo.ask("rev-parse", "HEAD")[:SHORT]
    fields = {"status": "superseded", "last known-good": head, "superseded by": variant.origin}
    fields = introduced(repo, variant) | fields
    ledger.put(change, repo.root, text, edit.changed(text, variant, fields))


def introduced(repo: Repository, entry: Entry) -> dict[str, str]:
    """The field of the commit that brought an entry's directory, where it is still pending."""
    if entry.introduced != "pending":
        return {}
    since = [f"{entry.forked_at}..HEAD"] if repo.commit(entry.forked_at) else ["HEAD"]
    commits = repo.ask("rev-list", "--reverse", *since, "--", entry.path).split()
    return {"introduced": commits[0][:SHORT]} if commits else {}


def _lines(variant: Tree, origin: Tree, rename: Rename) -> str:
    def python(tree: Tree) -> Mapping[str, bytes]:
        return {path: file.content for path, file in tree.items() if path.endswith(".py")}

    found = compare(python(variant), python(origin), (rename.old, rename.new)).changed
    return f"+{found.added} -{found.deleted}" if found else "+0 -0"


def merge_trees(ours: Tree, base: Tree, theirs: Tree, labels: merge.Labels) -> Merged:
    """`ours` with what `theirs` changed of `base`. Where there is no telling, ours stays."""
    merged = Merged(dict(ours), {})
    for path in sorted({*base, *theirs}):
        a, o, b = ours.get(path), base.get(path), theirs.get(path)
        if b in (o, a):
            continue
        if a == o:
            merged.tree.pop(path, None)
            merged.tree.update({path: b} if b else {})
        elif b is None:
            merged.conflicts[path] = "was deleted in the variant, and edited in its origin"
        elif a is None:
            merged.conflicts[path] = "was edited in the variant, and deleted in its origin"
        else:
            content, why = _merge(a.content, o.content if o else b"", b.content, labels)
            mode: Mode = b.mode if o is None or b.mode != o.mode else a.mode
            merged.tree[path] = File(content, mode)
            merged.conflicts.update({path: why} if why else {})
    return merged


def _merge(a: bytes, o: bytes, b: bytes, labels: merge.Labels) -> tuple[bytes, str]:
    """(content, why it needs a person)."""
    if a == b or b == o:
        return a, ""
    if a == o:
        return b, ""
    if not merge.is_text(a, o, b):
        return a, "is binary, and edited in both: it stays as it was"
    content, conflicts = merge.merge(a, o, b, labels, "--diff3")
    noun = "conflict" if conflicts == 1 else "conflicts"
    return content, f"{conflicts} {noun}" if conflicts else ""
