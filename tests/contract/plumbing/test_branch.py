"""Where a branch may begin, and what is said where it may not."""

import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.contract.harness import Variant, make_mesh, under_test

branch, checkpoint, record = (getattr(under_test(), n) for n in ("branch", "checkpoint", "record"))
storage = under_test().storage
Branch, BranchError, open_branch = branch.Branch, branch.BranchError, branch.open_branch

CONFIG = {"steps": 10, "decay_fraction": 0.5, "batch_size": 8}
HORIZON = ["steps", "decay_fraction"]
ATTEMPTS = [{"from_step": 0}, {"from_step": 3}, {"from_step": 6}]


@pytest.fixture(autouse=True)
def two_devices(variant: Variant):
    with jax.set_mesh(make_mesh(variant, data=2)):
        yield


def make_state():
    return {"split": jax.device_put(np.arange(8.0, dtype=np.float32), P("data"))}


def write_parent(place: Path, **changes) -> Path:
    """A run of ten steps with the checkpoints 4, 6 and 10."""
    checkpoints = checkpoint.Checkpoints(place, keep=3)
    for step in (4, 6, 10):
        checkpoints.save(step, make_state(), {"config": CONFIG})
        checkpoints.wait()
    values = {
        "schema_version": record.RUN_SCHEMA,
        "variant": record.VARIANT,
        "attempts": ATTEMPTS,
        "config": {"keep_checkpoints": 3},
    }
    (place / "run.json").write_text(json.dumps(values | changes))
    return place


@pytest.fixture
def parent(tmp_path) -> Path:
    return write_parent(tmp_path / "parent")


def begin(source: str, ancestors=(), **changes):
    """The branch, begun."""
    begun = Branch(source, list(ancestors))
    begun.begin(jax.eval_shape(make_state), CONFIG | {"steps": 12} | changes, HORIZON)
    return begun


def test_the_step_may_be_named_or_is_the_newest(parent, capsys):
    assert begin(f"{parent}@4").step == 4
    assert f"branch of {parent}, step 4; steps: 10 -> 12\n" in capsys.readouterr().out
    assert begin(str(parent)).step == 10
    assert begin(f"{parent}/@6", decay_fraction=0.1).step == 6
    assert "step 6; decay_fraction: 0.5 -> 0.1, steps: 10 -> 12" in capsys.readouterr().out


def test_a_path_may_hold_an_at(tmp_path):
    assert branch.branch_point("s3://b/a@b@12") == ("s3://b/a@b", 12)
    assert branch.branch_point("runs/a@b") == ("runs/a@b", None)
    assert branch.branch_point("") == ("", None)
    place = write_parent(tmp_path / "me@8")
    assert begin(f"{place}@4").ancestors[-1]["run"] == "me@8"
    assert begin(f"{place}/").step == 10


def test_what_is_recorded(parent):
    """The digest is what sha256sum says; the attempts are those that made the state."""
    (entry,) = begin(f"{parent}@6").ancestors
    shell = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    place = parent / "checkpoints/step-00000006"
    done = subprocess.run(shell, shell=True, cwd=place, capture_output=True, text=True, check=True)
    assert entry == {
        "variant": record.VARIANT,
        "run": "parent",
        "step": 6,
        "digest": done.stdout.split()[0],
        "horizon": {"steps": 10, "decay_fraction": 0.5},
        "attempts": ATTEMPTS[:2],
    }


def test_notes_of_a_save_are_no_part_of_the_digest(parent):
    before = checkpoint.Checkpoints(parent, keep=1).digest(6)
    (parent / "checkpoints/step-00000006/NOTE-1-1").touch()
    assert checkpoint.Checkpoints(parent, keep=1).digest(6) == before
    (parent / "checkpoints/step-00000006/COMMIT").write_text("{}")
    assert checkpoint.Checkpoints(parent, keep=1).digest(6) != before


def test_a_branch_of_a_branch_has_the_whole_lineage(tmp_path):
    older = {"run": "first", "step": 2}
    place = write_parent(tmp_path / "second", ancestors=[older])
    ancestors = begin(f"{place}@4").ancestors
    assert ancestors[0] == older and [entry["run"] for entry in ancestors] == ["first", "second"]


def test_an_older_checkpoint_lacks_a_new_part_of_the_horizon(parent):
    horizon, like = [*HORIZON, "final_rate"], jax.eval_shape(make_state)
    begun = Branch(f"{parent}@4", [])
    begun.begin(like, CONFIG | {"steps": 12, "final_rate": 0.1}, horizon)
    assert begun.ancestors[-1]["horizon"] == {"steps": 10, "decay_fraction": 0.5}


