"""Products of rows with their experts' weights by kernels for Hopper GPUs (H100, H200).

XLA:GPU multiplies every row with every expert. These kernels multiply each row with its own expert,
and their gradients are such products again. Written in Pallas for Mosaic GPU
(docs.jax.dev/en/latest/pallas/gpu). Letters as in model.py: M rows of a buffer.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as gpu
from jaxtyping import Array, Float, Int

BLOCK = 128  # rows of a tile, which belong to one expert
COLUMNS = (128, 64)  # of a tile: the widest that divides a matrix
DEPTH = 64  # of a product per step: 128 bytes, the widest line of shared memory
STEPS = 4  # whose operands are on their way at a time, in 128 of 227 KiB of shared memory
NEIGHBOURS = 8  # tiles with the same rows that run one after another, and find them in the cache


def grouped_matmul(
    rows: Float[Array, "M inner"],
    weights: Float[Array, "local_E inner outer"],
    blocks: Int[Array, "local_E"],
    owner: Int[Array, "n_blocks"],
) -> Float[Array, "M outer"]:
    """Every block of BLOCK rows times its owner's weights; rows of unused blocks are undefined.

    `blocks` counts each expert's blocks, which lie one after another; `owner` names each block's
    expert, or the number of experts.

    Raises:
        ValueError: a shape or type that the kernels cannot multiply.
    """
    check(rows, weights)
    rows, weights = (varying(x, rows, weights) for x in (rows, weights))
    return product(rows, weights, blocks, owner)


@jax.custom_vjp
def product(rows: Array, weights: Array, blocks: Array, owner: Array) -> Array:
    """`grouped_matmul` of arrays that vary along the same axes of the mesh."""
    return multiply(rows, weights, owner, is_transposed=False)


def _forward(
    rows: Array, weights: Array, blocks: Array, owner: Array
) -> tuple[Array, tuple[Array, ...]]:
    return product(rows, weights, blocks, owner), (rows, weights, blocks, owner)


def _backward(residuals: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, None, None]:
    rows, weights, blocks, owner = residuals
    d_rows = multiply(d_out, weights, owner, is_transposed=True)
    return d_rows, multiply_by_group(rows, d_out, blocks), None, None


product.defvjp(_forward, _backward)


def varying(x: Array, *others: Array) -> Array:
    """x as an array that varies along all axes of the mesh along which one of the others does.

    Of what a kernel returns, JAX cannot tell. The gradient of what did not vary is a sum over these
    axes, as elsewhere.
    """
    axes = [axis for other in others for axis in jax.typeof(other).manual_axis_type.varying]
    more = sorted(set(axes) - set(jax.typeof(x).manual_axis_type.varying))
    return jax.lax.pcast(x, tuple(more), to="varying") if more else x


def check(rows: Array, weights: Array) -> None:
    """Raises ValueError unless the kernels can multiply these."""
    if rows.dtype != jnp.bfloat16 or weights.dtype != jnp.bfloat16:
        raise ValueError(f"the kernels for experts multiply bfloat16, not {rows.dtype}")
    for size in weights.shape[1:]:
        if size % DEPTH:
            raise ValueError(
                f"experts of {weights.shape[1]} x {weights.shape[2]} on a device: the kernels for "
                f"experts need multiples of {DEPTH}; change d_model, d_expert or the mesh"
            )


def tile_width(size: int) -> int:
    """Columns of a tile of a matrix with `size` columns."""
    return next(width for width in COLUMNS if size % width == 0)


def multiply(
    rows: Float[Array, "M contracted"],
    weights: Float[Array, "local_E inner outer"],
    owner: Int[Array, "n_blocks"],
    *,
    is_transposed: bool,
) -> Float[Array, "M out"]:
    """Every block of rows times its owner's weights, or times their transpose."""
    experts, outer = weights.shape[0], weights.shape[1 if is_transposed else 2]
    width = tile_width(outer)
    tiles = (owner.shape[0], outer // width)

    def kernel(owner: Any, rows: Any, weights: Any, out: Any) -> None:
        row, column = gpu.planar_snake(jax.lax.axis_index("tile"), tiles, 1, NEIGHBOURS)
        expert = owner[row]

        @pl.when(expert < experts)
        def _() -> None:
            def step(_: Any, left: Any, right: Any, total: Any) -> None:
                gpu.wgmma(total, left, right.transpose((1, 0)) if is_transposed else right)

            right = ((width, DEPTH), lambda k: (column, k))
            if not is_transposed:
                right = ((DEPTH, width), lambda k: (k, column))
            left = ((BLOCK, DEPTH), lambda k: (row, k))
            operands = (rows, weights.at[expert])
            turns = rows.shape[1] // DEPTH
            total = accumulate(step, turns, operands, (left, right), (BLOCK, width))
            store(total, out.at[pl.ds(row * BLOCK, BLOCK), pl.ds(column * width, width)])

    shape = (rows.shape[0], outer)
    return launch(kernel, shape, {"tile": int(np.prod(tiles))}, owner, rows, weights)


def multiply_by_group(
    left: Float[Array, "M inner"], right: Float[Array, "M outer"], blocks: Int[Array, "local_E"]
) -> Float[Array, "local_E inner outer"]:
    """Of each expert, its rows of `left`, transposed, times its rows of `right`; 0 without rows."""
    height, width = tile_width(left.shape[1]), tile_width(right.shape[1])
    tiles = (left.shape[1] // height, right.shape[1] // width)
    turns = (blocks * (BLOCK // DEPTH)).astype(jnp.int32)
    first = jnp.cumsum(turns) - turns

    def kernel(turns: Any, first: Any, left: Any, right: Any, out: Any) -> None:
        expert = jax.lax.axis_index("group")
        row, column = gpu.planar_snake(jax.lax.axis_index("tile"), tiles, 1, NEIGHBOURS)
        begin = first[expert]

        def step(_: Any, left: Any, right: Any, total: Any) -> None:
            gpu.wgmma(total, left.transpose((1, 0)), right)

        specs = (
            ((DEPTH, height), lambda k: (begin + k, row)),
            ((DEPTH, width), lambda k: (begin + k, column)),
        )
        total = accumulate(step, turns[expert], (left, right), specs, (height, width))
        store(total, out.at[expert, pl.ds(row * height, height), pl.ds(column * width, width)])

    shape = (blocks.shape[0], left.shape[1], right.shape[1])
    grid = {"group": blocks.shape[0], "tile": int(np.prod(tiles))}
    return launch(kernel, shape, grid, turns, first, left, right)


def accumulate(step: Any, turns: Any, operands: Any, specs: Any, shape: tuple[int, int]) -> Array:
    """In a kernel: the float32 sum of `turns` steps, whose operands are loaded ahead of them."""

    def steps(total: Any) -> Array:
        @pl.when(turns > 0)
        def _() -> None:
            gpu.emit_pipeline(
                partial(step, total=total),
                grid=(turns,),
                in_specs=[gpu.BlockSpec(block, at, delay_release=1) for block, at in specs],
                max_concurrent_steps=STEPS,
            )(*operands)

        return total[...]

    return pl.run_scoped(steps, gpu.ACC(shape))


def store(total: Array, out: Any) -> None:
    """In a kernel: writes a tile, through shared memory."""

    def write(shared: Any) -> None:
        shared[...] = total.astype(shared.dtype)
        gpu.commit_smem()
        gpu.copy_smem_to_gmem(shared, out)
        gpu.wait_smem_to_gmem(0, wait_read_only=True)

    pl.run_scoped(write, gpu.SMEM(total.shape, out.dtype))


def launch(kernel: Any, shape: tuple[int, ...], grid: dict[str, int], *args: Array) -> Array:
    """Runs a kernel once per place of a grid, first along its last axis.

    Names of the axes are none of the mesh's: in a kernel they would mean the device's place there.
    """
    out: Array = gpu.kernel(
        kernel,
        out_type=jax.ShapeDtypeStruct(shape, jnp.bfloat16),
        grid=tuple(grid.values()),
        grid_names=tuple(grid),
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Warpgroup),
    )(*args)
    return varying(out, *args)
