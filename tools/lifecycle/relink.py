"""Names again, by content, what the records name by commits that a squash merge dropped.

Each place in the ledger, and each summary's commit, becomes a commit of the main branch that has
the same files. What no such commit has is kept in docs/reports/sources/; what was kept and the main
branch has since is removed. Doing it twice is doing it once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File
from tools.common.jsonio import json_line
from tools.common.repository import Repository
from tools.common.transaction import Change, read_file
from tools.ledger import edit, kept_trees, pins, synced
from tools.ledger.files import place
from tools.ledger.ledger import Entry
from tools.ledger.pins import Pin
from tools.lifecycle import entries as ledger
from tools.lifecycle import keep
from tools.lifecycle.upstream import introduced
from tools.lifecycle.written import write
from tools.runs import kept_sources, run_summary
from tools.runs.run_summary import Run

_GIT = re.compile(r'^"git": .*?(,?)$', re.MULTILINE)


def relink(repo: Repository) -> tuple[list[str], bool]:
    """Rewrites the records; (lines to print, whether some content is nowhere in this clone).

    Raises:
        ToolError: a record is malformed; nothing is changed.
    """
    text, entries = ledger.read(repo.root)
    runs, malformed = run_summary.load_all(repo.root)
    if malformed:
        raise ToolError("\n".join(malformed))
    change = Change("renewal of the records' commits")
    after, lines, faults = _entries(repo, change, text, entries)
    if after != text:
        ledger.put(change, repo.root, text, after)
    run_lines, run_faults = _runs(repo, change, entries, runs)
    lines += [*run_lines, *_sweep(repo, change, ledger.parse(after), runs)]
    if change.removes:
        change.prunes.append(kept_trees.KEPT)
    if change.fingerprints:
        lines.append(f"next: {write(repo, change)}")
    elif not faults and not run_faults:
        lines.append("nothing to do")
    return [*lines, *faults, *run_faults], bool(faults or run_faults)


# -- the ledger ----------------------------------------------------------------------------------


def _entries(
    repo: Repository, change: Change, text: str, entries: Sequence[Entry]
) -> tuple[str, list[str], list[str]]:
    """(the ledger's new text, lines to print, faults)."""
    lines: list[str] = []
    faults: list[str] = []
    for old in entries:
        entry = next(e for e in ledger.parse(text) if e.name == old.name)
        fields: dict[str, str] = {}
        for key, path in _places(entry, entries):
            pin = pins.parse(entry.fields.get(key, ""))
            if pin is None:
                continue
            if renewed := renew(repo, change, pin, path):
                fields[key] = str(renewed)
            else:
                file, line = place(text, entry.lines[key])
                faults.append(f"{file}:{line}: {entry.name}: {key}: {pins.missing(repo, pin)}")
        fields |= _introduced(repo, entry) | _synced(repo, change, entry, entries)
        fields = {key: value for key, value in fields.items() if value != entry.fields.get(key)}
        lines += [f"{entry.name}: {key}: {value}" for key, value in fields.items()]
        text = edit.changed(text, entry, fields) if fields else text
    return text, lines, faults


def _places(entry: Entry, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(field, directory) of each place whose files may be asked for."""
    origin = next((other for other in entries if other.name == entry.origin), None)
    forked = [("forked at", origin.path)] if origin else []
    return [*forked, ("last known-good", entry.path)]


def renew(repo: Repository, change: Change, pin: Pin, path: str) -> Pin | None:
    """Where a place's content is now, kept if need be; None if it is nowhere in this clone."""
    main, commit = repo.main_branches(), repo.commit(pin.commit)
    tree = (repo.object(commit, path) if commit else "") or pin.tree
    if commit and repo.is_reachable(commit, *main):
        return Pin(commit, tree)
    if tree and (found := pins.newest_with(repo, tree, path, main)):
        return Pin(found, repo.object(found, path))
    if commit and repo.object(commit, path):
        here = repo.is_reachable(commit, "HEAD")
        if not here or repo.object("HEAD", path) != tree:
            keep.keep_commit(repo, change, commit, path)
        return Pin(commit if here else "", tree)
    if tree and (found := pins.newest_with(repo, tree, path, ("HEAD",))):
        return Pin(found, repo.object(found, path))
    return Pin("", tree) if pins.kept(repo.root, pin) else None


def _introduced(repo: Repository, entry: Entry) -> dict[str, str]:
    """The field `introduced`: the main branch's first commit with the directory, or `pending`."""
    pin = pins.parse(entry.introduced)
    if entry.introduced != "pending" and not pin:
        return {}
    if pin and (commit := repo.commit(pin.commit)) and repo.is_on_main(commit):
        return {"introduced": str(pins.at(repo, commit, entry.path))}
    pending = Entry(entry.name, entry.line, {**entry.fields, "introduced": "pending"})
    return introduced(repo, pending) or {"introduced": "pending"}


def _synced(
    repo: Repository, change: Change, entry: Entry, entries: Sequence[Entry]
) -> dict[str, str]:
    """The field `synced`; its watermark is the fork point again if nothing has its content."""
    value, forked = synced.parse(entry.synced), pins.parse(entry.forked_at)
    origin = next((other for other in entries if other.name == entry.origin), None)
    if not value or not forked or not origin:
        return {}
    if commit := pins.find(repo, value.pin, origin.path, repo.main_branches()):
        pin = Pin(commit, repo.object(commit, origin.path))
    elif pins.find(repo, value.pin, origin.path):
        return {}  # this branch has it, and is not merged yet
    else:
        pin = renew(repo, change, forked, origin.path) or forked
    return {"synced": str(synced.Synced(pin, value.looked))}


# -- the summaries -------------------------------------------------------------------------------


def _runs(
    repo: Repository, change: Change, entries: Sequence[Entry], runs: Sequence[Run]
) -> tuple[list[str], list[str]]:
    """(lines to print, faults) of the summaries whose commit is lost, or whose sources are kept."""
    directories = {entry.name: entry.directories for entry in entries}
    gone, beside = kept_sources.lost(repo, runs)
    lines: list[str] = []
    faults: list[str] = []
    for run in runs:
        paths, kept = directories.get(run.variant, ()), kept_sources.place(run.sources_digest)
        is_kept = (repo.root / kept).is_dir()
        if not paths or not (is_kept or run in gone or run in beside):
            continue
        on_main = kept_sources.commits_of(repo, paths, repo.main_branches())
        commit = on_main.get(run.sources_digest)
        if commit and (run in gone or run.git["dirty"] is not False):
            _put_git(repo.root, change, run, {"commit": commit, "dirty": False})
            lines.append(f"{run.path}: git: {commit}")
        elif commit or (is_kept and run not in gone):
            continue
        elif run in beside:
            if run.sources_digest not in kept_sources.sources_of(repo, "HEAD", paths):
                keep.keep_sources(repo, change, run, paths)
                lines.append(f"{kept}: kept, for {run.path}")
        elif is_kept or keep.keep_sources(repo, change, run, paths):
            _put_git(repo.root, change, run, {"commit": None, "dirty": True})
            lines.append(f"{run.path}: git: its sources are in {kept}")
        else:
            faults.append(f"{run.path}:1: git: {pins.missing(repo, Pin(run.git['commit'], ''))}")
    return lines, faults


def _put_git(root: Path, change: Change, run: Run, git: dict[str, object]) -> None:
    before = read_file(root / run.path)
    line = f'"git": {json_line(git)}'
    after = _GIT.sub(lambda match: line + match[1], before.content.decode(), count=1)
    change.put(run.path, before, File(after.encode(), before.mode))


# -- what is kept --------------------------------------------------------------------------------


def _sweep(
    repo: Repository, change: Change, entries: Sequence[Entry], runs: Sequence[Run]
) -> list[str]:
    """Removes what is kept though the main branch has it, or nothing names it."""
    main = repo.main_branches()
    needed: set[str] = set(change.writes)
    for entry in entries:
        for key, path in _places(entry, entries):
            pin = pins.parse(entry.fields.get(key, ""))
            if pin and pin.tree and not pins.newest_with(repo, pin.tree, path, main):
                needed.add(kept_trees.place(pin.tree))
    lines: list[str] = []
    for file in sorted((repo.root / kept_trees.KEPT).glob("*.json")):
        name = file.relative_to(repo.root).as_posix()
        if name not in needed:
            change.put(name, read_file(file), None)
            lines.append(f"{name}: removed, {repo.main()} has it")
    return lines + _sweep_sources(repo, change, entries, runs)


def _sweep_sources(
    repo: Repository, change: Change, entries: Sequence[Entry], runs: Sequence[Run]
) -> list[str]:
    """Removes the sources of runs that no summary needs any more."""
    lines: list[str] = []
    directories = {entry.name: entry.directories for entry in entries}
    used = {kept_sources.place(run.sources_digest): run for run in runs}
    for directory in sorted((repo.root / kept_trees.KEPT).glob("*")):
        name = directory.relative_to(repo.root).as_posix()
        run = used.get(name)
        if not directory.is_dir() or run is None:
            continue
        commits = kept_sources.commits_of(
            repo, directories.get(run.variant, ()), repo.main_branches()
        )
        if run.sources_digest in commits:
            for file in sorted(path for path in directory.rglob("*") if path.is_file()):
                change.put(file.relative_to(repo.root).as_posix(), read_file(file), None)
            change.prunes.append(name)
            lines.append(f"{name}: removed, {repo.main()} has it")
    return lines
