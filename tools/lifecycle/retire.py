"""Removes a variant: its entry in the ledger stays, and git keeps the code."""

from __future__ import annotations

import contextlib
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tools.common.errors import ToolError
from tools.common.files import Tree, has_files
from tools.common.names import Source, is_python, mentions
from tools.common.repository import Repository
from tools.common.transaction import Change, read_file
from tools.ledger import edit, pins
from tools.ledger.files import file_of
from tools.ledger.ledger import Entry
from tools.lifecycle import entries as ledger
from tools.lifecycle import keep
from tools.lifecycle.fork import LOCKS
from tools.lifecycle.upstream import introduced
from tools.lifecycle.written import write

# The record of what there was.
HISTORY = "docs/reports/"


def retire(
    repo: Repository, variant: str, verdict: str, sizes: str, keep_mentions: bool
) -> list[str]:
    """Removes a variant and returns the lines to print. Raises ToolError with nothing changed."""
    text, entries = ledger.read(repo.root)
    entry = ledger.find(entries, variant)
    if entry.status == "deleted" or not has_files(repo.root / entry.path):
        raise ToolError(f"{entry.name}: is {entry.status}, and {entry.path} is not there")
    verdict = ledger.verdict(entry, verdict)
    locks = [f"{LOCKS}/{entry.name}{suffix}" for suffix in (".in", ".lock")]
    locks = [path for path in locks if (repo.root / path).exists()]
    if not repo.names("ls-files", "-z", "--", entry.path):
        places = f"{entry.path} {file_of(text, entry.line)}"
        message = f"git knows no file of it: commit it first, or give it up: rm -r {places}"
        raise ToolError(f"{entry.path}: {message}")
    if dirty := repo.dirty(entry.path, *locks):
        others = f" and {len(dirty) - 1} more" if len(dirty) > 1 else ""
        message = f"{dirty[0]}{others}: git does not have it: commit it, or remove it, first"
        raise ToolError(message)
    files = repo.tracked(entry.path)
    refuse_dependents(repo, entry, locks, keep_mentions)
    change = removal(repo, entry, files, locks, [e.name for e in entries])
    head = repo.ask("rev-parse", "HEAD").strip()
    fields = {"status": "deleted", "last known-good": str(pins.at(repo, head, entry.path))}
    fields |= {"verdict": verdict} if verdict else {}
    fields = introduced(repo, entry) | fields
    ledger.put(change, repo.root, text, edit.changed(text, entry, fields))
    kept = keep_all(repo, change, entry, entries, head)
    keep.keep_sizes(repo, change, entry, entries, sizes)
    command = write(repo, change, keep.uncommitted_records(repo, entry))
    record = file_of(text, entry.line)
    return [
        f"{entry.path}: {len(files)} files removed",
        *(f"{path}: removed" for path in (*locks, *change.discards) if _outside(path, entry.path)),
        *(f"{path}: kept, because {repo.main()} does not have it" for path in kept),
        f"{record}: {entry.name} is deleted, last known-good {fields['last known-good']}",
        f"next: {command} (git revert brings it back)",
    ]


def keep_all(
    repo: Repository, change: Change, entry: Entry, entries: Sequence[Entry], head: str
) -> list[str]:
    """Keeps the variant, its origin as it was copied, and what its runs ran.

    As far as the main branch lacks them. Returns the files and directories that will hold them.
    """
    places = [keep.keep_commit(repo, change, head, entry.path)]
    origin = next((other for other in entries if other.name == entry.origin), None)
    pin = pins.parse(entry.forked_at)
    if origin and pin and (commit := pins.find(repo, pin, origin.path)):
        places.append(keep.keep_commit(repo, change, commit, origin.path))
    return [*(place for place in places if place), *keep.keep_runs(repo, change, entry)]


def _outside(path: str, directory: str) -> bool:
    return not path.startswith(f"{directory}/")


