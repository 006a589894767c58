"""Faults, one kind after another, on a whole run: nothing is lost, and the run ends well.

A few strikes each, so that CI has time for them; with more, and a row of the table each:

    GRUG_DRILLS=50 ./pants test --force --output=all tests/drills::
"""

import random
import time

import pytest

from tests.drills.drill import assert_nothing_lost, strikes, tell
from tests.stores.faults import Weather

CLOCK = """\
import time

real, begun = time.time, time.monotonic()
time.time = lambda: real() - ({seconds} if time.monotonic() - begun > {after} else 0)
time.time_ns = lambda: int(time.time() * 1e9)
"""


def test_kill_at_random_moments(run, whole):
    """Also while it starts, compiles, evaluates and saves."""
    draw, times = random.Random(0), strikes(4)
    for _ in range(times):
        process = run.start()
        if draw.random() < 0.8:
            run.wait_for_step(process, min(len(run.rows()) // 5 * 5 + draw.randint(1, 9), 118))
            time.sleep(draw.random() / 5)
        else:
            time.sleep(draw.random() * 8)
        process.kill()
        run.end(process)
    run.finish()
    assert_nothing_lost(run, whole)
    tell("`kill -9` at random moments", f"{times} times", run)


def test_a_store_with_errors_and_stalls(run, whole, root, s3_proxy):
    """1% of the requests fail, and 1% take 5 seconds, from the first to the last of a run."""
    run.run_dir = root("s3")
    s3_proxy.fault = weather = Weather(random.Random(0), errors=0.01, pauses=0.01)
    run.finish()
    struck, weather.errors, weather.pauses = dict(weather.met), 0, 0
    assert sum(struck.values()) > 0, weather.requests
    assert_nothing_lost(run, whole)
    text = ", ".join(f"{n} {kind}" for kind, n in sorted(struck.items()))
    tell("an S3 with 1% errors and 5-second stalls", f"{weather.requests} requests: {text}", run)


@pytest.mark.parametrize("seconds", [3600, -86400 * 400])
def test_the_clock_is_set(run, whole, tmp_path, seconds):
    """Back by an hour, or forward by a year, while the run goes on and before it is resumed."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(CLOCK.format(seconds=seconds, after=6))
    run.ahead = [str(site)]
    process = run.start()
    run.wait_for_step(process, 40)
    process.kill()
    run.end(process)
    run.finish()
    assert_nothing_lost(run, whole)
    where = "back by an hour" if seconds > 0 else "forward by 400 days"
    tell(f"the clock set {where}", "twice", run)
