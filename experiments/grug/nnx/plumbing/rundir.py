"""The run directory: what it holds, and the claim by which it is one start's alone.

    RUN/CLAIM    JSON: who has it. Renewed while the run lives, removed when it ends.

A claim does not outlive its holder: on the same host the holder is looked for, and from another
host the claim is watched, which a holder that lives renews. A run that was killed can be resumed.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from .processes import all_arrive, at_end, fail, from_first, process_index
from .record import VARIANT, encode
from .signals import give_up_without_progress
from .storage import Folder, Retry, StorageError

CLAIM = "CLAIM"
BEAT = 15.0  # seconds from one renewal of a claim to the next
PATIENCE = 60.0  # seconds without one after which a holder on another host counts as dead
SETTLE = 1.0  # seconds after which a claim in a bucket is read again: not all stores check first
VISIBLE = 60.0  # seconds until a file must be seen by all hosts; NFS remembers an absence for 30
MOST_STARTS = 5  # starts in a row that may be stopped before they save a step


class RunDirError(ValueError):
    """The directory cannot be this run's; the message says why and what to do."""


def holds_run(folder: Folder, *, resume: bool) -> bool:
    """Whether there is a run to go on with; if not, there is nothing that a run could damage.

    Raises:
        RunDirError: there is a run, but `resume` is false; or part of one; or something else.
    """
    place = folder.url.rstrip("/")
    record = folder.read("run.json")
    if record is not None:
        parse(record, place)
        if not resume:
            raise RunDirError(
                f"{place} is not empty: add --resume to go on with its run, or give another "
                "--run-dir"
            )
        return True
    # A start that was killed before it wrote run.json has left sources/ and nothing else.
    entries = top_level(folder) - {"sources", CLAIM}
    if parts := sorted(entries & {"checkpoints", "metrics.jsonl"}):
        raise RunDirError(
            f"{place} holds {' and '.join(parts)} of a run, but not its run.json: put that back, "
            "or start anew in another --run-dir"
        )
    if entries:
        some = ", ".join(sorted(entries)[:3])
        raise RunDirError(
            f"{place} is not empty and holds no run ({some}): give a --run-dir that is empty or "
            "not there yet"
        )
    return False


def parse(record: bytes, place: str) -> dict[str, Any]:
    """A run.json as a dict. Raises RunDirError if it is none that a run wrote."""
    try:
        parsed = json.loads(record)
        if not (isinstance(parsed, dict) and isinstance(parsed.get("attempts"), list)):
            raise ValueError("it lists no attempts")
    except ValueError as error:
        raise RunDirError(
            f"{place}/run.json is not the record of a run ({error}): put that back from a copy, or "
            "start anew in another --run-dir"
        ) from error
    return parsed


def top_level(folder: Folder) -> set[str]:
    """The names in a folder, less empty directories and the locks of files being written."""
    names: Iterable[str] = folder.names()
    if folder.local and folder.local.is_dir():
        links = (p.name for p in folder.local.iterdir() if p.is_symlink() or not p.is_dir())
        names = [*names, *links]
    return {name.split("/")[0] for name in names if not name.endswith(".__lock")}


def identity() -> dict[str, Any]:
    """This process, told apart from every other one: also from a later one with its number."""
    return {"host": socket.gethostname(), "pid": os.getpid(), **kernel(), "began": began("self")}


def kernel() -> dict[str, str]:
    """The running system and the space in which a process number means something; {} if unknown."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"boot": boot, "processes": os.readlink("/proc/self/ns/pid")}
    return {}


def began(process: int | str) -> str:
    """When a process began, in ticks since the system did; "" if there is none, or no /proc."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if stat[0] in "ZX" else stat[19]  # a zombie holds nothing
    return ""


def lives(holder: dict[str, Any]) -> bool | None:
    """Whether the holder of a claim lives; None if that cannot be seen from here."""
    ours = kernel()
    if not ours or any(holder.get(name) != value for name, value in ours.items()):
        return None
    return began(holder["pid"]) == holder["began"]


def name_of(holder: dict[str, Any]) -> str:
    """A claim's holder in words."""
    return f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another start"


