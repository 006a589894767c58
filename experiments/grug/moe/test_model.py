"""What the model computes: causality, document isolation, sharding, loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from .model import BATCH, FSDP, PERIOD, ModelConfig, Transformer, chunked_loss, logits_of

CFG = ModelConfig(
    vocab_size=64,
    d_model=32,
    n_layers=2 * PERIOD,
    n_heads=8,
    n_kv_heads=4,
    head_dim=8,
    d_ff=64,
    n_experts=8,
    top_k=2,
    d_expert=32,
    query_chunk=12,
    loss_chunk=8,
    compute_dtype="float32",
)
ROWS, LENGTH = 8, 32


@pytest.fixture(autouse=True)
def one_device(mesh):
    with jax.set_mesh(mesh(1, 1, 1, 1)):
        yield


@functools.cache
def initial_values(cfg: ModelConfig) -> list[np.ndarray]:
    model = jax.jit(lambda: Transformer.init(cfg, key=jax.random.PRNGKey(0)))()
    return [np.asarray(x) for x in jax.tree.leaves(model)]


def init(cfg: ModelConfig = CFG) -> Transformer:
    """The same weights on whatever mesh is set."""
    shapes = jax.eval_shape(lambda: Transformer.init(cfg, key=jax.random.PRNGKey(0)))
    values = initial_values(dataclasses.replace(cfg, remat_layers=0, scan_unroll=1))
    leaves = jax.tree.leaves(shapes)
    placed = [jax.device_put(v, x.sharding.spec) for v, x in zip(values, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(shapes), placed)


def rows(*values):
    return tuple(jax.device_put(jnp.asarray(v), P(BATCH, None)) for v in values)


def embedding_gradient(segment_ids, positions, position: int) -> np.ndarray:
    """|d hidden[position] / d embedding of the token at each position|; all tokens differ."""
    tokens, segment_ids, positions = rows(
        jnp.arange(LENGTH)[None], jnp.asarray(segment_ids)[None], jnp.asarray(positions)[None]
    )
    pick = (
        jnp.zeros((1, LENGTH, CFG.d_model))
        .at[0, position]
        .set(jax.random.normal(jax.random.PRNGKey(1), (CFG.d_model,)))
    )

    def read(model):
        return jnp.sum(model(tokens, segment_ids, positions) * pick)

    gradient = jax.jit(jax.grad(read))(init())
    return np.abs(np.asarray(gradient.embed)).sum(axis=1)[:LENGTH]


@pytest.mark.parametrize("position", [0, 7, LENGTH - 1])
def test_no_gradient_reaches_the_future(position):
    influence = embedding_gradient([1] * LENGTH, range(LENGTH), position)
    assert (influence[: position + 1] > 0).all()
    assert (influence[position + 1 :] == 0).all()


def test_no_gradient_crosses_documents():
    half = LENGTH // 2
    influence = embedding_gradient([1] * half + [2] * half, [*range(half)] * 2, LENGTH - 1)
    assert (influence[:half] == 0).all()
    assert (influence[half:] > 0).all()


def test_packed_documents_give_what_they_give_alone():
    first, second = 12, LENGTH - 12
    model, draw = init(), jax.random.randint(jax.random.PRNGKey(2), (1, LENGTH), 0, CFG.vocab_size)
    run = jax.jit(lambda *batch: model(*batch))
    segments = jnp.array([[1] * first + [2] * second])
    positions = jnp.array([[*range(first), *range(second)]])
    packed = run(*rows(draw, segments, positions))
    for piece in (slice(0, first), slice(first, LENGTH)):
        alone = run(*rows(draw[:, piece], jnp.ones_like(segments[:, piece]), positions[:, piece]))
        np.testing.assert_allclose(packed[:, piece], alone, atol=2e-5)


def test_position_matters():
    """Without this, a rotary embedding that does nothing would pass the test above."""
    model, draw = init(), jax.random.randint(jax.random.PRNGKey(2), (1, LENGTH), 0, CFG.vocab_size)
    segments = jnp.ones((1, LENGTH), jnp.int32)
    steps = [model(*rows(draw, segments, jnp.arange(LENGTH)[None] * gap))[0, -1] for gap in (1, 2)]
    shifted = model(*rows(draw, segments, jnp.arange(LENGTH)[None] + 9))[0, -1]
    assert np.abs(steps[0] - steps[1]).max() > 1e-3
    np.testing.assert_allclose(steps[0], shifted, atol=2e-5)  # only differences count


def value_and_gradient(cfg: ModelConfig = CFG):
    tokens = jax.random.randint(jax.random.PRNGKey(3), (ROWS, LENGTH), 0, cfg.vocab_size)
    split = jnp.arange(LENGTH)[None] >= jnp.arange(ROWS)[:, None] * 3
    positions = jnp.broadcast_to(jnp.arange(LENGTH)[None], tokens.shape)
    weights = (positions < LENGTH - 2).astype(jnp.float32)
    batch = rows(tokens, 1 + split.astype(jnp.int32), positions, jnp.roll(tokens, -1, 1), weights)

    def loss(model, tokens, segments, positions, targets, weights):
        hidden = model(tokens, segments, positions)
        return model.loss_sums(hidden, targets, weights, 1e-3)[0] / (ROWS * LENGTH)

    value, gradient = jax.jit(jax.value_and_grad(loss))(init(cfg), *batch)
    return float(value), [np.asarray(x) for x in jax.tree.leaves(gradient)]


def assert_same(ours, expected, atol=2e-6):
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-6)
    for a, b in zip(ours[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


@pytest.fixture(scope="module")
def expected(mesh):
    """Loss and gradient on one device."""
    with jax.set_mesh(mesh(1, 1, 1, 1)):
        return value_and_gradient()


@pytest.mark.parametrize(
    "shape, context",
    [
        ((8, 1, 1, 1), 1),
        ((1, 8, 1, 1), 1),
        ((1, 2, 1, 4), 1),
        ((2, 2, 1, 2), 1),
        ((1, 1, 8, 1), 1),
        ((1, 2, 2, 2), 1),
        ((1, 1, 1, 1), 8),
        ((1, 1, 2, 2), 2),
    ],
)
def test_sharding_changes_nothing(mesh, shape, context, expected):
    """Data parallel, FSDP, FSDP with tensor parallel, all three; experts, with FSDP and tensor.

    Rows that are split, alone and with experts and tensor parallel.
    """
    with jax.set_mesh(mesh(*shape, context=context)):
        assert_same(expected, value_and_gradient())


def test_initial_weights_do_not_depend_on_the_mesh(mesh):
    with jax.set_mesh(mesh(1, 2, 2, 2)):
        model = jax.jit(lambda: Transformer.init(CFG, key=jax.random.PRNGKey(0)))()
    for ours, one_device in zip(jax.tree.leaves(model), initial_values(CFG), strict=True):
        np.testing.assert_array_equal(ours, one_device)


def test_weights_are_split_over_the_mesh(mesh):
    with jax.set_mesh(mesh(1, 2, 2, 2)):
        model = init()
    arrays = jax.tree.leaves(model)
    parts = [x.size // x.addressable_shards[0].data.size for x in arrays]
    split = [x for x, n in zip(arrays, parts, strict=True) if n >= 4]
    whole = 1 - sum(x.size for x in split) / sum(x.size for x in arrays)
    assert whole < 0.05, f"{whole:.0%} of the weights are not split"  # norms and biases
    # All of a router's columns are needed everywhere.
    routers = {id(block.mlp.w_router) for block in model.blocks}
    assert {id(x) for x, n in zip(arrays, parts, strict=True) if n == 4} == routers


@pytest.mark.parametrize(
    "knobs",
    [
        {"remat_layers": PERIOD},
        {"remat_layers": 2 * PERIOD},
        {"scan_unroll": 2},
        {"query_chunk": LENGTH},
    ],
)
def test_memory_knobs_change_nothing(knobs, expected):
    assert_same(expected, value_and_gradient(dataclasses.replace(CFG, **knobs)))


def test_bfloat16_keeps_weights_and_statistics_in_float32(expected):
    cfg = dataclasses.replace(CFG, compute_dtype="bfloat16")
    with jax.numpy_dtype_promotion("standard"):  # JAX's own attention mixes the two
        value, gradient = value_and_gradient(cfg)
    assert {x.dtype.name for x in gradient} == {"float32"}
    np.testing.assert_allclose(value, expected[0], rtol=2e-2)


def plain_loss(hidden, head, targets, weights, z_loss):
    logits = logits_of(jnp.einsum("bsd,dv->bsv", hidden, jax.reshard(head, P(None, "model"))))
    log_z = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.sum(jax.nn.one_hot(targets, head.shape[1]) * logits, axis=-1)
    cross_entropy = weights * (log_z - picked)
    return jnp.sum(cross_entropy + weights * z_loss * log_z**2), jnp.sum(cross_entropy)


@pytest.mark.parametrize("chunk", [1, 8, 48, 1000])  # of 128 tokens; 48: the last one is filled
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_chunked_loss_is_the_plain_loss(chunk, z_loss):
    keys = jax.random.split(jax.random.PRNGKey(4), 4)
    hidden = jax.random.normal(keys[0], (4, LENGTH, 16))
    head = jax.device_put(jax.random.normal(keys[1], (16, 64)), P(FSDP, "model"))
    targets = jax.random.randint(keys[2], (4, LENGTH), 0, 64)
    weights = jax.random.bernoulli(keys[3], 0.7, (4, LENGTH)).astype(jnp.float32)
    hidden, targets, weights = (jax.device_put(x, P(BATCH)) for x in (hidden, targets, weights))

    def ours(hidden, head):
        return chunked_loss(hidden, head, targets, weights, chunk, z_loss, 1)

    def plain(hidden, head):
        return plain_loss(hidden, head, targets, weights, z_loss)

    np.testing.assert_allclose(ours(hidden, head), plain(hidden, head), rtol=1e-5)
    for gradient, expected in zip(
        jax.grad(lambda *x: 3.0 * ours(*x)[0], argnums=(0, 1))(hidden, head),
        jax.grad(lambda *x: 3.0 * plain(*x)[0], argnums=(0, 1))(hidden, head),
        strict=True,
    ):
        np.testing.assert_allclose(gradient, expected, atol=2e-5, rtol=1e-4)


def test_the_loss_never_holds_all_logits():
    """Peak temporary memory of the loss and its gradient, as compiled, against the logits' size."""
    tokens, width, vocab, chunk = 2048, 16, 4096, 64
    h, w = jnp.zeros((1, tokens, width)), jnp.zeros((width, vocab))
    t, weights = jnp.zeros((1, tokens), jnp.int32), jnp.ones((1, tokens))
    h, t, weights = (jax.device_put(x, P(BATCH)) for x in (h, t, weights))
    w = jax.device_put(w, P(FSDP, "model"))

    def peak(loss) -> int:
        gradient = jax.jit(jax.grad(lambda h, w: loss(h, w)[0], argnums=(0, 1)))
        memory = gradient.lower(h, w).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    logits = 4 * tokens * vocab
    chunked = peak(lambda h, w: chunked_loss(h, w, t, weights, chunk, 0.0, 1))
    assert chunked < logits / 8
    assert peak(lambda h, w: plain_loss(h, w, t, weights, 0.0)) > logits  # the measure measures


