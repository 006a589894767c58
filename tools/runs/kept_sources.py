"""Which commit a run's sources are of; sources of none are kept: docs/reports/sources/DIGEST/.

A run names its sources by the sha256 of {path: sha256 of the file} as JSON with sorted keys, paths
being those in the variant's directory,
and keeps a copy of each set it ran in sources/DIGEST/, DIGEST being the first 16 digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import MIB
from tools.common.git import Git
from tools.runs.run_summary import Run, is_commit, is_name

KEPT = "docs/reports/sources"
MAX_BYTES = MIB
# Of a directory's history, newest first: a run is recorded near the commit that it was made at.
MAX_COMMITS = 100

Digests = dict[str, str]
"""sha256 of each file, by its path in the variant's directory."""


def sha256(data: bytes) -> str:
    """The digest of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(files: Mapping[str, str]) -> str:
    """What a run calls these sources; see the module's text."""
    return sha256(json.dumps(dict(files), sort_keys=True).encode())


def place(digest: str) -> str:
    """Where sources of that digest are kept, from the workspace's root."""
    return f"{KEPT}/{digest[:16]}"


def read(directory: Path, name: str) -> dict[str, bytes]:
    """The Python files of a directory, by their paths in it. Raises ToolError."""
    files: dict[str, bytes] = {}
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        named = all(is_name(part) for part in (*inside.parts[:-1], path.stem))
        if not path.is_symlink() and path.is_dir():
            continue
        if path.is_symlink() or not path.is_file() or path.suffix != ".py" or not named:
            shown = inside.as_posix()[:120]
            raise ToolError(f"{name}/{shown}: is no Python file of a run: remove it")
        files[inside.as_posix()] = path.read_bytes()
        if sum(map(len, files.values())) > MAX_BYTES:
            raise ToolError(f"{name}: holds more than {MAX_BYTES:,} bytes of sources")
    return files


def of_run(
    run_dir: Path, digest: str, listed: Mapping[str, str]
) -> tuple[Digests, dict[str, bytes]]:
    """(sha256 by name, the files themselves) of what a run calls `digest`.

    The files are empty where the run directory has them no more; then `listed`, what run.json says
    of the last attempt's, must be what was digested.

    Raises:
        ToolError: neither the copy nor the list is of that digest.
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


def find_commit(root: Path, path: str, wanted: Digests, recorded: str | None) -> str | None:
    """The commit in which each of the files of directory `path` is as `wanted`.

    `recorded`, the commit the run was started at, is looked at first, then those that changed the
    directory, newest first. None where no commit has them, or there is no repository.
    """
    if not wanted:
        return None
    git = Git(root, fetches=False)
    asked = ("rev-list", f"--max-count={MAX_COMMITS}", "HEAD", "--", path)
    history = (git.answer(*asked) or b"").decode().split()
    contents: Digests = {}  # sha256 by git's own digest
    known = [recorded] if recorded and is_commit(recorded) else []
    for commit in [*known, *history]:
        listing = git.answer("ls-tree", "-r", "-z", commit, "--", f"{path}/") or b""
        rows = (line.split("\t", 1) for line in listing.decode().split("\0") if line)
        blobs = {name.removeprefix(f"{path}/"): head.split(" ")[2] for head, name in rows}
        if not wanted.keys() <= blobs.keys():
            continue
        unread = [blobs[name] for name in wanted if blobs[name] not in contents]
        contents |= {blob: sha256(data) for blob, data in git.blobs(unread).items()}
        if all(contents.get(blobs[name]) == digest for name, digest in wanted.items()):
            return commit
    return None


def check(root: Path, runs: Iterable[Run]) -> list[str]:
    """Every fault of what is kept, as `path:line: message`."""
    found: list[str] = []
    needed = {place(run.sources_digest) for run in runs}
    for run in runs:
        if run.git["dirty"] is not False and not (root / place(run.sources_digest)).is_dir():
            remedy = f"{place(run.sources_digest)} is not there: put it back, or record it again"
            found.append(f"{run.path}:1: its sources are no commit's, and {remedy}")
    for directory in sorted((root / KEPT).glob("*")):
        name = directory.relative_to(root).as_posix()
        if name not in needed:
            found.append(f"{name}:1: no recorded run is of these sources: remove it")
            continue
        try:
            digests = {file: sha256(data) for file, data in read(directory, name).items()}
        except ToolError as error:
            found.append(str(error))
            continue
        if digest_of(digests)[:16] != directory.name:
            found.append(f"{name}:1: is not what ran: restore it (git checkout -- {name})")
    return found
