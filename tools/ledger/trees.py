"""python -m tools.ledger.trees SOURCE --root ROOT

Writes the files of a directory as it was once, at its own path below the working directory. SOURCE
is COMMIT:DIRECTORY, or a place as the ledger says it, `COMMIT tree TREE:DIRECTORY`. Exit code 1,
with one line, if nothing has them.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tools.common.errors import ToolError, exit_with
from tools.common.files import Tree
from tools.common.git import Git
from tools.common.paths import local_path, local_text
from tools.common.repository import Repository
from tools.ledger import pins


def read(root: Path, source: str) -> tuple[str, Tree]:
    """(the directory, its files) of a source.

    Raises:
        ToolError: nothing has them.
    """
    named, _, path = source.partition(":")
    path = path.rstrip("/")
    git = Repository(root)
    pin = pins.parse(named)
    if pin and pin.tree:
        return path, pins.files(git, pin, path)
    commit = git.commit(named)
    if commit is None and pin:
        raise ToolError(f"{source}: {pins.missing(git, pin)}")
    if commit is None:
        raise ToolError(f"{source}: git knows no commit {named!r}: correct it, or fetch it")
    return path, _files(git, commit, path)


def _files(git: Git, commit: str, path: str) -> Tree:
    files = git.tree(commit, git.prefix + path)
    if files is None:
        raise ToolError(f"{commit[: pins.SHORT]}:{path}: there is no such directory in it")
    return files


def write(directory: Path, files: Tree) -> None:
    """Writes files below a directory that is empty or not there; a submodule becomes empty."""
    for inside, file in files.items():
        path = directory / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.mode == "link":
            path.symlink_to(os.fsdecode(file.content))
        elif file.mode == "submodule":
            path.mkdir()
        else:
            path.write_bytes(file.content)
            path.chmod(0o755 if file.mode == "executable" else 0o644)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="trees", description="Copy out the files of a variant that git or the ledger keeps."
    )
    parser.add_argument("source", type=local_text)
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    options = parser.parse_args(arguments)
    path, files = read(options.root, options.source)
    write(Path(path), files)
    return 0


if __name__ == "__main__":
    exit_with(main)
