"""How the processes of a run start, agree and end together."""

import contextlib
import importlib.metadata
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # its key-value store has no public name
from jax.experimental import mesh_utils
from jax.sharding import AxisType

from .cluster import Cluster, ClusterError, bypass_proxies, detect, join, show_devices
from .signals import STOPPING, Preempted, agree, install, listen
from .storage import Retry

FAILED = "grug/failed"  # key under which a failing process tells the others its code and why
NOTICE = "grug/stop"  # key under which a process tells the others of a signal
FIRST = "grug/first"  # folder of what process 0 has told the others
LONG = 86_400_000  # milliseconds to wait for a process that lives: if it does not, _watch ends all
PREEMPTED = {Preempted(0, number).exit_code for number in STOPPING}
LOST = 134  # exit code for "another process was lost": that of JAX's own abort (SIGABRT)
# Errors of this process's own, which JAX raises in the same class as a broken connection.
OWN = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNIMPLEMENTED")
LAST_ACT_S = 5.0  # for what is to be done before this process ends
_leaving = threading.Event()
_waiting: Cluster | None = None  # this process's place in a cluster that it has not joined yet
_questions = itertools.count()
_last_acts: list[Callable[[], None]] = []


def run(main: Callable[[], int]) -> NoReturn:
    """Runs `main` and ends this process with the exit code that it returns.

    `main` calls `meet` before it uses a device: what it says before that needs no other process,
    and no network. A process that fails tells the others and ends at once. JAX alone would wait for
    minutes, since the others wait for this one.
    """
    global _waiting
    try:
        libtpu = any(importlib.metadata.distributions(name="libtpu"))
        cluster = detect(os.environ, libtpu=libtpu)
    except ClusterError as error:
        sys.exit(f"cluster: {error}")
    bypass_proxies(os.environ, cluster)
    Retry.limit = cluster.outage
    listen(_tell, leave)
    if cluster.processes == 1:
        show_devices(cluster)
    else:
        _waiting = cluster
    cause = None
    try:
        code = main()
        if code != 0 and code not in PREEMPTED:
            cause = f"exit code {code}, see its own message"
    except SystemExit as end:  # the command line's: --help, a bad flag
        code = end.code if isinstance(end.code, int) else 1
        cause = f"exit code {code}" if code else None
    except BaseException as error:
        code, cause = 1, f"{type(error).__name__}: {error}".partition("\n")[0]
        lost = _is_lost(error)
        if lost:
            code = LOST
            time.sleep(2)  # a connection broke: if another process says why, _watch ends this one
        print(f"{_who()} failed:\n{traceback.format_exc()}", file=sys.stderr)
        if lost:
            hint = "most likely another process was killed: look for a log that ends without a word"
            print(f"{_who()} failed: {hint}", file=sys.stderr)
    if cause is not None:
        _end_all(code, cause)
    _leaving.set()
    jax.distributed.shutdown()  # waits for the others; nothing for a process alone
    _exit(code)


def meet() -> None:
    """Joins the other processes of the run; ends this one if they don't come in time.

    Nothing to do for a process alone, or not under `run`.
    """
    global _waiting
    if cluster := _waiting:
        join(cluster)
        _waiting = None
        install()  # JAX has put a handler of SIGTERM in the place of ours
        if global_state.num_processes > 1:
            threading.Thread(target=_watch, args=(cluster.heartbeat / 2,), daemon=True).start()
            threading.Thread(target=_await_notice, daemon=True).start()


def at_end(act: Callable[[], None]) -> None:
    """Has `act` called before this process ends, if it is not killed."""
    _last_acts.append(act)


def leave(code: int, reason: str) -> NoReturn:
    """Ends this process at once, from whatever thread: nothing is waited for or saved."""
    _leaving.set()
    with contextlib.suppress(OSError):
        print(reason, file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print("\x1b[?25h", end="", file=sys.stderr)  # a progress bar hides the cursor
    if global_state.num_processes > 1:
        _let_others_read()
    _exit(code)


def fail(code: int, cause: str) -> NoReturn:
    """Ends all processes of the run at once, from whatever thread, with an exit code above 0."""
    with contextlib.suppress(OSError):
        print(cause, file=sys.stderr, flush=True)
    _end_all(code, cause)


def _end_all(code: int, cause: str) -> NoReturn:
    _leaving.set()
    if global_state.num_processes > 1:
        client: Any = global_state.client
        with contextlib.suppress(Exception):  # the coordinator is gone: the others find out
            client.key_value_set(FAILED, f"{code} {_who()} failed: {cause}", True)
        _let_others_read()
    _exit(code)


def _exit(code: int) -> NoReturn:
    # In threads: a store may not answer, or another thread may be in the way.
    acting = [threading.Thread(target=act, daemon=True) for act in _last_acts]
    for thread in acting:
        thread.start()
    for thread in acting:
        thread.join(LAST_ACT_S)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _tell(number: int) -> None:
    """Tells all processes of a signal to this one."""
    if global_state.num_processes == 1 or _waiting:
        agree(number, lambda polls: [polls], leave)
    else:
        client: Any = global_state.client
        with contextlib.suppress(Exception):  # another one has told already
            client.key_value_set(NOTICE, str(int(number)))


def _exchange(polls: int) -> list[int]:
    client: Any = global_state.client
    client.key_value_set(f"{NOTICE}/polls/{global_state.process_id}", str(polls))
    keys = [f"{NOTICE}/polls/{i}" for i in range(global_state.num_processes)]
    return [int(client.blocking_key_value_get(key, LONG)) for key in keys]


def _let_others_read() -> None:
    """Process 0 hosts the message; it stays up until the others have read it, else they abort."""
    time.sleep(1 if global_state.process_id == 0 else 0)


def _is_lost(error: BaseException) -> bool:
    """Whether an error is that of a connection to another process."""
    is_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return is_jax and global_state.num_processes > 1 and not str(error).startswith(OWN)


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
                cause = f"{LOST} process 0, the coordinator, is gone: {reason}"
            elif time.monotonic() - last_contact > patience:
                cause = f"{LOST} process 0, the coordinator, was silent for {patience:.0f} s"
    code, _, cause = cause.partition(" ")
    if not _leaving.is_set():
        leave(int(code), f"{_who()} ends, since {cause}")


def _await_notice() -> None:
    """Waits until a process of the run has received a signal, and agrees with the others."""
    client: Any = global_state.client
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator is gone: _watch tells
        number = int(client.blocking_key_value_get(NOTICE, LONG))
        agree(number, _exchange, leave)


def from_first(value: int, name: str = "") -> int:
    """Process 0's value, in every process. All of them must call this; they wait for process 0.

    It takes no device, so that they may wait for as long as process 0 does. Calls without a name
    come in the same order in all of them; in a thread, a name that is used once says which it is.
    """
    if _waiting:
        raise RuntimeError("meet() must come first: each process would take itself for the run")
    if global_state.num_processes == 1:
        return value
    client: Any = global_state.client
    key = f"{FIRST}/{name or next(_questions)}"
    if global_state.process_id == 0:
        client.key_value_set(key, str(int(value)))
    return int(client.blocking_key_value_get(key, LONG))


def all_arrive(where: str) -> None:
    """Waits until every process of the run has called this, once for each name."""
    if global_state.num_processes > 1:
        client: Any = global_state.client
        client.wait_at_barrier(f"grug/{where}", LONG)


def process_index() -> int:
    """This process's number, without a look at its devices."""
    return global_state.process_id


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