class Claim:
    """The claim of a run directory. Raises RunDirError if another start has it and lives."""

    def __init__(self, folder: Folder):
        self.folder, self.token = folder, 1 + secrets.randbelow(2**31 - 1)
        self.content = json.dumps({**identity(), "token": self.token}, sort_keys=True)
        # Part of what is written, so that no two renewals are the same bytes: some stores know a
        # version by these alone.
        self.beats = 0
        self._lock, self._dropped = threading.RLock(), threading.Event()
        made_here = folder.local is not None and not folder.local.exists()
        self._made = folder.local if made_here else None
        self._take()
        at_end(self.drop)
        threading.Thread(target=self._renew, daemon=True).start()

    def _read(self) -> tuple[bytes, dict[str, Any] | None]:
        """(the version, what it says); None if there is no claim."""
        found = self.folder.wait(self.folder.kv.read(CLAIM))
        if found.state != "value":
            return found.stamp.generation, None
        try:
            holder = json.loads(found.value)
            return found.stamp.generation, holder if "pid" in holder else {}
        except (ValueError, TypeError):
            return found.stamp.generation, {}

    def _write(self, version: bytes) -> bool:
        """Whether the claim, if it still was that version, is ours now."""
        self.beats += 1
        content = f'{self.content[:-1]}, "beats": {self.beats}}}'.encode()
        written = self.folder.kv.write(CLAIM, content, if_equal=version)
        return self.folder.wait(written).generation != b""

    def _take(self) -> None:
        watched, since = None, time.monotonic()
        while True:
            version, holder = self._read()
            if holder is not None:
                alive = lives(holder) if holder else None
                changed = watched not in (None, version)
                if alive or changed:
                    raise RunDirError(
                        f"{self.folder.url}: {name_of(holder)} runs here: stop that one, or give "
                        "another --run-dir"
                    )
                if alive is None and time.monotonic() < since + PATIENCE:
                    if watched is None:
                        self._say_what_it_waits_for(holder)
                    watched = version
                    time.sleep(PATIENCE / 30)
                    continue
            if self._write(version) and self._is_settled():
                return

    def _say_what_it_waits_for(self, holder: dict[str, Any]) -> None:
        print(
            f"{self.folder.url}: {name_of(holder)} had this directory and may still run: waiting "
            f"{PATIENCE:.0f} s for a sign of life",
            file=sys.stderr,
            flush=True,
        )

    def _is_settled(self) -> bool:
        if self.folder.local is None:
            time.sleep(SETTLE)
        return self.is_ours()

    def is_ours(self) -> bool:
        """Whether no other start has taken the directory. Raises StorageError."""
        _, holder = self._read()
        return holder is not None and holder.get("token") == self.token

    def _renew(self) -> None:
        while not self._dropped.wait(BEAT):
            if taker := self._beat():
                fail(1, f"{self.folder.url} is no longer this run's: {taker} has taken it")

    def _beat(self) -> str:
        """Renews the claim; gives the name of who has it instead, "" if nobody has."""
        with self._lock, contextlib.suppress(StorageError):  # an outage: the next beat tries again
            version, holder = self._read()
            ours = holder is None or holder.get("token") == self.token  # None: a person removed it
            if self._dropped.is_set() or (ours and self._write(version)):
                return ""
            _, holder = self._read()
            if holder and holder.get("token") != self.token:
                return name_of(holder)
        return ""

    def drop(self) -> None:
        """Gives the directory up; removes it if this start made it and left nothing there."""
        if self._dropped.is_set():
            return
        self._dropped.set()
        with self._lock, contextlib.suppress(StorageError):  # then others find out by themselves
            version, holder = self._read()
            if holder is not None and holder.get("token") == self.token:
                self.folder.wait(self.folder.kv.write(CLAIM, None, if_equal=version))
        if self._made:
            with contextlib.suppress(OSError):
                self._made.rmdir()


_claim: Claim | None = None  # of this process, while it has one


def is_ours() -> bool:
    """Whether this run's directory is still its own; true where it has claimed none."""
    return _claim is None or _claim.is_ours()


