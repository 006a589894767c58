"""Finds the commit of a run's sources; sources that match no commit are kept in the repository.

They are in docs/reports/sources/DIGEST/. A run names its sources by the sha256 of {path: sha256 of
the file} as JSON with sorted keys, where paths are relative to the variant's directory. It keeps a
copy of each set of sources in its sources/DIGEST/. DIGEST is the first 16 digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import MIB
from tools.common.git import Git
from tools.ledger import kept_trees, pins
from tools.ledger.ledger import Entry
from tools.runs.run_summary import Run, is_commit, is_name

KEPT = kept_trees.KEPT
MAX_BYTES = MIB
# Commits of a directory's history to search, newest first: a run is recorded soon after it is made.
MAX_COMMITS = 100

Digests = dict[str, str]
"""sha256 of each file, by its path within the variant's directory."""


def sha256(data: bytes) -> str:
    """The sha256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(files: Mapping[str, str]) -> str:
    """The digest by which a run names sources, from the sha256 of each file by its path."""
    return sha256(json.dumps(dict(files), sort_keys=True).encode())


def place(digest: str) -> str:
    """The directory where sources of that digest are kept, from the workspace's root."""
    return f"{KEPT}/{digest[:16]}"


def read(directory: Path, name: str) -> dict[str, bytes]:
    """The Python files of a directory, by their paths within; `name` is the directory in messages.

    Raises:
        ToolError: it holds anything else, or too much.
    """
    files: dict[str, bytes] = {}
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        is_named = all(is_name(part) for part in (*inside.parts[:-1], path.stem))
        if not path.is_symlink() and path.is_dir():
            continue
        if path.is_symlink() or not path.is_file() or path.suffix != ".py" or not is_named:
            shown = inside.as_posix()[:120]
            raise ToolError(f"{name}/{shown}: is no Python file of a run: remove it")
        files[inside.as_posix()] = path.read_bytes()
        if sum(map(len, files.values())) > MAX_BYTES:
            raise ToolError(f"{name}: holds more than {MAX_BYTES:,} bytes of sources")
    return files


def of_run(
    run_dir: Path, digest: str, listed: Mapping[str, str]
) -> tuple[Digests, dict[str, bytes]]:
    """(sha256 by path, contents by path) of the sources that a run calls `digest`.

    There are no contents if the run directory has lost its copy; then `listed`, the last attempt's
    sources as run.json lists them, must have the digest.

    Raises:
        ToolError: neither the copy nor the list has that digest.
    """
    copy, shown = run_dir / "sources" / digest[:16], f"{run_dir}/sources/{digest[:16]}"
    if copy.is_dir():
        files = read(copy, shown)
        digests = {name: sha256(data) for name, data in files.items()}
        if digest_of(digests) == digest:
            return digests, files
        raise ToolError(f"{shown}: is not what ran ({digest[:16]}...): run it again")
    if digest_of(listed) == digest:
        return dict(listed), {}
    raise ToolError(f"{shown}: is not there, so nobody can tell what ran: put it back")


def find_commit(root: Path, path: str, digests: Digests, recorded: str | None) -> str | None:
    """The commit in which the files of directory `path` have these digests.

    Searches `recorded`, the commit at which the run was started, then those that changed the
    directory, newest first. None if no commit has them, or there is no repository.
    """
    if not digests:
        return None
    git = Git(root, fetches=False)
    command = ("rev-list", f"--max-count={MAX_COMMITS}", "HEAD", "--", path)
    history = (git.answer(*command) or b"").decode().split()
    contents: Digests = {}  # sha256 by git's own digest
    first = [recorded] if recorded and is_commit(recorded) else []
    for commit in [*first, *history]:
        listing = git.answer("ls-tree", "-r", "-z", commit, "--", f"{path}/") or b""
        rows = (line.split("\t", 1) for line in listing.decode().split("\0") if line)
        blobs = {name.removeprefix(f"{path}/"): head.split(" ")[2] for head, name in rows}
        if not digests.keys() <= blobs.keys():
            continue
        unread = [blobs[name] for name in digests if blobs[name] not in contents]
        contents |= {blob: sha256(data) for blob, data in git.blobs(unread).items()}
        if all(contents.get(blobs[name]) == digest for name, digest in digests.items()):
            return commit
    return None


def commits_of(git: Git, path: str, tips: tuple[str, ...]) -> dict[str, str]:
    """The newest commit before the tips that has each sources a directory ever had, by digest."""
    found: dict[str, str] = {}
    for commit in git.trees(path, tips).values():
        for digest in sources_of(git, commit, path):
            found.setdefault(digest, commit)
    return found


def sources_of(git: Git, commit: str, path: str) -> dict[str, dict[str, bytes]]:
    """What a run of directory `path` in a commit could have called its sources, by digest."""
    files = git.tree(commit, git.prefix + path) or {}
    python = {name: file.content for name, file in files.items() if name.endswith(".py")}
    # A bundle holds no tests.
    shipped = {name: data for name, data in python.items() if not is_test(name)}
    sets = (python, shipped)
    return {digest_of({n: sha256(d) for n, d in chosen.items()}): chosen for chosen in sets}


def is_test(path: str) -> bool:
    """Whether a variant runs without the file, because it is a test."""
    name = path.rpartition("/")[2]
    return name == "conftest.py" or name.startswith("test_") or name.endswith("_test.py")


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
    paths = {entry.name: entry.path for entry in entries}
    faults: list[str] = []
    gone, beside = lost(git, runs)
    for run in (*gone, *beside):
        path = paths.get(run.variant, "")
        if not path or (git.root / place(run.sources_digest)).is_dir():
            continue
        tips = pins.tips(git) if run in gone else git.main_branches()
        # A squash merge keeps what the branch ends with.
        stays = run in beside and run.sources_digest in sources_of(git, "HEAD", path)
        if stays or run.sources_digest in commits_of(git, path, tips):
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
