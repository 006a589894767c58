"""How the processes of a run begin, agree and end together."""

import contextlib
import importlib.metadata
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src.distributed import global_state  # its key-value store has no public name
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType

from .cluster import ClusterError, detect, join

FAILED = "grug/failed"  # the key under which a process that fails tells the others why
_leaving = threading.Event()
# JAX stops all processes at the number after the largest that one of them has asked with. Not a
# step of the run: a signal before the first one would stop a resumed run at step 1, so never.
_asked = itertools.count(1)


def run(main: Callable[[], int]) -> NoReturn:
    """Joins the cluster, runs `main` and ends this process with the exit code that it returns.

    A process that fails ends at once and tells the others: left to itself, JAX would wait minutes
    for processes that wait for this one.
    """
    try:
        libtpu = any(importlib.metadata.distributions(name="libtpu"))
        cluster = detect(os.environ, libtpu=libtpu)
        join(cluster)
    except ClusterError as error:
        sys.exit(f"cluster: {error}")
    if global_state.num_processes > 1:
        threading.Thread(target=_watch, args=(cluster.heartbeat / 2,), daemon=True).start()
    cause = None
    try:
        code = main()
        if code not in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM):
            cause = f"exit code {code}, see its own message"
    except SystemExit as end:  # the command line's: --help, a bad flag
        code = end.code if isinstance(end.code, int) else 1
        cause = f"exit code {code}" if code else None
    except KeyboardInterrupt:  # before the first step, while there is nothing to save
        code, cause = 128 + signal.SIGINT, "interrupted"
    except BaseException as error:
        code, cause = 1, f"{type(error).__name__}: {error}".partition("\n")[0]
        if lost := isinstance(error, jax.errors.JaxRuntimeError) and global_state.num_processes > 1:
            time.sleep(2)  # a connection broke: if another process can tell why, that is enough
        print(f"{_who()} failed:\n{traceback.format_exc()}", file=sys.stderr)
        if lost:
            hint = "most likely another process was killed: look for a log that ends without a word"
            print(f"{_who()} failed: {hint}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    _leaving.set()
    if cause is None:
        jax.distributed.shutdown()  # waits for the others
    elif global_state.num_processes > 1:
        client: Any = global_state.client
        client.key_value_set(FAILED, f"{_who()} failed: {cause}", True)
        _let_others_read()
    os._exit(code)


def _let_others_read() -> None:
    """What was said of a failure goes with process 0; a process that asks in vain then aborts."""
    time.sleep(1 if global_state.process_id == 0 else 0)


def _who() -> str:
    return f"process {global_state.process_id} of {global_state.num_processes}"


def _watch(patience: float) -> None:
    """Ends this process when another one tells that it failed, or the coordinator is lost."""
    client: Any = global_state.client
    heard = time.monotonic()

    def ask() -> None:
        nonlocal heard
        while True:
            with contextlib.suppress(Exception):  # "not found" is an answer
                client.key_value_try_get(FAILED)
            heard = time.monotonic()
            time.sleep(patience / 4)

    threading.Thread(target=ask, daemon=True).start()
    cause = ""
    while not cause:
        try:
            cause = client.blocking_key_value_get(FAILED, 1000)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                reason = str(error).partition("\n")[0]
                cause = f"process 0, the coordinator, is gone: {reason}"
            elif time.monotonic() - heard > patience:
                cause = f"process 0, the coordinator, was silent for {patience:.0f} s"
    if not _leaving.is_set():
        print(f"{_who()} ends, since {cause}", file=sys.stderr, flush=True)
        _let_others_read()
        os._exit(1)


def from_first(value: int) -> int:
    """Process 0's value, in every process; all of them must call. The others wait for it."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def mesh_of(
    shape: tuple[int, ...], axes: tuple[str, ...], devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """A mesh of all devices, of which only the first axis crosses from one TPU slice to another.

    The network between slices is slow; replicas exchange nothing but gradients. Raises ValueError
    when the slices do not fit the first axis.
    """
    devices = devices or jax.devices()
    explicit = (AxisType.Explicit,) * len(axes)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1 or devices[0].platform != "tpu":  # elsewhere each host may count as one
        return jax.make_mesh(shape, axes, axis_types=explicit, devices=devices)
    if shape[0] % slices:
        remedy = f"make its {axes[0]}={shape[0]} a multiple of the {slices} slices"
        raise ValueError(f"mesh={shape} {axes}: {remedy}")
    inner, outer = (shape[0] // slices, *shape[1:]), (slices, *[1] * len(shape[1:]))
    grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices)
    return jax.sharding.Mesh(grid, axes, axis_types=explicit)


class StopSignal:
    """SIGTERM or SIGINT to any process, while in use, stops all of them after the same step."""

    def __enter__(self) -> "StopSignal":
        self.received: int | None = None
        signals = [signal.SIGINT, signal.SIGTERM]
        if jax.distributed.is_initialized():
            signals.remove(signal.SIGTERM)  # JAX listens for it, and tells the other processes
        self._old = {s: signal.signal(s, self._note) for s in signals}
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)

    def now(self) -> bool:
        """Whether all processes stop here; each of them asks after every step."""
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(next(_asked))
        return self.received is not None  # used without `run`, as in a test

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
