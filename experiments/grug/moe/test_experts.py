"""The experts compute all that was chosen, on every path and mesh; load, drops, balance."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from . import dispatch
from .model import BATCH, MLP, ModelConfig, MoE, Transformer, by_token
from .planning import hlo
from .routing import Routing, routing_metrics

CFG = ModelConfig(
    vocab_size=64,
    d_model=16,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=32,
    n_experts=8,
    top_k=2,
    d_expert=24,
    balance_rate=0.02,
    loss_chunk=8,
    compute_dtype="float32",
)
ROWS, LENGTH = 8, 48
EVEN = np.zeros(CFG.n_experts, np.float32)
# All tokens choose experts 2 and 3, which one device holds when experts are split in 2 or 4.
SKEWED = np.array([0, 0, 9, 9, 0, 0, 0, 0], np.float32)


@pytest.fixture(autouse=True)
def one_device(mesh):
    with jax.set_mesh(mesh(1, 1, 1, 1)):
        yield


def make_layer(bias: np.ndarray = EVEN, cfg: ModelConfig = CFG) -> MoE:
    layer = jax.jit(lambda: MoE.init(cfg, key=jax.random.PRNGKey(0)))()
    return eqx.tree_at(lambda m: m.bias, layer, jax.device_put(jnp.asarray(bias), P(None)))


def make_inputs() -> tuple[jax.Array, jax.Array]:
    """Hidden states, and a mask that calls a fifth of them padding."""
    x = jax.random.normal(jax.random.PRNGKey(1), (ROWS, LENGTH, CFG.d_model))
    real = np.random.default_rng(0).random((ROWS, LENGTH)) < 0.8
    return jax.device_put(x, by_token(None)), jax.device_put(real, P(BATCH, None))


def run(call, bias: np.ndarray = EVEN):
    """(output, other result of `call`, gradients of a scalar of the output), on this mesh."""

    def scalar(layer, x, real):
        y, aux = call(layer, x, real)
        return jnp.sum(jnp.sin(y)), (y, aux)

    gradient = jax.jit(jax.grad(scalar, argnums=(0, 1), has_aux=True))
    grads, (y, aux) = gradient(make_layer(bias), *make_inputs())
    return np.asarray(y), aux, [np.asarray(g) for g in jax.tree.leaves(grads)]


def routed(layer, x, real):
    return layer(x, real)


def loop_over_experts(layer, x, real):
    """Every expert on every token, times a gate: zero for padding and where it was not chosen."""
    scores = jax.nn.sigmoid(jnp.einsum("bsd,de->bse", x, layer.w_router))
    biased = jax.lax.stop_gradient(scores + layer.bias[None, None])
    least = jnp.sort(biased, axis=-1)[:, :, -layer.top_k, None]
    chosen = (biased >= least).astype(jnp.float32)
    gates = scores * chosen / jnp.sum(scores * chosen, axis=-1, keepdims=True)
    gates *= real[:, :, None].astype(jnp.float32)
    w_up = jax.reshard(layer.w_up, P(None, None, None))
    w_down = jax.reshard(layer.w_down, P(None, None, None))
    y = layer.shared(x)
    for e in range(CFG.n_experts):
        y += gates[:, :, e, None] * MLP(w_up[e], w_down[e])(x)
    return y, jnp.sum(jnp.where(real[:, :, None], chosen, 0.0), axis=(0, 1))


def assert_same(ours, expected):
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-5)
    for a, b in zip(ours[2], expected[2], strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", [EVEN, SKEWED], ids=["even", "skewed"])
def test_nothing_is_dropped(bias):
    """The same values, gradients and loads as a loop over experts, even where two get all."""
    ours, loop = run(routed, bias), run(loop_over_experts, bias)
    assert_same(ours, loop)
    np.testing.assert_array_equal(ours[1].load, loop[1])
    assert ours[1].assigned == CFG.top_k * make_inputs()[1].sum()
    assert (loop[1] > 0).sum() == (2 if bias is SKEWED else CFG.n_experts)


@pytest.mark.parametrize("bias", [EVEN, SKEWED], ids=["even", "skewed"])
@pytest.mark.parametrize("kind", ["TPU v5 lite", "NVIDIA A100-SXM4-80GB"])
def test_other_devices_multiply_the_same(kind, bias, monkeypatch):
    """What a CPU runs, against the ragged product of TPUs and the blocks of most GPUs."""
    on_cpu = run(routed, bias)
    used = []

    def spy(chosen):
        def method(*args):
            used.append(chosen(*args))
            return used[-1]

        return method

    monkeypatch.setattr(dispatch, "hardware", lambda: kind)
    monkeypatch.setattr(dispatch, "BLOCK", 16)
    monkeypatch.setattr(dispatch, "BLOCKS", 1)
    monkeypatch.setattr(dispatch, "method", spy(dispatch.method))
    assert_same(run(routed, bias), on_cpu)
    products = {(method.block, method.product) for method in used}
    # An even share of the rows is 96 per expert.
    expected = (16, dispatch.ragged_matmul) if "TPU" in kind else (96, dispatch.block_matmul)
    assert products == {expected}


@pytest.fixture(scope="module")
def alone(mesh):
    """Results of even and of skewed routing on one device."""
    with jax.set_mesh(mesh(1, 1, 1, 1)):
        return {id(bias): run(routed, bias) for bias in (EVEN, SKEWED)}


@pytest.mark.parametrize("bias", [EVEN, SKEWED], ids=["even", "skewed"])
@pytest.mark.parametrize(
    "shape, context",
    [((1, 1, 8, 1), 1), ((1, 2, 2, 2), 1), ((2, 1, 4, 1), 1), ((1, 1, 2, 1), 4)],
)
def test_experts_on_many_devices_are_the_experts_on_one(mesh, alone, shape, context, bias):
    expected = alone[id(bias)]
    with jax.set_mesh(mesh(*shape, context=context)):
        ours = run(routed, bias)
    assert_same(ours, expected)
    for a, b in zip(ours[1][:2], expected[1][:2], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(ours[1].z, expected[1].z, rtol=1e-5)


def dropped(run_result) -> float:
    routing = jax.tree.map(lambda x: x[None], run_result[1])
    return float(routing_metrics(routing, CFG.top_k)["moe/drop_rate"])


def test_the_drop_rate_can_fail(mesh, monkeypatch):
    """With too little room in a device's blocks, or on the way to it, the rate counts lost rows."""
    assert dropped(run(routed, SKEWED)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "worst_case_blocks", lambda *_: 4)
        lost = run(routed, SKEWED)
    real = CFG.top_k * int(make_inputs()[1].sum())
    assert dropped(lost) == pytest.approx(1 - 4 * dispatch.BLOCK / real)
    with jax.set_mesh(mesh(1, 1, 4, 1)):
        assert dropped(run(routed, SKEWED)) == 0
        monkeypatch.setattr(dispatch, "later_rounds", lambda exchange, rounds, first, *_: first)
        # Each device has room for ROOM / 4 of its rows at the one that has both experts.
        sent = ROWS * LENGTH * CFG.top_k * dispatch.ROOM / 4
        assert dropped(run(routed, SKEWED)) == pytest.approx(1 - sent / real)


