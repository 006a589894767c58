"""Finds the commit of a run's sources, and keeps sources that the main branch has in no commit.

They are in docs/reports/sources/DIGEST/. A run names its sources by the sha256 of {path: sha256 of
the file} as JSON with sorted keys, where paths are relative to the variant's directory. It keeps a
copy of each set of sources in its sources/DIGEST/. DIGEST is the first 16 digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tools.common.errors import ToolError
from tools.common.files import MIB, Tree
from tools.common.git import Git
from tools.common.sources import is_source
from tools.ledger import kept_trees, pins
from tools.ledger.ledger import Entry
from tools.runs.run_summary import Run, is_commit

KEPT = kept_trees.KEPT
MAX_READ = 64 * MIB
MAX_KEPT = 4 * MIB
# Commits of a directory's history to search, newest first: a run is recorded soon after it is made.
MAX_COMMITS = 100
# Runs of older schemas listed the Python files that they saw: of all, or without tests.
WHOLE = 3

Digests = dict[str, str]
"""sha256 of each file, by its path within the variant's directory."""


@dataclass(frozen=True)
class Ran:
    """The files that a run ran: their digests, and the contents of those that it kept a copy of."""

    run_schema: int
    digest: str
    files: Mapping[str, str]
    copies: Mapping[str, bytes]

    def is_held_by(self, files: Mapping[str, str]) -> bool:
        """Whether a directory with these files, by their sha256, holds just what ran."""
        if self.run_schema < WHOLE:
            return self.files.items() <= files.items()
        return dict(self.files) == {name: sha for name, sha in files.items() if is_source(name)}


def sha256(data: bytes) -> str:
    """The sha256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(files: Mapping[str, str]) -> str:
    """The digest by which a run names sources, from the sha256 of each file by its path."""
    return sha256(json.dumps(dict(files), sort_keys=True).encode())


def place(digest: str) -> str:
    """The directory where sources of that digest are kept, from the workspace's root."""
    return f"{KEPT}/{digest[:16]}"


def printable(name: str) -> str:
    """A file's name on one line of a message."""
    return (name if name.isprintable() else ascii(name))[:120]


def _was_recorded(path: str) -> bool:
    """Whether some schema of runs records a file at this path; the older ones recorded tests."""
    without_name = PurePosixPath(path).with_name("any.py").as_posix()
    return is_source(path) or (path.endswith(".py") and is_source(without_name))


def read(directory: Path, name: str) -> dict[str, bytes]:
    """The files of a directory, by their paths within; `name` is the directory in messages.

    Raises:
        ToolError: it holds anything but files that a run records, or too much.
    """
    files: dict[str, bytes] = {}
    size = 0
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory).as_posix()
        if not path.is_symlink() and path.is_dir():
            continue
        if path.is_symlink() or not path.is_file() or not _was_recorded(inside):
            raise ToolError(f"{name}/{printable(inside)}: is no file of a run: remove it")
        size += path.stat().st_size
        if size > MAX_READ:
            raise ToolError(f"{name}: holds more than {MAX_READ:,} bytes of sources")
        files[inside] = path.read_bytes()
    return files


def of_run(run_dir: Path, digest: str, listed: Mapping[str, str], run_schema: int) -> Ran:
    """What a run ran, from its copy; `listed` is the sha256 of each file, as run.json has it.

    The copy lacks files that were too large to copy, and is gone from a run directory that lost it.

    Raises:
        ToolError: neither the copy nor the list has that digest.
    """
    copy, shown = run_dir / "sources" / digest[:16], f"{run_dir}/sources/{digest[:16]}"
    copies = read(copy, shown) if copy.is_dir() else {}
    digests = {name: sha256(data) for name, data in copies.items()}
    if digest_of(listed) == digest:
        if not digests.items() <= listed.items():
            raise ToolError(f"{shown}: is not what ran ({digest[:16]}...): run it again")
        return Ran(run_schema, digest, dict(listed), copies)
    if not copies:
        raise ToolError(f"{shown}: is not there, so nobody can tell what ran: put it back")
    if digest_of(digests) != digest:
        raise ToolError(f"{shown}: is not what ran ({digest[:16]}...): run it again")
    return Ran(run_schema, digest, digests, copies)


