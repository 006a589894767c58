"""Gives a variant another name: its origin, its records and its history stay."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence

from tools.common.errors import ToolError
from tools.common.files import File, has_files
from tools.common.names import Rename, is_python, mentions
from tools.common.repository import Repository
from tools.common.transaction import Change, read_file
from tools.ledger import edit
from tools.ledger.files import entry_file
from tools.ledger.ledger import AREA, Entry
from tools.lifecycle import entries as ledger
from tools.lifecycle.fork import LOCKS, check_free, check_name, renamed
from tools.lifecycle.retire import HISTORY, removal
from tools.lifecycle.written import write
from tools.runs.run_summary import RUNS


def rename(repo: Repository, variant: str, name: str) -> list[str]:
    """Renames a variant and returns the lines to print. Raises ToolError with nothing changed."""
    check_name(name)
    text, entries = ledger.read(repo.root)
    entry = ledger.find(entries, variant)
    path = f"{AREA}/{name}"
    _refuse(repo, entry, entries)
    check_free(repo, name, path, text, entries)
    files = repo.tracked(entry.path)
    if not files:
        raise ToolError(f"{entry.path}: git knows no file of it: add and commit first")
    change = removal(repo, entry, files, (), [other.name for other in entries])
    change.summary = f"rename of {entry.path} to {path}"
    for inside, file in renamed(files, Rename(entry.path, path)).items():
        change.put(f"{path}/{inside}", None, file)
    _move_record(repo, change, text, entry, name)
    moved = _move_summaries(repo, change, entry.name, name)
    places = _rewrite_mentions(repo, change, entry, path)
    command = write(repo, change)
    return [
        f"{path}: {entry.name} under its new name, {len(files)} files",
        *([f"{RUNS}/{name}: {moved} summaries of its runs"] if moved else []),
        *(f"{place}: names {name} instead of {entry.name}" for place in places),
        f"{entry_file(name)}: its entry in the ledger",
        f"next: ./pants fmt lint check test {path}::, then {command}",
    ]


def _refuse(repo: Repository, entry: Entry, entries: Sequence[Entry]) -> None:
    """Raises ToolError for an entry whose name cannot change, or that is not as git has it."""
    if entry.status != "active" or not has_files(repo.root / entry.path):
        raise ToolError(f"{entry.name}: is {entry.status}: only an active variant gets a new name")
    if entry.origin == "none":
        raise ToolError(f"{entry.name}: is the template, and tools and documents name it: it stays")
    if copies := [other.name for other in entries if other.origin == entry.name]:
        message = f"is the origin of {', '.join(copies)}, which name its directory in history"
        raise ToolError(f"{entry.name}: {message}: it stays")
    locks = [f"{LOCKS}/{entry.name}{suffix}" for suffix in (".in", ".lock")]
    if kept := [lock for lock in locks if (repo.root / lock).exists()]:
        raise ToolError(f"{entry.name}: {kept[0]} and its resolve bear its name: it stays")
    repo.refuse_dirty(entry.path)


def _move_record(repo: Repository, change: Change, text: str, entry: Entry, name: str) -> None:
    """Gives the entry its new name, in a file of its own."""
    earlier = ", ".join(word for word in (entry.renamed_from, entry.name) if word)
    fields = {"path": f"{AREA}/{name}", "renamed from": earlier}
    after = edit.renamed(edit.changed(text, entry, fields, after="path"), entry.name, name)
    for other in ledger.parse(after):
        if other.superseded_by == entry.name:
            after = edit.changed(after, other, {"superseded by": name})
    ledger.put(change, repo.root, text, after)


def _move_summaries(repo: Repository, change: Change, old: str, new: str) -> int:
    """Moves the summaries of the variant's runs, which say its name; their number."""
    summaries = sorted((repo.root / RUNS / old).glob("*.json"))
    repo.refuse_dirty(f"{RUNS}/{old}")
    for summary in summaries:
        file = read_file(summary)
        name = json.dumps(old).encode(), json.dumps(new).encode()
        line = re.compile(rb'^( *"variant": )' + re.escape(name[0]) + rb"(,?)$", re.MULTILINE)
        content, count = line.subn(rb"\g<1>" + name[1] + rb"\g<2>", file.content)
        if count != 1:
            raise ToolError(f"{RUNS}/{old}/{summary.name}: does not say that it is a run of {old}")
        change.put(f"{RUNS}/{old}/{summary.name}", file, None)
        change.put(f"{RUNS}/{new}/{summary.name}", None, File(content, file.mode))
    _name_in_comparisons(repo, change, old, new)
    if summaries:
        change.prunes.append(f"{RUNS}/{old}")
    return len(summaries)


def _name_in_comparisons(repo: Repository, change: Change, old: str, new: str) -> None:
    """Gives the new name to summaries of others that are compared with the variant."""
    origin = re.compile(
        rb'^("origin": \{[^\n]*"name":)' + re.escape(json.dumps(old).encode()), re.M
    )
    for summary in sorted((repo.root / RUNS).glob("*/*.json")):
        place = f"{RUNS}/{summary.parent.name}/{summary.name}"
        file = read_file(summary)
        content, count = origin.subn(rb"\g<1>" + json.dumps(new).encode(), file.content)
        if count and summary.parent.name != old:
            repo.refuse_dirty(place)
            change.put(place, file, File(content, file.mode))


def _rewrite_mentions(repo: Repository, change: Change, entry: Entry, path: str) -> list[str]:
    """Puts the new name where other files name the variant; their paths.

    The history below docs/reports/ stays as it was written.
    """
    rename = Rename(entry.path, path)
    places: list[str] = []
    for place in repo.files_with([entry.name]):
        if place.startswith((f"{entry.path}/", HISTORY)):
            continue
        before = read_file(repo.root / place)
        after = _renamed(place, before.content, rename)
        if after != before.content:
            repo.refuse_dirty(place)
            change.put(place, before, File(after, before.mode))
            places.append(place)
    return sorted(places)


def _renamed(place: str, content: bytes, rename: Rename) -> bytes:
    """A file's content with the new name; one that is not UTF-8 stays as it is."""
    if is_python(place):
        with contextlib.suppress(ToolError):  # what cannot be parsed stays as it is
            content = rename.elsewhere(place, content)
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    for start, end, words in sorted(_words(text, rename), reverse=True):
        text = text[:start] + words + text[end:]
    return text.encode()


def _words(text: str, rename: Rename) -> Iterator[tuple[int, int, str]]:
    """The edits of a text that is no Python: paths, modules, and names in commands."""
    old, new = rename.old.rpartition("/")[2], rename.new.rpartition("/")[2]
    for mention in mentions(text, rename.old):
        yield mention.end - len(old), mention.end, new
    pattern = rf"\./pants [^\n`]* (?:--against[ =])?({re.escape(old)})(?![\w./-])"
    for match in re.finditer(pattern, text):
        yield match.start(1), match.end(1), new
