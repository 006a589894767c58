"""Steps and short runs: finite, repeatable, learning, resumable, on record."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.contract.harness import (
    SignalDuring,
    assert_same_bits,
    checkpoint_bytes,
    leaves,
    make_init,
    make_mesh,
    rows,
    take_steps,
    values,
)

# A variant may add metrics; it keeps these.
METRICS = {
    "step",
    "train/loss",
    "train/grad_norm",
    "optim/learning_rate",
    *(f"throughput/{name}" for name in ("tokens_per_second", "step_time", "loading_time")),
    *(f"throughput/{name}" for name in ("total_tokens", "flops_per_token")),
}
HELD_OUT = {f"eval/{name}" for name in ("loss", "bpb", "targets", "ends", "bytes")}
EMA = {"eval/ema/loss", "eval/ema/bpb"}


@pytest.mark.contract("finite-step")
def test_a_step_is_finite(steps):
    for tree in (*steps.states, *steps.metrics):
        bad = [name for name, x in tree.items() if not np.isfinite(x).all()]
        assert not bad, f"not finite: {bad}"
    first, last = steps.states[0], steps.states[-1]
    assert (first["step"], last["step"]) == (0, 3)
    moved = [n for n in first if n.startswith("model/") and (first[n] != last[n]).any()]
    assert moved, "three steps leave every weight as it was"


@pytest.mark.contract("weights-learn")
def test_every_weight_learns(steps):
    """Weight decay shrinks an array that no gradient reaches, but keeps its proportions."""
    first, last = steps.states[0], steps.states[-1]

    def learned(before: np.ndarray, after: np.ndarray) -> bool:
        before, after = before.ravel(), after.ravel()
        largest = np.argmax(np.abs(before))
        share = after[largest] / before[largest] if before[largest] else 0.0
        if before.size == 1:
            return bool((after != before).all())
        return not np.allclose(after, share * before, rtol=1e-5, atol=1e-7)

    idle = [n for n in first if n.startswith("model/") and not learned(first[n], last[n])]
    assert not idle, (
        f"three steps teach these nothing: {', '.join(idle)}; the loss does not depend on them, or "
        "their group's rate is 0. Use them or remove them, in model.py, or give them a rate in "
        "GROUPS of train.py"
    )


@pytest.mark.contract("finite-step")
def test_the_same_seed_gives_the_same_steps(variant, run_config, steps, one_device):
    again = take_steps(variant, run_config, 2)
    for ours, theirs in (
        *zip(steps.states[:3], again.states, strict=True),
        *zip(steps.metrics[:2], again.metrics, strict=True),
    ):
        assert_same_bits(ours, theirs)


@pytest.mark.contract("loss-falls")
def test_loss_falls_below_what_token_frequencies_give(variant, store, run_config, whole):
    """Frequencies alone can be learned by a model that ignores its context."""
    opened = variant.data.TokenStore.open(store)
    counts = {}
    for split in ("train", "heldout"):
        tokens = opened.array(f"{split}/tokens").read().result()
        counts[split] = np.bincount(tokens, minlength=run_config.model.vocab_size)
    frequencies = (counts["train"] + 1) / (counts["train"] + 1).sum()
    share = counts["heldout"] / counts["heldout"].sum()
    known = -np.sum(share * np.log(frequencies))
    losses = [row["train/loss"] for row in rows(whole)]
    held_out = [row["eval/loss"] for row in rows(whole) if "eval/loss" in row]
    assert np.mean(losses[-5:]) < np.mean(losses[:2]) - 1.0
    assert held_out[-1] < known - 0.25, f"token frequencies alone give {known:.2f} nats"
    assert held_out[-1] < held_out[0]


@pytest.mark.contract("metrics")
def test_every_promised_metric_is_there_and_finite(variant, run_config, whole):
    lines = rows(whole)
    assert [line["step"] for line in lines] == [*range(1, run_config.steps + 1)]
    for line in lines:
        evaluated = line["step"] % run_config.eval_every == 0
        promised = METRICS | HELD_OUT | EMA if evaluated else METRICS
        absent = promised - line.keys()
        assert not absent, f"step {line['step']} lacks {sorted(absent)}"
        assert all(math.isfinite(value) for value in line.values()), line
        assert evaluated or not any(name.startswith("eval/") for name in line)
    tokens = run_config.batch_size * run_config.sequence_length
    assert [line["throughput/total_tokens"] for line in lines[:2]] == [tokens, 2 * tokens]
    flops = run_config.model.flops_per_token(run_config.sequence_length)
    assert {line["throughput/flops_per_token"] for line in lines} == {flops}
    rates = [line["optim/learning_rate"] for line in lines]
    assert max(rates) <= run_config.learning_rate * 1.001
    assert min(rates) > 0, "an update without a learning rate teaches nothing"
    sizes = variant.data.TokenStore.open(run_config.data).manifest["splits"]["heldout"]
    tokens_per_byte = lines[-1]["eval/bpb"] / lines[-1]["eval/loss"] * math.log(2)
    assert tokens_per_byte == pytest.approx(sizes["tokens"] / sizes["bytes"], rel=0.2)


@pytest.mark.contract("metrics")
def test_metrics_are_on_the_disk_before_a_checkpoint_is_committed(
    variant, run_config, tmp_path, monkeypatch, one_device
):
    """A machine may stop at any moment: what a checkpoint rests on must not be lost without it."""
    metrics, synced, committed = tmp_path / "metrics.jsonl", [], {}
    fsync, write = os.fsync, variant.storage.Folder.write

    def noting_fsync(file: int) -> None:
        if os.path.samestat(os.fstat(file), metrics.stat()):
            synced.append(len(rows(tmp_path)))
        fsync(file)

    def noting_write(folder, name: str, content: bytes) -> None:
        if name.endswith("COMMIT"):
            committed[json.loads(content)["step"]] = synced[-1:]
        write(folder, name, content)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(variant.storage.Folder, "write", noting_write)
    sizes = {"run_dir": str(tmp_path), "steps": 5, "checkpoint_every": 2, "eval_every": 0}
    variant.train.train(dataclasses.replace(run_config, **sizes))
    assert committed.keys() == {2, 4, 5}
    assert all(count >= [step] for step, count in committed.items()), committed


@pytest.mark.contract("checkpoint")
@pytest.mark.parametrize("part", ["model", "optimizer", "ema"])
def test_a_number_that_is_not_finite_late_is_neither_saved_nor_called_good(
    variant, run_config, tmp_path, monkeypatch, one_device, part
):
    """Made by the last update: no loss has shown it yet."""
    make = variant.train.make_train_step

    def make_poisoned(cfg, optimizer):
        train_step = make(cfg, optimizer)

        def step(state, batch):
            state, metrics = train_step(state, batch)
            if int(state.step) == cfg.steps:
                spoiled, structure = jax.tree.flatten(getattr(state, part))
                last = max(i for i, x in enumerate(spoiled) if x.dtype.kind == "f")
                spoiled[last] = spoiled[last] * np.nan
                changed = {part: jax.tree.unflatten(structure, spoiled)}
                state = dataclasses.replace(state, **changed)
            return state, metrics

        return step

    monkeypatch.setattr(variant.train, "make_train_step", make_poisoned)
    sizes = {"run_dir": str(tmp_path), "steps": 4, "checkpoint_every": 2, "eval_every": 0}
    with pytest.raises(
        variant.train.TrainError, match="4 is not finite: .*good checkpoint: step 2"
    ):
        variant.train.train(dataclasses.replace(run_config, **sizes))
    assert variant.checkpoint.Checkpoints(str(tmp_path), keep=2).steps() == [2]
    lines = rows(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(math.isfinite(value) for line in lines for value in line.values())


def computed(line: dict[str, float]) -> dict[str, float]:
    """A line of metrics less what a clock put there."""
    return {k: v for k, v in line.items() if not k.startswith("throughput/")}


@pytest.mark.contract("ema")
def test_no_ema_is_no_ema_and_the_same_losses(variant, run_config, whole, without_ema, one_device):
    off = dataclasses.replace(run_config, ema_decay=0.0)
    assert jax.eval_shape(make_init(variant, off)).ema is None
    for ours, theirs in zip(rows(without_ema), rows(whole), strict=True):
        assert not any("ema" in name for name in ours)
        assert computed(ours) == {k: v for k, v in computed(theirs).items() if "ema" not in k}


@pytest.mark.contract("ema")
def test_the_ema_is_the_running_average_of_the_weights(run_config, steps):
    def part(state, name: str) -> dict[str, np.ndarray]:
        prefix = f"{name}/"
        return {k.removeprefix(prefix): x for k, x in state.items() if k.startswith(prefix)}

    """With a decay that warms up, so that an average of few steps is not the random start."""
    expected = part(steps.states[0], "model")
    assert_same_bits(part(steps.states[0], "ema"), expected)
    for step, state in enumerate(steps.states[1:]):
        now = part(state, "model")
        decay = min(run_config.ema_decay, (1 + step) / (10 + step))  # short while there is little
        expected = {k: decay * x + (1 - decay) * now[k] for k, x in expected.items()}
        average = part(state, "ema")
        assert average.keys() == expected.keys()
        for name, x in expected.items():
            np.testing.assert_allclose(average[name], x, atol=1e-6, err_msg=name)
    moved = [np.abs(x - now[name]).max() for name, x in expected.items()]
    assert max(moved) > 1e-3, "the average differs from the weights"


@pytest.mark.contract("ema")
def test_held_out_losses_of_the_ema_are_its_own(whole):
    line = rows(whole)[-1]
    assert line["eval/ema/loss"] != line["eval/loss"]
    assert line["eval/ema/loss"] == pytest.approx(line["eval/loss"], rel=0.5)


@pytest.mark.contract("checkpoint")
@pytest.mark.parametrize("sizes", [{}, {"data": 8}], ids=["one device", "another mesh"])
def test_a_checkpoint_gives_the_state_back_bit_for_bit(variant, run_config, steps, sizes, tmp_path):
    config, position = {"any": 1}, {"at": [1, 2]}
    with jax.set_mesh(make_mesh(variant)):
        checkpoints = variant.checkpoint.Checkpoints(str(tmp_path), keep=1)
        checkpoints.save(3, steps.last, {"config": config, "data_position": position})
        checkpoints.wait()
    with jax.set_mesh(make_mesh(variant, **sizes)):
        like = jax.eval_shape(make_init(variant, run_config))
        again = variant.checkpoint.Checkpoints(str(tmp_path), keep=1)
        assert again.steps() == [3]
        state, meta = again.restore(3, like, config)
    assert meta["data_position"] == position
    assert_same_bits(values(state), steps.states[-1])
    for name, x in leaves(like).items():
        if x.sharding:
            assert leaves(state)[name].sharding.spec == x.sharding.spec, name


@pytest.mark.contract("resume")
def test_an_interrupted_and_resumed_run_is_the_run(
    variant, run_config, whole, tmp_path, monkeypatch, one_device
):
    stop = run_config.checkpoint_every + 1
    cfg = dataclasses.replace(run_config, run_dir=str(tmp_path), resume=True)
    loader = variant.train.loader

    def signalling_loader(store, split, *sizes, **seed):
        batches = loader(store, split, *sizes, **seed)
        return SignalDuring(batches, stop) if split == "train" else batches

    with monkeypatch.context() as patch:
        patch.setattr(variant.train, "loader", signalling_loader)
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(variant.train.Preempted) as stopped:
            variant.train.train(cfg)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert [row["step"] for row in rows(tmp_path)] == [*range(1, stop + 1)]
    variant.train.train(cfg)
    ours, theirs = ([computed(line) for line in rows(path)] for path in (tmp_path, whole))
    assert ours == theirs
    ours, theirs = (checkpoint_bytes(path, run_config.steps) for path in (tmp_path, whole))
    assert theirs and ours.keys() == theirs.keys()
    differing = [name for name in ours if ours[name] != theirs[name]]
    assert not differing, f"files of the last checkpoint that differ: {differing}"
    attempts = json.loads((tmp_path / "run.json").read_text())["attempts"]
    assert [attempt["from_step"] for attempt in attempts] == [0, stop]


@pytest.mark.contract("branch")
def test_a_branch_with_the_same_horizon_is_the_run_that_went_on(
    variant, run_config, whole, tmp_path, one_device
):
    step = run_config.steps - run_config.checkpoint_every
    source = {"run_dir": str(tmp_path / "branch"), "branch_from": f"{whole}@{step}"}
    variant.train.train(dataclasses.replace(run_config, **source))
    ours, theirs = ([computed(line) for line in rows(d)] for d in (tmp_path / "branch", whole))
    assert ours == theirs[step:]
    ours, theirs = (checkpoint_bytes(d, run_config.steps) for d in (tmp_path / "branch", whole))
    assert theirs and ours == theirs
    record = json.loads((tmp_path / "branch/run.json").read_text())
    (attempt,), (parent,) = record["attempts"], record["ancestors"]
    assert attempt["from_step"] == step == parent["step"]
    assert (parent["variant"], parent["run"]) == (variant.directory.name, whole.name)
    assert parent["digest"] == variant.checkpoint.Checkpoints(whole, keep=1).digest(step)
    assert parent["horizon"] == {n: getattr(run_config, n) for n in run_config.horizon()}


@pytest.mark.contract("branch")
def test_a_branch_may_change_its_horizon_and_nothing_else(
    variant, run_config, whole, tmp_path, one_device
):
    """Each setting without a role, one at a time, and the seed."""
    horizon = {"steps", "schedule", "learning_rate", "warmup_steps", "decay_fraction"}
    assert horizon <= set(run_config.horizon())
    store = variant.data.TokenStore.open(run_config.data)
    identity, step = run_config.identity(store), run_config.steps
    branch = variant.branch.open_branch("", f"{whole}@{step}", resuming=False)
    like = jax.eval_shape(make_init(variant, run_config))
    changed = dict.fromkeys(identity.keys() - set(run_config.horizon()), "other")
    for name in changed:
        ours = {**identity, name: "other", "steps": step + 1}
        with pytest.raises(
            variant.checkpoint.CheckpointError, match=rf"config.{name}: .* -> other. A branch may"
        ):
            branch.begin(like, ours, run_config.horizon())
    assert {"seed", "batch_size", "model.d_model", "data_digest"} <= changed.keys()
    state, meta = branch.begin(like, {**identity, "steps": step + 1}, run_config.horizon())
    assert int(state.step) == step == meta["step"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.contract("record")
def test_the_record_holds_every_source_byte_for_byte(variant, whole):
    record = json.loads((whole / "run.json").read_text())
    (attempt,) = record["attempts"]
    copy = whole / "sources" / attempt["sources_digest"][:16]
    assert record["variant"] == variant.directory.name
    copied = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    newest = record["schema_version"] >= 3  # older ones record Python files alone
    digests = record["sources"][attempt["sources_digest"]] if newest else record["sources"]
    assert copied <= digests.keys()  # what is too large is recorded without a copy
    for path in variant.files() if newest else variant.sources():
        name = path.relative_to(variant.directory).as_posix()
        assert digests.get(name) == sha256(path.read_bytes()), name
        assert name not in copied or (copy / name).read_bytes() == path.read_bytes(), name
    assert {path.name for path in variant.sources()} <= {name.split("/")[-1] for name in copied}


def cpuinfo() -> list[str]:
    """What Linux calls the processors; none where it gives them no name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]


