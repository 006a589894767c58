"""What a run directory may hold, and whose it is."""

import itertools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.harness import under_test

rundir, signals = under_test().rundir, under_test().signals
Folder = under_test().storage.Folder
Claim, RunDirError, claimed = rundir.Claim, rundir.RunDirError, rundir.claimed

RECORD = {"attempts": [{"from_step": 0}], "config": {"steps": 100}}
FILES = {
    "run.json": json.dumps(RECORD),
    "checkpoints": "{}",
    "metrics.jsonl": '{"step": 1}\n',
    "other": "mine",
    "sources": "a line",
}
PATHS = {
    "checkpoints": "checkpoints/step-00000040/COMMIT",
    "other": "notes.txt",
    "sources": "sources/0123/model.py",
}


def fill(folder, parts) -> None:
    for part in parts:
        folder.write(PATHS.get(part, part), FILES[part].encode())


def verdict(parts: set[str], resume: bool) -> str:
    """What each combination means; "" is a new run, "run" one to go on with."""
    if "run.json" in parts:
        return "run" if resume else "is not empty: add --resume"
    if parts & {"checkpoints", "metrics.jsonl"}:
        return r"holds (checkpoints|metrics.jsonl|checkpoints and metrics.jsonl) of a run, but not"
    return r"holds no run \(notes.txt\): give a --run-dir" if "other" in parts else ""


COMBINATIONS = [set(c) for n in range(6) for c in itertools.combinations(FILES, n)]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("parts", COMBINATIONS, ids=lambda parts: "+".join(sorted(parts)) or "none")
def test_each_combination_of_files_is_a_run_a_place_for_one_or_refused(tmp_path, parts, resume):
    fill(Folder(tmp_path), parts)
    (tmp_path / "empty").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    expected = verdict(parts, resume)
    if expected in ("", "run"):
        assert rundir.open_run(str(tmp_path), resume=resume) == (expected == "run")
        return
    for enter in (rundir.open_run, lambda *a, **k: claimed(*a, **k).__enter__()):
        with pytest.raises(RunDirError, match=expected) as refused:
            enter(str(tmp_path), resume=resume)
        assert "\n" not in str(refused.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("content", ['{"attempts": [', "[]", '{"name": "a person\'s"}', "\0"])
def test_a_run_json_that_no_run_wrote_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    for resume in (False, True):
        with pytest.raises(RunDirError, match=r"run.json is not the record of a run \(.*\): put"):
            rundir.open_run(str(tmp_path), resume=resume)


def test_a_claim_is_one_start_s_and_goes_with_it(tmp_path):
    path = tmp_path / "run"
    with claimed(str(path), resume=False):
        holder = json.loads((path / "CLAIM").read_text())
        assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
        said = rf"process {os.getpid()} on .* runs here: stop that one"
        with pytest.raises(RunDirError, match=said):
            Claim(Folder(path))
    assert not path.exists()  # nothing was written there


def hold(path: str, claims: Any, together: Any) -> None:
    """Claims a directory and waits to be killed."""
    folder = Folder(path)
    together.wait(120)
    try:
        Claim(folder)
        claims.put("has it")
        time.sleep(600)
    except RunDirError as error:
        claims.put(str(error))


def test_of_many_starts_at_once_one_has_the_directory_and_killed_it_has_it_no_more(tmp_path):
    context = multiprocessing.get_context("spawn")
    for attempt in range(3):
        claims, together = context.Queue(), context.Barrier(4)
        held = (str(tmp_path), claims, together)
        starts = [context.Process(target=hold, args=held) for _ in range(4)]
        for start in starts:
            start.start()
        said = sorted(claims.get(timeout=120) for _ in starts)
        assert said.count("has it") == 1, (attempt, said)
        assert sum("runs here: stop that one" in text for text in said) == 3
        for start in starts:
            start.kill()  # the next starts find a claim that nobody holds
            start.join()


OTHERS = {"host": "elsewhere", "pid": 7, "boot": "another", "processes": "pid:[1]", "began": "1"}


def test_a_claim_from_another_host_counts_while_it_is_renewed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rundir, "PATIENCE", 2.0)
    folder = Folder(tmp_path)
    folder.write("CLAIM", json.dumps({**OTHERS, "token": 1}).encode())
    began = time.monotonic()
    claim = Claim(folder)  # nobody renews it
    assert 2 <= time.monotonic() - began < 10
    assert "process 7 on elsewhere had this directory and may still run: waiting 2 s" in (
        capsys.readouterr().err
    )
    claim.drop()

    renewer = (
        "import sys, time\n"
        "for beat in range(600): open(sys.argv[1], 'w').write(sys.argv[2]); time.sleep(0.1)"
    )
    holder = json.dumps({**OTHERS, "token": 2})
    command = [sys.executable, "-c", renewer, str(tmp_path / "CLAIM"), holder]
    with subprocess.Popen(command) as process:
        while not (tmp_path / "CLAIM").exists():
            time.sleep(0.01)
        try:
            with pytest.raises(RunDirError, match="process 7 on elsewhere runs here"):
                Claim(folder)
        finally:
            process.kill()


