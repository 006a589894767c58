"""How the processes of a run start, agree and end together."""

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

FAILED = "grug/failed"  # key under which a failing process tells the others why
_leaving = threading.Event()
# JAX stops all processes at one more than the largest number polled. It must not be the run's step:
# a signal before a resumed run's first poll would set the stop to step 1, which it never reaches.
_polls = itertools.count(1)


def run(main: Callable[[], int]) -> NoReturn:
    """Joins the cluster, runs `main` and ends this process with the exit code that it returns.

    A process that fails tells the others and ends at once. JAX alone would wait for minutes, since
    the others wait for this one.
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
        lost = isinstance(error, jax.errors.JaxRuntimeError) and global_state.num_processes > 1
        if lost:
            time.sleep(2)  # a connection broke: if another process says why, _watch ends this one
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
    """Process 0 hosts the message; it stays up until the others have read it, else they abort."""
    time.sleep(1 if global_state.process_id == 0 else 0)


def _who() -> str:
    return f"process {global_state.process_id} of {global_state.num_processes}"


def _watch(patience: float) -> None:
    """Ends this process when another one reports a failure, or the coordinator is lost."""
    client: Any = global_state.client
    last_contact = time.monotonic()

    def ask() -> None:
        nonlocal last_contact
        while True:
            with contextlib.suppress(Exception):  # "not found" is an answer
                client.key_value_try_get(FAILED)
            last_contact = time.monotonic()
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
            elif time.monotonic() - last_contact > patience:
                cause = f"process 0, the coordinator, was silent for {patience:.0f} s"
    if not _leaving.is_set():
        print(f"{_who()} ends, since {cause}", file=sys.stderr, flush=True)
        _let_others_read()
        os._exit(1)


def from_first(value: int) -> int:
    """Process 0's value, in every process. All of them must call this; they wait for each other."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def mesh_of(
    shape: tuple[int, ...], axes: tuple[str, ...], devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """A mesh of all devices in which only the first axis crosses from one TPU slice to another.

    The network between slices is slow; replicas exchange nothing but gradients.

    Raises:
        ValueError: the first axis is not a multiple of the slices.
    """
    devices = devices or jax.devices()
    explicit = (AxisType.Explicit,) * len(axes)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1 or devices[0].platform != "tpu":  # elsewhere each host may count as a slice
        return jax.make_mesh(shape, axes, axis_types=explicit, devices=devices)
    if shape[0] % slices:
        remedy = f"make its {axes[0]}={shape[0]} a multiple of the {slices} slices"
        raise ValueError(f"mesh={shape} {axes}: {remedy}")
    inner, outer = (shape[0] // slices, *shape[1:]), (slices, *[1] * len(shape[1:]))
    grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices)
    return jax.sharding.Mesh(grid, axes, axis_types=explicit)


class StopSignal:
    """A context in which SIGTERM or SIGINT to any process stops all of them after the same step."""

    def __enter__(self) -> "StopSignal":
        self.received: int | None = None
        signals = [signal.SIGINT, signal.SIGTERM]
        if jax.distributed.is_initialized():
            signals.remove(signal.SIGTERM)  # JAX handles it and tells the other processes
        self._old = {s: signal.signal(s, self._note) for s in signals}
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)

    def now(self) -> bool:
        """Whether all processes stop after this step; each of them must call once per step."""
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(next(_polls))
        return self.received is not None  # used without `run`, as in a test

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
