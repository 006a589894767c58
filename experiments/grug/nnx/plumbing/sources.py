"""What a variant runs: the files in its directory, and the commit that holds them."""

import dataclasses
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1]  # of the variant
ROOT = DIRECTORY.parents[2]  # of the workspace, or of a copy of it
LARGEST_COPY = 2**20
"""Bytes of the largest file that a run directory gets a copy of; of a larger one, the digest."""


class SourceError(ValueError):
    """The variant's files cannot be recorded; one line that names the remedy."""


def is_source(path: str) -> bool:
    """Whether a run may read the file at this path within a variant's directory.

    All files count but hidden ones, __pycache__, BUILD files and tests: a run from a launch bundle,
    which has none of these, is the same run. The build and the archive's tools use the same rule.
    """
    *folders, name = path.split("/")
    if any(part.startswith(".") or part == "__pycache__" for part in (*folders, name)):
        return False
    if name == "BUILD" or name.startswith("BUILD."):
        return False
    is_test = name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
    return not (is_test and name.endswith(".py"))


@dataclasses.dataclass(frozen=True)
class Sources:
    """The files that run, by their paths within the variant's directory."""

    paths: dict[str, Path]
    digests: dict[str, str]
    """sha256 of each file."""

    @property
    def digest(self) -> str:
        """The sha256 that names the set of files."""
        return hashlib.sha256(json.dumps(self.digests, sort_keys=True).encode()).hexdigest()

    def copies(self) -> dict[str, bytes]:
        """The contents of the files of at most LARGEST_COPY bytes."""
        small = {n: p for n, p in self.paths.items() if p.stat().st_size <= LARGEST_COPY}
        return {name: path.read_bytes() for name, path in small.items()}


def find_sources() -> Sources:
    """The variant's files now. Raises SourceError for a symbolic link or an unusable file."""
    paths: dict[str, Path] = {}
    for path in sorted(DIRECTORY.rglob("*")):
        name = path.relative_to(DIRECTORY).as_posix()
        if not is_source(name):
            continue
        if path.is_symlink():
            raise SourceError(f"{path}: is a symbolic link, so a record cannot hold it: copy it")
        if path.is_file():
            paths[name] = path
    try:
        for name in paths:
            name.encode()
        digests = {name: file_digest(path, "sha256") for name, path in paths.items()}
    except UnicodeEncodeError as error:
        raise SourceError(f"{DIRECTORY}/{error.object!a}: is no UTF-8: rename it") from error
    except OSError as error:
        raise SourceError(f"{error.filename}: {error.strerror}: make it readable") from error
    return Sources(paths, digests)


def file_digest(path: Path, algorithm: str, prefix: bytes = b"") -> str:
    """The digest of `prefix` and a file's content, read in parts."""
    state = hashlib.new(algorithm, prefix, usedforsecurity=False)
    with open(path, "rb") as file:
        while part := file.read(2**20):
            state.update(part)
    return state.hexdigest()


def git_state(sources: Sources) -> dict[str, Any]:
    """HEAD where the sources are, and whether it holds other ones; None where git cannot tell.

    The launcher runs a copy of the workspace's sources and names the workspace in GRUG_WORKSPACE.
    """
    workspace = Path(os.environ.get("GRUG_WORKSPACE") or ROOT)
    directory = workspace / DIRECTORY.relative_to(ROOT)
    # A git hook names its own repository, which need not be the one that holds the sources.
    env = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE")}

    def git(*args: str) -> str:
        command = ["git", "-C", str(directory), *args]
        done = subprocess.run(command, env=env, capture_output=True, check=True)
        return os.fsdecode(done.stdout)

    try:
        commit = git("rev-parse", "--verify", "HEAD").strip()
        committed = {}
        for line in git("ls-tree", "-r", "-z", commit).split("\0")[:-1]:
            head, _, name = line.partition("\t")
            if is_source(name):
                mode, _, blob = head.split()
                # A link or a submodule is no file that could have run.
                committed[name] = blob if mode in ("100644", "100755") else mode
        algorithm = "sha1" if len(commit) == 40 else "sha256"
        here = {}
        for name, path in sources.paths.items():
            header = b"blob %d\0" % path.stat().st_size
            here[name] = file_digest(path, algorithm, header)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": here != committed}
