"""Locks made by `./pants generate-lockfiles`, in a copy of the workspace.

A lock takes minutes. Made in place, all that time the workspace's requirements and locks would not
fit, every other ./pants in it would fail, and a kill would leave it so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from tools.common.errors import ToolError
from tools.common.repository import Repository
from tools.requirements.workspace import CONFIG, Resolve, read

# Lines that tell how far it is; the rest is shown where it fails in an unknown way.
PROGRESS = re.compile(r"pants: |\d\d:\d\d:\d\d\.\d\d \[INFO\] |  \d+\.\d+s\t")
TAIL = 40
"""Lines of an unknown failure that are shown."""
UNTRACKED = ("tools/", "experiments/")
OTHER_PYTHON = "require a different python version"
NO_ANSWER = re.compile(
    r"NewConnectionError|ConnectTimeout|ConnectionError|NameResolutionError|ProxyError|ReadTimeout"
    r"|SSLError|CERTIFICATE_VERIFY_FAILED"
)


def generate(
    repo: Repository, resolves: Sequence[Resolve], edits: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The new lock of each resolve, by path; the workspace itself is only read.

    Args:
        repo: the workspace.
        resolves: whose locks to make.
        edits: files that are to be others than in the workspace, by path.

    Raises:
        ToolError: one cannot be made; one line with the reason.
    """
    with tempfile.TemporaryDirectory(prefix="grug-locks-") as directory:
        copy = Path(directory)
        _copy(repo, copy)
        for path, content in edits.items():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes(content)
        _run_pants(copy, resolves)
        made = {resolve.lock: read(copy, resolve.lock) for resolve in resolves}
    if missing := [path for path, content in made.items() if content is None]:
        raise ToolError(f"./pants generate-lockfiles wrote no {', '.join(missing)}")
    return {path: content for path, content in made.items() if content is not None}


def _copy(repo: Repository, to: Path) -> None:
    """What git tracks, and of the rest what may declare or shape a requirement."""
    others = repo.names("ls-files", "--others", "--exclude-standard", "-z")
    names = {*repo.names("ls-files", "--cached", "-z"), *filter(_shapes, others)}
    for name in sorted(names):
        source, target = repo.root / name, to / name
        if source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.readlink(source))
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def _shapes(path: str) -> bool:
    name = PurePosixPath(path).name
    return path.startswith(UNTRACKED) or name == "BUILD" or name.startswith(("BUILD.", "pants"))


def environment() -> dict[str, str]:
    """Ours, without what Pants, Pex and Python were told for this process alone."""
    own = ("PEX_", "PYTHON", "PANTS_BUILDROOT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    # One question is not worth a daemon, and the ./pants that runs us may hold one.
    return {**kept, "PANTS_CONCURRENT": "True"}


def _run_pants(root: Path, resolves: Sequence[Resolve]) -> None:
    flags = [f"--resolve={resolve.name}" for resolve in resolves]
    try:
        process = subprocess.Popen(
            ["./pants", "--no-dynamic-ui", "--no-colors", "generate-lockfiles", *flags],
            cwd=root,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ToolError(f"./pants cannot be run: {error.strerror}") from error
    with process:
        try:
            said = list(_shown(process.stdout or ()))
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        if reason := explain("".join(said)):
            raise ToolError(reason)
        print("".join(said[-TAIL:]), end="", file=sys.stderr)
        raise ToolError(
            f"./pants generate-lockfiles ended with {process.returncode}: its own words are above"
        )


def _shown(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if PROGRESS.match(line):
            print(line, end="", file=sys.stderr, flush=True)
        yield line


def explain(said: str) -> str | None:
    """One line for a failure that is known from what Pants, Pex and pip said; None for others."""
    failed = re.search(r"Process 'Generate lockfile for (\S+)' failed", said)
    where = f"{failed[1]}: " if failed else ""
    if invalid := re.search(r"Invalid requirement .*", said):
        return invalid[0]
    if conflict := re.search(r"The conflict is caused by:\n(.*?)\n(?:pip:)?\s*\n", said, re.DOTALL):
        sides = (line.removeprefix("pip:").strip() for line in conflict[1].splitlines())
        return f"{where}these do not go together: {'; '.join(filter(None, sides))}"
    lacking = re.search(r"satisfies the requirement (.+?) \(from versions: (.*?)\)(?:\s|$)", said)
    if NO_ANSWER.search(said) and (not lacking or lacking[2] == "none"):
        return (
            f"{where}the package index does not answer: a lock is made from PyPI, or from the "
            "mirror that pip's configuration names"
        )
    if lacking and lacking[2] == "none" and OTHER_PYTHON in said:
        return f"{where}no release of {lacking[1]} is for the Pythons of {CONFIG}"
    if lacking and lacking[2] == "none":
        return f"{where}no package index has {lacking[1]}: correct its name"
    if lacking:
        versions = lacking[2].split(", ")
        return (
            f"{where}no version fits {lacking[1]}: the index has {', '.join(versions[-3:])} and "
            f"{max(len(versions) - 3, 0)} older"
        )
    return None