def compiled_on_eight_devices(mesh, cfg: ModelConfig) -> jax.stages.Compiled:
    """A layer's outputs and gradients, each device with its own rows and n_experts / 8 experts."""
    with jax.set_mesh(mesh(1, 1, 8, 1)):
        layer = jax.jit(lambda: MoE.init(cfg, key=jax.random.PRNGKey(0)))()

        def scalar(layer, x, real):
            return jnp.sum(jnp.sin(layer(x, real)[0]))

        return jax.jit(jax.grad(scalar, argnums=(0, 1))).lower(layer, *make_inputs()).compile()


def test_little_more_than_the_rows_crosses_the_wire(mesh):
    """Against what must: of each token's rows 7 / 8, out and back, and so their gradients."""
    cfg = dataclasses.replace(CFG, n_experts=32, top_k=4)
    program = compiled_on_eight_devices(mesh, cfg)
    rows = ROWS * LENGTH * cfg.top_k // 8
    needed = 4 * rows * (4 * CFG.d_model) * 7 / 8
    one_round, two_rounds = (
        hlo.count(program.as_text() or "", turns_of_endless=turns).collectives["all-to-all"]
        for turns in (0, 1)
    )
    # Each row's expert takes 4 bytes, and a device's own rows are counted too.
    assert needed < one_round < 1.5 * needed
    assert two_rounds > 2 * one_round


def test_one_expert_is_the_dense_mlp():
    """Its gate is 1: with the shared MLP set to 0, only the expert's MLP remains."""
    layer = make_layer(np.zeros(1, np.float32), dataclasses.replace(CFG, n_experts=1, top_k=1))
    x, real = make_inputs()
    silent = eqx.tree_at(lambda m: m.shared.w_down, layer, jnp.zeros_like(layer.shared.w_down))
    y, routing = jax.jit(lambda layer: layer(x, real))(silent)
    dense = jnp.where(real[:, :, None], MLP(layer.w_up[0], layer.w_down[0])(x), 0)
    np.testing.assert_allclose(y, dense, atol=1e-5)
    assert routing.load == real.sum()
    metrics = routing_metrics(jax.tree.map(lambda x: x[None], routing), 1)
    assert metrics["moe/load_entropy"] == metrics["moe/max_load"] == 1


def test_the_bias_chooses_but_does_not_gate():
    """A bias shared by all experts changes nothing, and a bias has no gradient."""
    plain, shifted, skewed = (run(routed, bias) for bias in (EVEN, EVEN + 0.5, SKEWED))
    np.testing.assert_array_equal(plain[0], shifted[0])
    np.testing.assert_array_equal(plain[1].load, shifted[1].load)
    assert np.abs(plain[0] - skewed[0]).max() > 1e-3
    for _, _, grads in (plain, shifted, skewed):
        gradient = next(g for g in grads if g.shape == (CFG.n_experts,))
        np.testing.assert_array_equal(gradient, 0)


