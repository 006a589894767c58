"""A copy of a variant under a name of its own, and its entry in the ledger."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

from tools.common.errors import ToolError
from tools.common.files import File, Tree, has_files
from tools.common.names import Rename
from tools.common.repository import Repository
from tools.common.transaction import Change
from tools.isolation.scan import scan
from tools.ledger import edit, files, pins
from tools.ledger.files import entry_file
from tools.ledger.ledger import AREA, CHANGE_BUCKETS, Entry
from tools.lifecycle import entries as ledger
from tools.lifecycle.written import write

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST = 60
# The ledger writes `none` as the origin of a variant that was not copied.
RESERVED = ("none",)
LOCKS = "tools/locks"


def fork(repo: Repository, variant: str, name: str, bucket: str, purpose: str) -> list[str]:
    """Copies a variant and returns the lines to print. Raises ToolError with nothing written."""
    check_name(name)
    if bucket not in CHANGE_BUCKETS:
        raise ToolError(f"unknown bucket {bucket!r}; known: {', '.join(CHANGE_BUCKETS)}")
    purpose = ledger.sentence(purpose, "purpose")
    text, entries = ledger.read(repo.root)
    origin = ledger.find(entries, variant)
    path = f"{AREA}/{name}"
    check_free(repo, name, path, text, entries)
    tree = read_origin(repo, origin)
    copy = renamed(tree, Rename(origin.path, path))
    point = pins.at(repo, repo.touched(origin.path), origin.path)
    fields = {
        "path": path,
        "origin": origin.name,
        "forked at": str(point),
        "introduced": "pending",
        "status": "active",
        "bucket": bucket,
        "purpose": purpose,
        "verdict": "pending",
    }
    change = Change(f"fork of {origin.path} as {path}")
    if not (repo.root / path).exists():
        change.rest_on(path, None)
    for inside, file in copy.items():
        change.rest_on(f"{origin.path}/{inside}", tree[inside])
        change.put(f"{path}/{inside}", None, file)
    ledger.put(change, repo.root, text, edit.added(text, name, fields))
    command = write(repo, change)
    return [
        f"{path}: a copy of {origin.name} at {point.commit}, {len(copy)} files",
        f"{entry_file(name)}: its entry in the ledger",
        *branch_advice(repo, name),
        f"next: {command}; then edit it, and ./pants validate",
    ]


def branch_advice(repo: Repository, name: str) -> list[str]:
    """A line for who stands on the main branch: a commit there is no change that validate sees."""
    if (repo.answer("symbolic-ref", "--quiet", "HEAD") or b"").decode().strip() != (
        f"refs/heads/{repo.main()}"
    ):
        return []
    return [f"first: git switch -c {name}, since ./pants validate compares with {repo.main()}"]


def check_name(name: str) -> None:
    """Raises ToolError for a name that a variant cannot have."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in RESERVED:
        rule = "lower-case words of letters and digits joined by '_', such as wide_mlp"
        raise ToolError(f"{name!r} cannot name a variant: {rule}; no keyword, not 'none'")
    if len(name) > LONGEST:
        raise ToolError(f"{name!r} is too long: {LONGEST} characters at most")


def check_free(repo: Repository, name: str, path: str, text: str, entries: Sequence[Entry]) -> None:
    """Raises ToolError if a directory, a lock or an entry (even a deleted one's) has the name."""
    for entry in entries:
        if name in (entry.name, *entry.earlier_names) or path == entry.path:
            file, line = files.place(text, entry.line)
            entry_place = f"{file}:{line} ({entry.status})"
            raise ToolError(f"{name}: is taken by {entry_place}: choose another name")
    locks = (f"{LOCKS}/{name}{suffix}" for suffix in (".lock", ".in", ".txt"))
    for place in (path, entry_file(name), *locks):
        path_there = repo.root / place
        is_taken = has_files(path_there) if path_there.is_dir() else path_there.exists()
        if is_taken or path_there.is_symlink():
            raise ToolError(f"{name}: is taken by {place}: choose another name")


def read_origin(repo: Repository, origin: Entry) -> Tree:
    """The origin's files. Raises ToolError if they are missing or not committed."""
    if not has_files(repo.root / origin.path):
        message = f"{origin.path}: is not there ({origin.name} is {origin.status}): fork another"
        raise ToolError(message)
    if dirty := repo.dirty(origin.path):
        others = f" and {len(dirty) - 1} more" if len(dirty) > 1 else ""
        raise ToolError(f"{dirty[0]}{others}: not committed: commit first, so that git knows it")
    files = repo.tracked(origin.path)
    if not files:
        raise ToolError(f"{origin.path}: git knows no file of it: add and commit first")
    return files


def renamed(files: Tree, rename: Rename) -> Tree:
    """The files of the copy. Raises ToolError if the build would refuse them."""
    copy = {p: File(rename.strict(p, file.content), file.mode) for p, file in files.items()}
    for inside, file in copy.items():
        if not inside.endswith(".py"):
            continue
        text = file.content.decode(errors="replace")
        for finding in scan(f"{rename.new}/{inside}", text, rename.new):
            place = f"{rename.old}/{inside}:{finding.line}"
            raise ToolError(f"{place}: in a copy this {finding.message}: mend it there first")
    return copy
