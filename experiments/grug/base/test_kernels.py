"""The kernels of accelerators, interpreted, against attention in chunks of queries."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from . import kernels
from .launch import main
from .model import BATCH, PERIOD, Attention, ModelConfig, Transformer

CFG = ModelConfig(
    vocab_size=64,
    d_model=32,
    n_layers=PERIOD,
    n_heads=8,
    n_kv_heads=4,
    head_dim=8,
    d_ff=64,
    query_chunk=48,
    compute_dtype="float32",
)
ROWS = 4


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRET", True)


def attention(length: int, kernel: str) -> list[np.ndarray]:
    """What four rows of several documents attend to, and the gradients of queries, keys, values."""
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    heads = [CFG.n_heads, CFG.n_kv_heads, CFG.n_kv_heads, CFG.n_heads]
    q, k, v, direction = (
        jax.device_put(
            jax.random.normal(key, (ROWS, length, n, CFG.head_dim)), P(BATCH, None, "model", None)
        )
        for key, n in zip(keys, heads, strict=True)
    )
    ends = np.random.default_rng(0).random((ROWS, length)) < 0.05
    segments = jax.device_put(np.cumsum(ends, axis=1, dtype=np.int32), P(BATCH, None))
    cfg = dataclasses.replace(CFG, attention=kernel)
    layer = jax.jit(lambda: Attention.init(cfg, key=jax.random.PRNGKey(1)))()

    @jax.jit
    def both(q, k, v, segments, direction):
        y, pull_back = jax.vjp(lambda q, k, v: layer.attend(q, k, v, segments), q, k, v)
        return y, *pull_back(direction)

    return [np.asarray(x) for x in both(q, k, v, segments, direction)]


@functools.cache
def in_chunks(mesh, length: int) -> list[np.ndarray]:
    with jax.set_mesh(mesh(1, 1, 1)):
        return attention(length, "chunks")


# 200 positions are filled up to 256, and 640 take five blocks.
@pytest.mark.parametrize("length, shape", [(128, (1, 1, 1)), (200, (1, 2, 2)), (640, (1, 1, 1))])
def test_splash_is_attention_in_chunks(mesh, length, shape):
    with jax.set_mesh(mesh(*shape)):
        ours = attention(length, "splash")
    for a, b in zip(ours, in_chunks(mesh, length), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize(
    "sees",
    [
        lambda query, key: query > key - 2,
        lambda query, key: (query >= key) | ((query == 7) & (key == 9)),
    ],
    ids=["one key of the future", "one key of the future, to one query"],
)
def test_another_mask_is_seen(mesh, monkeypatch, sees):
    """The comparison above can fail, and what `sees` says is what the kernel does."""
    expected = in_chunks(mesh, 128)
    monkeypatch.setattr(Attention, "sees", staticmethod(sees))
    with jax.set_mesh(mesh(1, 1, 1)):
        ours, theirs = attention(128, "splash"), attention(128, "chunks")
    assert np.abs(ours[0] - expected[0]).max() > 1e-2
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


def test_packed_documents_give_what_they_give_alone(mesh):
    """Of the whole model, whose positions restart with every document."""
    first, length = 12, 32
    cfg = dataclasses.replace(CFG, attention="splash")
    with jax.set_mesh(mesh(1, 1, 1)):
        model = jax.jit(lambda: Transformer.init(cfg, key=jax.random.PRNGKey(0)))()
        run = jax.jit(lambda model, *batch: model(*batch))

        def hidden(*batch) -> np.ndarray:
            rows = (jax.device_put(np.asarray(x, np.int32), P(BATCH, None)) for x in batch)
            return np.asarray(run(model, *rows))

        tokens = np.random.default_rng(1).integers(CFG.vocab_size, size=(1, length))
        positions = np.array([[*range(first), *range(length - first)]])
        packed = hidden(tokens, np.arange(length)[None] >= first, positions)
        for part in (slice(0, first), slice(first, length)):
            alone = hidden(tokens[:, part], positions[:, part] * 0, positions[:, part])
            np.testing.assert_allclose(packed[:, part], alone, atol=2e-5)


def test_bfloat16_stays_bfloat16(mesh):
    with jax.set_mesh(mesh(1, 1, 1)):
        cfg = dataclasses.replace(CFG, attention="splash")
        layer = jax.eval_shape(lambda: Attention.init(cfg, key=jax.random.PRNGKey(1)))
        spec = P(BATCH, None, "model", None)
        shapes = [(ROWS, 64, n, CFG.head_dim) for n in (8, 4, 4)]
        arrays = [jax.device_put(jnp.ones(s, jnp.bfloat16), spec) for s in shapes]
        segments = jax.device_put(jnp.zeros((ROWS, 64), jnp.int32), P(BATCH, None))
        assert jax.eval_shape(layer.attend, *arrays, segments).dtype == jnp.bfloat16


def test_a_machine_without_the_kernel_is_named(capsys):
    assert main(["--plan", "--model.attention", "splash"]) == 1
    assert "model.attention=splash runs on TPUs, not on cpu: use chunks" in capsys.readouterr().err