def test_a_claim_is_renewed_and_its_loss_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "BEAT", 0.05)
    ended = []
    monkeypatch.setattr(rundir, "fail", lambda *reason: ended.append(reason))
    claim = Claim(Folder(tmp_path))
    beats = [json.loads((tmp_path / "CLAIM").read_text())["beats"]]
    while len(beats) < 100 and beats[-1] < beats[0] + 3:
        time.sleep(0.05)
        beats.append(json.loads((tmp_path / "CLAIM").read_text())["beats"])
    assert beats[-1] >= beats[0] + 3
    assert claim.is_ours() and not ended
    claim.folder.write("CLAIM", json.dumps({**OTHERS, "token": 1}).encode())
    assert not claim.is_ours()
    for _ in range(100):
        if ended:
            break
        time.sleep(0.05)
    assert ended[0][0] == 1 and "process 7 on elsewhere has taken it" in ended[0][1]
    claim.drop()
    assert json.loads((tmp_path / "CLAIM").read_text())["token"] == 1, "it is no longer ours"


def test_a_later_process_with_the_same_number_is_another_one():
    ours = rundir.identity()
    assert rundir.lives(ours)
    assert rundir.lives({**ours, "began": "1"}) is False
    assert rundir.lives({**ours, "boot": "another"}) is None
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        holder = {**ours, "pid": child.pid, "began": rundir.began(child.pid)}
    assert rundir.lives(holder) is False


def test_starts_without_progress_are_counted_and_the_last_one_is_final(tmp_path):
    path = str(tmp_path)
    folder = Folder(path)
    folder.write("run.json", json.dumps(RECORD).encode())
    code = signals.Preempted(None, 15).exit_code
    codes = []
    try:
        for _ in range(rundir.MOST_STARTS):
            with claimed(path, resume=True):
                codes.append(signals.Preempted(None, 15).exit_code)
        assert codes == [code] * (rundir.MOST_STARTS - 1) + [1]
        assert "as the 4 starts before it were stopped before they saved a step" in str(
            signals.Preempted(None, 15)
        )
        assert signals.Preempted(None, 2).exit_code == 130, "Ctrl-C is a person's"
        assert signals.Preempted(3, 15).exit_code == code, "this one has saved a step"
        fill(folder, ["checkpoints"])
        with claimed(path, resume=True):
            assert signals.Preempted(None, 15).exit_code == code
    finally:
        signals.give_up_without_progress("")
    assert json.loads(folder.read("run.json"))["starts"] == {"count": 1, "from_step": 40}


def test_a_look_at_a_finished_run_changes_nothing(tmp_path):
    fill(Folder(tmp_path), FILES)
    (tmp_path / "checkpoints/step-00000100").mkdir()
    (tmp_path / "checkpoints/step-00000100/COMMIT").write_text("{}")
    before = {p: p.read_bytes() for p in Path(tmp_path).rglob("*") if p.is_file()}
    with claimed(str(tmp_path), resume=True):
        pass
    assert {p: p.read_bytes() for p in Path(tmp_path).rglob("*") if p.is_file()} == before
