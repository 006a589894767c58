"""The template in several processes: the same numbers, and every end in time and with a reason."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.cluster import (
    ENDLESS,
    MODEL,
    MODULES,
    START_S,
    finish,
    free_port,
    rows,
    start,
    train,
    wait_for,
    wait_for_step,
    wait_for_text,
)

LAST = 8
STEPS = ["--steps", str(LAST), "--checkpoint-every", "5"]


def learned(run_dir: Path) -> list[dict[str, float]]:
    """Lines of metrics less what a clock put there."""
    lines = rows(run_dir)
    return [{k: v for k, v in row.items() if not k.startswith("throughput/")} for row in lines]


def assert_same_run(run_dir: Path, other: Path, last: int = LAST) -> None:
    ours, theirs = learned(run_dir), learned(other)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [*range(1, last + 1)]
    for one, two in zip(ours, theirs, strict=True):
        assert one == pytest.approx(two, rel=1e-6, abs=1e-9), f"step {one['step']}"


@pytest.fixture(scope="module")
def whole(store, cache, tmp_path_factory) -> Callable[[str], Path]:
    """`whole(variant)`: the directory of a run of one process that nothing interrupted."""
    result: dict[str, Path] = {}

    def run(variant: str) -> Path:
        if variant not in result:
            run_dir = tmp_path_factory.mktemp(variant)
            logs = tmp_path_factory.mktemp("logs")
            workers = train(variant, store, run_dir, STEPS, logs, processes=1, devices=4, **cache)
            assert finish(workers, within=START_S) == [0], workers[0].text()
            result[variant] = run_dir
        return result[variant]

    return run


@pytest.mark.parametrize("variant, processes, devices", [("base", 4, 1), ("moe", 2, 2)])
def test_the_losses_do_not_depend_on_the_processes(
    launch, whole, tmp_path, variant, processes, devices
):
    # Experts are split within a process, data between them.
    mesh = ["--mesh", "1", "2", "2", "1"] if (variant, devices) == ("moe", 2) else []
    flags = [*STEPS, *mesh]
    workers = launch(variant, tmp_path / "run", flags, processes=processes, devices=devices)
    codes = finish(workers, within=START_S)
    assert codes == [0] * processes, "\n".join(w.text()[-2000:] for w in workers)
    assert_same_run(tmp_path / "run", whole(variant))
    shown = [worker.text().count("bits per byte on held-out documents") for worker in workers]
    assert shown == [1] + [0] * (processes - 1), "one process tells"


def test_a_signal_to_one_process_stops_all_and_another_number_goes_on(launch, whole, tmp_path):
    """Two processes, then one, then two: the losses of a run that nothing interrupted."""
    run_dir, flags = tmp_path / "run", [*STEPS, "--resume"]
    saved = [0]
    for processes, devices in ((2, 2), (1, 4)):
        workers = launch("base", run_dir, flags, processes=processes, devices=devices)
        wait_for_text(workers[0], f"step {saved[-1] + 1}/")
        workers[-1].process.send_signal(signal.SIGTERM)
        codes = finish(workers, within=START_S)
        texts = [worker.text() for worker in workers]
        assert codes == [143] * processes, "\n".join(texts)
        stops = {match for text in texts for match in re.findall(r"preempted at step (\d+)", text)}
        assert len(stops) == 1 and all("preempted at step" in text for text in texts)
        saved.append(int(stops.pop()))
        assert (run_dir / f"checkpoints/step-{saved[-1]:08d}/COMMIT").exists()
    assert 0 < saved[1] < saved[2] < LAST
    workers = launch("base", run_dir, flags, processes=2, devices=2)
    assert finish(workers, within=START_S) == [0, 0], workers[0].text()
    assert_same_run(run_dir, whole("base"))


def test_a_branch_in_two_processes_is_the_run_of_one(launch, whole, tmp_path):
    run_dir, flags, parent = tmp_path / "run", [*STEPS, "--resume"], whole("base")
    source = ["--branch-from", f"{parent}@5"]
    workers = launch("base", run_dir, [*flags, *source], processes=2, devices=2)
    assert finish(workers, within=START_S) == [0, 0], workers[0].text()
    shown = [worker.text().count(f"branch of {parent}, step 5; the same") for worker in workers]
    assert shown == [1, 0], "one process tells"
    assert len(rows(run_dir)) == LAST - 5
    for ours, theirs in zip(learned(run_dir), learned(parent)[5:], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9), f"step {ours['step']}"


def test_where_no_branch_can_begin_all_processes_end(launch, whole, tmp_path):
    source = ["--branch-from", f"{whole('base')}@6"]
    workers = launch("base", tmp_path / "run", [*STEPS, *source], processes=2, devices=1)
    assert finish(workers, within=START_S) == [1, 1], workers[1].text()
    assert "has no checkpoint of step 6, only of 5, 8: " in workers[0].text()
    assert not (tmp_path / "run/run.json").exists()


def test_a_run_killed_in_the_middle_of_saves_goes_on_from_whole_ones(launch, tmp_path):
    """Every step is saved. Kills at random moments, until three of them have torn a save."""
    last, torn, moment = 40, 0, random.Random(0)
    run_dir, flags = tmp_path / "run", ["--steps", str(last), "--checkpoint-every", "1"]

    def saves_begun() -> set[str]:
        return {save.name for save in (run_dir / "checkpoints").glob("step-*")}

    for _ in range(25):
        before = saves_begun()
        (worker,) = launch("base", run_dir, [*flags, "--resume"], processes=1, devices=2)
        wait_for([worker], "a save", lambda before=before: bool(saves_begun() - before))
        time.sleep(moment.uniform(0, 0.3))
        worker.process.kill()
        worker.process.wait()
        saves = [*(run_dir / "checkpoints").glob("step-*")]
        torn += any(not (save / "COMMIT").exists() for save in saves)
        if torn == 3:
            break
    assert torn == 3 and len(rows(run_dir)) < last
    (worker,) = launch("base", run_dir, [*flags, "--resume"], processes=1, devices=2)
    assert finish([worker], within=START_S) == [0], worker.text()
    (worker,) = launch("base", tmp_path / "whole", flags, processes=1, devices=2)
    assert finish([worker], within=START_S) == [0], worker.text()
    assert_same_run(run_dir, tmp_path / "whole", last)


HEARTBEAT_S = 10
SILENT = r"unhealthy \(stopped sending heartbeats\):\s+1"  # JAX's own words
GONE = "process 1 of 2 ends, since process 0, the coordinator, is gone|the leader task was .*died"
LOST = rf"process 0 of 2 failed: most likely another process was killed|{SILENT}"


@pytest.mark.parametrize(
    "victim, number, within, cause",
    [
        (1, signal.SIGKILL, 2 * HEARTBEAT_S, LOST),
        (1, signal.SIGSTOP, 2 * HEARTBEAT_S, SILENT),
        (0, signal.SIGKILL, 5, GONE),
        (
            0,
            signal.SIGSTOP,
            2 * HEARTBEAT_S,
            r"process 1 of 2 ends, since process 0, the coordinator, was silent",
        ),
    ],
    ids=["worker killed", "worker stopped", "coordinator killed", "coordinator stopped"],
)
def test_the_loss_of_a_process_ends_the_others(launch, tmp_path, victim, number, within, cause):
    run_dir = tmp_path / "run"
    bound = {"LAUNCH_HEARTBEAT_S": str(HEARTBEAT_S)}
    workers = launch("base", run_dir, ENDLESS, processes=2, devices=1, **bound)
    wait_for_step(workers, run_dir, 3)
    workers[victim].process.send_signal(number)
    (survivor,) = [w for w in workers if w is not workers[victim]]
    began = time.monotonic()
    (code,) = finish([survivor], within=within)
    assert code in (134, -signal.SIGABRT), survivor.text()
    assert re.search(cause, survivor.text()), survivor.text()
    print(f"ended {time.monotonic() - began:.1f} s after the loss")


@pytest.mark.parametrize("absent", [0, 1])
def test_a_process_that_never_comes_is_not_waited_for(launch, tmp_path, absent):
    timeout = {"LAUNCH_INIT_TIMEOUT_S": "4"}
    workers = launch(
        "base", tmp_path / "run", STEPS, processes=2, devices=1, absent=absent, **timeout
    )
    assert finish(workers, within=START_S) == [1]
    assert f"process {1 - absent}: not 2 processes" in workers[0].text()
    assert "within 4 s: start those that are missing" in workers[0].text()


def test_an_exception_in_one_process_ends_the_others_with_its_reason(tmp_path):
    workers = start("tests.engines.failing", [], tmp_path, processes=2, devices=1)
    assert finish(workers, within=START_S) == [1, 1]
    healthy, failed = (worker.text() for worker in workers)
    assert failed.count("Traceback") == 1 and "process 1 of 2 failed:\nTraceback" in failed
    assert "process 0 of 2 ends, since process 1 of 2 failed: RuntimeError: no luck" in healthy
    assert "Traceback" not in healthy


@pytest.mark.parametrize(
    "said, code",
    [
        ("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes", 1),
        ("UNKNOWN: Gloo AllGather failed: Connection closed by peer", 134),
    ],
)
def test_a_broken_connection_is_no_error_of_the_process_itself(tmp_path, said, code):
    """What is started again goes by the code: an array that does not fit will not fit again."""
    workers = start("tests.engines.failing", [said], tmp_path, processes=2, devices=1)
    assert finish(workers, within=START_S) == [code, code], workers[1].text()
    assert f"since process 1 of 2 failed: JaxRuntimeError: {said}" in workers[0].text()


def test_one_process_may_be_stopped_for_longer_than_a_heartbeat(launch, tmp_path):
    (worker,) = launch(
        "base", tmp_path / "run", ENDLESS, processes=1, devices=1, LAUNCH_HEARTBEAT_S="1"
    )
    wait_for_step([worker], tmp_path / "run", 2)
    worker.process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    worker.process.send_signal(signal.SIGCONT)
    before = len(rows(tmp_path / "run"))
    wait_for_step([worker], tmp_path / "run", before + 3)
    worker.process.send_signal(signal.SIGINT)
    assert finish([worker], within=60) == [130]
    assert "--resume goes on" in worker.text()


def test_a_model_axis_may_cross_processes(launch, whole, tmp_path):
    """Both processes then hold all rows of a batch."""
    flags = [*STEPS, "--mesh", "1", "1", "2"]
    workers = launch("base", tmp_path / "run", flags, processes=2, devices=1)
    assert finish(workers, within=START_S) == [0, 0], workers[0].text()
    assert_same_run(tmp_path / "run", whole("base"))


def test_a_run_directory_that_not_all_processes_see_is_refused_at_the_start(
    store, cache, launch, tmp_path
):
    head = {"LAUNCH_COORDINATOR": f"127.0.0.1:{free_port()}"}
    began = time.monotonic()
    workers = []
    for index in range(2):
        own = tmp_path / f"disk-{index}/run"
        workers += launch("base", own, STEPS, processes=2, devices=1, absent=1 - index, **head)
    assert finish(workers, within=120) == [1, 1], "\n".join(w.text() for w in workers)
    said = "process 1 does not see what process 0 has written to"
    assert f"{said} {tmp_path}/disk-1/run: --run-dir must be in storage that all" in (
        workers[1].text()
    )
    assert "Traceback" not in workers[0].text() + workers[1].text()
    assert not list(tmp_path.glob("disk-*/run/*"))
    print(f"ended {time.monotonic() - began:.1f} s after the start")


def test_of_two_starts_at_once_each_has_a_directory_of_its_own(store, cache, tmp_path):
    flags = [*MODEL, "--data", store, *STEPS]

    def there() -> None:
        os.chdir(tmp_path)

    workers = []
    for index in range(2):
        logs = tmp_path / f"logs-{index}"
        workers += start(
            MODULES["base"], flags, logs, processes=1, devices=1, before=there, **cache
        )
    assert finish(workers, within=START_S) == [0, 0], "\n".join(w.text() for w in workers)
    runs = sorted(tmp_path.glob("runs/*"))
    assert [run.name for run in runs] == ["base-1", "base-2"]
    assert all(len(rows(run)) == LAST for run in runs)


def test_a_resume_beside_a_run_that_lives_is_refused(launch, tmp_path):
    run_dir = tmp_path / "run"
    (first,) = launch("base", run_dir, ENDLESS, processes=1, devices=1)
    wait_for_step([first], run_dir, 2)
    second = launch("base", run_dir, [*ENDLESS, "--resume"], processes=1, devices=1)
    assert finish(second, within=START_S) == [1]
    number = first.process.pid
    assert re.search(rf"process {number} on \S+ runs here: stop that one", second[0].text())
    first.process.kill()
    first.process.wait()
    (third,) = launch("base", run_dir, [*STEPS, "--resume"], processes=1, devices=1)
    assert finish([third], within=START_S) == [1]  # other --steps: it is past the claim
    assert "config.steps" in third.text() or "metrics of" in third.text()
