"""Checkpoints by TensorStore alone.

    RUN/checkpoints/step-00000100/<path of a leaf>/    one zarr3 array, one chunk per device shard
    RUN/checkpoints/step-00000100/COMMIT               JSON, written last: makes it a checkpoint

Nothing is pickled. RUN may be in a bucket. The processes wait for each other through files in RUN,
so that a save needs no barrier between devices.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax

from .arrays import (
    HostCopy,
    describe,
    host_copy,
    leaves_by_name,
    not_finite,
    read_arrays,
    write_arrays,
)
from .processes import from_first
from .rundir import is_ours
from .storage import Folder, Outage, Retry, StorageError, brief, failure, refused
from .terminal import tell

CHECKPOINT_SCHEMA = 1
MOST_FAILURES = 3  # failed saves in a row that stop the run
PATIENCE = 300.0  # seconds that a process waits for the others' parts of a save
READERS = 8  # files read at a time, to take a digest of them
FAILED, SILENT = "-failed", "-silent"
_instances = itertools.count()  # the same in every process


class CheckpointError(Exception):
    """A checkpoint cannot be read or written, or belongs to another run; the message says why."""


def folder_of(step: int) -> str:
    """The folder of a checkpoint, within that of all of them."""
    return f"step-{step:08d}/"


class Checkpoints:
    """The newest `keep` checkpoints of a run. `save` copies the state; a thread writes the copy.

    Every process makes one and calls `save` and `wait` at the same steps. A process that has
    written its shards leaves a note in the store; when process 0 has seen them all, it commits.
    """

    def __init__(self, run_dir: str | Path, *, keep: int):
        self.folder = Folder(run_dir) / "checkpoints"
        self.url, self.keep = self.folder.url, keep
        self.failures = 0
        self._error: Exception | None = None  # of the last save
        self._retry = Retry()
        self._is_superseded = threading.Event()  # a newer state waits to be saved
        # Part of the names of the notes that this start of the run writes, since an earlier start
        # that was killed may have left some.
        self._token = 0
        self._name, self._saves = f"checkpoints/{next(_instances)}", 0
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: tuple[int, Future[None]] | None = None

    def _listing(self) -> dict[int, set[str]]:
        """The names in each step's folder."""
        listing = collections.defaultdict(set)
        for name in self.folder.names():
            if match := re.match(r"step-(\d{8,})/(.+)", name):
                listing[int(match[1])].add(match[2])
        return listing

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        return sorted(step for step, names in self._listing().items() if "COMMIT" in names)

    def last_good(self) -> str:
        """The newest checkpoint in words, once the save under way has ended."""
        try:
            # A failure was reported already, and is not what the caller tells.
            with contextlib.suppress(CheckpointError):
                self.wait()
            steps = self.steps()
        except StorageError:
            return f"unknown, {self.url} cannot be read"
        return f"step {steps[-1]} in {self.url}" if steps else "none"

    def latest(self) -> int | None:
        """The newest committed step, as process 0 sees it, so that all restore the same one."""
        newest = max(self.steps(), default=-1) if jax.process_index() == 0 else -1
        step = from_first(newest)
        return None if step < 0 else step

    @partial(jax.profiler.annotate_function, name="run/saving")
    def save(
        self,
        step: int,
        state: Any,
        meta: dict[str, Any],
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts to write arrays and `meta` (JSON with "config"); nothing if `step` exists.

        A save that waits for a store to answer again is given up for this newer one.
        `before_commit` is called in the thread that writes, when all but the commit is written: for
        what must outlive a crash if the checkpoint does. Its StorageError fails the save.

        Raises:
            FloatingPointError: a value of the state is not finite: such a state is never saved.
            CheckpointError: the third save in a row failed; earlier failures are only reported.
            Outage: the store has not answered for too long.
        """
        self._is_superseded.set()
        if bad := not_finite(state):
            raise FloatingPointError(f"the state after step {step} is not finite: {listed(bad)}")
        self._finish()
        self._is_superseded.clear()
        self._saves += 1
        leaves = leaves_by_name(state)
        shapes = {name: describe(x) for name, x in leaves.items()}
        commit = {"schema_version": CHECKPOINT_SCHEMA, "step": step, "leaves": shapes, **meta}
        copies = {name: host_copy(x) for name, x in leaves.items()}
        written = json.dumps(commit, sort_keys=True).encode()
        self._pending = (
            step,
            self._thread.submit(self._write, step, copies, written, before_commit),
        )

    def _start(self, step: int) -> None:
        """Removes what a killed run left half-written, before any process writes."""
        token, error = 0, None
        if jax.process_index() == 0:
            try:
                self._try(self._tidy, step)
                token = 1 + secrets.randbelow(2**31 - 1)
            except StorageError as caught:
                token, error = -1 if isinstance(caught, Outage) else 0, caught
        token = from_first(token, f"{self._name}/{self._saves}")
        if token <= 0:
            kind = Outage if token else StorageError
            raise error or kind(f"{self.url}: process 0 cannot reach it")
        self._token = token

    def _try(self, act: Callable[[], Any], step: int) -> Any:
        return self._retry(act, f"checkpoint of step {step} waits", self._is_superseded)

    def _write(
        self,
        step: int,
        copies: dict[str, HostCopy],
        commit: bytes,
        before_commit: Callable[[], None],
    ) -> None:
        directory, name = folder_of(step), folder_of(step) + "COMMIT"
        if not self._token:
            self._start(step)
        note = f"{directory}NOTE-{self._token}-{jax.process_index()}"
        if self._try(lambda: self.folder.read(name), step) is not None:
            return
        try:
            # A copy each time, since it is emptied.
            self._try(lambda: write_arrays(self.folder / directory, dict(copies)), step)
            if jax.process_index() > 0:
                self._try(lambda: self.folder.write(note, b""), step)
                self._await_others(step, lambda notes: self.folder.read(name) is not None)
                return
            self._await_others(step, lambda notes: len(notes) == jax.process_count() - 1)
            if not self._try(is_ours, step):
                raise CheckpointError(f"{self.url}: another start has taken the run directory")
            self._try(before_commit, step)
            self._try(lambda: self.folder.write(name, commit), step)
        except (StorageError, CheckpointError) as error:
            if jax.process_count() > 1:
                with contextlib.suppress(StorageError):
                    suffix = SILENT if isinstance(error, Outage) else FAILED
                    self.folder.write(note + suffix, str(error).encode())
            raise
        try:
            self._tidy(step)
        except StorageError as error:
            tell(f"old checkpoints not removed, to be tried again: {error}")

    def _await_others(self, step: int, is_done: Callable[[list[str]], bool]) -> None:
        """Waits until `is_done` of the notes' names.

        Raises:
            CheckpointError: a note says that its process failed.
            Outage: one says that its process reaches no store, or the wait takes too long.
        """
        directory = folder_of(step)
        prefix, pause, end = f"{directory}NOTE-{self._token}-", 0.02, time.monotonic() + PATIENCE

        def look() -> bool | Exception:
            notes = self.folder.names(prefix)
            for note in (n for n in notes if n.endswith((FAILED, SILENT))):
                process, _, kind = note.removeprefix(prefix).partition("-")
                message = f"process {process}: {(self.folder.read(note) or b'').decode()}"
                return (Outage if f"-{kind}" == SILENT else CheckpointError)(message)
            return is_done(notes)

        while jax.process_count() > 1:
            seen = self._try(look, step)
            if isinstance(seen, Exception):
                raise seen
            if seen:
                return
            if time.monotonic() > end:
                raise Outage(
                    f"{self.url}{directory}: the other processes' parts have not come in "
                    f"{PATIENCE:.0f} s"
                )
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _tidy(self, saved: int | None = None) -> None:
        """Removes notes, all but the newest checkpoints, and what was never committed.

        With `saved`, the step just saved, spares later steps: other processes may be writing one.
        """
        listing = self._listing()
        kept = sorted(step for step, names in listing.items() if "COMMIT" in names)[-self.keep :]
        for step, names in listing.items():
            directory = folder_of(step)
            if step in kept and any(name.startswith("NOTE-") for name in names):
                self.folder.remove(directory + "NOTE-")
            if step not in kept and (saved is None or step < saved):
                self.folder.remove(directory + "COMMIT")  # first, so that no half of it is loaded
                self.folder.remove(directory)

    def poll(self) -> None:
        """Notes the end of the save under way, if it has ended; never waits."""
        if self._pending and self._pending[1].done():
            self._finish()

    def wait(self) -> None:
        """Waits for the save under way, also for a store that does not answer.

        Raises:
            CheckpointError: the last save failed.
            Outage: the store has not answered for too long.
        """
        self._finish()
        if isinstance(self._error, Outage):
            raise self._error
        if self._error:
            raise CheckpointError(f"the last save failed: {self._error}")

    def _finish(self) -> None:
        if self._pending:
            (step, future), self._pending = self._pending, None
            error = future.exception()
            if error is None:
                self.failures, self._error = 0, None
            elif isinstance(error, StorageError | CheckpointError):
                self._failed(step, error)
            else:
                raise error

    def _failed(self, step: int, error: Exception) -> None:
        self._error = error
        if isinstance(error, Outage):
            if self._retry.is_too_long():
                raise error
        else:
            self.failures += 1
            if self.failures == MOST_FAILURES:
                raise CheckpointError(f"{MOST_FAILURES} saves in a row failed: {error}") from error
        tell(f"checkpoint of step {step} not saved: {error}")

    def digest(self, step: int) -> str:
        """The sha256 of what `sha256sum` lists of a checkpoint's files, in order of their names.

        In its directory: find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum
        """
        directory = folder_of(step)
        names = [name.removeprefix(directory) for name in self.folder.names(directory)]
        names = [name for name in names if not name.startswith("NOTE-")]

        def line(name: str) -> str:
            content = self.folder.read(directory + name) or b""
            return f"{hashlib.sha256(content).hexdigest()}  {name}\n"

        with ThreadPoolExecutor(READERS) as pool:  # a store may be far away
            return hashlib.sha256("".join(pool.map(line, names)).encode()).hexdigest()

    def restore(
        self, step: int, like: Any, config: dict[str, Any], may_differ: Collection[str] = ()
    ) -> tuple[Any, dict[str, Any]]:
        """(state, meta) of a step, with the shapes and shardings of `like` (from jax.eval_shape).

        `may_differ`: the names in `config` that a branch may change; a run that is resumed, none.

        Raises:
            CheckpointError: it is unreadable, or its config or shapes are not the ones asked for.
            Outage: the store does not answer.
        """
        expected, directory = leaves_by_name(like), folder_of(step)
        checkpoint = f"checkpoint of step {step} in {self.url}"
        remedy = self._another if may_differ else self._without  # asked for when it is needed
        content = self.folder.read(directory + "COMMIT")
        try:
            meta = json.loads(content or b"")
            saved = {k: meta[k] for k in ("schema_version", "leaves")}
            saved["config"] = {k: v for k, v in meta["config"].items() if k not in may_differ}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{checkpoint} is damaged: its COMMIT is unreadable: {error!r}. {remedy(step)}"
            ) from error
        shapes = {name: describe(x) for name, x in expected.items()}
        fixed = {k: v for k, v in config.items() if k not in may_differ}
        ours = {"schema_version": CHECKPOINT_SCHEMA, "config": fixed, "leaves": shapes}
        if changes := differences(saved, ours):
            allowed = (
                f"A branch may change {', '.join(may_differ)}; give the run's own values of the "
                "others"
                if may_differ
                else "Give the run's own values to resume it, or another --run-dir to start anew, "
                "or to branch off with --branch-from"
            )
            raise CheckpointError(
                f"{checkpoint} is of another run: {'; '.join(changes)}. {allowed}"
            )
        try:
            arrays = read_arrays(self.folder / directory, expected)
        except ValueError as error:  # what TensorStore raises
            if isinstance(explained := failure(error, self.url), Outage):
                raise explained from error
            if refused(error):
                raise CheckpointError(f"{checkpoint}: {explained}") from error
            message = f"{checkpoint} is damaged: {brief(error)}. {remedy(step)}"
            raise CheckpointError(message) from error
        if bad := not_finite(arrays):
            raise CheckpointError(f"{checkpoint} is not finite: {listed(bad)}. {remedy(step)}")
        return jax.tree.unflatten(jax.tree.structure(like), arrays.values()), meta

    def _without(self, step: int) -> str:
        """What there is to do about a checkpoint that can't be used."""
        older = max((s for s in self.steps() if s < step), default=None)
        start = "start again" if older is None else f"go on from step {older}"
        return f"Delete its folder, {folder_of(step)}, to {start}"

    def _another(self, step: int) -> str:
        """What there is to do about a checkpoint that no branch can begin with."""
        others = ", ".join(str(s) for s in self.steps() if s != step)
        return f"Branch off from step {others}" if others else "The run has no other"


def listed(names: list[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def differences(saved: Any, ours: Any, name: str = "") -> list[str]:
    """`name: saved -> ours` for every entry of nested dicts that differs."""
    if not (isinstance(saved, dict) and isinstance(ours, dict)):
        return [] if saved == ours else [f"{name}: {saved} -> {ours}"]
    keys = sorted(saved.keys() | ours.keys())
    pairs = ((k, saved.get(k, "absent"), ours.get(k, "absent")) for k in keys)
    return [d for k, a, b in pairs for d in differences(a, b, f"{name}.{k}" if name else k)]
