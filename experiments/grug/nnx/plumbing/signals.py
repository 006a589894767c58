"""Signals that end a run: soon, in all of its processes, and with what is new saved.

SIGTERM and SIGUSR1 (Slurm's --signal) announce a preemption, SIGINT is Ctrl-C, SIGHUP a closed
terminal. Before the first update of a start nothing is new, so that it ends at once.
"""

import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
PREEMPTION = 128 + signal.SIGTERM  # the exit code after which engines start a run again, always
# One Ctrl-C may arrive twice: the terminal sends it to a launcher as well, which passes it on.
SAME_KEYSTROKE = 1.0

_fruitless = ""  # why another start would be as fruitless as this one, once that is so


class Preempted(Exception):
    """A signal has stopped the run, and `step` is saved; None: before the first update."""

    def __init__(self, step: int | None, number: int):
        name = signal.Signals(number).name
        self.exit_code = PREEMPTION if number == signal.SIGUSR1 else 128 + number
        if step is not None:
            super().__init__(f"preempted at step {step} ({name})")
            return
        message = f"stopped by {name} before its first update: nothing is new to save"
        if _fruitless and self.exit_code == PREEMPTION:
            self.exit_code, message = 1, f"stopped by {name} before its first update, {_fruitless}"
        super().__init__(message)


def give_up_without_progress(reason: str) -> None:
    """Makes an end before the first update final, exit code 1, for this reason; "": does not."""
    global _fruitless
    _fruitless = reason


class _State:
    """Where this process is, and where all of them stop."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held while the processes agree, so that none goes on
        self.polls, self.last = 0, float("inf")
        self.received: int | None = None
        self.is_over = False


_state: _State | None = None  # of the process, where `listen` was called


class StopSignal:
    """A context in which a signal to any process stops all of them after the same step.

    Under `processes.run` a thread listens. Without, as in a test, Python's own handlers do.
    """

    def __enter__(self) -> "StopSignal":
        self._state = _state or _State()
        numbers = () if _state else STOPPING
        self._old = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, frame: Any) -> None:
        if not self._state.polls:
            raise Preempted(None, number)
        self._state.received, self._state.last = number, self._state.polls + 1

    @property
    def received(self) -> int | None:
        """The signal that stops the run; None if there is none."""
        return self._state.received

    def now(self) -> bool:
        """Whether all processes stop after this step; each of them must call once per step."""
        with self._state.lock:
            self._state.polls += 1
            return self._state.polls >= self._state.last

    def __exit__(self, *exc: Any) -> None:
        self._state.is_over = True
        for number, handler in self._old.items():
            signal.signal(number, handler)


def listen(tell: Callable[[int], None], end: Callable[[int, str], None]) -> None:
    """Starts the thread that hears signals, since no handler of Python's runs while XLA compiles.

    It calls `tell` with a signal's number, and `end` with an exit code and a reason.
    """
    global _state
    _state = _State()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    install()
    threading.Thread(target=_hear, args=(reader, tell, end), daemon=True).start()


def install() -> None:
    """Handles the signals; to be called again after something else has put its own handlers."""
    for number in STOPPING:
        optional = number in (signal.SIGHUP, signal.SIGUSR1)
        if not (optional and signal.getsignal(number) == signal.SIG_IGN):  # nohup ignores SIGHUP
            signal.signal(number, _leave_it_to_the_thread)


def _leave_it_to_the_thread(number: int, frame: Any) -> None:
    """Python passes the number to the thread only if there is a handler."""


def _hear(reader: int, tell: Callable[[int], None], end: Callable[[int, str], None]) -> None:
    interrupted = float("inf")
    while True:
        (number,) = os.read(reader, 1)
        if number not in STOPPING:
            continue
        if number == signal.SIGHUP:
            drop_terminal()
        if number == signal.SIGINT:
            if time.monotonic() > interrupted + SAME_KEYSTROKE:
                end(128 + number, "interrupted twice: ends at once, without waiting for a save")
            interrupted = min(interrupted, time.monotonic())
        # In a thread of its own: it may wait for other processes, and a second Ctrl-C must not.
        threading.Thread(target=tell, args=(number,), daemon=True).start()


def drop_terminal() -> None:
    """Sends what is printed nowhere if the terminal is gone: a failed print would end the run."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd):  # a closed one is none
                os.dup2(nowhere, fd)
    os.close(nowhere)


def agree(
    number: int, exchange: Callable[[int], list[int]], end: Callable[[int, str], None]
) -> None:
    """Sets the step after which this process stops, the same in all of them, or ends it at once.

    Every process calls this. `exchange` gives the polls of all, when given this one's.
    """
    state = _state
    assert state
    with state.lock:
        polls = exchange(state.polls)
        alone = len(polls) == 1
        if max(polls) == 0:
            stop = Preempted(None, number)
            end(stop.exit_code, str(stop))
        if state.is_over and alone:
            name = signal.Signals(number).name
            end(Preempted(0, number).exit_code, f"stopped by {name} after its last save")
        if state.received is None:
            state.received, state.last = number, max(polls) + 1
