"""A virtual environment of pinned wheels alone, by uv or else by pip."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tools.bundle.worker.errors import WorkerError
from tools.bundle.worker.installed import check_installed, pinned, site_packages
from tools.bundle.worker.locks import HELD, made_once, remove, seal
from tools.bundle.worker.say import say
from tools.start import installers, machine
from tools.start.machine import Machine
from tools.start.mirrors import answering, ask
from tools.start.settings import location, unique, without_logins

DISK_FULL = ("No space left on device", "(os error 28)", "File too large", "Disk quota exceeded")
DISK_FULL += ("(os error 122)",)
STRICT = ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
OUTSIDE = (22, 3)  # the first pip that installs into an environment which has none
QUIET = ["-q", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]


class Mirrors:
    """Where packages come from, by all that this machine says, and what installers are told of it.

    The directory `wheels`, where it is named, is asked instead of all that; `scratch` holds what is
    needed until the environment is made.
    """

    def __init__(self, requirements: str, scratch: str, wheels: str = "") -> None:
        self.scratch = scratch
        self.project = next(iter(pinned(requirements)), "")  # a page that every index has
        here = machine.read(os.environ, say, sys.prefix)
        if wheels:
            here = Machine(
                no_index=True,
                find_links=(location(wheels),),
                timeout=here.timeout,
                keyring=here.keyring,
                caches=here.caches,
            )
        here = installers.with_certificate(here, Path(scratch, "certificates.pem"), say)
        self.machine, self.silent = answering(here, self.project, say)
        told = installers.environment(self.machine, os.environ)
        self.environment = {
            **told,
            **installers.sources(self.machine),
            **dict(self.machine.caches),
        }

    def silences(self) -> list[str]:
        """Of each mirror that does not answer why, for a message; the one in use is asked now."""
        here = self.machine
        silent = self.silent or ask(here, here.indexes, here.find_links, self.project)
        return [f"{without_logins(url)} does not answer ({why})" for url, why in silent.items()]


def make_venv(
    path: str, requirements: str, installer: str, wheels: str, modules: Iterable[str] = ()
) -> None:
    """A virtual environment at `path`, to be moved to its place after, of pinned wheels alone.

    With the uv at hand, else with the one that the file `installer` pins and pip fetches to a
    directory beside `path`; where that fails, with pip. The directory `wheels`, where it exists,
    is asked instead of any index. Those of `modules` that were installed are imported once.

    Raises:
        WorkerError: no installer could, or what it left is not what is locked or does not import.
        OSError: the disk is full.
    """
    began = time.monotonic()
    scratch = f"{path}.partial"
    os.makedirs(scratch)
    try:
        mirrors = Mirrors(requirements, scratch, wheels if os.path.isdir(wheels) else "")
        known = with_uv(path, requirements, installer, mirrors)
        known = known or with_pip(path, requirements, mirrors)
        check_imports(path, modules, mirrors)
        seal(path, ["bin/python", *known])
    finally:
        remove(scratch)
    say(f"installed in {time.monotonic() - began:.1f} s")


def with_uv(path: str, requirements: str, installer: str, mirrors: Mirrors) -> list[str]:
    """check_installed's files; none where there is no uv or it failed, and one line says why."""
    named = os.environ.get("GRUG_UV") or shutil.which("uv")
    if not named and not os.path.exists(installer):
        say("installing with pip...")
        return []
    say("installing with uv...")
    env = dict(mirrors.environment)
    try:
        if named:
            uv = os.path.abspath(named) if os.sep in named else named
        else:
            uv = fetched_uv(os.path.dirname(path), installer, mirrors)
            # Beside `path`, so that files are linked into place, and deleted with it.
            env.setdefault("UV_CACHE_DIR", os.path.join(mirrors.scratch, "cache"))
        python = os.path.join(path, "bin", "python")
        alone = ["-q", "--no-config"]
        create = [uv, "venv", *alone, "--no-project", "--relocatable", "--python", sys.executable]
        run([*create, path], mirrors, env, loud=False)
        flags = installers.uv_flags(mirrors.machine)
        what = [*STRICT, *flags, "-r", requirements, "--python", python]
        run([uv, "pip", "install", *alone, *what], mirrors, env, loud=False)
        return check_installed(path, requirements)
    except WorkerError as error:
        say(f"not with uv ({error}): installing with pip...")
        remove(path)
        return []


