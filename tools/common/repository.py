"""Questions to git about the workspace, by paths from its root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File, Tree, require_directory
from tools.common.git import Git, complaint
from tools.common.transaction import read_file

SHORT = 12
"""Digits of a commit that the ledger keeps."""


class Repository(Git):
    """A repository that holds the workspace; all paths are from the workspace's root."""

    def __init__(self, root: Path, *, stages: bool = False) -> None:
        """Opens the workspace `root`.

        Args:
            root: its directory.
            stages: whether commands put what they write into git's index.

        Raises:
            ToolError: `root` is in no repository, or in one without a commit.
        """
        require_directory(root)
        super().__init__(root.resolve())
        self.stages = stages
        process = self.run("rev-parse", "--show-prefix")
        if process.returncode:
            raise ToolError(
                f"{root}: is in no git repository that can be used ({complaint(process)})"
            )
        self.prefix = process.stdout.decode().removesuffix("\n")
        if self.commit("HEAD") is None:
            raise ToolError(f"{root}: the repository has no commit yet: commit first")
        self._trees: dict[tuple[str, str], Tree] = {}

    def state(self) -> Path:
        """The directory where commands prepare their changes: below git's, one per worktree."""
        return self.root / self.ask("rev-parse", "--git-path", f"grug/{self.prefix}").strip()

    def touched(self, path: str) -> str:
        """The last commit that touched `path`; HEAD if that one does not hold it as HEAD does."""
        commit = self.ask("rev-list", "-1", "HEAD", "--", path).strip()
        if commit and self.object(commit, path) == self.object("HEAD", path):
            return commit
        return self.ask("rev-parse", "HEAD").strip()

    def content(self, commit: str, path: str) -> bytes | None:
        """A file's bytes in a commit; None if the commit lacks it."""
        return self.answer("cat-file", "blob", f"{commit}:{self.prefix}{path}")

    def history(self, commits: str, path: str) -> Iterator[tuple[str, str]]:
        """(commit, subject) of a range's commits that touched a path, along first parents.

        The oldest comes first.
        """
        command = ("rev-list", "--first-parent", "--reverse", "--encoding=UTF-8")
        output = self.ask(*command, "--format=%H%x09%s%x00", commits, "--", path)
        for part in output.split("\0")[:-1]:  # rev-list writes a line of its own before each
            commit, _, subject = part.rpartition("\n")[2].partition("\t")
            yield commit, subject

    def dirty(self, *paths: str) -> list[str]:
        """Paths of the uncommitted and untracked files below the paths, except ignored ones."""
        command = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--")
        return [entry[3:].removeprefix(self.prefix) for entry in self.names(*command, *paths)]

    def refuse_dirty(self, *paths: str) -> None:
        """Raises ToolError, naming the first file, if anything below the paths is dirty."""
        if dirty := self.dirty(*paths):
            raise ToolError(f"{dirty[0]}: not committed: commit it, or restore it, first")

    def files(self, commit: str, path: str) -> Tree:
        """The files below a directory in a commit; none if the commit lacks it."""
        if (commit, path) not in self._trees:
            self._trees[commit, path] = self.tree(commit, self.prefix + path) or {}
        return self._trees[commit, path]

    def tracked(self, path: str) -> Tree:
        """The files below a directory that git tracks, as they are in the working tree.

        Raises:
            ToolError: one of them is a submodule or a symbolic link.
        """
        tree: dict[str, File] = {}
        for entry in self.names("ls-files", "--stage", "-z", "--", path):
            head, _, name = entry.partition("\t")
            submodule = head.startswith("160000")
            if submodule or (self.root / name).is_symlink():
                kind = "submodule" if submodule else "symbolic link"
                raise ToolError(f"{name}: is a {kind}: a variant holds its files themselves")
            tree[name.removeprefix(f"{path}/")] = read_file(self.root / name)
        return tree

    def working(self, path: str) -> Tree:
        """The files below a directory in the working tree, except ignored ones and links."""
        tree: dict[str, File] = {}
        command = ("ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", path)
        for name in sorted(set(self.names(*command))):
            file = self.root / name
            if file.is_file() and not file.is_symlink():
                tree[name.removeprefix(f"{path}/")] = read_file(file)
        return tree
