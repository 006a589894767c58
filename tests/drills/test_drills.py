"""Faults, one kind after another, on a whole run: nothing is lost, and the run ends well.

A few strikes each, so that CI has time for them; with more, and a row of the table each:

    GRUG_DRILLS=50 ./pants test --force --output=all tests/drills::
"""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.drills.drill import STEPS, assert_nothing_lost, strikes, tell
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
        process, late = run.start(), STEPS - 40  # further on, it might end before it is struck
        if draw.random() < 0.8:
            step = len(run.rows()) // 5 * 5 + draw.randint(1, 9)
            run.wait_for_step(process, min(step, late))
            time.sleep(draw.random() / 5)
        else:
            end = time.monotonic() + draw.random() * 8
            while time.monotonic() < end and len(run.rows()) < late:
                time.sleep(0.02)
        process.kill()
        run.end(process)
    assert run.codes == {-signal.SIGKILL: times}
    run.finish()
    assert_nothing_lost(run, whole)
    tell("`kill -9` at random moments", f"{times} times", run)


# A disk of its own, as small as that; what it holds at the end stays.
SMALL_DISK = """\
run="$1" kept="$2"
shift 2
mkdir -p "$run" "$kept" && mount -t tmpfs -o size="$0"k tmpfs "$run" || exit 99
"$@"
code=$?
cp -a "$run/." "$kept"
exit $code
"""


def small_disk(kib: int, run_dir: Path, kept: Path) -> list[str]:
    """A command that runs another one where `run_dir` is a file system of `kib` KiB."""
    inside = ["sh", "-c", SMALL_DISK, str(kib), str(run_dir), str(kept)]
    command = ["unshare", "--map-root-user", "--mount", *inside]
    try:
        subprocess.run([*command, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    return command


def test_a_disk_that_is_full(run, whole, tmp_path):
    """At every kind of write: the claim, the sources, the record, the metrics, a save."""
    place, sizes = run.run_dir, [8, 128, 300, 700, 1500]
    sizes += [random.Random(0).randrange(8, 3000) for _ in range(strikes(0))]
    for number, kib in enumerate(sizes):
        kept = tmp_path / f"kept-{number}"
        run.within, run.run_dir = small_disk(kib, Path(place), kept), place
        code = run.end(run.start(), within=240)
        assert code in (0, 1) and "Traceback" not in run.logs[-1], run.logs[-1]
        # With room again, it goes on from what was saved. Without a save it says that it cannot.
        run.within, run.run_dir = [], str(kept)
        if any(kept.glob("checkpoints/*/COMMIT")) or not any(kept.glob("metrics.jsonl")):
            run.finish()
            assert_nothing_lost(run, whole)
        elif len(run.rows()) > 10:
            assert run.end(run.start()) == 1
            assert "or none could be saved" in run.logs[-1]
    tell("a full disk", f"{len(sizes)} disks of {min(sizes)} to {max(sizes)} KiB", run)


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
