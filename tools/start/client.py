"""Runs Pants on a checkout, with what this machine says of where things are.

Runs on the interpreter into which install.py put Pants. Tells Pants of the package indexes and the
one interpreter for the code, and helps it where a machine is busy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import Any, Callable, Generator

from tools.start import environment, handover, installers, interpreters, machine
from tools.start.uv import StartError, Uv, say

DAEMON_SECONDS = 300.0  # for a daemon to start on a busy machine; Pants gives up after 60
BUSY_SECONDS = 3.0  # for another command to end before this one does without the daemon


def tell_repositories(settings: machine.Machine) -> None:
    """Pants' options for what this machine says of indexes; the user's own outrank them.

    An index replaces those of pants.toml, as it replaces PyPI; all else is added to them.
    """
    if settings.index or settings.no_index:
        os.environ.setdefault("PANTS_PYTHON_REPOS_INDEXES", repr(list(settings.indexes)))
    elif settings.extra_indexes:
        more = repr(list(settings.extra_indexes))
        os.environ.setdefault("PANTS_PYTHON_REPOS_INDEXES", f"+{more}")
    if settings.find_links:
        places = repr(list(settings.find_links))
        os.environ.setdefault("PANTS_PYTHON_REPOS_FIND_LINKS", f"+{places}")


def write_settings(cache: Path, settings: machine.Machine) -> None:
    """For Pex, to which Pants hands on no environment. It may hold an index's password."""
    path, text = cache / environment.SETTINGS, settings.dumps()
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8") == text:
            return
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def choose_python(root: Path, cache: Path, settings: machine.Machine) -> str:
    """The one interpreter for this checkout's code: named, chosen before, found, or fetched.

    Raises StartError where there is none in range.
    """
    low, end = interpreters.code_range((root / "pants.toml").read_text(encoding="utf-8"))
    wanted = f"CPython of at least 3.{low} and below 3.{end}"
    minors = range(low, end)
    named = os.environ.get("PANTS_PYTHON")
    if named:
        python = interpreters.ask(named) if os.sep in named else ask_path(named)
        if not python or python.minor not in minors:
            raise StartError(f"PANTS_PYTHON={named} is no working {wanted}; correct or unset it")
        return python.path
    chosen = root / ".pants.d/python"
    with contextlib.suppress(OSError, ValueError):
        path, minor = chosen.read_text(encoding="utf-8").splitlines()
        if int(minor) in minors and os.access(path, os.X_OK):
            return path
    python = interpreters.find(minors)
    if not python:
        try:
            python = Uv(cache / "tools.lock", cache.parent, settings).python(low)
        except StartError as error:
            raise StartError(
                f"the code runs on {wanted}, and none was found ({error}). Install one ('uv python"
                f" install 3.{low}' or your system's package) or name it in PANTS_PYTHON"
            ) from error
    chosen.parent.mkdir(exist_ok=True)
    chosen.write_text(f"{python.path}\n{python.minor}\n", encoding="utf-8")
    return python.path


def ask_path(command: str) -> interpreters.Python | None:
    """What the interpreter at a path, or of this name on PATH, says of itself."""
    return interpreters.ask(shutil.which(command) or command)


def tell_interpreters(root: Path, cache: Path, settings: machine.Machine) -> None:
    """Pants searches exactly these two files: its own 3.9, and the one for the code."""
    python39 = (cache / "python39").read_text(encoding="utf-8")
    python = choose_python(root, cache, settings)
    os.environ["PANTS_PYTHON_BOOTSTRAP_SEARCH_PATH"] = repr([python39, python])
    # The plugin's own tests run on it, too.
    os.environ["PANTS_PYTHON39"] = python39


def tell_pex(cache: Path) -> None:
    """The Pex that Pants fetches from a file's URL, the path of which it does not decode."""
    for line in (cache / "pex.env").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        os.environ[name] = value
    pex = cache / "pex"
    if not is_plain(pex):
        data, pex = pex.read_bytes(), plain_place(cache) / "pex"
        partial = pex.with_name(f"{pex.name}.{os.getpid()}")
        partial.write_bytes(data)
        os.replace(partial, pex)
    os.environ["PANTS_PEX_CLI_URL_TEMPLATE"] = f"file:{pex}"


def tell_caches(cache: Path) -> None:
    """Pants' caches hold scripts, the first line of which cannot name a program with a space."""
    own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if re.search(r"\s", own):
        place = plain_place(cache)
        os.environ.setdefault("PANTS_NAMED_CACHES_DIR", str(place / "named_caches"))
        os.environ.setdefault("PANTS_LOCAL_STORE_DIR", str(place / "lmdb_store"))


def tell_colors() -> None:
    """Pants does not know NO_COLOR (https://no-color.org): neither colours nor a live display."""
    if os.environ.get("NO_COLOR"):
        os.environ.setdefault("PANTS_COLORS", "false")
        os.environ.setdefault("PANTS_DYNAMIC_UI", "false")


