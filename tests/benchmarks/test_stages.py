import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.contest import child_environment
from tests.benchmarks.measure import Aim, Report, Series, Spread, Table
from tests.benchmarks.stages import Stage, Stages

EMPTY = Report("gpu", "2026-01-02", "abc", {"cores": 2}, 0.0, {"python": "3"}, {}, ())
PART = dataclasses.replace(
    EMPTY,
    tables=(Table("Speed", "tokens/s", "more", (Series("one", "ours", (3.0,)),)),),
    aims=(Aim("speed", Spread(1.0, 1.0, 1.0), "at least", 0.5),),
    missing={"a peer": "it is not there"},
    versions={"jax": "1"},
)
WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text({!r});"
HANG = "import time; time.sleep(60)"


def stage(name: str, code: str, limit_s: float = 30) -> Stage:
    return Stage(name, limit_s, [sys.executable, "-c", code, "{out}", "{limit}", "{so_far}"])


def writing(case: str) -> str:
    (table,) = PART.tables
    series = (Series(case, "ours", (3.0,)),)
    part = dataclasses.replace(PART, tables=(dataclasses.replace(table, series=series),))
    return WRITE.format(part.to_json())


@pytest.fixture
def stages(tmp_path):
    (tmp_path / "parts").mkdir()
    env, ends = child_environment(), time.monotonic() + 300
    with (tmp_path / "out.log").open("w") as log:
        yield Stages(EMPTY, tmp_path / "out.json", log, tmp_path / "parts", env, ends)


def gone(pid: int) -> bool:
    """Whether a process ends within seconds; of a zombie nothing runs any more."""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_stages_run_in_order_and_a_crash_loses_its_own_alone(stages):
    report = stages.run(
        [
            stage("first", writing("one")),
            stage("aborts", "import os; os.abort()"),
            stage("fails", "raise ValueError('no such card')"),
            stage("last", "import pathlib, sys;" + writing("two")),
        ]
    )
    speed, ran = report.tables
    assert [one.case for one in speed.series] == ["one", "two"]
    assert [one.case for one in ran.series] == ["first", "aborts", "fails", "last"]
    assert report.missing["aborts"].startswith("ended by SIGABRT")
    assert report.missing["fails"] == "exit 1: ValueError: no such card"
    assert {"first", "last"}.isdisjoint(report.missing) and "a peer" in report.missing
    assert report.versions == {"python": "3", "jax": "1"} and len(report.aims) == 2
    assert Report.read(stages.out) == report


def test_a_stage_that_hangs_is_killed_with_all_it_started_and_keeps_what_it_found(stages, tmp_path):
    started = tmp_path / "pid"
    code = (
        f"{writing('before')} import subprocess;"
        f"child = subprocess.Popen([sys.executable, '-c', {HANG!r}]);"
        f"pathlib.Path({str(started)!r}).write_text(str(child.pid)); {HANG}"
    )
    began = time.monotonic()
    report = stages.run([stage("hangs", code, 3), stage("next", writing("after"))])
    assert time.monotonic() - began < 30
    assert report.missing["hangs"] == "killed at its limit of 3 s"
    assert [one.case for one in report.tables[0].series] == ["before", "after"]
    assert gone(int(started.read_text()))


def test_what_a_stage_leaves_of_its_time_goes_to_the_next(stages):
    report = stages.run([stage("quick", "", 20), stage("next", "", 40)])
    first, second = report.tables[-1].series
    assert first.facts["limit, s"] == 20
    assert 50 < second.facts["limit, s"] <= 60


def test_no_stage_begins_when_all_time_is_over(stages):
    stages.ends = time.monotonic()
    report = stages.run([stage("late", writing("one"))])
    assert report.missing == {"late": "no time was left"} and len(report.tables) == 1


def test_a_stage_is_told_its_limit_and_what_was_found_before_it(stages, tmp_path):
    told = tmp_path / "told"
    code = f"import pathlib, sys; pathlib.Path({str(told)!r}).write_text(' '.join(sys.argv[2:]))"
    stages.run([stage("first", writing("one"), 5), stage("second", code, 5)])
    limit, so_far = told.read_text().split()
    assert 5 <= int(limit) <= 10
    assert json.loads(Path(so_far).read_text())["tables"][0]["title"] == "Speed"


def test_a_broken_report_of_a_stage_is_missing(stages):
    report = stages.run([stage("broken", WRITE.format("{"))])
    assert "no report of a benchmark" in report.missing["broken"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_runner_that_is_killed_leaves_whole_results_and_no_process(tmp_path, how):
    pid, out = tmp_path / "pid", tmp_path / "out.json"
    (tmp_path / "parts").mkdir()
    hanging = (
        f"{writing('two')} import os, time; time.sleep(1);"
        "from tests.benchmarks.stages import end_with_runner; end_with_runner();"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); {HANG}"
    )
    code = f"""
import os, signal, sys, time
from pathlib import Path
from tests.benchmarks.measure import Report
from tests.benchmarks.stages import Stage, Stages, ending_on
ending_on(signal.SIGTERM)
empty = Report("gpu", "2026-01-02", "abc", {{}}, 0.0, {{}}, {{}}, ())
here = Path({str(tmp_path)!r})
with (here / "log").open("w") as log:
    ends = time.monotonic() + 100
    runner = Stages(empty, here / "out.json", log, here / "parts", os.environ, ends)
    first = Stage("first", 50, [sys.executable, "-c", {writing("one")!r}, "{{out}}"])
    second = Stage("hangs", 50, [sys.executable, "-c", {hanging!r}, "{{out}}"])
    runner.run([first, second])
"""
    env = child_environment()
    with subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE) as runner:
        for _ in range(600):
            if pid.exists() and pid.read_text():
                break
            time.sleep(0.1)
        os.kill(runner.pid, how)
        runner.wait(30)
    report = Report.read(out)
    assert [one.case for one in report.tables[0].series] == ["one", "two"]
    ran = next(table for table in report.tables if table.title == "Stages")
    assert [one.facts["outcome"] for one in ran.series] == ["done"]
    assert gone(int(pid.read_text()))