@pytest.mark.parametrize(
    "at, changes, message",
    [
        ("@5", {}, "no checkpoint of step 5, only of 4, 6, 10: .* this one 3; more --keep-check"),
        ("@6", {"steps": 6}, "step 6 is not before .* steps=6: give more --steps, or .*: 4$"),
        ("@4", {"steps": 4}, "its step 4 is not before .* steps=4: give more --steps$"),
        ("", {"steps": 10}, "its step 10 is not before .* checkpoint: 4, 6$"),
        ("/elsewhere@4", {}, "elsewhere holds no run: give --branch-from RUN@STEP a run's direc"),
    ],
)
def test_where_no_branch_can_begin(parent, at, changes, message):
    with pytest.raises(BranchError, match=message):
        begin(f"{parent}{at}", **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"variant": "other"}, f"is a run of other, and this is {record.VARIANT}: branch off a "),
        ({"schema_version": 99}, rf"has schema 99, .* {record.RUN_SCHEMA} at most: bring it up to"),
        ({"attempts": None}, "is not the record of a run .*: put that back from a copy"),
        ({"schema_version": "new"}, "is not the record of a run .*: put that back from a copy"),
    ],
)
def test_runs_that_are_no_parent(tmp_path, changes, message):
    with pytest.raises(BranchError, match=message):
        begin(f"{write_parent(tmp_path / 'parent', **changes)}@4")


def test_a_run_without_a_checkpoint(parent):
    storage.Folder(parent).remove("checkpoints")
    with pytest.raises(BranchError, match="has no checkpoint at all: a run keeps its newest ones"):
        begin(str(parent))


def test_a_damaged_checkpoint_names_the_others(parent):
    chunk = parent / "checkpoints/step-00000006/split/c/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"!")
    message = "step 6 .* is damaged: .* Branch off from step 4, 10$"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        begin(f"{parent}@6")


def test_the_shape_of_the_model_is_no_horizon(parent):
    like = {"split": jax.ShapeDtypeStruct((6,), np.float32)}
    message = r"leaves.split: float32\[8\] -> float32\[6\]. A branch may change steps, decay_fract"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        Branch(f"{parent}@4", []).begin(like, CONFIG | {"steps": 12}, HORIZON)


def test_a_start_again_begins_with_the_same_checkpoint(parent):
    """Without a checkpoint of its own, as after a stop before the first save."""
    begun = begin(str(parent))
    again = begin(str(parent), begun.ancestors)
    assert again.ancestors == begun.ancestors
    storage.Folder(parent).remove("checkpoints/step-00000010/")
    with pytest.raises(BranchError, match="no checkpoint of step 10, only of 4, 6"):
        begin(str(parent), begun.ancestors)
    (parent / "checkpoints/step-00000004/COMMIT").write_text("{}")
    fourth = [{**begun.ancestors[0], "step": 4}]
    with pytest.raises(BranchError, match="@4 is not the checkpoint that this run began with"):
        begin(str(parent), fourth)


def write_run(place: Path, ancestors: list, source: str) -> str:
    place.mkdir()
    content = {"attempts": [], "ancestors": ancestors, "config": {"branch_from": source}}
    (place / "run.json").write_text(json.dumps(content))
    return str(place)


def test_a_branch_that_is_resumed_is_the_one_on_record(tmp_path):
    run_dir = write_run(tmp_path / "run", [{"run": "parent", "step": 6}], "runs/parent")
    for source in ("", "runs/parent", "s3://bucket/parent@6"):
        found = open_branch(run_dir, source, resuming=True)
        assert (found.source, found.step) == (source or "runs/parent", 6)
    for source in ("runs/parent@4", "runs/other@6"):
        with pytest.raises(BranchError, match=f"is a branch of parent@6, not of {source}: remove"):
            open_branch(run_dir, source, resuming=True)


def test_a_run_that_is_resumed_does_not_become_a_branch(tmp_path):
    run_dir = write_run(tmp_path / "run", [], "")
    with pytest.raises(BranchError, match="is no branch, its run begins at step 0: remove --br"):
        open_branch(run_dir, "runs/parent@4", resuming=True)
    found = open_branch(run_dir, "", resuming=True)
    assert (found.source, found.step, found.ancestors) == ("", 0, [])
