"""The kernels for Hopper GPUs, interpreted, against products of each row in float32.

Whether they compile for a GPU is tried by hand: `--plan --topology 8xh100`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret.gpu_callbacks import get_races
from jax.experimental.pallas import mosaic_gpu as gpu
from jax.sharding import PartitionSpec as P

from . import dispatch, hopper
from .dispatch import expert_mlps
from .hopper import DEPTH
from .model import BATCH, ModelConfig, MoE, by_token

H100 = "NVIDIA H100 80GB HBM3"

# More steps of loads than are on their way at a time; tiles of both widths.
INNER, OUTER = 5 * hopper.DEPTH, 128
UNEVEN = np.array([1, 0, 3])  # blocks of each expert; the second has none
CAPACITY = 5  # of which one block is unused
OWNER = np.searchsorted(np.cumsum(UNEVEN), np.arange(CAPACITY), side="right")
USED = hopper.BLOCK * int(UNEVEN.sum())
EXPERT = OWNER.repeat(hopper.BLOCK)[:USED]  # of each row


@pytest.fixture
def interpreted():
    """Runs the kernels' instructions one by one, and looks for races between them."""
    with gpu.force_gpu_interpret_mode(gpu.InterpretGPUParams(detect_races=True)):
        yield
    races = get_races()
    assert races is not None and not races.races_found


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.PRNGKey(seed), shape, jnp.bfloat16)


def exact(x: jax.Array) -> np.ndarray:
    """In float32, without the rows of unused blocks."""
    return np.asarray(x, np.float32)[:USED]


def close(ours: Any, expected: np.ndarray) -> None:
    """Equal but for the rounding of results to bfloat16."""
    np.testing.assert_allclose(np.asarray(ours, np.float32), expected, rtol=2**-7, atol=2**-5)


def test_values_and_gradients(interpreted):
    rows, weights = normal(0, CAPACITY * hopper.BLOCK, INNER), normal(1, len(UNEVEN), INNER, OUTER)
    # What is not a number in unused blocks must stay there.
    rows = rows.at[USED:].set(jnp.nan)
    d_out = normal(2, CAPACITY * hopper.BLOCK, OUTER).at[USED:].set(jnp.nan)

    def product(rows: jax.Array, weights: jax.Array) -> jax.Array:
        return hopper.grouped_matmul(rows, weights, jnp.asarray(UNEVEN), jnp.asarray(OWNER))

    out, pull_back = jax.vjp(product, rows, weights)
    d_rows, d_weights = pull_back(d_out)
    own = np.asarray(weights, np.float32)[EXPERT]
    close(out[:USED], np.einsum("mi,mio->mo", exact(rows), own))
    close(d_rows[:USED], np.einsum("mo,mio->mi", exact(d_out), own))
    member = (EXPERT[:, None] == np.arange(len(UNEVEN))).astype(np.float32)
    expected = np.einsum("mi,mo,me->eio", exact(rows), exact(d_out), member, optimize=True)
    close(d_weights, expected)
    assert not np.asarray(d_weights[1], np.float32).any()
    assert [x.dtype for x in (out, d_rows, d_weights)] == [jnp.bfloat16] * 3


def test_the_mlps_of_experts(interpreted, monkeypatch):
    """Rows in any order, through both products and their gradients, as a CPU computes them."""
    draw = np.random.default_rng(0)
    expert = jnp.asarray(draw.choice([0, 2, 3, 4], 200, p=[0.1, 0.6, 0.2, 0.1]))  # 4: none
    rows, d_out = normal(3, 200, hopper.DEPTH), normal(4, 200, hopper.DEPTH)
    weights = normal(5, 4, hopper.DEPTH, OUTER), normal(6, 4, OUTER, hopper.DEPTH)

    def results(dtype: jax.typing.DTypeLike) -> list[np.ndarray]:
        def mlps(*args: jax.Array) -> tuple[jax.Array, jax.Array]:
            return expert_mlps(args[0], expert, *args[1:])

        args = [x.astype(dtype) for x in (rows, *weights)]
        out, pull_back, load = jax.vjp(mlps, *args, has_aux=True)
        return [np.asarray(x, np.float32) for x in (load, out, *pull_back(d_out.astype(dtype)))]

    in_float32 = results(jnp.float32)
    monkeypatch.setattr(dispatch, "hardware", lambda: H100)
    for ours, expected in zip(results(jnp.bfloat16), in_float32, strict=True):
        assert np.abs(ours - expected).max() < 0.02 * np.abs(expected).max()
    assert in_float32[0].tolist() == np.bincount(expert, minlength=5)[:4].tolist()