def next_run(*, resume: bool) -> int:
    """The number of the newest runs/VARIANT-N, or of the next one, which is made."""
    runs = Path("runs")
    numbers = (p.name.rpartition("-")[2] for p in runs.glob(f"{VARIANT}-*"))
    last = max((int(n) for n in numbers if n.isdecimal()), default=0)
    while not resume:
        last += 1
        with contextlib.suppress(FileExistsError):  # another start was faster
            (runs / f"{VARIANT}-{last}").mkdir(parents=True)
            break
    return max(last, 1)


@contextlib.contextmanager
def claimed(run_dir: str, *, resume: bool) -> Generator[str]:
    """`run_dir`, by default runs/VARIANT-N, which is this run's alone until the context ends.

    All processes of the run enter it. Without `resume`, the default is the next free number, with
    it the newest.

    Raises:
        RunDirError: another start has it; it is not a place for a run; not all processes see it.
        StorageError: it cannot be read or written.
    """
    global _claim
    first = process_index() == 0
    made = None
    if not run_dir:
        number = next_run(resume=resume) if first else 0
        run_dir = f"runs/{VARIANT}-{from_first(number)}"
        made = None if resume else Path(run_dir)
    try:
        if first:
            folder = Folder(run_dir)
            if resume:  # as engines start a run again: it may be the end of an outage
                Retry()(lambda: folder.read("run.json"), "opening the run directory")
            holds_run(folder, resume=resume)  # before anything is written there
            _claim = Claim(folder)
        starts = 0
        token = from_first(_claim.token if _claim else 0)
        if first:
            starts = count_start(folder) if holds_run(folder, resume=resume) else 0
        else:
            await_token(run_dir, token)
        all_arrive("run directory")
        give_up_without_progress(fruitless(from_first(starts)))
        yield run_dir
    finally:
        if _claim:
            _claim.drop()
            _claim = None
        if first and made:
            with contextlib.suppress(OSError):
                made.rmdir()  # if nothing was written there


def await_token(run_dir: str, token: int) -> None:
    """Waits until process 0's claim is seen here. Raises RunDirError if it is not."""
    folder, end = Folder(run_dir), time.monotonic() + VISIBLE
    while True:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if json.loads(folder.read(CLAIM) or b"")["token"] == token:
                return
        if time.monotonic() > end:
            raise RunDirError(
                f"process {process_index()} does not see what process 0 has written to {run_dir}: "
                "--run-dir must be in storage that all processes share"
            )
        time.sleep(0.2)


def count_start(folder: Folder) -> int:
    """How many starts in a row, with this one, found the same newest checkpoint; kept in run.json.

    0 for a run that has nothing left to do.
    """
    record = parse(folder.read("run.json") or b"", folder.url)
    saves = [name for name in folder.names("checkpoints/step-") if name.endswith("/COMMIT")]
    newest = max((int(name.split("/")[1].removeprefix("step-")) for name in saves), default=0)
    if newest >= record.get("config", {}).get("steps", newest + 1):
        return 0
    before = record.get("starts") or {}
    count = before.get("count", 0) + 1 if before.get("from_step") == newest else 1
    record["starts"] = {"count": count, "from_step": newest}
    folder.write("run.json", encode(record))
    return count


def fruitless(starts: int) -> str:
    """Why this start should be the last if it is stopped too; "" if it should not."""
    if starts < MOST_STARTS:
        return ""
    return (
        f"as the {starts - 1} starts before it were stopped before they saved a step: it is not "
        "started again by itself. Give it more time; --resume then goes on"
    )


def open_run(run_dir: str, *, resume: bool) -> bool:
    """Whether run_dir holds a run to resume, as process 0 sees it. Raises RunDirError."""
    resuming = False
    if process_index() == 0:
        folder = Folder(run_dir)
        resuming = holds_run(folder, resume=resume)
        if resuming and {"checkpoints"} <= top_level(folder) and not folder.read("metrics.jsonl"):
            print(f"{folder.url}metrics.jsonl is gone: it begins anew", file=sys.stderr, flush=True)
    return bool(from_first(resuming))