def find_commit(
    root: Path, paths: Sequence[str], ran: Ran, recorded: str | None
) -> tuple[str | None, bool]:
    """(the commit in which one of the directories holds what ran, whether the main branch has it).

    Searches the main branch, then HEAD: each first at `recorded`, the commit at which the run was
    started, then in the commits that changed a directory, newest first; last `recorded`, wherever
    it is. None if no commit holds what ran, or there is no repository.

    Args:
        root: the workspace.
        paths: the variant's directory, and those of its earlier names.
        ran: what ran.
        recorded: the commit that the run names.
    """
    git = Git(root, fetches=False)
    started = git.commit(recorded) if recorded and is_commit(recorded) else None
    main = git.main_branches()
    contents: Digests = {}  # sha256 by git's own digest
    for tips in (main, ("HEAD",)):
        command = ("rev-list", f"--max-count={MAX_COMMITS}", *tips, "--", *paths)
        history = (git.answer(*command) or b"").decode().split()
        first = [started] if started and git.is_reachable(started, *tips) else []
        for commit in [*first, *history]:
            if _holds(git, commit, paths, ran, contents):
                return commit, tips == main
    if started and _holds(git, started, paths, ran, contents):
        return started, False
    return None, False


def _holds(git: Git, commit: str, paths: Sequence[str], ran: Ran, contents: Digests) -> bool:
    """Whether one of the directories, as it is in a commit, holds what ran."""
    return any(ran.is_held_by(_committed(git, commit, path, ran, contents)) for path in paths)


def _committed(git: Git, commit: str, path: str, ran: Ran, contents: Digests) -> Digests:
    """sha256 of a directory's files in a commit; an empty one for files that cannot have run.

    Args:
        contents: the sha256 of what was read before, by git's own digest; added to.
    """
    listing = git.answer("ls-tree", "-r", "-z", commit, "--", f"{path}/") or b""
    blobs: dict[str, str] = {}
    for line in listing.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        head, _, name = line.partition("\t")
        mode, kind, blob = head.split(" ")
        # A symbolic link or a submodule is no file that could have run.
        blobs[name.removeprefix(f"{path}/")] = blob if kind == "blob" and mode != "120000" else ""
    needed = [blob for name, blob in blobs.items() if blob and name in ran.files]
    unread = [blob for blob in needed if blob not in contents]
    contents |= {blob: sha256(data) for blob, data in git.blobs(unread).items()}
    return {name: contents.get(blob, "") for name, blob in blobs.items()}


