"""What git knows, asked so that no setting, hook, colour or pager of a user changes the answer.

The one place that starts git. Questions use plumbing commands and `-z`, so names come as they are.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File, Mode, Tree

# What a user may have set otherwise, of the commands that read such settings.
_SETTINGS = (
    "grep.fullName=false",
    "merge.conflictStyle=merge",
    "submodule.recurse=false",
)
_MODES: dict[str, Mode] = {
    "100644": "file",
    "100755": "executable",
    "120000": "link",
    "160000": "submodule",
}


@cache
def _environment() -> dict[str, str]:
    """Ours, without what a git hook says about its own repository: the caller names the place."""
    asked = ("git", "rev-parse", "--local-env-vars")
    local = subprocess.run(asked, capture_output=True, text=True).stdout.split()
    kept = {name: value for name, value in os.environ.items() if name not in local}
    return {
        **kept,
        "GIT_LITERAL_PATHSPECS": "1",
        # A question must not make another program's `git add` fail.
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


class Git:
    """The repository that a directory lies in, or that `git_dir` names.

    Args:
        root: the directory in which questions are asked.
        git_dir: the repository, if `root` does not lie in it.
        fetches: whether a partial clone downloads the objects it lacks; else they are unknown.
    """

    def __init__(
        self, root: Path = Path(), git_dir: Path | None = None, *, fetches: bool = True
    ) -> None:
        self.root = root
        self.git_dir = git_dir
        self.fetches = fetches

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs one command in `root`, whatever its exit code. Raises ToolError: there is no git."""
        command = ["git", "--no-pager", "-C", str(self.root)]
        if self.git_dir:
            command.append(f"--git-dir={self.git_dir.absolute()}")
        for setting in _SETTINGS:
            command += ["-c", setting]
        try:
            environment = _environment()
            if not self.fetches:
                environment = {**environment, "GIT_NO_LAZY_FETCH": "1"}
            return subprocess.run(
                [*command, *arguments], env=environment, input=stdin, capture_output=True
            )
        except OSError as error:
            raise ToolError(f"git cannot be run ({error.strerror}): install it") from error

    def answer(self, *arguments: str, stdin: bytes = b"") -> bytes | None:
        """What a command prints; None where it fails."""
        done = self.run(*arguments, stdin=stdin)
        return done.stdout if done.returncode == 0 else None

    def ask(self, *arguments: str) -> str:
        """What a command prints. Raises ToolError where it fails, with git's first line."""
        done = self.run(*arguments)
        if done.returncode:
            raise ToolError(f"git {arguments[0]}: {complaint(done)}")
        return done.stdout.decode("utf-8", "surrogateescape")

    def names(self, *arguments: str) -> list[str]:
        """What a command prints with -z."""
        return [name for name in self.ask(*arguments).split("\0") if name]

    def commit(self, name: str) -> str | None:
        """All digits of the commit that a name, branch or tag leads to; None for no commit."""
        if not name or name.startswith("-"):
            return None
        found = self.answer("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return found.decode().strip() if found else None

    def known_commits(self, names: Collection[str]) -> set[str]:
        """Those of `names` (hexadecimal digits) that are one commit each, asked for at once.

        Raises:
            ToolError: there is no repository to ask.
        """
        if not names:
            return set()
        asked = sorted(names)
        lines = "".join(f"{name}^{{commit}}\n" for name in asked)
        done = self.run("cat-file", "--batch-check", stdin=lines.encode())
        answers = done.stdout.decode().splitlines()
        if done.returncode or len(answers) != len(asked):
            raise ToolError(f"{self.git_dir or self.root}: git says {complaint(done)!r}")
        pairs = zip(asked, answers, strict=True)
        return {name for name, answer in pairs if answer.split(" ")[1:2] == ["commit"]}

    def blobs(self, digests: Iterable[str]) -> dict[str, bytes]:
        """The contents of objects by git's digest of them; those it does not have are left out."""
        lines = "".join(f"{digest}\n" for digest in sorted(set(digests)))
        if not lines:
            return {}
        answer = self.run("cat-file", "--batch", stdin=lines.encode()).stdout
        found: dict[str, bytes] = {}
        start = 0
        while start < len(answer):
            end = answer.index(b"\n", start)
            words = answer[start:end].decode().split(" ")
            start = end + 1
            if len(words) == 3:  # else "DIGEST missing"
                size = int(words[2])
                found[words[0]] = answer[start : start + size]
                start += size + 1
        return found

    def tree(self, commit: str, path: str) -> Tree | None:
        """The files below a path of a commit, or the one file; None where it has no such path.

        Args:
            commit: whatever names one.
            path: from the repository's root, wherever in it the question is asked.

        Raises:
            ToolError: the repository lacks some of the files.
        """
        # Spelled in full: "COMMIT:./PATH" would be read from the current directory.
        named = f"{commit}:{path}"
        kind = self.answer("cat-file", "-t", named)
        if kind is None:
            return None
        if kind.strip() == b"blob":
            return {path.rpartition("/")[2]: File(self.answer("cat-file", "blob", named) or b"")}
        entries: list[tuple[str, Mode, str]] = []
        for line in self.names("ls-tree", "-r", "-z", "--full-tree", named):
            head, _, name = line.partition("\t")
            mode, _, digest = head.split(" ")
            entries.append((name, _MODES.get(mode, "file"), digest))
        blobs = self.blobs(digest for _, mode, digest in entries if mode != "submodule")
        tree: dict[str, File] = {}
        for name, mode, digest in sorted(entries):
            if mode != "submodule" and digest not in blobs:
                raise ToolError(f"{named}/{name}: git lacks its content: fetch it (git fetch)")
            tree[name] = File(digest.encode() if mode == "submodule" else blobs[digest], mode)
        return tree

    def files_with(self, words: Sequence[str]) -> list[str]:
        """Text files below `root`, not ignored, that hold one of some words; from `root`."""
        given = [argument for word in words for argument in ("-e", word)]
        done = self.run("grep", "--untracked", "--no-color", "-lzIF", *given, "--", ".")
        if done.returncode > 1:
            raise ToolError(f"git grep: {complaint(done)}")
        text = done.stdout.decode("utf-8", "surrogateescape")
        return [name for name in text.split("\0") if name]


def complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    """The first line that a failed command wrote to standard error."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else "no answer"