def is_plain(path: Path) -> bool:
    """Whether a path is the same in a URL."""
    return urllib.parse.quote(str(path)) == str(path)


def plain_place(cache: Path) -> Path:
    """This user's own directory beside `cache`, at a plain path. Raises StartError."""
    name = f"grug-{os.getuid()}-{hashlib.sha256(os.fsencode(cache)).hexdigest()[:16]}"
    for directory in (tempfile.gettempdir(), "/var/tmp", "/tmp"):
        place = Path(directory, name)
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, exist_ok=True)
            status = place.lstat()
            own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if own and not status.st_mode & 0o022 and is_plain(place):
                return place
    raise StartError(
        f"Pants cannot use {cache}, for the signs in its path: name another in GRUG_CACHE and"
        " XDG_CACHE_HOME"
    )


@contextlib.contextmanager
def daemon(root: Path) -> Generator[None, None, None]:
    """Holds the daemon for this command; another that finds it held soon does without.

    Pants lets one command at a time use it, and a program that `run` started keeps it to its end.
    """
    path = root / ".pants.d/daemon.lock"
    path.parent.mkdir(exist_ok=True)
    with open(path, "w") as lock:
        deadline = time.monotonic() + BUSY_SECONDS
        while os.environ.get("PANTS_CONCURRENT") is None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    say("another command is running: this one starts without the daemon")
                    os.environ["PANTS_CONCURRENT"] = "true"
            time.sleep(0.05)
        yield


def patch_daemon() -> None:
    """A longer wait for the daemon; where that is not enough, Pants goes on without one."""
    from pants.bin.remote_pants_runner import RemotePantsRunner  # pants: no-infer-dep  # ty: ignore
    from pants.pantsd.process_manager import ProcessManager  # pants: no-infer-dep  # ty: ignore

    for name in ("await_pid", "await_socket"):
        original = getattr(ProcessManager, name)

        def patient(self: Any, timeout: float, original: Callable[..., Any] = original) -> Any:
            return original(self, max(timeout, DAEMON_SECONDS))

        setattr(ProcessManager, name, patient)
    run = RemotePantsRunner.run

    def run_or_fall_back(self: Any, start_time: float) -> Any:
        try:
            return run(self, start_time)
        except ProcessManager.Timeout as error:
            say("the daemon did not start: this command goes on without it")
            raise RemotePantsRunner.Fallback(error) from error

    RemotePantsRunner.run = run_or_fall_back


def exit_code(run: Callable[[], None]) -> int:
    """The exit code of a program that may end by sys.exit."""
    try:
        run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def forgotten_dashes(arguments: list[str]) -> str:
    """What to type where flags of the launcher would be read as Pants'; empty where all is well."""
    if "--" in arguments or arguments[:2] != ["run", "launch"]:
        return ""
    if not any(not word.startswith("-") for word in arguments[2:]):
        return ""
    words = " ".join(map(shlex.quote, arguments[2:]))
    return f"flags of the launcher stand behind `--`: ./pants run launch -- {words}"


def main(arguments: list[str]) -> int:
    """`arguments`: the checkout, then those of Pants. Exit code: Pants', or the program's."""
    root, cache = Path(arguments[0]), environment.start_home()
    remedy = forgotten_dashes(arguments[1:])
    if remedy:
        say(remedy)
        return 2
    for name in machine.MISLEADING:
        os.environ.pop(name, None)
    users_own = dict(os.environ)
    try:
        settings = machine.read(os.environ, say)
        settings = installers.with_certificate(settings, cache / "certificates.pem", say)
        write_settings(cache, settings)
        tell_repositories(settings)
        tell_interpreters(root, cache, settings)
        tell_pex(cache)
        tell_caches(cache)
        tell_colors()
    except (StartError, ValueError) as error:
        say(str(error))
        return 1
    except OSError as error:
        say(
            f"{error.filename or cache}: {error.strerror}: make it writable, or name another"
            " directory in GRUG_CACHE"
        )
        return 1
    # Pants' own switch for the hint that another launcher exists.
    os.environ["NO_SCIE_WARNING"] = "1"
    # A daemon lives on when its installation was replaced or deleted. Pants starts another where
    # one of a few options is not what it was started with; this one changes nothing else.
    os.environ.setdefault("PANTS_IGNORE_WARNINGS", f"+[{str(cache)!r}]")
    with contextlib.suppress(OSError):
        os.utime(cache / "ready")  # in use: see environment.prune
    os.chdir(root)
    sys.argv = [str(cache / "venv/bin/pants"), *arguments[1:]]
    patch_daemon()
    from pants.bin.pants_loader import main as run_pants  # pants: no-infer-dep  # ty: ignore

    word = root / f".pants.d/handover.{os.getpid()}"
    os.environ[handover.VARIABLE] = str(word)
    with daemon(root):
        code = exit_code(run_pants)
    if code == 0:
        handover.take_over(word, users_own)
    return code