def test_devices_share_an_experts_columns(monkeypatch, mesh):
    """What does not vary along an axis of the mesh gets a gradient summed over it.

    XLA stands in for the kernels of one expert: the interpreter mixes up devices that run at once.
    """

    def multiply(rows: jax.Array, weights: jax.Array, _: Any, *, is_transposed: bool) -> jax.Array:
        return rows @ (weights[0].T if is_transposed else weights[0])

    monkeypatch.setattr(hopper, "multiply", multiply)
    monkeypatch.setattr(hopper, "multiply_by_group", lambda left, right, _: (left.T @ right)[None])
    rows, weights = normal(7, 2 * hopper.BLOCK, hopper.DEPTH), normal(8, 1, hopper.DEPTH, OUTER)
    blocks, owner = jnp.array([2]), jnp.array([0, 0])

    def total(rows: jax.Array, weights: jax.Array) -> jax.Array:
        def local(rows: jax.Array, weights: jax.Array) -> jax.Array:
            out = hopper.grouped_matmul(rows, weights, blocks, owner).astype(jnp.float32)
            return jax.lax.psum(jnp.sum(out), "model")

        return jax.shard_map(local, out_specs=P())(rows, weights)

    with jax.set_mesh(mesh(1, 1, 1, 2)):
        split = jax.device_put(weights, P(None, None, "model"))
        d_rows = jax.grad(total)(jax.device_put(rows, P(None, None)), split)
    close(d_rows, np.broadcast_to(np.asarray(weights, np.float32)[0].sum(axis=1), rows.shape))


@pytest.mark.parametrize(
    "sizes, context",
    [((1, 1, 1, 1), 1), ((1, 2, 1, 1), 1), ((1, 1, 2, 2), 1), ((2, 1, 2, 1), 1), ((1, 1, 1, 1), 2)],
)
def test_a_layer_has_its_types_on_every_mesh(monkeypatch, mesh, sizes, context):
    """What a kernel returns varies along no more axes of the mesh than its operands."""
    monkeypatch.setattr(dispatch, "hardware", lambda: H100)
    cfg = ModelConfig(d_model=DEPTH, d_expert=2 * DEPTH, n_experts=4, compute_dtype="bfloat16")
    with jax.set_mesh(mesh(*sizes, context=context)):
        layer = jax.jit(lambda: MoE.init(cfg, key=jax.random.PRNGKey(0)))()
        x = jax.device_put(jnp.ones((4, 256, DEPTH), jnp.bfloat16), by_token(None))
        real = jax.device_put(np.ones((4, 256), bool), P(BATCH, None))

        def total(layer: MoE, x: jax.Array) -> jax.Array:
            return jnp.sum(layer(x, real)[0].astype(jnp.float32))

        d_layer, d_x = jax.eval_shape(jax.grad(total, argnums=(0, 1), allow_int=True), layer, x)
    assert (d_x.shape, d_layer.w_up.shape) == (x.shape, layer.w_up.shape)


@pytest.mark.parametrize(
    "shape, dtype, message",
    [
        ((64, 96), jnp.bfloat16, "experts of 64 x 96 on a device: .* multiples of 64"),
        ((96, 64), jnp.bfloat16, "experts of 96 x 64 on a device: .* multiples of 64"),
        ((64, 64), jnp.float16, "multiply bfloat16, not float16"),
    ],
)
def test_what_the_kernels_cannot_do_is_one_line(shape, dtype, message):
    rows, weights = jnp.zeros((hopper.BLOCK, shape[0]), dtype), jnp.zeros((1, *shape), dtype)
    with pytest.raises(ValueError, match=message) as error:
        hopper.grouped_matmul(rows, weights, jnp.array([1]), jnp.array([0]))
    assert "\n" not in str(error.value)


def test_each_kind_of_device_has_its_method():
    rows = jax.ShapeDtypeStruct((4096, 64), jnp.bfloat16)

    def product(kind: str, rows: Any = rows) -> Any:
        return dispatch.method(kind, rows, 4).product

    for kind in ("NVIDIA H100 80GB HBM3", "NVIDIA H100", "NVIDIA H200", "NVIDIA GH200 480GB"):
        assert product(kind) is hopper.grouped_matmul
        assert product(kind, rows.update(dtype=jnp.float32)) is dispatch.block_matmul
    for kind in ("cpu", "NVIDIA A100-SXM4-80GB", "NVIDIA B200", "NVIDIA GB200", "NVIDIA H20"):
        assert product(kind) is dispatch.block_matmul
    assert product("TPU v5 lite") is product("TPU v4") is dispatch.ragged_matmul
    assert dispatch.hardware() == "cpu"
