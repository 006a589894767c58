"""The step, the schedule, and whole runs: resume, signals, faults."""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from . import train as loop
from .model import BATCH, PERIOD, ModelConfig
from .plumbing.branch import BranchError
from .plumbing.checkpoint import CheckpointError
from .plumbing.data import TokenStore
from .plumbing.packing import loader, to_devices
from .plumbing.rundir import RunDirError
from .train import (
    Group,
    Preempted,
    TrainConfig,
    TrainError,
    TrainState,
    group_of,
    make_mesh,
    make_optimizer,
    make_schedule,
    make_train_step,
    orthogonal_updates,
    orthogonalize,
    scale_by_muon,
    train,
)

MODEL = ModelConfig(
    vocab_size=64,
    d_model=32,
    n_layers=2 * PERIOD,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=64,
    loss_chunk=8,
    compute_dtype="float32",
)
CFG = TrainConfig(
    model=MODEL,
    steps=6,
    batch_size=8,
    sequence_length=32,
    learning_rate=1e-2,
    warmup_steps=2,
    eval_every=3,
    eval_tokens=512,
    checkpoint_every=2,
    tensorboard=False,
    ema_decay=0.9,
)


@pytest.fixture(autouse=True, scope="module")
def one_device(mesh):
    # optax mixes integer counts and floats, which strict promotion forbids.
    with jax.set_mesh(mesh(1, 1, 1)), jax.numpy_dtype_promotion("standard"):
        yield


def five_steps(
    store: str, after_step=lambda state: None, **changes
) -> tuple[list[float], TrainState]:
    cfg = dataclasses.replace(CFG, **changes)
    optimizer = make_optimizer(cfg)
    state = jax.jit(lambda: TrainState.init(cfg, optimizer))()
    step = make_train_step(cfg, optimizer)
    sizes = (cfg.batch_size, cfg.sequence_length, BATCH)
    batches = loader(TokenStore.open(store), "train", *sizes, seed=0)
    losses = []
    for _ in range(5):
        state, metrics = step(state, to_devices(next(batches), BATCH))
        losses.append(float(metrics["train/loss"]))
        after_step(state)
    return losses, state


@pytest.fixture(scope="module")
def one_microbatch(store, one_device):
    return five_steps(store)


# Losses of the first five steps. Put the numbers of the failure message here when the change was
# meant to alter what the model computes, its initial weights or the order of its data: then say so
# in the commit. A refactoring must not need it.
GOLDEN = [4.86166, 4.209894, 3.079147, 2.423989, 1.976935]