def settled(root: Path, runs: Iterable[Run], paths: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The commit of the main branch that holds what a run ran, by the run's path, for kept sources.

    Args:
        root: the workspace.
        runs: the summaries.
        paths: the directories of each variant, by its name.
    """
    found: dict[str, str] = {}
    for run in runs:
        directory = root / place(run.sources_digest)
        if run.variant not in paths or not directory.is_dir():
            continue
        copies = read(directory, place(run.sources_digest))
        digests = {name: sha256(data) for name, data in copies.items()}
        ran = Ran(run.run_schema, run.sources_digest, digests, copies)
        if digest_of(digests) != run.sources_digest:
            continue  # damaged, which `check` says
        commit, is_on_main = find_commit(root, paths[run.variant], ran, run.git["commit"])
        if commit and is_on_main:
            found[run.path] = commit
    return found


def removable(
    root: Path, runs: Sequence[Run], found: Mapping[str, str], replaced: Iterable[Run]
) -> list[str]:
    """Directories of kept sources that no run needs any more.

    Args:
        root: the workspace.
        runs: all runs as they will be.
        found: the runs whose sources the main branch has, by their summaries' paths.
        replaced: runs as they were before.
    """
    needed = {place(run.sources_digest) for run in runs if run.path not in found}
    had = {place(run.sources_digest) for run in runs if run.path in found}
    had |= {place(run.sources_digest) for run in replaced}
    return sorted(name for name in had - needed if (root / name).is_dir())


def commits_of(git: Git, paths: Sequence[str], tips: tuple[str, ...]) -> dict[str, str]:
    """The newest commit before the tips that has each sources a variant ever had, by digest."""
    found: dict[str, str] = {}
    for path in paths:
        for commit in git.trees(path, tips).values():
            for digest in _sources_at(git, commit, path):
                found.setdefault(digest, commit)
    return found


def sources_of(git: Git, commit: str, paths: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """What a run of one of the directories in a commit could have called its sources, by digest."""
    return {digest: s for path in paths for digest, s in _sources_at(git, commit, path).items()}


def _sources_at(git: Git, commit: str, path: str) -> dict[str, dict[str, bytes]]:
    files = git.tree(commit, git.prefix + path) or {}
    sets = [{name: file.content for name, file in s.items()} for s in _sets(files)]
    return {digest_of({n: sha256(d) for n, d in chosen.items()}): chosen for chosen in sets}


def digests_of(files: Tree) -> list[str]:
    """The digests by which runs of a directory with these files name their sources.

    The first is that of the newest schema of runs.
    """
    ids = {name: sha256(file.content) for name, file in files.items()}
    chosen = [{name: ids[name] for name in names} for names in _sets(files) if names]
    return list(dict.fromkeys(map(digest_of, chosen)))


def _sets(files: Tree) -> tuple[Tree, ...]:
    """Those of a directory's files that runs record, by the newest schema and by the older ones."""
    python = {name: file for name, file in files.items() if name.endswith(".py")}
    return (
        {name: file for name, file in files.items() if is_source(name)},
        # In the workspace, and in a bundle, which holds no tests.
        python,
        {name: file for name, file in python.items() if is_source(name)},
    )


def lost(git: Git, runs: Iterable[Run]) -> tuple[list[Run], list[Run]]:
    """The runs whose summary names a commit that no clone will have, and why it will not.

    Returns:
        Those whose commit comes before neither HEAD nor the main branch, and those of which only
        HEAD has it, so that a squash merge would drop it.
    """
    named = [run for run in runs if run.git["commit"] and not run.git["dirty"]]
    known = set(git.known_commits({run.git["commit"] for run in named}).values())
    lost = git.unreachable(known, *pins.tips(git))
    beside = git.unreachable(known - lost, *git.main_branches())
    reached = known - lost
    return (
        [run for run in named if run.git["commit"] not in reached],
        [run for run in named if run.git["commit"] in beside],
    )


def orphans(git: Git, entries: Iterable[Entry], runs: Sequence[Run]) -> list[str]:
    """A fault for each run the sources of which nothing here has, as `path:line: message`."""
    directories = {entry.name: entry.directories for entry in entries}
    faults: list[str] = []
    gone, beside = lost(git, runs)
    for run in (*gone, *beside):
        paths = directories.get(run.variant, ())
        if not paths or (git.root / place(run.sources_digest)).is_dir():
            continue
        tips = pins.tips(git) if run in gone else git.main_branches()
        # A squash merge keeps what the branch ends with.
        stays = run in beside and run.sources_digest in sources_of(git, "HEAD", paths)
        if stays or run.sources_digest in commits_of(git, paths, tips):
            continue
        pin = pins.Pin(run.git["commit"], "")
        message = pins.missing(git, pin) if run in gone else pins.only_here(pin)
        faults.append(f"{run.path}:1: git: {message}")
    return faults


def check(root: Path, runs: Iterable[Run]) -> list[str]:
    """Every fault of the kept sources, as `path:line: message`."""
    faults: list[str] = []
    needed = {place(run.sources_digest) for run in runs}
    for run in runs:
        if run.git["dirty"] is not False and not (root / place(run.sources_digest)).is_dir():
            remedy = f"{place(run.sources_digest)} is not there: put it back, or record it again"
            faults.append(f"{run.path}:1: its sources match no commit, and {remedy}")
    for directory in sorted((root / KEPT).glob("*")):
        if directory.suffix == ".json":
            continue  # a variant's directory: kept_trees.py
        name = directory.relative_to(root).as_posix()
        if name not in needed:
            faults.append(f"{name}:1: no recorded run is of these sources: remove it")
            continue
        try:
            digests = {file: sha256(data) for file, data in read(directory, name).items()}
        except ToolError as error:
            faults.append(str(error))
            continue
        if digest_of(digests)[:16] != directory.name:
            faults.append(f"{name}:1: is not what ran: restore it (git checkout -- {name})")
    return faults
