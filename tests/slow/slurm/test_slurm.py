"""A bundle on a real Slurm, its run in S3: preempted, requeued and resumed; stopped; refused."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slow.slurm.cluster import wait_for

STEPS = 240
EARLY = 5  # the step at which another job wants the nodes
TINY = (
    "--model.vocab-size 1024 --model.d-model 64 --model.n-layers 2 --model.n-heads 4 "
    "--model.n-kv-heads 2 --model.head-dim 16 --model.d-ff 128 --model.loss-chunk 64 "
    "--sequence-length 128 --warmup-steps 10 --eval-every 120 --eval-tokens 2048 --no-tensorboard"
).split()
FLAGS = [*TINY, "--steps", str(STEPS), "--checkpoint-every", str(10 * STEPS)]
ENDLESS = [*TINY, "--steps", "100000", "--checkpoint-every", "20"]
WITHIN = 400  # seconds for a job here, at the side of other work


def job_of(launched) -> str:
    return re.findall(r"^(\d+)$", launched.text(), re.MULTILINE)[0]


def wait_until(launched, what: str, found: Callable[[str], bool]) -> None:
    """Until `found` in what the launcher shows, which is the job's log too."""

    def reached() -> bool:
        text = launched.text()
        assert launched.process.poll() is None, text
        return found(text)

    wait_for(what, reached, WITHIN)


def wait_for_step(launched, step: int) -> None:
    def reached(text: str) -> bool:
        return any(int(n) >= step for n in re.findall(r"^0: step (\d+)/", text, re.M))

    wait_until(launched, f"step {step}", reached)


def learned(launched) -> list[dict[str, float]]:
    """Lines of metrics.jsonl less what a clock put there."""
    rows = [json.loads(line) for line in launched.read("metrics.jsonl").splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("throughput/")} for row in rows]


def workers(launched) -> list[int]:
    """The processes of a run, on both nodes: all are this machine's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if {"experiments.grug.base.launch", launched.run} <= {*words}:
                found.append(int(process.name))
    return found


def ends(home: Path, job: str) -> list[str]:
    """The job's state each time that it left its nodes; PENDING where it was queued again."""
    return re.findall(
        rf"^JobId={job} .*?JobState=(\w+)", (home / "ended").read_text(), re.MULTILINE
    )


def test_a_preempted_job_resumes_and_ends_like_one_that_was_not(slurm, launch):
    """A job of a more urgent partition takes both nodes: the same run, which nothing interrupts."""
    spot = launch("spot", *FLAGS)
    wait_for_step(spot, EARLY)
    urgent = launch("urgent", *FLAGS, "--no-follow", SBATCH_PARTITION="urgent")
    assert urgent.process.wait(60) == 0, urgent.text()
    assert spot.process.wait(WITHIN) == 0, spot.text()
    text = spot.text()
    (at,) = set(re.findall(r"^\d: .*preempted at step (\d+)", text, re.M))
    assert EARLY <= int(at) < STEPS and len(re.findall(r"preempted at step", text)) == 2
    for line in ("attempt 0 ended with 143", "attempt 1 ended with 0"):
        assert line in text.splitlines()
    job, other = job_of(spot), job_of(urgent)
    states = re.findall(rf"^launch: job {job} is (.+)$", text, re.M)
    assert states[-1] == "COMPLETED, attempt 1" and "RUNNING" in states
    assert any(state.startswith("PENDING") and "attempt 1" in state for state in states), states
    assert ends(slurm.home, job) == ["PENDING", "COMPLETED"]
    assert ends(slurm.home, other) == ["COMPLETED"]
    assert slurm.show(job)["Restarts"] == "1" and slurm.show(job)["ExitCode"] == "0:0"

    assert [row["step"] for row in learned(spot)] == list(range(1, STEPS + 1))
    assert learned(spot) == learned(urgent)
    attempts = json.loads(spot.read("run.json"))["attempts"]
    assert [each["from_step"] for each in attempts] == [0, int(at)]
    commit = json.loads(spot.read(f"checkpoints/step-{int(at):08d}/COMMIT"))
    assert commit["step"] == int(at)