def test_golden_losses(one_microbatch):
    losses, _ = one_microbatch
    message = f"the losses changed; if meant, here: GOLDEN = {np.round(losses, 6).tolist()}"
    np.testing.assert_allclose(losses, GOLDEN, rtol=2e-4, err_msg=message)


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_change_nothing(store, one_microbatch, microbatches):
    losses, state = five_steps(store, microbatches=microbatches)
    np.testing.assert_allclose(losses, one_microbatch[0], rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(state.model), jax.tree.leaves(one_microbatch[1].model), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize("shape, context", [((2, 2, 2), 1), ((1, 2, 2), 2)])
def test_a_sharded_step_is_the_same_step(store, mesh, one_microbatch, shape, context):
    with jax.set_mesh(mesh(*shape, context=context)):
        losses, _ = five_steps(store, microbatches=2)
    np.testing.assert_allclose(losses, one_microbatch[0], rtol=1e-5)


def test_ema_is_the_running_average_of_the_weights(store):
    losses, state = five_steps(store, ema_decay=0.0)
    assert state.ema is None
    heads: list[np.ndarray] = []
    averaged, with_ema = five_steps(
        store, after_step=lambda s: heads.append(np.array(s.model.head))
    )
    np.testing.assert_array_equal(losses, averaged)
    initial = TrainState.init(CFG, make_optimizer(CFG)).model.head
    expected = np.array(initial)
    for step, head in enumerate(heads):
        decay = min(CFG.ema_decay, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * head
    assert with_ema.ema is not None
    np.testing.assert_allclose(with_ema.ema.head, expected, atol=1e-6)
    assert np.abs(expected - heads[-1]).max() > 1e-3


def groups_of(model: eqx.Module) -> dict[str, str]:
    """{name of a weight: its group}"""
    groups = jax.tree.map_with_path(group_of, model)
    leaves = jax.tree.leaves_with_path(groups)
    return {jax.tree_util.keystr(path, simple=True, separator="."): g for path, g in leaves}


def test_every_weight_has_its_group():
    model = jax.eval_shape(lambda: TrainState.init(CFG, make_optimizer(CFG)).model)
    groups = groups_of(model)
    assert groups.pop("embed") == "embedding" and groups.pop("head") == "head"
    for name, group in groups.items():
        assert group == ("vector" if name.endswith(".scale") else "matrix"), name


def test_a_new_weight_is_in_a_group_or_refused():
    class Gated(eqx.Module):
        gain: jax.Array
        bias: jax.Array
        gate: jax.Array
        blocks: eqx.Module | None = None

    width = jnp.ones(8)
    one = Gated(width, jnp.ones(()), width)
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), one)
    vectors = groups_of(dataclasses.replace(one, blocks=stacked))
    assert len(vectors) == 6 and set(vectors.values()) == {"vector"}
    unnamed = dataclasses.replace(
        one, blocks=dataclasses.replace(stacked, gate=jnp.ones((2, 8, 4)))
    )
    with pytest.raises(ValueError, match=r"blocks.gate of shape \(2, 8, 4\) is in no group"):
        groups_of(unnamed)


def test_groups_have_rates_and_decays_of_their_own(monkeypatch):
    """The first AdamW update is the rate, in the direction of the gradient, and the decay."""
    groups = {name: Group(rate=2.0**i, decay=i) for i, name in enumerate(loop.GROUPS)}
    monkeypatch.setattr(loop, "GROUPS", groups)
    cfg = dataclasses.replace(CFG, weight_decay=0.5, warmup_steps=0, grad_clip=1e9)
    optimizer = make_optimizer(cfg)
    model = TrainState.init(cfg, optimizer).model
    ones = jax.tree.map(jnp.ones_like, model)
    updates, _ = optimizer.update(ones, optimizer.init(model), model)
    names = jax.tree.leaves(jax.tree.map_with_path(group_of, model))
    for name, update, weight in zip(names, *map(jax.tree.leaves, (updates, model)), strict=True):
        group = groups[name]
        expected = -cfg.learning_rate * group.rate * (1 + group.decay * 0.5 * np.asarray(weight))
        np.testing.assert_allclose(update, expected, rtol=1e-5, err_msg=name)


def test_norm_scales_do_not_decay():
    optimizer = make_optimizer(dataclasses.replace(CFG, weight_decay=0.5, warmup_steps=0))
    model = TrainState.init(CFG, optimizer).model
    zero = jax.tree.map(jnp.zeros_like, model)
    updates, _ = optimizer.update(zero, optimizer.init(model), model)
    norms = (updates.final_norm, updates.blocks[0].attn_norm)
    assert all(np.abs(norm.scale).max() == 0 for norm in norms)
    assert np.abs(updates.head).max() > 0 and np.abs(updates.blocks[0].mlp.w_up).max() > 0


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 24), (2, 24, 8)])
def test_orthogonal_matrices_keep_their_directions_and_lose_their_sizes(shape):
    x = jax.random.normal(jax.random.PRNGKey(0), shape)
    left, sizes, right = np.linalg.svd(np.asarray(1e-3 * x, np.float64), full_matrices=False)
    turned = (
        np.swapaxes(left, 1, 2) @ np.asarray(orthogonalize(1e-3 * x)) @ np.swapaxes(right, 1, 2)
    )
    new = np.diagonal(turned, axis1=1, axis2=2)
    # Five iterations lift a value of 0.01 of the matrix's norm to 0.7, a smaller one to less.
    large = sizes > 0.02 * np.linalg.norm(sizes, axis=1, keepdims=True)
    assert large.mean() > 0.8 and (new[large] > 0.65).all() and (new < 1.25).all()
    np.testing.assert_allclose(turned - new[:, None] * np.eye(sizes.shape[1]), 0, atol=1e-4)
    assert not np.asarray(orthogonalize(jnp.zeros(shape))).any()


