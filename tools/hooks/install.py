"""Installs or removes the git hook that runs `./pants fmt lint check` before each commit.

    ./pants run tools/hooks:install
    ./pants run tools/hooks:install -- --uninstall

It goes where git looks for hooks (core.hooksPath, or the repository that worktrees share). Another
hook there stays as it is. Exit code 0; 1, with one line, if there is another hook.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tools.common.errors import ToolError, exit_with
from tools.common.git import Git, complaint
from tools.hooks import hook


def place() -> Path:
    """The path of the pre-commit hook, in the repository of the working directory."""
    process = Git().run("rev-parse", "--git-path", "hooks")
    if process.returncode:
        raise ToolError(f"git says {complaint(process)!r}: run this in the workspace's repository")
    return Path(process.stdout.decode().removesuffix("\n"), "pre-commit")


def _theirs(path: Path) -> bool:
    """Whether there is something that we did not write, or that was edited since."""
    if path.is_symlink() or not path.is_file():
        return os.path.lexists(path)
    return not hook.is_ours(path.read_text(encoding="utf-8", errors="replace"))


def workspace() -> str:
    """The directory of this workspace in its repository, with a `/` at its end; "" for the root.

    It is the nearest one above the working directory that holds `pants.toml`.
    """
    prefix = Git().ask("rev-parse", "--show-prefix").removesuffix("\n")
    parts = [part for part in prefix.split("/") if part]
    above = Path()
    while parts and not (above / "pants.toml").is_file():
        above /= ".."
        parts.pop()
    return "".join(f"{part}/" for part in parts)


def install(path: Path) -> str:
    """Writes the hook and returns the line to print. Raises ToolError if there is another one."""
    if _theirs(path):
        raise ToolError(
            f"{path} is another hook, left as it is: move it away, or let it call "
            "./pants fmt lint check"
        )
    text = hook.text(workspace())
    if path.is_file() and path.read_text() == text and os.access(path, os.X_OK):
        return f"{path} is there already"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.chmod(0o755)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return f"{path} runs ./pants fmt lint check on what you commit"


def uninstall(path: Path) -> str:
    """Removes the hook and returns the line to print. Raises ToolError if it is another one."""
    if not os.path.lexists(path):
        return f"{path} is not there"
    if _theirs(path):
        raise ToolError(f"{path} is another hook, left as it is: remove it yourself")
    path.unlink()
    return f"{path} is removed"


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="install", description="Install the pre-commit hook.")
    parser.add_argument("--uninstall", action="store_true", help="remove the hook instead")
    options = parser.parse_args(arguments)
    print((uninstall if options.uninstall else install)(place()))
    return 0


if __name__ == "__main__":
    exit_with(main)
