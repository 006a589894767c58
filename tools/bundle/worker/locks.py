"""A directory that many processes want, made by one of them, whole or not at all.

By flock, or by a file with its owner's name where a file system knows no locks. What only a first
start needs is imported where it is used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Generator

from tools.bundle.worker.errors import WorkerError
from tools.bundle.worker.say import say

LOCK_WAIT = 1800.0  # seconds for another process to make the environment
LOCK_BEAT = 5.0  # seconds between two signs of life of a lock file's owner
NO_FLOCK = (errno.EINVAL, errno.EIO, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
LOCK_STALE = 60.0  # seconds without one after which the owner is taken for dead
DAY = 86400.0  # seconds; no installation takes as long
SEAL = "complete.json"  # written last: the files without which a cached directory is not whole
PARTIAL = r"(.+-[0-9a-f]{16})\.(.+)\.[0-9]+(\.old)?(\.partial)+"  # see made_once

HELD: set[int] = set()  # descriptors of the locks that this process holds


def host() -> str:
    """This machine's name, by which others on a shared home know whose a file is."""
    return os.uname().nodename


@contextlib.contextmanager
def locked(path: str, wait: bool = True) -> Generator[bool]:
    """Whether this process alone holds path.lock. By flock; where there is none, by path.owner."""
    with open(path + ".lock", "w") as file, contextlib.ExitStack() as held:
        mine = True
        try:
            mine = _flock(file.fileno(), path, wait)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            if wait:
                held.enter_context(owned(path + ".owner"))
            else:
                mine = False
        HELD.add(file.fileno())
        try:
            yield mine
        finally:
            HELD.discard(file.fileno())
            if mine:
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)


def _flock(descriptor: int, path: str, wait: bool) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    if wait:
        say(f"waiting for another process, which makes {path}")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return wait


@contextlib.contextmanager
def owned(path: str) -> Generator[None]:
    """Holds `path`, which names its owner and is touched while it lives; takes a dead one's."""
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            break
        except FileExistsError:
            _drop_if_stale(path)
        if time.monotonic() > deadline:
            raise WorkerError(
                f"{path} is held for {LOCK_WAIT:.0f} s: if nobody installs, delete it"
            )
        time.sleep(0.2)
    try:
        me = f"{host()} {os.getpid()}"
        os.write(descriptor, me.encode())
        os.close(descriptor)
        with _kept_alive(path):
            yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def _kept_alive(path: str) -> Generator[None]:
    """Touches the file again and again."""
    import threading

    stop = threading.Event()

    def touch() -> None:
        while not stop.wait(LOCK_BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=touch, daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _drop_if_stale(path: str) -> None:
    """Deletes a lock file whose owner died: at once on this host, after LOCK_STALE on another."""
    import tempfile

    try:
        with open(path) as file:
            owner, _, pid = file.read().partition(" ")
        before = os.stat(path)
        if owner == host() and pid.isdecimal():
            os.kill(int(pid), 0)
        # By the server's clock on both sides: hosts may disagree about the time.
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path)) as probe:
            now = os.stat(probe.name).st_mtime
        if now - before.st_mtime < LOCK_STALE:
            return
    except ProcessLookupError:
        pass
    except (FileNotFoundError, PermissionError):
        return
    # Renamed first: of two that see the dead owner, one moves the file that it looked at.
    aside = f"{path}.{host()}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        os.unlink(aside)


def made_once(home: str, name: str, make: Callable[[str], None]) -> str:
    """home/name, which make(DIRECTORY) makes and seals under another name; then it is renamed.

    What is there without a seal, or lacks a file that the seal names, is made anew.
    """
    path = os.path.join(home, name)
    if sealed(path):
        return path
    with locked(path):
        if sealed(path):
            return path
        sweep(home, name)
        partial = f"{path}.{host()}.{os.getpid()}.partial"
        aside = f"{partial[: -len('.partial')]}.old.partial"
        try:
            make(partial)
            if os.path.lexists(path) and not sealed(path):
                os.rename(path, aside)
            os.rename(partial, path)
        except OSError:
            if not sealed(path):
                raise  # else another host was faster
        finally:
            remove(partial)
            remove(aside)
    return path


def seal(path: str, names: list[str]) -> None:
    """Marks a directory as complete, as long as the files `names` are in it."""
    with open(os.path.join(path, SEAL), "w", encoding="utf-8") as file:
        json.dump(sorted(names), file)


def sealed(path: str) -> bool:
    """Whether it is complete. Raises OSError where a disk that does not answer leaves it open."""
    try:
        with open(os.path.join(path, SEAL), encoding="utf-8") as file:
            names = json.load(file)
        for name in names:
            os.stat(os.path.join(path, name))
    except (FileNotFoundError, NotADirectoryError, TypeError, ValueError):
        return False
    return True


def sweep(home: str, mine: str = "") -> None:
    """Deletes what killed processes left half made: NAME.HOST.PID.partial, without NAME's lock.

    Of `mine` alone, whose lock this process holds, where it is given. Another host may be alive
    where its lock is not seen here: its files stay for a day.
    """
    for entry in os.listdir(home):
        match = entry.endswith(".partial") and re.fullmatch(PARTIAL, entry)
        if not match or (mine and match[1] != mine):
            continue
        path = os.path.join(home, entry)
        if match[2] != host():
            try:
                if time.time() - os.lstat(path).st_mtime < DAY:
                    continue
            except FileNotFoundError:
                continue
        if mine:
            remove(path)
            continue
        with locked(os.path.join(home, match[1]), wait=False) as alone:
            if alone:
                remove(path)


def remove(path: str) -> None:
    """A file or a directory, as far as it is there."""
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
