"""`--watch-every` and `--profile` look at a run and change none of its numbers."""

import dataclasses
import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest

from tests.contract.harness import (
    checkpoint_bytes,
    make_init,
    make_mesh,
    make_step,
    mesh_fields,
    rows,
    small_model,
)
from tools.runs.profile import report

pytestmark = pytest.mark.contract("watch")

KINDS = ("activation", "gradient", "update", "weight")
EVERY = 3


@pytest.fixture(scope="module")
def watched(variant, run_config, tmp_path_factory):
    """Directory of the first steps of `whole`, watched, and with a trace of two of them."""
    run_dir = tmp_path_factory.mktemp("watched")
    cfg = dataclasses.replace(run_config, run_dir=str(run_dir), watch_every=EVERY, profile="4:2")
    with jax.set_mesh(make_mesh(variant)):
        variant.train.train(cfg)
    return run_dir


def test_a_watched_run_is_the_run(run_config, whole, watched):
    """Bit for bit: metrics and the last checkpoint."""
    for ours, theirs in zip(rows(watched), rows(whole), strict=True):
        kept = {k: v for k, v in ours.items() if not k.startswith(("watch/", "throughput/"))}
        assert kept == {k: v for k, v in theirs.items() if not k.startswith("throughput/")}
    ours, theirs = (checkpoint_bytes(path, run_config.steps) for path in (watched, whole))
    assert theirs and ours == theirs


def test_each_layer_has_its_norms_at_the_steps_that_are_due(variant, run_config, watched):
    layers = [f"layer_{layer:02d}" for layer in range(run_config.model.n_layers)]
    for row in rows(watched):
        norms = {name: x for name, x in row.items() if name.startswith("watch/")}
        assert bool(norms) == (row["step"] % EVERY == 0)
        for kind in KINDS if norms else ():
            named = {name.split("/")[2] for name in norms if name.startswith(f"watch/{kind}/")}
            if kind == "activation":
                assert named == set(layers[variant.model.PERIOD - 1 :: variant.model.PERIOD])
            else:
                assert named >= {*layers, "embed", "head"}, kind
        assert all(math.isfinite(x) and x > 0 for x in norms.values()), norms
        if norms:
            squares = [x**2 for n, x in norms.items() if n.startswith("watch/gradient/")]
            assert math.sqrt(sum(squares)) == pytest.approx(row["train/grad_norm"], rel=1e-4)


def test_norms_are_those_of_the_step(steps, watched):
    """By the states before and after it."""
    before, after = steps.states[EVERY - 1], steps.states[EVERY]
    row = rows(watched)[EVERY - 1]
    for name in ("embed", "head"):
        prefix = f"model/{name}"
        (path,) = (n for n in before if n == prefix or n.startswith(f"{prefix}/"))
        old, new = before[path].astype(np.float64), after[path].astype(np.float64)
        assert row[f"watch/weight/{name}"] == pytest.approx(np.linalg.norm(old), rel=1e-5)
        assert row[f"watch/update/{name}"] == pytest.approx(np.linalg.norm(new - old), rel=1e-3)
    held = [x for n, x in before.items() if n.startswith("model/blocks")]
    norm = math.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in held))
    shown = [x for n, x in row.items() if n.startswith("watch/weight/layer_")]
    assert math.sqrt(sum(x**2 for x in shown)) == pytest.approx(norm, rel=1e-5)


def test_a_mesh_and_microbatches_give_the_same_norms(variant, run_config):
    cfg = dataclasses.replace(run_config, model=small_model(variant, n_kv_heads=2), ema_decay=0.0)
    split = dataclasses.replace(cfg, microbatches=2)
    found = []
    for one, sizes in ((cfg, {}), (split, {"data": 2, "model": 2})):
        with jax.set_mesh(make_mesh(variant, **sizes)):
            train, axes = variant.train, variant.model.BATCH
            state = jax.jit(make_init(variant, one))()
            store = variant.data.TokenStore.open(one.data)
            size = (one.batch_size, one.sequence_length)
            batch = next(variant.packing.loader(store, "train", *size, axes, seed=one.seed))
            norms_of = variant.watch.make_norms(
                *(one, train.make_train_step, train.make_optimizer(one), train.split_rows)
            )
            norms = norms_of(state, variant.packing.to_devices(batch, axes))
            found.append({name: float(x) for name, x in norms.items()})
    assert found[0].keys() == found[1].keys()
    for name, x in found[0].items():
        assert found[1][name] == pytest.approx(x, rel=1e-3), name


def test_the_step_does_not_know_of_it(variant, run_config):
    """The same program, with and without."""
    mesh = make_mesh(variant)
    texts = []
    for cfg in (run_config, dataclasses.replace(run_config, watch_every=EVERY, profile="4:2")):
        with jax.set_mesh(mesh):
            state = jax.eval_shape(make_init(variant, cfg))
            batch = variant.packing.PackedRows(
                variant.data.TokenStore.open(cfg.data), "train", cfg.sequence_length
            ).batch(range(cfg.batch_size))
            inputs = variant.packing.to_devices(batch, variant.model.BATCH)
            step: Any = make_step(variant, cfg)
            texts.append(step.lower(state, inputs).as_text())
    assert texts[0] == texts[1]


def test_its_program_is_planned(variant, run_config):
    cfg = dataclasses.replace(run_config, watch_every=EVERY, **mesh_fields(variant, {}))
    make_sampler = variant.launch.make_sampler
    programs = variant.topology.compile_programs(cfg, jax.devices()[:1], make_sampler)
    assert [name for name, _ in itertools.islice(programs, 2)] == ["step", "watch"]


def test_the_trace_tells_where_the_time_went(watched):
    text = report(watched, "", 1)
    assert text.startswith(f"{watched}: steps 4 to 5, ")
    named = [line.split()[0] for line in text.splitlines() if line]
    assert {"attention", "loss", "optimizer", "norm", "waiting", "loading"} <= {*named}
    assert {"mlp", "experts"} & {*named}
    assert "evaluation" not in named  # it comes after the steps
