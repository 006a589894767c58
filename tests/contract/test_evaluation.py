"""The held-out loss is over stated targets, and takes no more memory than a step."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.contract.harness import make_init, make_mesh, mesh_fields, small_run

pytestmark = pytest.mark.contract("metrics")


@pytest.fixture(scope="module")
def evaluated(variant, run_config):
    """Evaluates the first state of a run of `run_config` with changes, over so many devices."""

    def evaluated(devices: int = 1, **changes) -> dict[str, float]:
        cfg = dataclasses.replace(run_config, **changes)
        opened = variant.data.TokenStore.open(cfg.data)
        with jax.set_mesh(make_mesh(variant, data=devices)):
            return variant.train.Evaluator(opened, cfg)(jax.jit(make_init(variant, cfg))())

    return evaluated


def all_targets(variant, store: str) -> int:
    offsets = variant.data.TokenStore.open(store).array("heldout/offsets").read().result()
    return int(np.asarray(offsets)[-1])  # a document's tokens but the first, and its end


@pytest.mark.parametrize("eval_tokens", [0, 3000])
def test_the_targets_do_not_depend_on_how_they_are_computed(variant, store, evaluated, eval_tokens):
    expected = evaluated(eval_tokens=eval_tokens)
    everything = all_targets(variant, store)
    assert everything > 3000 and expected["eval/targets"] == (eval_tokens or everything)
    for changes in (
        {"batch_size": 1},
        {"batch_size": 100},
        {"batch_size": 64, "microbatches": 16},
        {"batch_size": 16, "devices": 4},
    ):
        found = evaluated(eval_tokens=eval_tokens, **changes)
        assert found["eval/targets"] == expected["eval/targets"], changes
        for name in ("eval/loss", "eval/bpb"):
            assert found[name] == pytest.approx(expected[name], rel=2e-5), (changes, name)


def test_they_are_the_same_documents_at_any_length_of_a_row(variant, store):
    """The bytes behind the targets are the same ones."""
    opened = variant.data.TokenStore.open(store)
    found = []
    for length in (32, 64, 512):
        rows = variant.packing.PackedRows(opened, "heldout", length, targets=3000)
        batch = rows.batch(range(len(rows)))
        found.append(np.sort(batch.targets[batch.loss_weights == 1.0]))
    assert all((other == found[0]).all() for other in found)


def test_ends_of_documents_are_counted(variant, store, evaluated):
    """All of them; of a choice of targets, those of the documents that are in it to the end."""
    opened = variant.data.TokenStore.open(store)
    documents = len(opened.array("heldout/offsets").read().result()) - 1
    assert evaluated(eval_tokens=0)["eval/ends"] == documents
    rows = variant.packing.PackedRows(opened, "heldout", 64, targets=3000)
    batch = rows.batch(range(len(rows)))
    ends = np.sum((batch.targets == opened.document_token) & (batch.loss_weights == 1.0))
    assert evaluated(eval_tokens=3000)["eval/ends"] == ends and 0 < ends < documents


def test_no_more_targets_than_there_are(variant, store, evaluated):
    assert evaluated(eval_tokens=10**9)["eval/targets"] == all_targets(variant, store)


def test_every_program_of_a_run_is_planned(variant, store, tmp_path):
    """And an evaluation of a batch in many parts needs no more than its step."""
    mesh = mesh_fields(variant, {"data": 2})
    cfg = small_run(variant, store, tmp_path, **mesh, batch_size=64, microbatches=16)
    make_sampler = variant.launch.make_sampler
    programs = variant.topology.compile_programs(cfg, jax.devices()[:2], make_sampler)
    peaks = {name: p.memory_analysis().peak_memory_in_bytes for name, p in programs}
    assert list(peaks) == ["step", "evaluation", "sample", "initialization"]
    assert max(peaks, key=peaks.__getitem__) == "step", peaks
