"""When a signal stops a run, in one process and among several."""

import os
import signal

import pytest

from tests.contract.harness import under_test

signals = under_test().signals
StopSignal, Preempted = signals.StopSignal, signals.Preempted


@pytest.mark.parametrize("number", signals.STOPPING)
def test_without_an_update_there_is_nothing_to_wait_for(number):
    before = signal.getsignal(number)
    with pytest.raises(Preempted, match="before its first update: nothing is new"), StopSignal():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", signals.STOPPING)
def test_after_an_update_the_step_under_way_is_the_last(number):
    with StopSignal() as stop:
        assert not stop.now()
        os.kill(os.getpid(), number)
        assert stop.now() and stop.received == number


class Ended(Exception):
    """In place of the end of the process."""


def end(code: int, reason: str) -> None:
    raise Ended(code, reason)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch):
    """The state of a process under `processes.run`."""
    state = signals._State()
    monkeypatch.setattr(signals, "_state", state)
    return state


@pytest.mark.parametrize(("own", "others"), [(0, [3]), (3, [0]), (2, [5, 4])])
def test_all_processes_stop_after_one_step_that_none_has_passed(process, own, others):
    """Also those that have not come to their first update: it is under way."""
    process.polls = own
    signals.agree(signal.SIGINT, lambda polls: [polls, *others], end)
    last = max(own, *others) + 1
    with StopSignal() as stop:
        for step in range(own + 1, last):
            assert not stop.now(), step
        assert stop.now() and stop.received == signal.SIGINT


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
)
@pytest.mark.parametrize("others", [[], [0, 0]])
def test_where_no_process_has_made_an_update_all_end_at_once(process, number, code, others):
    with pytest.raises(Ended) as ended:
        signals.agree(number, lambda polls: [polls, *others], end)
    assert ended.value.args[0] == code


def test_after_the_last_save_a_process_alone_ends_and_several_run_out(process):
    with StopSignal() as stop:
        stop.now()
    with pytest.raises(Ended) as ended:
        signals.agree(signal.SIGTERM, lambda polls: [polls], end)
    assert ended.value.args == (143, "stopped by SIGTERM after its last save")
    signals.agree(signal.SIGTERM, lambda polls: [polls, 1], end)
