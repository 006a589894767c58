"""The repository that the workspace lies in, as the commands ask it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tools.diff.errors import DiffError
from tools.diff.sources import File, Tree, read_git
from tools.lifecycle.errors import LifecycleError
from tools.lifecycle.transaction import read_file

SHORT = 12
"""Digits of a commit that the ledger keeps."""


@cache
def environment() -> dict[str, str]:
    """Ours, without what a git hook says about its own repository: the workspace's root decides."""
    asked = ["git", "rev-parse", "--local-env-vars"]
    own = subprocess.run(asked, capture_output=True, text=True).stdout.split()
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def run_git(
    arguments: Sequence[str], cwd: Path, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=cwd, env=environment(), input=stdin, capture_output=True
        )
    except FileNotFoundError as error:
        raise LifecycleError("git cannot be run: install it") from error


class Repository:
    """Paths that go in and come out are from the workspace's root, which may lie inside it."""

    def __init__(self, root: Path):
        """Raises LifecycleError where `root` is in no repository, or in one without a commit."""
        self.root = root.resolve()
        if not self.root.is_dir():
            raise LifecycleError(f"{root}: is no directory")
        done = run_git(["rev-parse", "--show-prefix"], self.root)
        if done.returncode:
            said = (done.stderr.decode(errors="replace").splitlines() or ["no answer"])[0]
            raise LifecycleError(f"{root}: is in no git repository that can be used ({said})")
        self.prefix = done.stdout.decode().removesuffix("\n")
        if self.commit("HEAD") is None:
            raise LifecycleError(f"{root}: the repository has no commit yet: commit first")
        self.git_dir = self.ask("rev-parse", "--absolute-git-dir").strip()
        self._trees: dict[tuple[str, str], Tree] = {}

    def ask(self, *arguments: str) -> str:
        """What git prints. Raises LifecycleError where it fails."""
        done = run_git(arguments, self.root)
        if done.returncode:
            said = (done.stderr.decode(errors="replace").splitlines() or ["no answer"])[0]
            raise LifecycleError(f"git {arguments[0]}: {said}")
        return done.stdout.decode("utf-8", "surrogateescape")

    def names(self, *arguments: str) -> list[str]:
        """What git prints with -z."""
        return [name for name in self.ask(*arguments).split("\0") if name]

    def state(self) -> Path:
        """Where commands keep what they prepare: outside the working tree, one a worktree."""
        return self.root / self.ask("rev-parse", "--git-path", f"grug/{self.prefix}").strip()

    def commit(self, name: str) -> str | None:
        """All digits of a commit; None where git knows no such."""
        if name.startswith("-"):
            return None
        asked = ["rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
        return run_git(asked, self.root).stdout.decode().strip() or None

    def touched(self, path: str) -> str:
        """The last commit that touched `path`, which holds it as HEAD does."""
        found = self.ask("rev-list", "-1", "HEAD", "--", path).strip()
        if found and self.object(found, path) == self.object("HEAD", path):
            return found
        return self.ask("rev-parse", "HEAD").strip()

    def object(self, commit: str, path: str) -> str:
        """The digest of what a path is in a commit; empty where it is not there."""
        asked = ["rev-parse", "--verify", "--quiet", f"{commit}:{self.prefix}{path}"]
        return run_git(asked, self.root).stdout.decode().strip()

    def dirty(self, *paths: str) -> list[str]:
        """What is uncommitted or untracked, and not ignored, below the paths."""
        asked = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--")
        return [entry[3:].removeprefix(self.prefix) for entry in self.names(*asked, *paths)]

    def tree(self, commit: str, path: str) -> Tree:
        """The files below a directory in a commit; none where it is not there."""
        if (commit, path) not in self._trees:
            try:
                found = read_git(commit, self.prefix + path, self.git_dir)
            except DiffError:
                found = {}
            self._trees[commit, path] = found
        return self._trees[commit, path]

    def tracked(self, path: str) -> Tree:
        """The files below a directory that the index names, as they are in the working tree.

        Raises:
            LifecycleError: a symbolic link or a submodule among them, or the directory is a link.
        """
        found: dict[str, File] = {}
        for entry in self.names("ls-files", "--stage", "-z", "--", path):
            head, _, name = entry.partition("\t")
            submodule = head.startswith("160000")
            if submodule or (self.root / name).is_symlink():
                what = "submodule" if submodule else "symbolic link"
                raise LifecycleError(f"{name}: is a {what}: a variant holds its files themselves")
            found[name.removeprefix(f"{path}/")] = read_file(self.root / name)
        return found

    def working(self, path: str) -> Tree:
        """The files below a directory in the working tree, without those that git ignores."""
        found: dict[str, File] = {}
        asked = ("ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", path)
        for name in sorted(set(self.names(*asked))):
            file = self.root / name
            if file.is_file() and not file.is_symlink():
                found[name.removeprefix(f"{path}/")] = read_file(file)
        return found