@pytest.mark.contract("record")
def test_the_record_holds_config_data_lock_and_versions(variant, run_config, whole):
    record = json.loads((whole / "run.json").read_text())
    assert record["schema_version"] == variant.record.RUN_SCHEMA
    assert record["config"] == json.loads(json.dumps(dataclasses.asdict(run_config)))
    assert record["roles"] == run_config.roles()
    assert record["data"] == variant.data.TokenStore.open(run_config.data).manifest
    lock = variant.directory.parents[2] / "tools/locks/cpu.lock"
    assert record["lock"] == sha256(lock.read_bytes())
    (attempt,) = record["attempts"]
    assert attempt["from_step"] == 0
    assert {"git", "command"} <= attempt.keys()
    if record["schema_version"] >= 3:
        settings = attempt["numerics"]["jax"]
        assert settings["enable_x64"] == jax.config.jax_enable_x64
        assert settings["threefry_partitionable"] == jax.config.jax_threefry_partitionable
    assert attempt["devices"]["platform"] == jax.default_backend()
    assert attempt["devices"]["count"] == jax.device_count()
    if record["schema_version"] >= 4:
        assert attempt["host"]["cores"] == len(os.sched_getaffinity(0))
        assert attempt["host"]["processor"] in cpuinfo() or not cpuinfo()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "numpy", "equinox")}
    versions["python"] = platform.python_version()
    assert {name: attempt["versions"].get(name) for name in versions} == versions