def test_idle_parameters_are_those_of_the_experts_not_chosen():
    """Here 6 of 8."""
    blocks = init().blocks
    experts = sum(block.mlp.w_up.size + block.mlp.w_down.size for block in blocks)
    assert CFG.idle_parameters() == experts * 3 // 4


def test_a_frequent_token_loses_nothing_of_its_gradient():
    """In bfloat16, 256 equal terms stop adding up at 2 to the 8 times one of them."""
    cfg = dataclasses.replace(CFG, n_layers=1, compute_dtype="bfloat16")
    model = init(cfg)
    zeros = np.zeros((ROWS, 128), int)
    tokens, segments, positions = rows(zeros, zeros + 1, zeros + np.arange(128))
    weights = jax.random.normal(jax.random.PRNGKey(0), (cfg.d_model,))

    def read(model: Transformer) -> jax.Array:
        blocks = jax.tree.map(jnp.zeros_like, model.blocks)  # the stream is the embedding alone
        model = dataclasses.replace(model, blocks=blocks)
        hidden = model(tokens, segments, positions).astype(jnp.float32)
        return jnp.sum(hidden * weights[None, None])

    with jax.numpy_dtype_promotion("standard"):
        gradient = jax.jit(jax.grad(read))(model).embed[0]
        exact = init(dataclasses.replace(cfg, compute_dtype="float32"))
        expected = jax.jit(jax.grad(read))(exact).embed[0]
    error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    assert error < 0.02, error


