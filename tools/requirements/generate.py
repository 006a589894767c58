"""Makes locks by `./pants generate-lockfiles` in a copy of the workspace.

A lock takes minutes. Made in place, the workspace's requirements and locks would not match during
that time: every other ./pants in it would fail, and a kill would leave it broken.
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

# Lines that show progress; the others are shown only after an unknown failure.
PROGRESS = re.compile(r"pants: |\d\d:\d\d:\d\d\.\d\d \[INFO\] |  \d+\.\d+s\t")
TAIL = 40
"""Number of last lines shown after an unknown failure."""
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
        resolves: the resolves whose locks to make.
        edits: contents, by path, of files that replace the workspace's.

    Raises:
        ToolError: a lock cannot be made; the message is one line with the reason.
    """
    with tempfile.TemporaryDirectory(prefix="grug-locks-") as directory:
        copy = Path(directory)
        _copy(repo, copy)
        for path, content in edits.items():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes(content)
        _run_pants(copy, resolves)
        locks = {resolve.lock: read(copy, resolve.lock) for resolve in resolves}
    if missing := [path for path, content in locks.items() if content is None]:
        raise ToolError(f"./pants generate-lockfiles wrote no {', '.join(missing)}")
    return {path: content for path, content in locks.items() if content is not None}


def _copy(repo: Repository, copy: Path) -> None:
    """Copies the files that git tracks, and untracked ones that may affect requirements."""
    untracked = repo.names("ls-files", "--others", "--exclude-standard", "-z")
    names = {*repo.names("ls-files", "--cached", "-z"), *filter(_shapes, untracked)}
    for name in sorted(names):
        source, target = repo.root / name, copy / name
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
    """Our environment, without the variables of Pants, Pex and Python for this process alone."""
    prefixes = ("PEX_", "PYTHON", "PANTS_BUILDROOT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    # One command is not worth a daemon, and the ./pants that runs us may hold one.
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
            output = list(_shown(process.stdout or ()))
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        if reason := explain("".join(output)):
            raise ToolError(reason)
        print("".join(output[-TAIL:]), end="", file=sys.stderr)
        raise ToolError(
            f"./pants generate-lockfiles ended with {process.returncode}: its own words are above"
        )


def _shown(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if PROGRESS.match(line):
            print(line, end="", file=sys.stderr, flush=True)
        yield line


def explain(output: str) -> str | None:
    """One line for a known failure in the output of Pants, Pex and pip; None for an unknown one."""
    failed = re.search(r"Process 'Generate lockfile for (\S+)' failed", output)
    resolve = f"{failed[1]}: " if failed else ""
    if invalid := re.search(r"Invalid requirement .*", output):
        return invalid[0]
    if conflict := re.search(
        r"The conflict is caused by:\n(.*?)\n(?:pip:)?\s*\n", output, re.DOTALL
    ):
        sides = (line.removeprefix("pip:").strip() for line in conflict[1].splitlines())
        return f"{resolve}these do not go together: {'; '.join(filter(None, sides))}"
    lacking = re.search(r"satisfies the requirement (.+?) \(from versions: (.*?)\)(?:\s|$)", output)
    if NO_ANSWER.search(output) and (not lacking or lacking[2] == "none"):
        return (
            f"{resolve}the package index does not answer: a lock is made from PyPI, or from the "
            "mirror that pip's configuration names"
        )
    if lacking and lacking[2] == "none" and OTHER_PYTHON in output:
        return f"{resolve}no release of {lacking[1]} is for the Pythons of {CONFIG}"
    if lacking and lacking[2] == "none":
        return f"{resolve}no package index has {lacking[1]}: correct its name"
    if lacking:
        versions = lacking[2].split(", ")
        return (
            f"{resolve}no version fits {lacking[1]}: the index has {', '.join(versions[-3:])} and "
            f"{max(len(versions) - 3, 0)} older"
        )
    return None