def test_a_cancelled_job_saves_and_goes_on_with_another_number_of_nodes(slurm, launch):
    """It is not started again by itself."""
    cancelled = launch("cancelled", *ENDLESS, "--secret", "TOKEN", TOKEN="a s3cret")
    wait_for_step(cancelled, 1)
    job = job_of(cancelled)
    slurm.run("scancel", job)
    assert cancelled.process.wait(WITHIN) > 0, cancelled.text()
    assert "preempted at step" in cancelled.text()
    assert ends(slurm.home, job) == ["CANCELLED"]
    assert slurm.show(job)["JobState"] == "CANCELLED" and slurm.show(job)["Restarts"] == "0"
    (at,) = set(re.findall(r"^\d: .*preempted at step (\d+)", cancelled.text(), re.M))
    alone = launch("cancelled", *ENDLESS, "--topology", "1")
    wait_for_step(alone, int(at) + 1)
    slurm.run("scancel", job_of(alone))
    assert alone.process.wait(WITHIN) > 0, alone.text()
    record = alone.read("run.json")
    attempts = json.loads(record)["attempts"]
    assert "s3cret" not in record and [each["from_step"] for each in attempts] == [0, int(at)]
    assert [each["devices"]["processes"] for each in attempts] == [2, 1]


def test_killed_processes_are_started_again_only_so_often(slurm, launch):
    """Sent from within an allocation, of which nothing reaches the job."""
    given = ["--env", "GIVEN=it's $HOME\n", "--secret", "TOKEN", "--max-restarts", "1"]
    allocation = {"SLURM_JOB_ID": "1", "SBATCH_JOB_NAME": "other", "SBATCH_TIMELIMIT": "1"}
    killed = launch("killed", *ENDLESS, *given, TOKEN="a s3cret", **allocation)
    for attempt in (1, 2):
        wait_until(killed, "the run", lambda text, n=attempt: text.count("run in s3:") == n)
        environment = Path(f"/proc/{workers(killed)[-1]}/environ").read_bytes().split(b"\0")
        assert {b"GIVEN=it's $HOME\n", b"TOKEN=a s3cret"} <= set(environment)
        os.kill(workers(killed)[-1], signal.SIGKILL)
    assert killed.process.wait(WITHIN) == 137, killed.text()
    job = job_of(killed)
    assert ends(slurm.home, job) == ["PENDING", "FAILED"]
    facts = slurm.show(job)
    assert facts["JobName"].startswith("base-cpu-killed-") and facts["TimeLimit"] == "1-00:00:00"
    assert "a s3cret" not in killed.text()
    files = [path for path in (killed.here / "runs").rglob("*") if path.is_file()]
    assert files and not any(b"a s3cret" in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--no-such-flag"], "start no run on 2: see above"),
        (["--batch-size", "7"], "batch_size"),
        (["--engine-arg", "partition=nowhere"], "invalid partition specified: nowhere"),
        (["--engine-arg", "gpus-per-node=h100:8"], "it was not sent: "),
    ],
)
def test_what_could_not_run_never_waits_in_the_queue(slurm, launch, flags, said):
    refused = launch("early", *FLAGS, *flags)
    assert refused.process.wait(WITHIN) == 1
    assert said in refused.text().splitlines()[-1]
    assert not slurm.tell("squeue", "-h", "-o%i")
    assert not list((refused.here / "runs/bundles").glob("base-cpu-early-*"))


@pytest.mark.parametrize("flags, code", [(["--no-such-flag"], 2), (["--batch-size", "7"], 1)])
def test_what_is_wrong_stops_the_job_with_its_exit_code(slurm, launch, flags, code):
    refused = launch(f"refused{code}", *FLAGS, *flags, "--check", "none")
    assert refused.process.wait(WITHIN) == code, refused.text()
    assert ends(slurm.home, job_of(refused)) == ["FAILED"]


def test_a_process_that_is_refused_alone_stops_the_job_with_its_exit_code(slurm, launch, tmp_path):
    """srun kills the other one, which must not pass for a lost node."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n[ $SLURM_PROCID = 0 ] && exit 2\nexec sleep 300\n")
    python.chmod(0o755)
    refused = launch("alone", *FLAGS, PYTHON=str(python))
    assert refused.process.wait(WITHIN) == 2, refused.text()
    assert ends(slurm.home, job_of(refused)) == ["FAILED"]
