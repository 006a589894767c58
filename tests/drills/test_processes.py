"""One of four processes stops, is gone, or comes too late, again and again."""

import random
import signal
import time

import pytest

from tests.drills.drill import strikes
from tests.engines.cluster import finish, kill, wait_for_step
from tests.engines.conftest import cache, launch, store
from tests.engines.test_processes import START_S, assert_same_run

__all__ = ["cache", "launch", "store"]
FLAGS = ["--steps", "40", "--checkpoint-every", "4"]
FOUR = {"processes": 4, "devices": 1}
HEARTBEAT_S = 10


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_one_of_four(launch, tmp_path, number):
    """The three others end by themselves, and four more go on from the last save."""
    run_dir, draw, codes = tmp_path / "run", random.Random(0), []
    times = strikes(2)
    for strike in range(times):
        flags = [*FLAGS, *(["--resume"] if strike else [])]
        workers = launch("base", run_dir, flags, **FOUR, LAUNCH_HEARTBEAT_S=str(HEARTBEAT_S))
        wait_for_step(workers, run_dir, min(strike * 4 + draw.randint(1, 6), 36))
        time.sleep(draw.random() / 5)
        victim = draw.choice(workers)
        victim.process.send_signal(number)
        others = [worker for worker in workers if worker is not victim]
        codes += finish(others, within=3 * HEARTBEAT_S)
        kill(workers)
    assert all(codes), codes
    workers = launch("base", run_dir, [*FLAGS, "--resume"], **FOUR)
    assert finish(workers, within=START_S) == [0] * 4, workers[0].text()
    workers = launch("base", tmp_path / "whole", FLAGS, **FOUR)
    assert finish(workers, within=START_S) == [0] * 4, workers[0].text()
    assert_same_run(run_dir, tmp_path / "whole", 40)
    ends = ", ".join(f"{codes.count(code)} x {code}" for code in sorted(set(codes)))
    print(f"\n| {number.name} of one of four processes | {times} times | {ends} | nothing |")