def fetched_uv(home: str, installer: str, mirrors: Mirrors) -> str:
    """The uv that `installer` pins, which pip puts into `home` once."""

    def fetch(path: str) -> None:
        what = [*STRICT, "--no-compile", "-r", installer, "--target", path]
        run([*_pip(), "install", *QUIET, *what], mirrors, loud=False)
        if not os.path.exists(os.path.join(path, "bin", "uv")):
            raise WorkerError("pip says that it installed uv, but it did not")
        seal(path, ["bin/uv"])

    digest = hashlib.sha256(Path(installer).read_bytes()).hexdigest()
    name = f"uv-{platform.machine()}-{digest[:16]}"
    return os.path.join(made_once(home, name, fetch), "bin", "uv")


def with_pip(path: str, requirements: str, mirrors: Mirrors) -> list[str]:
    """check_installed's files. pip stays outside of the environment, where there is one."""
    python = os.path.join(path, "bin", "python")
    bare = ["--without-pip"] if _pip_version(mirrors) >= OUTSIDE else []
    run([sys.executable, "-I", "-m", "venv", *bare, path], mirrors)
    pip = [*_pip(), "--python", python] if bare else [python, "-I", "-m", "pip"]
    try:
        # Bytecode is written by whoever imports first: far less than all of it.
        run([*pip, "install", *QUIET, "--no-compile", *STRICT, "-r", requirements], mirrors)
    except WorkerError as error:
        raise WorkerError("; ".join([str(error), *mirrors.silences()])) from error
    return check_installed(path, requirements)


def _pip_version(mirrors: Mirrors) -> tuple[int, ...]:
    """(22, 3) of pip 22.3.1; () where there is none. A tenth of what starting it takes."""
    done = _start([sys.executable, "-I", "-c", "import pip; print(pip.__version__)"], mirrors)
    found = re.match(r"(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found and done.returncode == 0 else ()


def _pip() -> list[str]:
    """pip, without what the working directory, the user's site or PYTHONPATH hold."""
    return [sys.executable, "-I", "-m", "pip"]


def check_imports(path: str, modules: Iterable[str], mirrors: Mirrors) -> None:
    """Imports those of `modules` that are in the environment at `path`, as the program will."""
    site = os.path.join(path, site_packages())
    there = {entry.partition(".")[0] for entry in os.listdir(site)}
    names = [name for name in modules if name in there]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    command = [os.path.join(path, "bin", "python"), "-I", "-c", code, *names]
    run(command, mirrors, failed="the locked packages were installed, but do not import here")


def run(
    command: list[str],
    mirrors: Mirrors,
    env: Mapping[str, str] | None = None,
    loud: bool = True,
    failed: str = "",
) -> None:
    """Runs an installer; a failure becomes one line, after all that it said where that is loud."""
    done = _start(command, mirrors, env)
    if done.returncode == 0:
        return
    said = done.stdout.strip()
    if any(sign in said for sign in DISK_FULL):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "ensurepip" in said:
        raise WorkerError(
            f"{sys.executable} has neither pip nor ensurepip: install uv, or your system's "
            "packages python3-venv and python3-pip"
        )
    told = _last_line(said) if failed else _told(said)
    if loud:
        with contextlib.suppress(OSError):
            print(said, file=sys.stderr)
    raise WorkerError(f"{failed or 'the locked packages could not be installed'}: {told}")


def _told(said: str) -> str:
    """The line that names the error, and what uv says of its causes: the first and the last."""
    lines = [line.strip() for line in said.splitlines()]
    error = next((line for line in lines if "error" in line.lower()), _last_line(said))
    causes = [x.partition(": ")[2] for x in lines if x.startswith(("cause: ", "Caused by: "))]
    return ": ".join(unique([error, *causes[:1], *causes[-1:]]))


def _last_line(said: str) -> str:
    return said.rpartition("\n")[2].strip() or "it said nothing"


def _start(
    command: list[str], mirrors: Mirrors, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs it where no project, pip.py or .python-version of a working directory has a say."""
    try:
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=env or mirrors.environment,
            cwd=mirrors.scratch,
            pass_fds=tuple(HELD),  # if this process is killed, its lock lasts as long as these
        )
    except OSError as error:
        raise WorkerError(f"{command[0]} cannot be run: {error.strerror}") from error