def test_residual_projections_start_smaller():
    blocks = init(dataclasses.replace(CFG, n_layers=8)).blocks[0]
    for mlp in (blocks.mlp, blocks.mlp.shared):
        width = mlp.w_down.shape[-2]
        ratio = jnp.std(mlp.w_down) * width**0.5 / (jnp.std(mlp.w_up) * CFG.d_model**0.5)
        np.testing.assert_allclose(ratio, 16**-0.5, rtol=0.05)
        assert jnp.abs(mlp.w_up).max() <= 3.01 * CFG.d_model**-0.5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_heads": 6}, "n_heads=6 is not a multiple of n_kv_heads=4"),
        ({"head_dim": 7}, "head_dim=7 is odd"),
        ({"d_ff": 0}, "d_ff=0: must be at least 1"),
        ({"n_experts": 0}, "n_experts=0: must be at least 1"),
        ({"top_k": 9}, "top_k=9 is more than n_experts=8"),
        ({"top_k": 1}, "top_k=1 of n_experts=8: gates sum to 1"),
        ({"balance_rate": -1.0}, "balance_rate=-1.0: must be at least 0"),
        ({"router_z": -1.0}, "router_z=-1.0: must be at least 0"),
        ({"remat_layers": 99}, f"remat_layers=99: must be at most n_layers={CFG.n_layers}"),
    ],
)
def test_config_names_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CFG, **change)
