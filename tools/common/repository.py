"""The workspace in its repository, as the commands ask about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File, Tree
from tools.common.git import Git, complaint
from tools.common.transaction import read_file

SHORT = 12
"""Digits of a commit that the ledger keeps."""


class Repository(Git):
    """Paths that go in and come out are from the workspace's root, which may lie inside it."""

    def __init__(self, root: Path) -> None:
        """Raises ToolError where `root` is in no repository, or in one without a commit."""
        if not root.is_dir():
            raise ToolError(f"{root}: is no directory")
        super().__init__(root.resolve())
        done = self.run("rev-parse", "--show-prefix")
        if done.returncode:
            raise ToolError(f"{root}: is in no git repository that can be used ({complaint(done)})")
        self.prefix = done.stdout.decode().removesuffix("\n")
        if self.commit("HEAD") is None:
            raise ToolError(f"{root}: the repository has no commit yet: commit first")
        self._trees: dict[tuple[str, str], Tree] = {}

    def state(self) -> Path:
        """Where commands keep what they prepare: outside the working tree, one per worktree."""
        return self.root / self.ask("rev-parse", "--git-path", f"grug/{self.prefix}").strip()

    def touched(self, path: str) -> str:
        """The last commit that touched `path`, which holds it as HEAD does."""
        found = self.ask("rev-list", "-1", "HEAD", "--", path).strip()
        if found and self.object(found, path) == self.object("HEAD", path):
            return found
        return self.ask("rev-parse", "HEAD").strip()

    def object(self, commit: str, path: str) -> str:
        """The digest of what a path is in a commit; empty where it is not there."""
        asked = ("rev-parse", "--verify", "--quiet", f"{commit}:{self.prefix}{path}")
        return (self.answer(*asked) or b"").decode().strip()

    def content(self, commit: str, path: str) -> bytes | None:
        """A file's bytes in a commit; None where it is not there."""
        return self.answer("cat-file", "blob", f"{commit}:{self.prefix}{path}")

    def history(self, commits: str, path: str) -> Iterator[tuple[str, str]]:
        """(commit, subject) of a range's first parents that touched a path, oldest first."""
        asked = ("rev-list", "--first-parent", "--reverse", "--encoding=UTF-8")
        listed = self.ask(*asked, "--format=%H%x09%s%x00", commits, "--", path)
        for part in listed.split("\0")[:-1]:  # rev-list writes a line of its own before each
            commit, _, subject = part.rpartition("\n")[2].partition("\t")
            yield commit, subject

    def dirty(self, *paths: str) -> list[str]:
        """What is uncommitted or untracked, and not ignored, below the paths."""
        asked = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--")
        return [entry[3:].removeprefix(self.prefix) for entry in self.names(*asked, *paths)]

    def refuse_dirty(self, *paths: str) -> None:
        """Raises ToolError, naming the first file, where anything below the paths is dirty."""
        if dirty := self.dirty(*paths):
            raise ToolError(f"{dirty[0]}: not committed: commit it, or restore it, first")

    def files(self, commit: str, path: str) -> Tree:
        """The files below a directory in a commit; none where it is not there."""
        if (commit, path) not in self._trees:
            self._trees[commit, path] = self.tree(commit, self.prefix + path) or {}
        return self._trees[commit, path]

    def tracked(self, path: str) -> Tree:
        """The files below a directory that the index names, as they are in the working tree.

        Raises:
            ToolError: a symbolic link or a submodule among them, or the directory is a link.
        """
        found: dict[str, File] = {}
        for entry in self.names("ls-files", "--stage", "-z", "--", path):
            head, _, name = entry.partition("\t")
            submodule = head.startswith("160000")
            if submodule or (self.root / name).is_symlink():
                what = "submodule" if submodule else "symbolic link"
                raise ToolError(f"{name}: is a {what}: a variant holds its files themselves")
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
