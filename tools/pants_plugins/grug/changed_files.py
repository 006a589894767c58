"""What --changed-since takes as changed: every path that git knows, whatever its name.

Pants 2.17 splits git's output at blanks and takes quoted names as they are printed, so that
`café.py` and `my notes.md` are not seen. Its two functions are replaced by ones that ask with `-z`.
Names are literals, too, where Pants would read `[1]` as a glob.

`--changed-since=list:PATH` takes the paths from a file instead, from the build root and each with a
NUL after it: the pre-commit hook checks what is staged, and nothing else. No commit's name holds a
colon. (An environment variable would not do: the daemon does not see it.)

`--changed-since=base:` means the main branch, whatever it is called here: `[grug].base_branch` of
pants.toml, else what origin's HEAD says, else init.defaultBranch, `main` or `master`, else HEAD, as
tools/common/git.py finds it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePath

import toml  # pants: no-infer-dep
from pants.base.specs import FileLiteralSpec
from pants.core.util_rules.system_binaries import GitBinaryException
from pants.engine.rules import Rule
from pants.vcs.git import GitWorktree

LIST = "list:"
BASE = "base:"
# No setting of a user changes what is listed.
_GIT = ("--literal-pathspecs", "-c", "diff.relative=false", "-c", "color.ui=false")
_DIFF = ("--name-only", "-z", "--no-renames", "--no-ext-diff")


def names(git: GitWorktree, *arguments: str) -> set[str]:
    """The paths that a command of git prints with -z."""
    command = git._create_git_cmdline([*_GIT, *arguments])
    process = subprocess.run(
        [git._git_binary.path, *command],
        capture_output=True,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    )
    if process.returncode:
        raise GitBinaryException(process.stderr.decode(errors="replace").strip())
    return decoded(process.stdout)


def answer(git: GitWorktree, *arguments: str) -> str:
    """The first line that a command of git prints; empty if it fails."""
    command = [git._git_binary.path, *git._create_git_cmdline(arguments)]
    process = subprocess.run(command, capture_output=True)
    return process.stdout.decode(errors="replace").strip() if process.returncode == 0 else ""


def base(git: GitWorktree, root: Path) -> str:
    """The main branch, this clone's or origin's; HEAD without one.

    Raises GitBinaryException if pants.toml names a branch that is not there.
    """
    options = toml.loads((root / "pants.toml").read_text(encoding="utf-8"))
    named = options.get("grug", {}).get("base_branch", "")
    told = (
        answer(git, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"),
        answer(git, "config", "--get", "init.defaultBranch"),
    )
    for name in [named] if named else [*filter(None, told), "main", "master"]:
        short = name[len("origin/") :] if name.startswith("origin/") else name
        for ref in (f"refs/heads/{short}", f"refs/remotes/origin/{short}"):
            if answer(git, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"):
                return ref
    if named:
        raise GitBinaryException(
            f"there is no branch {named!r}, which [grug].base_branch in pants.toml names: fetch it "
            "(git fetch origin), or correct the option"
        )
    return "HEAD"


def decoded(listed: bytes) -> set[str]:
    """The paths of a list in which a NUL follows each."""
    paths = set()
    for name in listed.split(b"\0"):
        try:
            paths |= {name.decode()} if name else set()
        except UnicodeDecodeError as error:
            message = f"{name!r} is no UTF-8, and Pants cannot name it: rename it"
            raise GitBinaryException(message) from error
    return paths


def changed_files(
    git: GitWorktree,
    from_commit: str | None = None,
    include_untracked: bool = False,
    relative_to: PurePath | str | None = None,
) -> set[str]:
    """Replaces GitWorktree.changed_files."""
    if from_commit and from_commit.startswith(LIST):
        return decoded(Path(from_commit[len(LIST) :]).read_bytes())
    root = PurePath(relative_to) if relative_to is not None else git.worktree
    if from_commit == BASE:
        from_commit = base(git, Path(root))
    below = ("--", str(root))
    files = names(git, "diff", *_DIFF, "HEAD", *below)
    if from_commit:
        # Against the merge base: what main gained meanwhile is no change of this branch.
        files |= names(git, "diff", *_DIFF, f"{from_commit}...HEAD", *below)
    if include_untracked:
        files |= names(
            git, "ls-files", "-z", "--others", "--exclude-standard", "--full-name", *below
        )
    return {git._fix_git_relative_path(file, root) for file in files}


def changes_in(
    git: GitWorktree, diffspec: str, relative_to: PurePath | str | None = None
) -> set[str]:
    """Replaces GitWorktree.changes_in."""
    root = PurePath(relative_to) if relative_to is not None else git.worktree
    files = names(git, "diff-tree", "--no-commit-id", "-r", *_DIFF, diffspec, "--", str(root))
    return {git._fix_git_relative_path(file, root) for file in files}


def literal_glob(spec: FileLiteralSpec) -> str:
    """Replaces FileLiteralSpec.to_glob: a glob that matches the file alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in spec.file)


def replace() -> None:
    GitWorktree.changed_files = changed_files  # ty: ignore[invalid-assignment]
    GitWorktree.changes_in = changes_in  # ty: ignore[invalid-assignment]
    FileLiteralSpec.to_glob = literal_glob  # ty: ignore[invalid-assignment]


def rules() -> Iterable[Rule]:
    replace()
    return ()
