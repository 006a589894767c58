"""What `./pants run launch -- --version` says: the workspace's commit and the locked JAX."""

from __future__ import annotations

import platform
from pathlib import Path

from tools.bundle.lock import Lock
from tools.common.errors import ToolError
from tools.common.git import Git

LOCK = "tools/locks/cpu.lock"
PACKAGES = ("jax", "jaxlib")


def version(workspace: Path) -> str:
    """Two lines: the commit and whether files differ from it; locked packages and this Python.

    Raises:
        ToolError: the lock cannot be read, or there is no git.
    """
    try:
        lock = Lock.parse((workspace / LOCK).read_text("utf-8"), LOCK)
    except OSError as error:
        raise ToolError(f"{LOCK} cannot be read: {error.strerror}") from error
    locked = [f"{name} {lock.version(name)}" for name in PACKAGES if lock.version(name)]
    return (
        f"grug {_commit(Git(workspace))}\n{', '.join(locked)}, Python {platform.python_version()}"
    )


def _commit(git: Git) -> str:
    commit = git.commit("HEAD")
    if commit is None:
        return "of no commit"
    edited = git.answer("status", "--porcelain")
    return f"{commit[:12]}{', with uncommitted changes' if edited else ''}"