def test_an_even_and_a_skewed_load():
    load = jnp.array([[5, 5, 5, 5], [0, 20, 0, 0]], jnp.int32)
    routing = Routing(load, jnp.array([20, 20], jnp.int32), jnp.array([30.0, 10.0]))
    metrics = {name: float(value) for name, value in routing_metrics(routing, 2).items()}
    expected = {"load_entropy": 0.5, "max_load": 4.0, "drop_rate": 0.0, "router_z": 2.0}
    assert metrics == pytest.approx({f"moe/{name}": value for name, value in expected.items()})
    half = routing._replace(assigned=jnp.array([40, 40], jnp.int32))
    assert routing_metrics(half, 2)["moe/drop_rate"] == 0.5


def transformer(bias: np.ndarray = EVEN) -> Transformer:
    model = jax.jit(lambda: Transformer.init(CFG, key=jax.random.PRNGKey(0)))()
    biases = jax.device_put(np.tile(bias, (CFG.n_layers, 1)), P(None, None))
    return eqx.tree_at(lambda m: m.blocks[0].mlp.bias, model, biases)


def batch(tokens: np.ndarray, segment_ids: np.ndarray) -> tuple[jax.Array, ...]:
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    rows = (tokens.astype(np.int32), segment_ids.astype(np.int32), positions)
    return tuple(jax.device_put(jnp.asarray(x), P(BATCH, None)) for x in rows)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 4, 1)])
def test_no_token_feels_the_routing_of_another(mesh, shape):
    """Checks values: gradients show neither a choice of experts nor a place in a full buffer.

    A token's output stays the same when earlier rows and its own future crowd the same two experts.
    """
    draw = np.random.default_rng(1)
    tokens = draw.integers(0, CFG.vocab_size, (4, LENGTH))
    changed, start = tokens.copy(), 20
    changed[:-1], changed[-1, start:] = 7, 7
    segment_ids = np.ones_like(tokens)
    with jax.set_mesh(mesh(*shape)):
        model = transformer()
        forward = jax.jit(lambda *batch: model.hidden_and_routing(*batch))
        (before, loads), (after, other_loads) = (
            forward(*batch(t, segment_ids)) for t in (tokens, changed)
        )
        assert (np.asarray(loads.load) != other_loads.load).any()
        before, after = np.asarray(before), np.asarray(after)
        np.testing.assert_allclose(before[-1, :start], after[-1, :start], atol=1e-5)
        assert np.abs(before[-1, start:] - after[-1, start:]).max() > 1e-2


def test_padding_does_not_count():
    """Padding adds nothing to the load, the assigned pairs or the z-loss."""
    tokens = np.random.default_rng(2).integers(0, CFG.vocab_size, (4, LENGTH))
    segment_ids = np.ones_like(tokens)
    padded = segment_ids.copy()
    padded[:, LENGTH // 2 :] = 0
    changed = tokens.copy()
    changed[:, LENGTH // 2 :] = 3
    forward = jax.jit(lambda model, *batch: model.hidden_and_routing(*batch)[1])
    short = forward(transformer(), *batch(tokens[:, : LENGTH // 2], segment_ids[:, : LENGTH // 2]))
    for values in (tokens, changed):
        long = forward(transformer(), *batch(values, padded))
        np.testing.assert_array_equal(long.load, short.load)
        np.testing.assert_array_equal(long.assigned, short.assigned)
        np.testing.assert_allclose(long.z, short.z, rtol=1e-5)
    assert short.assigned.tolist() == [CFG.top_k * 4 * LENGTH // 2] * CFG.n_layers


def test_the_bias_moves_against_the_load():
    load = jnp.array([[9, 1, 2, 3, 1, 4, 2, 2], [3] * 8], jnp.int32)  # 3 is the even share
    moved = jax.jit(lambda model: model.balanced(load))(transformer())
    rate = CFG.balance_rate
    expected = rate * np.array([[-1, 1, 1, 0, 1, -1, 1, 1], [0] * 8])
    np.testing.assert_allclose(moved.blocks[0].mlp.bias, expected, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.05, 0.0])
def test_the_load_evens_out(rate):
    """From a bias that favours two experts; without a rate it stays as it was."""
    model = transformer(np.array([0.3, 0.3, 0, 0, 0, 0, 0, 0], np.float32))
    model = dataclasses.replace(model, cfg=dataclasses.replace(CFG, balance_rate=rate))
    tokens = np.random.default_rng(3).integers(0, CFG.vocab_size, (ROWS, LENGTH))
    rows = batch(tokens, np.ones_like(tokens))

    @jax.jit
    def step(model):
        routing = model.hidden_and_routing(*rows)[1]
        return model.balanced(routing.load), routing_metrics(routing, CFG.top_k)

    history = []
    for _ in range(12):
        model, metrics = step(model)
        history.append([float(metrics[f"moe/{name}"]) for name in ("load_entropy", "max_load")])
    (entropy, busiest), (late_entropy, late_busiest) = history[0], history[-1]
    assert entropy < 0.9 and busiest > 2.5
    if rate:
        assert late_entropy > 0.98 and late_busiest < 1.7
    else:
        assert history == [history[0]] * 12
