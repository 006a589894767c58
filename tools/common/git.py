"""Questions to git whose answers no setting, hook, colour or pager of a user changes.

The one place that starts git. It uses plumbing commands and `-z`, so that names arrive unquoted.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Collection, Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import MIB, File, Mode, Tree, read_text

# Settings that a user may have changed, for the commands that read them.
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


_IS_ANOTHERS = "dubious ownership"

# What names the base branch: pants.toml, and for one command the environment, as Pants reads it.
BASE_VARIABLE = "PANTS_GRUG_BASE_BRANCH"
_CONFIGURATION = "pants.toml"


def base_branch(root: Path) -> str:
    """The option `[grug].base_branch` of the workspace `root`; empty if it is not set.

    Raises:
        ToolError: pants.toml cannot be read, or the option is no name.
    """
    if named := os.environ.get(BASE_VARIABLE):
        return named
    if not (root / _CONFIGURATION).is_file():
        return ""
    try:
        options = tomllib.loads(read_text(root / _CONFIGURATION, MIB, name=_CONFIGURATION))
    except tomllib.TOMLDecodeError as error:
        raise ToolError(f"{_CONFIGURATION}: {error}") from error
    named = options.get("grug", {}).get("base_branch", "")
    if not isinstance(named, str):
        raise ToolError(f"{_CONFIGURATION}: [grug].base_branch is {named!r}: write a branch's name")
    return named


@cache
def _environment() -> dict[str, str]:
    """Ours, without the variables by which a git hook names its own repository."""
    command = ("git", "rev-parse", "--local-env-vars")
    local = subprocess.run(command, capture_output=True, text=True).stdout.split()
    kept = {name: value for name, value in os.environ.items() if name not in local}
    return {
        **kept,
        "GIT_LITERAL_PATHSPECS": "1",
        # A question must not take a lock and make another program's `git add` fail.
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


class Git:
    """The repository that a directory lies in, or that `git_dir` names.

    Args:
        root: the directory in which questions are asked.
        git_dir: the repository, if `root` does not lie in it.
        fetches: whether a partial clone downloads the objects it lacks; if not, they are missing.
    """

    def __init__(
        self, root: Path = Path(), git_dir: Path | None = None, *, fetches: bool = True
    ) -> None:
        self.root = root
        self.git_dir = git_dir
        self.fetches = fetches
        self._trees_by_path: dict[tuple[str, tuple[str, ...]], dict[str, str]] = {}

    @cached_property
    def prefix(self) -> str:
        """The path of `root` in its repository, with a final slash unless it is empty."""
        return (self.answer("rev-parse", "--show-prefix") or b"").decode().removesuffix("\n")

    def object(self, commit: str, path: str) -> str:
        """git's id of a path's content in a commit; empty if the commit lacks the path."""
        command = ("rev-parse", "--verify", "--quiet", f"{commit}:{self.prefix}{path}")
        return (self.answer(*command) or b"").decode().strip()

    def trees(self, path: str, tips: tuple[str, ...]) -> dict[str, str]:
        """Each content that a directory had in the tips' history: its id, and the newest commit."""
        if (path, tips) not in self._trees_by_path:
            command = ("rev-list", "--full-history", *filter(self.commit, tips), "--", path)
            commits = self.ask(*command).split()
            names = {f"{commit}:{self.prefix}{path}": commit for commit in commits}
            ids = self.objects(names, "tree")
            found: dict[str, str] = {}
            for name, commit in names.items():  # the newest commit first
                if name in ids:
                    found.setdefault(ids[name], commit)
            self._trees_by_path[path, tips] = found
        return self._trees_by_path[path, tips]

    def blobs_of(self, commit: str) -> set[str]:
        """The ids of all files of a commit."""
        lines = self.names("ls-tree", "-r", "-z", "--full-tree", commit)
        return {line.partition("\t")[0].split(" ")[2] for line in lines}

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs one command in `root`; any exit code is returned. Raises ToolError without git."""
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
        """The output of a command; None if it fails."""
        process = self.run(*arguments, stdin=stdin)
        return process.stdout if process.returncode == 0 else None

    def ask(self, *arguments: str) -> str:
        """The output of a command as text. Raises ToolError with git's first line if it fails."""
        process = self.run(*arguments)
        if process.returncode:
            raise ToolError(f"git {arguments[0]}: {complaint(process)}")
        return process.stdout.decode("utf-8", "surrogateescape")

    def names(self, *arguments: str) -> list[str]:
        """The names that a command prints with -z."""
        return [name for name in self.ask(*arguments).split("\0") if name]

    def commit(self, name: str) -> str | None:
        """The full digest of the commit that a name, branch or tag means; None if there is none."""
        if not name or name.startswith("-"):
            return None
        digest = self.answer("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return digest.decode().strip() if digest else None

    def main(self) -> str:
        """The main branch, as a name that git takes: `main`, `origin/trunk`; `HEAD` without one.

        It is the one that `[grug].base_branch` names, else what origin's HEAD says, else
        init.defaultBranch, `main` or `master`. A branch of this clone goes before origin's of the
        same name.
        """
        return self.main_branches()[0]

    def main_branches(self) -> tuple[str, ...]:
        """This clone's main branch and origin's, as far as they are there; else `HEAD`."""
        named = base_branch(self.root)
        for name in [named] if named else self._usual_names():
            name = name.removeprefix("refs/heads/").removeprefix("origin/")
            places = {name: f"refs/heads/{name}", f"origin/{name}": f"refs/remotes/origin/{name}"}
            if found := tuple(short for short, ref in places.items() if self.commit(ref)):
                return found
        return ("HEAD",)

    def _usual_names(self) -> list[str]:
        """What the main branch is called where nobody says so, the likeliest first."""
        told = (
            self.answer("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"),
            self.answer("config", "--get", "init.defaultBranch"),
        )
        return [*(name.decode().strip() for name in told if name), "main", "master"]

    def is_on_main(self, commit: str) -> bool:
        """Whether a commit is reachable from the main branch, this clone's or origin's."""
        return self.is_reachable(commit, *self.main_branches())

    def is_reachable(self, commit: str, *tips: str) -> bool:
        """Whether git has a commit, and one of the tips is it or comes after it."""
        digest = self.commit(commit)
        return digest is not None and not self.unreachable([digest], *tips)

    def unreachable(self, digests: Collection[str], *tips: str) -> set[str]:
        """Those of the commits (full digests that git has) that no tip comes after.

        Raises:
            ToolError: git lacks one of them.
        """
        if not digests:
            return set()
        excluded = [f"^{tip}" for tip in map(self.commit, tips) if tip]
        lines = "".join(f"{word}\n" for word in (*sorted(digests), *excluded))
        process = self.run("rev-list", "--stdin", stdin=lines.encode())
        if process.returncode:
            raise ToolError(f"git rev-list: {complaint(process)}")
        return set(digests) & set(process.stdout.decode().split())

    def known_commits(self, names: Collection[str]) -> dict[str, str]:
        """The `names` that mean exactly one commit, with its full digest, from a single command.

        Raises:
            ToolError: there is no repository.
        """
        objects = self.objects([f"{name}^{{commit}}" for name in names], "commit")
        return {name.removesuffix("^{commit}"): digest for name, digest in objects.items()}

    def objects(self, names: Collection[str], kind: str) -> dict[str, str]:
        """The `names` (revisions) that mean an object of that kind, with its id; one command.

        Raises:
            ToolError: there is no repository.
        """
        if not names:
            return {}
        ordered = sorted(names)
        lines = "".join(f"{name}\n" for name in ordered)
        process = self.run("cat-file", "--batch-check", stdin=lines.encode())
        answers = process.stdout.decode(errors="replace").splitlines()
        if process.returncode or len(answers) != len(ordered):
            raise ToolError(f"{self.git_dir or self.root}: git says {complaint(process)!r}")
        pairs = ((n, a.split(" ")) for n, a in zip(ordered, answers, strict=True))
        return {name: words[0] for name, words in pairs if words[1:2] == [kind]}

    def blobs(self, digests: Iterable[str]) -> dict[str, bytes]:
        """The contents of objects by their digest in git; objects it lacks are left out."""
        lines = "".join(f"{digest}\n" for digest in sorted(set(digests)))
        if not lines:
            return {}
        answer = self.run("cat-file", "--batch", stdin=lines.encode()).stdout
        contents: dict[str, bytes] = {}
        start = 0
        while start < len(answer):
            end = answer.index(b"\n", start)
            words = answer[start:end].decode().split(" ")
            start = end + 1
            if len(words) == 3:  # else "DIGEST missing"
                size = int(words[2])
                contents[words[0]] = answer[start : start + size]
                start += size + 1
        return contents

    def tree(self, commit: str, path: str) -> Tree | None:
        """The files below a path of a commit, or the one file; None if it has no such path.

        Args:
            commit: any name of a commit.
            path: the path from the repository's root, even if `root` is a directory within it.

        Raises:
            ToolError: the repository lacks some of the files.
        """
        # Spelled in full: "COMMIT:./PATH" would be read from the current directory.
        object_name = f"{commit}:{path}"
        kind = self.answer("cat-file", "-t", object_name)
        if kind is None:
            return None
        if kind.strip() == b"blob":
            return {
                path.rpartition("/")[2]: File(self.answer("cat-file", "blob", object_name) or b"")
            }
        entries: list[tuple[str, Mode, str]] = []
        for line in self.names("ls-tree", "-r", "-z", "--full-tree", object_name):
            head, _, name = line.partition("\t")
            mode, _, digest = head.split(" ")
            entries.append((name, _MODES.get(mode, "file"), digest))
        blobs = self.blobs(digest for _, mode, digest in entries if mode != "submodule")
        tree: dict[str, File] = {}
        for name, mode, digest in sorted(entries):
            if mode != "submodule" and digest not in blobs:
                raise ToolError(
                    f"{object_name}/{name}: git lacks its content: fetch it (git fetch)"
                )
            tree[name] = File(digest.encode() if mode == "submodule" else blobs[digest], mode)
        return tree

    def stage(self, paths: Sequence[str]) -> None:
        """Puts paths, written or removed, into git's index, whatever .gitignore says.

        Raises:
            ToolError: there is no repository, or git refuses.
        """
        there = [path for path in paths if os.path.lexists(self.root / path)]
        gone = [path for path in paths if path not in there]
        remove = ("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--")
        for command, names in ((("add", "--force", "--"), there), (remove, gone)):
            process = self.run(*command, *names) if names else None
            if process and process.returncode:
                message = f"git says {complaint(process)}"
                raise ToolError(f"what was written could not be staged: {message}")

    def files_with(self, words: Sequence[str]) -> list[str]:
        """Paths, from `root`, of the text files below it that contain a word; ignored ones not."""
        patterns = [argument for word in words for argument in ("-e", word)]
        process = self.run("grep", "--untracked", "--no-color", "-lzIF", *patterns, "--", ".")
        if process.returncode > 1:
            raise ToolError(f"git grep: {complaint(process)}")
        text = process.stdout.decode("utf-8", "surrogateescape")
        return [name for name in text.split("\0") if name]


def complaint(process: subprocess.CompletedProcess[bytes]) -> str:
    """The first line that a failed command wrote to standard error, or "no answer".

    git's remedy for a repository of another user, which is the last of its lines, is added.
    """
    lines = process.stderr.decode(errors="replace").strip().splitlines()
    remedy = f": {lines[-1].strip()}" if lines[1:] and _IS_ANOTHERS in lines[0] else ""
    return f"{lines[0]}{remedy}" if lines else "no answer"
