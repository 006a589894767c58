"""A checkpoint gives back what was saved, or says what is wrong with it."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.contract.harness import Variant, make_mesh, under_test

checkpoint, storage = under_test().checkpoint, under_test().storage
CheckpointError, Checkpoints = checkpoint.CheckpointError, checkpoint.Checkpoints

CONFIG = {"steps": 10, "model.d_model": 32}


@pytest.fixture(autouse=True)
def eight_devices(variant: Variant):
    with jax.set_mesh(make_mesh(variant, data=4, model=2)):
        yield


def make_state(seed: int = 0):
    draw = np.random.default_rng(seed)
    return {
        "split": jax.device_put(draw.normal(size=(8, 6)).astype(np.float32), P("data", "model")),
        "whole": jax.device_put(draw.normal(size=5).astype(np.float32), P(None)),
        "zeros": jax.device_put(np.zeros((4, 4), np.float32), P("data", None)),
        "half": jax.device_put(draw.normal(size=(4, 2)), P("data", None)).astype(jnp.bfloat16),
        "step": jnp.asarray(seed, jnp.int32),
        "rng": jax.random.PRNGKey(seed),
    }


def like():
    return jax.eval_shape(make_state)


def saved(tmp_path, *steps: int, keep: int = 5):
    checkpoints = Checkpoints(str(tmp_path), keep=keep)
    for step in steps:
        checkpoints.save(step, make_state(step), {"config": CONFIG, "data_position": {"at": step}})
    checkpoints.wait()
    return checkpoints


def folder(tmp_path, step: int) -> Path:
    return tmp_path / "checkpoints" / f"step-{step:08d}"


def test_round_trip_is_bit_exact_and_keeps_shardings(tmp_path):
    state, meta = saved(tmp_path, 3).restore(3, like(), CONFIG)
    assert meta["data_position"] == {"at": 3}
    for name, expected in make_state(3).items():
        assert state[name].dtype == expected.dtype
        assert state[name].sharding.is_equivalent_to(expected.sharding, expected.ndim)
        np.testing.assert_array_equal(np.asarray(state[name]), np.asarray(expected))


def test_restores_onto_another_mesh(tmp_path, variant: Variant):
    saved(tmp_path, 3)
    with jax.set_mesh(make_mesh(variant, data=2)):
        state, _ = Checkpoints(str(tmp_path), keep=5).restore(3, like(), CONFIG)
        np.testing.assert_array_equal(state["split"], make_state(3)["split"])
        assert len(state["split"].sharding.device_set) == 2


def test_saved_values_are_a_copy(tmp_path):
    """The step donates its buffers while the save is still writing."""
    state = make_state(1)
    expected = np.array(state["split"])
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.save(1, state, {"config": CONFIG})
    jax.jit(lambda s: jax.tree.map(lambda x: x + x, s), donate_argnums=0)(state)
    checkpoints.wait()
    restored, _ = checkpoints.restore(1, like(), CONFIG)
    np.testing.assert_array_equal(restored["split"], expected)


def test_keeps_the_newest(tmp_path):
    assert saved(tmp_path, 1, 2, 3, 4, keep=2).steps() == [3, 4]
    there = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert there == ["step-00000003", "step-00000004"]  # no empty folders either


def test_what_is_removed_leaves_no_empty_directories(tmp_path):
    files = ("a/b/c", "a/b/d/e", "ab/c", "ac", "[a]/x", "z/a/b")
    for name in files:
        storage.Folder(tmp_path).write(name, b"")
    (tmp_path / "a/empty/empty").mkdir(parents=True)
    left = set(files)
    for prefix, gone in (("a/b/d/", "a/b/d/e"), ("[a", "[a]/x"), ("a/", "a/b/c"), ("ab", "ab/c")):
        storage.Folder(tmp_path).remove(prefix)
        left -= {gone}
        assert set(storage.Folder(tmp_path).names()) == left
        directories = {
            p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_dir()
        }
        parents = {f"{parent}" for name in left for parent in Path(name).parents} - {"."}
        empty = {"a/empty", "a/empty/empty", "a"} if "a/b/c" in left else set()
        assert directories == parents | empty
    storage.Folder(tmp_path).remove("a")
    assert [path.name for path in tmp_path.iterdir()] == ["z"]


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    checkpoints = saved(tmp_path, 1)
    for name, value in (("split", np.nan), ("half", np.inf), ("whole", -np.inf)):
        state = make_state(2)
        spoiled = np.array(state[name])
        spoiled.flat[-1] = value
        state[name] = jax.device_put(spoiled, state[name].sharding)
        with pytest.raises(FloatingPointError, match=f"after step 2 is not finite: {name}$"):
            checkpoints.save(2, state, {"config": CONFIG})
    checkpoints.wait()
    assert checkpoints.steps() == [1] and not folder(tmp_path, 2).exists()
    everything = jax.tree.map(lambda x: x * np.nan if x.dtype.kind == "f" else x, make_state(2))
    with pytest.raises(FloatingPointError, match="not finite: split, whole, zeros"):
        checkpoints.save(2, everything, {"config": CONFIG})


def test_a_checkpoint_that_is_not_finite_is_not_restored(tmp_path, monkeypatch):
    """As older runs may have left one."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "not_finite", lambda state: [])
        checkpoints = Checkpoints(str(tmp_path), keep=5)
        state = make_state(1)
        checkpoints.save(1, state | {"split": state["split"] * np.nan}, {"config": CONFIG})
        checkpoints.wait()
    message = r"step 1 .* is not finite: split. Delete its folder, step-00000001/, to start again$"
    with pytest.raises(CheckpointError, match=message):
        checkpoints.restore(1, like(), CONFIG)


