"""Run directories become a record, or one line says why not."""

import json

import pytest

from tests.tools.speedrun.conftest import NAME
from tools.common.errors import ToolError
from tools.speedrun.entry import load
from tools.speedrun.record import main, record
from tools.speedrun.tracks import load_tracks


def refusal(workspace, directories, author: str = "A. Author") -> str:
    """The message of a refusal, after which nothing was written."""
    with pytest.raises(ToolError) as raised:
        record(workspace.root, NAME, directories, author)
    assert not list(workspace.area.rglob("*.json.*")) + list(workspace.area.rglob("record.json"))
    return str(raised.value)


def test_a_record_holds_the_runs(workspace, capsys):
    workspace.add()
    runs = [str(path) for path in reversed(workspace.runs(NAME))]
    flags = ["--author", "A. Author", "--root", str(workspace.root)]
    assert main([f"experiments/speedrun/{NAME}/", *runs, *flags]) == 0
    assert capsys.readouterr().out == f"experiments/speedrun/{NAME}/record.json\n"
    result = load(workspace.root, NAME, load_tracks(workspace.root))
    assert (result.entry, result.date, result.track) == (NAME, "2026-11-22", "tiny")
    assert result.column("seed") == (0, 1, 2)
    assert result.column("seconds") == (100, 101, 102)
    assert result.column("cpu_seconds") == (150, 151.5, 153)
    assert result.column("heldout_bpb") == (2.4, 2.402, 2.404)
    assert result.runs[0].curve == ((1, 500, 50, 4), (2, 1000, 100, 3))
    assert result.config == {"learning_rate": 0.01, "steps": 2}
    assert result.hardware["cores"] == 2 and result.software["jax"] == "0.10.2"


def test_the_same_runs_give_the_same_bytes(workspace, tmp_path_factory):
    path = workspace.recorded()
    first = path.read_bytes()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    moved = [run.rename(elsewhere / run.name) for run in (workspace.root / "runs").iterdir()]
    record(workspace.root, NAME, sorted(moved, reverse=True), "A. Author")
    assert path.read_bytes() == first
    assert str(workspace.root) not in first.decode()


def test_runs_of_other_sources_than_the_directory(workspace):
    directory = workspace.add()
    runs = workspace.runs(NAME)
    (directory / "run.py").write_text("print('another')\n")
    assert "sources: run.py was changed since the runs" in refusal(workspace, runs)


@pytest.mark.parametrize("key", ["hardware", "sources", "lock", "data"])
def test_runs_that_were_not_made_alike(workspace, key):
    workspace.add()
    runs = workspace.runs(NAME)
    value = {"lock": "c" * 64}.get(key, {"cpu": "other", "run.py": "c" * 64, "digest": "d"})
    workspace.run(NAME, 2, bpb=2.4, seconds=9, **{key: value})
    assert "run all seeds alike" in refusal(workspace, runs)


def test_runs_without_hardware(workspace):
    workspace.add()
    runs = [workspace.run(NAME, i, bpb=2 + i / 99, seconds=9, hardware={}) for i in range(3)]
    assert "record.json: hardware: is missing" in refusal(workspace, runs)


def test_another_entrys_run_and_one_of_the_template(workspace):
    workspace.add()
    workspace.add("2026-11-23_second")
    others = workspace.runs("2026-11-23_second")
    assert "is a run of '2026-11-23_second', not of" in refusal(workspace, others)
    run = workspace.run(NAME, 0, bpb=2.4, seconds=9)
    held = json.loads((run / "run.json").read_text())
    del held["speedrun"]
    (run / "run.json").write_text(json.dumps(held))
    assert "give the directory of a speedrun" in refusal(workspace, [run])


def test_a_run_that_does_not_begin_at_step_0(workspace):
    workspace.add()
    run = workspace.run(NAME, 0, bpb=2.4, seconds=9)
    held = json.loads((run / "run.json").read_text())
    parent = {"variant": NAME, "run": "x", "step": 1, "digest": "d" * 64, "horizon": {}}
    parent["attempts"] = held["attempts"]
    (run / "run.json").write_text(json.dumps({**held, "ancestors": [parent]}))
    assert "run.json:1: is a branch: a speedrun begins at step 0" in refusal(workspace, [run])


def test_an_unfinished_run_and_one_that_was_not_evaluated(workspace):
    workspace.add()
    runs = workspace.runs(NAME)
    metrics = runs[0] / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text(lines[0] + "\n")
    assert "ended at step 1 of 2: run it again" in refusal(workspace, runs)
    metrics.write_text("\n".join([lines[0], lines[1].replace("eval/bytes", "x")]) + "\n")
    assert "lacks eval/bpb, eval/bytes" in refusal(workspace, runs)


def test_a_target_that_was_missed(workspace):
    workspace.add()
    assert "is not below 2.5" in refusal(workspace, workspace.runs(NAME, bpb=2.6))
    assert "author: " in refusal(workspace, workspace.runs(NAME), author=" ")


def test_an_unknown_entry(workspace):
    workspace.add()
    with pytest.raises(ToolError, match=f"is no entry .*; there is {NAME}"):
        record(workspace.root, "2026-11-22_other", [], "A")