LAYOUTS = {  # of a weight with 3 layers; D is 32
    "w_q": ((3, 32, 4, 8), P(None, "data", "model", None)),
    "w_o": ((3, 4, 8, 32), P(None, "model", None, "data")),
    "w_up": ((3, 32, 64), P(None, "data", "model")),
    "w_down": ((3, 64, 32), P(None, "model", "data")),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_update_is_the_same_on_every_mesh_and_its_work_is_split(mesh, name):
    shape, spec = LAYOUTS[name]
    gradient = np.asarray(jax.random.normal(jax.random.PRNGKey(1), shape))
    rows = 32 if spec[1] == "data" else gradient[0].size // 32
    matrices = gradient.reshape(3, rows, -1)
    expected = 0.2 * max(matrices.shape[1:]) ** 0.5 * orthogonalize(jnp.asarray(matrices))
    flops = {}
    for layout in ((1, 1, 1), (1, 4, 1), (2, 2, 2)):
        with jax.set_mesh(mesh(*layout)):
            sharded = jax.device_put(gradient, spec)
            program = jax.jit(orthogonal_updates, static_argnums=1).lower(sharded, "float32")
            program = program.compile()
            update = program(sharded)
        assert update.sharding.spec == spec
        np.testing.assert_allclose(update, np.reshape(expected, shape), atol=1e-5)
        np.testing.assert_allclose(np.sqrt(np.mean(np.square(update))), 0.2, rtol=0.35)
        costs, text = program.cost_analysis(), program.as_text()
        assert costs and text and "all-gather" not in text
        flops[layout] = costs["flops"]
    assert flops[1, 4, 1] < 0.4 * flops[1, 1, 1]  # one of 3 layers
    assert flops[2, 2, 2] < 0.4 * flops[1, 1, 1]


def test_a_matrix_that_no_block_holds_is_made_orthogonal_as_one():
    class Mixed(eqx.Module):
        w_mix: jax.Array
        blocks: eqx.Module | None = None

    mix = jax.random.normal(jax.random.PRNGKey(2), (8, 8))
    grads = Mixed(mix, Mixed(jnp.stack([mix, 2 * mix.T])))
    muon = scale_by_muon(0.0, "float32")
    updates = muon.update(grads, muon.init(grads))[0]
    np.testing.assert_allclose(updates.blocks.w_mix, [updates.w_mix, updates.w_mix.T], atol=1e-5)


SPIKE = 70  # 64 steps must have been seen


@pytest.mark.parametrize("factor", [30.0, np.inf, np.nan])
def test_a_spike_is_skipped_and_the_run_goes_on(store, factor):
    """Its weights, moments and average stay as they were; steps and schedule go on."""
    cfg = dataclasses.replace(CFG, steps=80, skip_above=4.0)
    optimizer = make_optimizer(cfg)
    state = jax.jit(lambda: TrainState.init(cfg, optimizer))()
    step = make_train_step(cfg, optimizer)
    sizes = (cfg.batch_size, cfg.sequence_length, BATCH)
    batches = loader(TokenStore.open(store), "train", *sizes, seed=0)
    skipped, rates = [], []
    for n in range(SPIKE + 2):
        batch = to_devices(next(batches), BATCH)
        if n == SPIKE:
            if np.isfinite(factor):  # the same as smaller gradients before it
                state = dataclasses.replace(state, norms=state.norms / factor)
            else:
                model = dataclasses.replace(state.model, head=factor * state.model.head)
                state = dataclasses.replace(state, model=model)
            before = jax.tree.map(np.array, (state.model, state.optimizer, state.ema))
        state, metrics = step(state, batch)
        skipped.append(float(metrics["train/skipped"]))
        rates.append(float(metrics["optim/learning_rate"]))
        if n == SPIKE:
            after = (state.model, state.optimizer, state.ema)
            for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
                np.testing.assert_array_equal(new, old + 1 if new.dtype == jnp.int32 else old)
            assert state.norms is not None and np.isfinite(np.asarray(state.norms)).all()
            assert int(state.step) == SPIKE + 1
    assert skipped[SPIKE] == 1.0 and sum(skipped[:SPIKE]) == 0
    np.testing.assert_allclose(rates, [make_schedule(cfg)(n) for n in range(SPIKE + 2)], rtol=1e-5)


def test_nothing_is_skipped_unless_asked(store):
    _, state = five_steps(store)
    assert state.norms is None


def test_schedules_rise_stay_and_end_at_zero():
    cosine = make_schedule(dataclasses.replace(CFG, steps=100, warmup_steps=10))
    wsd = make_schedule(dataclasses.replace(CFG, steps=100, warmup_steps=10, schedule="wsd"))
    for schedule in (cosine, wsd):
        np.testing.assert_allclose(schedule(0), 0.1 * CFG.learning_rate, rtol=1e-6)
        np.testing.assert_allclose(schedule(4), 0.5 * CFG.learning_rate, rtol=1e-6)
        np.testing.assert_allclose([schedule(9), schedule(10)], CFG.learning_rate, rtol=1e-6)
        np.testing.assert_allclose(schedule(100), 0, atol=1e-9)
    np.testing.assert_allclose(cosine(55), 0.5 * CFG.learning_rate, rtol=1e-5)
    np.testing.assert_allclose([wsd(40), wsd(69)], CFG.learning_rate, rtol=1e-6)
    np.testing.assert_allclose(wsd(85), 0.5 * CFG.learning_rate, rtol=1e-5)


@pytest.mark.parametrize("shape", ["cosine", "wsd"])
@given(steps=st.integers(1, 300), warmup=st.integers(0, 400), fraction=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_schedule_rises_to_the_peak_and_ends_by_its_rule(shape, steps, warmup, fraction):
    decay = {"decay_fraction": fraction} if shape == "wsd" else {}
    cfg = dataclasses.replace(CFG, steps=steps, warmup_steps=warmup, schedule=shape, **decay)
    rates = np.array(jax.vmap(make_schedule(cfg))(np.arange(steps + 1))) / cfg.learning_rate
    rise = min(warmup, steps // 2)
    last = min(max(1, round(fraction * steps)), steps - rise) if shape == "wsd" else steps - rise
    fall = steps - last  # the first update of the decay, at the peak
    np.testing.assert_allclose(rates[:rise], np.arange(1, rise + 1) / max(rise, 1), atol=1e-6)
    np.testing.assert_allclose(rates[rise : fall + 1], 1, atol=1e-6)
    assert (np.diff(rates[fall:]) < 1e-7).all() and rates.min() > -1e-7
    ends = {"cosine": (1 + np.cos(np.pi * (last - 1) / last)) / 2, "wsd": 1 / last}
    np.testing.assert_allclose(rates[-2:], [ends[shape], 0], atol=2e-6)


def rows(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def learned(run_dir: Path) -> list[dict]:
    """The rows without the values that depend on the clock."""
    timed = ("tokens_per_second", "step_time", "loading_time")
    return [{k: v for k, v in row.items() if not k.endswith(timed)} for row in rows(run_dir)]


def checkpoint_bytes(run_dir: Path, step: int) -> dict[str, bytes]:
    root = run_dir / "checkpoints" / f"step-{step:08d}"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(store, one_device, tmp_path_factory):
    """The directory of a run that was never interrupted."""
    run_dir = tmp_path_factory.mktemp("whole")
    train(dataclasses.replace(CFG, data=store, run_dir=str(run_dir)))
    return run_dir


def test_one_line_per_step_with_the_promised_keys(whole):
    lines = rows(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    throughput = "tokens_per_second step_time loading_time total_tokens flops_per_token".split()
    always = {"step", "train/loss", "train/grad_norm", "optim/learning_rate"}
    always |= {f"throughput/{name}" for name in throughput}
    held_out = {
        f"eval/{name}"
        for name in ("loss", "bpb", "targets", "ends", "bytes", "ema/loss", "ema/bpb")
    }
    for line in lines:
        assert set(line) == always | (held_out if line["step"] in (3, 6) else set())
        assert all(math.isfinite(value) for value in line.values())
    assert lines[-1]["throughput/total_tokens"] == 6 * 8 * 32
    # every token of the test store is one byte, and the end of a document none
    last = lines[-1]
    assert last["eval/bytes"] == last["eval/targets"] - last["eval/ends"]
    bits = last["eval/loss"] * last["eval/targets"] / math.log(2)
    np.testing.assert_allclose(last["eval/bpb"], bits / last["eval/bytes"], rtol=1e-6)


def test_the_record_holds_config_sources_and_environment(whole):
    record = json.loads((whole / "run.json").read_text())
    assert record["schema_version"] == 5 and record["ancestors"] == []
    assert record["config"]["learning_rate"] == CFG.learning_rate
    assert record["data"]["digest"] == "test"
    attempt = record["attempts"][0]
    assert attempt["versions"]["jax"] == jax.__version__
    copy = whole / "sources" / attempt["sources_digest"][:16]
    copied = {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()}
    assert copied == set(record["sources"][attempt["sources_digest"]])
    assert not copied & {"BUILD", "conftest.py", Path(__file__).name}
    variant = Path(__file__).parent
    for name in ("model.py", "train.py", "launch.py", "plumbing/data.py", "planning/plan.py"):
        assert (copy / name).read_bytes() == (variant / name).read_bytes()


class SignalDuring:
    """A loader that sends this process SIGTERM while it reads its nth batch."""

    def __init__(self, batches, n: int):
        self.batches, self.remaining = batches, n

    def __next__(self):
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return next(self.batches)

    def __getattr__(self, name: str):
        return getattr(self.batches, name)


@pytest.mark.parametrize("step", [1, 4])  # 1: before the first update, which is not made
def test_a_preempted_and_resumed_run_is_the_run(store, whole, tmp_path, monkeypatch, step):
    cfg = dataclasses.replace(CFG, data=store, run_dir=str(tmp_path), resume=True)

    def signalling_loader(store, split, *sizes, seed):
        batches = loader(store, split, *sizes, seed=seed)
        return SignalDuring(batches, step) if split == "train" else batches

    with monkeypatch.context() as patch:
        patch.setattr(loop, "loader", signalling_loader)
        before = signal.getsignal(signal.SIGTERM)
        said = f"preempted at step {step}" if step > 1 else "before its first update"
        with pytest.raises(Preempted, match=said) as stopped:
            train(cfg)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    train(cfg)
    assert learned(tmp_path) == learned(whole)
    assert checkpoint_bytes(tmp_path, 6) == checkpoint_bytes(whole, 6)
    attempts = json.loads((tmp_path / "run.json").read_text())["attempts"]
    assert [attempt["from_step"] for attempt in attempts] == ([0, step] if step > 1 else [0])


def test_steps_after_the_checkpoint_are_made_again(store, whole, tmp_path):
    """As after kill -9: there are rows beyond the newest checkpoint, the last one cut short."""
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000006")
    metrics = tmp_path / "run/metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    train(dataclasses.replace(CFG, data=store, run_dir=str(tmp_path / "run"), resume=True))
    assert learned(tmp_path / "run") == learned(whole)
    assert checkpoint_bytes(tmp_path / "run", 6) == checkpoint_bytes(whole, 6)


def test_a_run_killed_before_its_first_save_was_complete_starts_again(store, whole, tmp_path):
    """Two saves' worth of rows: steps go on while a save is written."""
    shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("step-*"))
    metrics = tmp_path / "run/metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:4]))
    (tmp_path / "run/checkpoints/step-00000002").mkdir(parents=True)
    train(dataclasses.replace(CFG, data=store, run_dir=str(tmp_path / "run"), resume=True))
    assert learned(tmp_path / "run") == learned(whole)
    assert checkpoint_bytes(tmp_path / "run", 6) == checkpoint_bytes(whole, 6)


def test_a_run_is_never_overwritten_nor_silently_begun_again(store, whole, tmp_path):
    cfg = dataclasses.replace(CFG, data=store, run_dir=str(whole))
    before = checkpoint_bytes(whole, 6)
    with pytest.raises(RunDirError, match="is not empty: add --resume"):
        train(cfg)
    changed = dataclasses.replace(cfg, resume=True, learning_rate=0.5)
    with pytest.raises(CheckpointError, match="config.learning_rate: 0.01 -> 0.5"):
        train(changed)
    assert checkpoint_bytes(whole, 6) == before
    shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("step-*"))
    gone = dataclasses.replace(cfg, resume=True, run_dir=str(tmp_path / "run"))
    with pytest.raises(TrainError, match="metrics of 6 steps but no checkpoint"):
        train(gone)
    assert len(rows(tmp_path / "run")) == 6


def branched(whole: Path, tmp_path: Path, store: str, **changes) -> TrainConfig:
    """A branch of `whole` at step 4 in a directory of its own."""
    source = {"branch_from": f"{whole}@4", "data": store, "run_dir": str(tmp_path / "branch")}
    return dataclasses.replace(CFG, **{**source, **changes})


def test_a_branch_with_the_same_horizon_is_the_run(store, whole, tmp_path, capsys):
    train(branched(whole, tmp_path, store))
    assert learned(tmp_path / "branch") == learned(whole)[4:]
    assert checkpoint_bytes(tmp_path / "branch", 6) == checkpoint_bytes(whole, 6)
    text, errors = capsys.readouterr()
    assert f"branch of {whole}, step 4; the same horizon\n" in text
    assert "learning rate" not in text and "lacks" not in errors
    record = json.loads((tmp_path / "branch/run.json").read_text())
    (parent,) = record["ancestors"]
    files = sorted(checkpoint_bytes(whole, 4).items())
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files)
    assert parent.pop("digest") == hashlib.sha256(sums.encode()).hexdigest()
    assert parent.pop("attempts") == json.loads((whole / "run.json").read_text())["attempts"]
    assert parent == {
        "variant": Path(__file__).parent.name,
        "run": whole.name,
        "step": 4,
        "horizon": {name: getattr(CFG, name) for name in TrainConfig.horizon()},
    }


def test_a_branch_has_its_own_horizon(store, whole, tmp_path, capsys):
    """It decays where its own config says: over its last half, which begins where it does."""
    horizon = {"steps": 8, "schedule": "wsd", "decay_fraction": 0.5}
    train(branched(whole, tmp_path, store, **horizon))
    lines = rows(tmp_path / "branch")
    assert [line["step"] for line in lines] == [5, 6, 7, 8]
    rates = [line["optim/learning_rate"] for line in lines]
    np.testing.assert_allclose(rates, CFG.learning_rate * np.array([1, 0.75, 0.5, 0.25]), rtol=1e-5)
    assert lines[0]["train/loss"] == rows(whole)[4]["train/loss"]  # before the first own update
    assert lines[0]["throughput/total_tokens"] == 5 * 8 * 32
    text = capsys.readouterr().out
    assert "decay_fraction: 0.3 -> 0.5, schedule: cosine -> wsd, steps: 6 -> 8\n" in text
    assert "the next update has learning rate 0.01; in the parent, 0.005\n" in text


def test_what_a_branch_may_change_is_frozen():
    """All else is the same in each step of one model."""
    assert TrainConfig.horizon() == (
        "steps learning_rate schedule warmup_steps decay_fraction".split()
    )


def test_a_branch_that_is_preempted_before_its_first_save_goes_on(
    store, whole, tmp_path, monkeypatch
):
    cfg = branched(whole, tmp_path, store, resume=True)

    def signalling_loader(store, split, *sizes, seed):
        batches = loader(store, split, *sizes, seed=seed)
        return SignalDuring(batches, 1) if split == "train" else batches

    with monkeypatch.context() as patch:
        patch.setattr(loop, "loader", signalling_loader)
        with pytest.raises(Preempted, match="before its first update"):
            train(cfg)
    first = json.loads((tmp_path / "branch/run.json").read_text())
    with pytest.raises(BranchError, match=f"is a branch of {whole.name}@4, not of .*@2: remove"):
        train(dataclasses.replace(cfg, branch_from=f"{whole}@2"))
    train(dataclasses.replace(cfg, branch_from=""))
    assert learned(tmp_path / "branch") == learned(whole)[4:]
    assert checkpoint_bytes(tmp_path / "branch", 6) == checkpoint_bytes(whole, 6)
    again = json.loads((tmp_path / "branch/run.json").read_text())
    assert first["ancestors"] == again["ancestors"] and len(again["attempts"]) == 1
    assert again["config"]["branch_from"] == cfg.branch_from  # for a start after this one


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 4}, r"config.batch_size: 8 -> 4. A branch may change steps, learning_rate"),
        ({"seed": 1}, r"config.seed: 0 -> 1. A branch may change .*; give the run's own values"),
        ({"grad_clip": 2.0}, "config.grad_clip: 1.0 -> 2.0. A branch may change"),
    ],
)
def test_what_a_branch_may_not_change_is_named(store, whole, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        train(branched(whole, tmp_path, store, **change))
    assert not (tmp_path / "branch/run.json").exists()


def test_nan_stops_the_run_and_names_the_last_good_checkpoint(store, tmp_path):
    cfg = dataclasses.replace(CFG, data=store, run_dir=str(tmp_path), learning_rate=1e38)
    message = r"step \d is not finite: .* last good checkpoint: (step 2 in .*checkpoints|none)"
    with pytest.raises(TrainError, match=message):
        train(cfg)


def test_a_store_with_more_token_ids_than_the_model(store, tmp_path):
    model = dataclasses.replace(MODEL, vocab_size=32)
    cfg = dataclasses.replace(CFG, model=model, data=store, run_dir=str(tmp_path))
    with pytest.raises(TrainError, match="add --model.vocab-size 64"):
        train(cfg)


@pytest.mark.parametrize(
    "shape, context, message",
    [
        ((1, 2, 1), 1, r"mesh=\(1, 2, 1\) and context=1 take 2 of the 8 devices"),
        ((1, 2, 1), 2, r"mesh=\(1, 2, 1\) and context=2 take 4 of the 8 devices"),
        ((1, -1, -1), 1, "one of them may be -1"),
        ((16, 1, 1), 1, "batch_size / microbatches=8 cannot be split over 16 devices"),
        ((1, 2, 4), 1, "model.n_kv_heads=2 cannot be split over 4 devices"),
        ((1, -1, 1), 3, "sequence_length=32 cannot be split over 3 devices.*mesh or context"),
    ],
)
def test_a_mesh_that_does_not_fit_is_named(shape, context, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(dataclasses.replace(CFG, mesh=shape, context=context))


def test_mesh_takes_the_devices_that_are_left():
    mesh = make_mesh(dataclasses.replace(CFG, mesh=(2, -1, 2)))
    assert dict(mesh.shape) == {"replica": 2, "data": 2, "context": 1, "model": 2}
    mesh = make_mesh(dataclasses.replace(CFG, mesh=(1, -1, 2), context=2))
    assert dict(mesh.shape) == {"replica": 1, "data": 2, "context": 2, "model": 2}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"microbatches": 3}, "batch_size=8 is not a multiple of microbatches=3"),
        ({"skip_above": -1.0}, "skip_above=-1.0: must be at least 0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0: must be at least 0 and below 1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints=0: must be at least 1"),
        ({"decay_fraction": 0.1}, "decay_fraction=0.1 changes nothing: add --schedule wsd"),
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"branch_from": "r@6"}, "steps=6: a branch from step 6 needs more --steps"),
    ],
)
def test_config_names_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CFG, **change)