def removal(
    repo: Repository, entry: Entry, files: Tree, locks: Sequence[str], names: Sequence[str]
) -> Change:
    """The change that removes a variant, its locks, and its files that git ignores."""
    change = Change(f"removal of {entry.path}")
    for inside, file in files.items():
        change.put(f"{entry.path}/{inside}", file, None)
    for lock in locks:
        change.put(lock, read_file(repo.root / lock), None)
    command = ("ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z", "--")
    ignored = [name.rstrip("/") for name in repo.names(*command, entry.path)]
    change.discards = [*ignored, *leftovers(repo.root, entry.name, names)]
    change.prunes = [entry.path]
    return change


def leftovers(root: Path, name: str, names: Sequence[str]) -> list[str]:
    """Built files of a variant, without those of another whose name begins with its name."""
    other_names = tuple(f"{other}-" for other in names if other.startswith(f"{name}-"))
    bundles = sorted(p for p in root.glob(f"dist/bundles/{name}-*"))
    paths = [path for path in bundles if not f"{path.name}-".startswith(other_names)]
    diffs = root / "dist/diff" / name
    paths += [diffs] if diffs.exists() or diffs.is_symlink() else []
    return [path.relative_to(root).as_posix() for path in paths]


# -- dependents ----------------------------------------------------------------------------------


def refuse_dependents(
    repo: Repository, entry: Entry, locks: Sequence[str], keep_mentions: bool
) -> None:
    """Raises ToolError with a line for each place that names the variant from outside.

    Imports, BUILD files and users of its locks would break. Other texts would only be out of date;
    `keep_mentions` accepts that.
    """
    places = sorted(dependents(repo, entry, locks))
    if keep_mentions:
        places = [place for place in places if place[2]]
    if places:
        lines = [f"{path}:{line}: names {entry.name}" for path, line, _ in places]
        remedy = "edit them first"
        if not any(needs for *_, needs in places):
            remedy += ", or leave them so: --retire-keep-mentions"
        lines.append(f"{entry.name}: is still named in {len(places)} places: {remedy}")
        raise ToolError("\n".join(lines))


def dependents(
    repo: Repository, entry: Entry, locks: Sequence[str]
) -> Iterator[tuple[str, int, bool]]:
    """(file, line, whether it would break) of each reference from outside the directory."""
    names = sorted({PurePosixPath(path).name for path in locks})
    patterns = [PurePosixPath(entry.path).name, *names]
    for path in repo.files_with(patterns):
        if path.startswith((f"{entry.path}/", HISTORY)) or path in locks:
            continue
        text = (repo.root / path).read_bytes().decode(errors="replace")
        yield from {(path, line, needs) for line, needs in _places(path, text, entry, names)}


def _places(path: str, text: str, entry: Entry, locks: Sequence[str]) -> Iterator[tuple[int, bool]]:
    """(line, whether it would break) of each reference in a file; Python comments do not count."""
    source = None
    if is_python(path):
        # A file that cannot be parsed is searched as plain text.
        with contextlib.suppress(SyntaxError, ValueError, tokenize.TokenError):
            source = Source(path, text)
    is_build = PurePosixPath(path).name.startswith("BUILD") or path == "pants.toml"
    if source:
        strings = list(source.strings())
        for reference in source.references(entry.path):
            quoted = any(start <= reference.start < end for start, end in strings)
            yield source.line(reference.start), is_build or not quoted
        spans = [text[start:end] for start, end in strings]
        offsets = [start for start, _ in strings]
    else:
        for reference in mentions(text, entry.path):
            yield text.count("\n", 0, reference.start) + 1, is_build
        spans, offsets = [text], [0]
    for span, offset in zip(spans, offsets, strict=True):
        for start in _named(span, locks):
            yield text.count("\n", 0, offset + start) + 1, True
    if not source:
        name = re.escape(entry.name)
        for match in re.finditer(rf"\./pants [^\n`]* (?:--against[ =])?{name}(?![\w./-])", text):
            yield text.count("\n", 0, match.start()) + 1, False


def _named(text: str, files: Sequence[str]) -> Iterator[int]:
    """Offsets where a text names one of the files."""
    for name in files:
        for match in re.finditer(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text):
            yield match.start()