def test_what_must_be_there_before_a_checkpoint_comes_before_its_commit(tmp_path, capsys):
    checkpoints, at_that_time = Checkpoints(str(tmp_path), keep=5), []

    def note() -> None:
        names = {path.name for path in folder(tmp_path, len(at_that_time) + 1).iterdir()}
        at_that_time.append(names)

    def fail() -> None:
        raise storage.StorageError("metrics cannot be written: No space left on device")

    checkpoints.save(1, make_state(1), {"config": CONFIG}, before_commit=note)
    checkpoints.save(2, make_state(2), {"config": CONFIG}, before_commit=note)
    checkpoints.save(3, make_state(3), {"config": CONFIG}, before_commit=fail)
    with pytest.raises(CheckpointError, match="the last save failed: metrics cannot be written"):
        checkpoints.wait()
    assert at_that_time == [set(make_state())] * 2
    assert checkpoints.steps() == [1, 2]
    assert "checkpoint of step 3 not saved: metrics cannot" in capsys.readouterr().err


def test_without_commit_there_is_no_checkpoint_and_its_remains_do_no_harm(tmp_path):
    checkpoints = saved(tmp_path, 1, 2)
    (folder(tmp_path, 2) / "COMMIT").unlink()
    (folder(tmp_path, 2) / "split" / "zarr.json").write_text("{")
    assert checkpoints.steps() == [1]
    assert saved(tmp_path, 2).steps() == [1, 2]
    checkpoints.restore(2, like(), CONFIG)


def test_never_overwrites(tmp_path):
    checkpoints = saved(tmp_path, 1)
    checkpoints.save(1, make_state(9), {"config": CONFIG})
    checkpoints.wait()
    state, _ = checkpoints.restore(1, like(), CONFIG)
    np.testing.assert_array_equal(state["split"], make_state(1)["split"])


def chunks(tmp_path, name: str) -> list[Path]:
    return [
        p for p in (folder(tmp_path, 1) / name).rglob("*") if p.is_file() and p.suffix != ".json"
    ]


@pytest.mark.parametrize("name", ["split", "zeros"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "metadata"])
def test_damage_stops_the_run(tmp_path, name, damage):
    checkpoints = saved(tmp_path, 1)
    chunk = chunks(tmp_path, name)[0]
    content = bytearray(chunk.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        chunk.write_bytes(content)
    elif damage == "cut":
        chunk.write_bytes(content[:-1])
    elif damage == "remove":
        chunk.unlink()
    else:
        (folder(tmp_path, 1) / name / "zarr.json").write_text("{")
    message = (
        "checkpoint of step 1 .* is damaged.* Delete its folder, step-00000001/, to start again$"
    )
    with pytest.raises(CheckpointError, match=message):
        checkpoints.restore(1, like(), CONFIG)


def test_a_damaged_checkpoint_names_the_one_before_it(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), keep=5)
    for step in (1, 2, 4, 6):
        checkpoints.save(step, make_state(step), {"config": CONFIG})
        checkpoints.wait()
    (folder(tmp_path, 4) / "COMMIT").write_text("{")
    with pytest.raises(CheckpointError, match="step-00000004/, to go on from step 2$"):
        checkpoints.restore(4, like(), CONFIG)


def test_unreadable_commit(tmp_path):
    checkpoints = saved(tmp_path, 1)
    (folder(tmp_path, 1) / "COMMIT").write_text("{")
    with pytest.raises(CheckpointError, match="COMMIT is unreadable"):
        checkpoints.restore(1, like(), CONFIG)


def test_names_what_differs(tmp_path):
    checkpoints = saved(tmp_path, 1)
    with pytest.raises(CheckpointError, match="config.steps: 10 -> 11; config.warmup: absent -> 1"):
        checkpoints.restore(1, like(), CONFIG | {"steps": 11, "warmup": 1})
    wider = like() | {"whole": jax.ShapeDtypeStruct((7,), jnp.float32)}
    with pytest.raises(CheckpointError, match=r"leaves.whole: float32\[5\] -> float32\[7\]"):
        checkpoints.restore(1, wider, CONFIG)
    commit = folder(tmp_path, 1) / "COMMIT"
    commit.write_text(json.dumps(json.loads(commit.read_text()) | {"schema_version": 99}))
    with pytest.raises(CheckpointError, match="schema_version: 99 -> 1"):
        checkpoints.restore(1, like(), CONFIG)


def test_a_moved_run_restores(tmp_path):
    saved(tmp_path / "here", 1)
    shutil.move(tmp_path / "here", tmp_path / "there")
    Checkpoints(str(tmp_path / "there"), keep=5).restore(1, like(), CONFIG)
