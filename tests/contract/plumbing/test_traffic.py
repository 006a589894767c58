"""Bytes that a compiled program moves to and from device memory.

The compilers of TPUs and GPUs themselves are tried by tests/slow/topology.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.contract.harness import under_test

memory_traffic = under_test().traffic.memory_traffic


@pytest.fixture(autouse=True)
def optimized():
    """Compiles as a run does; other tests leave optimizations out."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def compiled(function: Callable[..., Any], *shapes: tuple[int, ...]) -> jax.stages.Compiled:
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arrays).compile()


def traffic_of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> float:
    return memory_traffic(compiled(function, *shapes).as_text() or "")


def test_a_product_reads_its_operands_and_writes_its_result():
    found = traffic_of(jnp.matmul, (96, 256), (256, 160))
    assert found == 4 * (96 * 256 + 256 * 160 + 96 * 160)


def test_what_a_fusion_keeps_counts_nothing():
    def chain(x):
        return jnp.tanh(jnp.exp(x * 2) + 1)

    assert traffic_of(chain, (512, 512)) == 2 * 4 * 512 * 512


def test_a_loop_counts_each_turn_and_the_slice_that_it_takes():
    """Of the stack of weights, a turn reads its own; carried values are read and written."""

    def layers(x, weights):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0]

    turns, rows, width = 7, 64, 256
    least = turns * 4 * (width * width + 2 * rows * width)
    found = traffic_of(layers, (rows, width), (turns, width, width))
    # XLA's CPU writes the slice out before the product reads it.
    assert least <= found < 2 * turns * 4 * width * width + 2 * least
    assert found < turns * 4 * turns * width * width  # all weights in every turn


def test_slices_of_a_large_array_in_a_loop():
    def rows(big):
        def turn(i, total):
            return total + jax.lax.dynamic_index_in_dim(big, i, keepdims=False)

        return jax.lax.fori_loop(0, 50, turn, jnp.zeros(1024))

    # In each turn, a row and the sum are read and the sum is written. The sum begins once.
    found = traffic_of(rows, (50, 1024))
    assert 50 * 3 * 4096 <= found < 50 * 3 * 4096 * 1.1


def test_updates_of_slices_in_a_loop():
    def fill(big):
        def turn(i, big):
            row = jnp.sin(jnp.full((1, 1024), i, jnp.float32))
            return jax.lax.dynamic_update_index_in_dim(big, row, i, 0)

        return jax.lax.fori_loop(0, 50, turn, big)

    found = traffic_of(fill, (50, 1024))
    whole = 4 * 50 * 1024
    assert whole <= found < 5 * whole  # with a copy of the argument; else 50 times as much


def test_the_count_is_the_compilers_where_there_is_no_loop():
    """XLA counts a loop once; a fusion's own reads differ a little."""

    def block(x, up, down):
        hidden = jnp.square(jax.nn.relu(x @ up)) @ down
        return jnp.sum(jnp.square(x + hidden))

    program = compiled(jax.grad(block, argnums=(1, 2)), (256, 128), (128, 512), (512, 128))
    costs: Any = program.cost_analysis()
    found = memory_traffic(program.as_text() or "")
    assert found == pytest.approx(costs["bytes accessed"], rel=0.15)


# Lines of libtpu's, shortened.
TPU = """%slice (p.1: f32[12,8,128], p.2: s32[]) -> bf16[8,128] {
  %p.1 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %p.2 = s32[]{:T(128)S(6)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %wide = bf16[12,8,128]{2,1,0:T(8,128)(2,1)} convert(%p.1)
  %taken = bf16[1,8,128]{2,1,0:T(8,128)(2,1)} dynamic-slice(%wide, %p.2, %zero, %zero), \
dynamic_slice_sizes={1,8,128}
  ROOT %flat = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} bitcast(%taken)
}

%in_place (q.1: f32[12,8,128]) -> f32[12,8,128] {
  ROOT %q.1 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
}

%copied (v.1: f32[8,128]) -> f32[8,128] {
  %v.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %v.2 = f32[8,128]{1,0:T(8,128)} copy(%v.1)
}

%update (u.1: f32[12,8,128], u.2: f32[8,128], u.3: s32[]) -> (f32[12,8,128], f32[8,128]) {
  %u.1 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %u.2 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %u.3 = s32[]{:T(128)S(6)} parameter(2)
  %zero.1 = s32[]{:T(128)} constant(0)
  %same = f32[12,8,128]{2,1,0:T(8,128)} fusion(%u.1), kind=kLoop, \
output_to_operand_aliasing={{}: (0, {})}, calls=%in_place
  %part = f32[1,8,128]{2,1,0:T(8,128)} bitcast(%u.2)
  %placed = f32[12,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%same, %part, %u.3, %zero.1, %zero.1)
  %double = f32[8,128]{1,0:T(8,128)} add(%u.2, %u.2)
  ROOT %both = (f32[12,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}) tuple(%placed, %double)
}

ENTRY %main (a: f32[12,8,128], b: f32[8,128], i: s32[]) -> f32[8,128] {
  %a = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)} parameter(1)
  %i = s32[]{:T(128)S(6)} parameter(2)
LINE
}"""
ARRAY = 4 * 8 * 128


@pytest.mark.parametrize(
    "line, expected",
    [
        # From memory into VMEM, S(1): the reads alone; and of the stack, a slice of it.
        ("%x = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%a, %i), kind=kLoop, calls=%slice", ARRAY),
        (
            "%c = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) "
            "copy-start(%b)",
            ARRAY,
        ),
        (
            "%s = ((f32[12,8,128]{2,1,0:T(8,128)}), f32[2,8,128]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)})"
            " slice-start(%a), slice={[0:2], [0:8], [0:128]}",
            2 * ARRAY,
        ),
        # To the host, S(5).
        (
            "%c = (f32[8,128]{1,0:T(8,128)S(5)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) "
            "copy-start(%b)",
            ARRAY,
        ),
        # An update in place, beside a result that stays in VMEM: the update is read and written.
        (
            "%u = (f32[12,8,128]{2,1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}) "
            "fusion(%a, %b, %i), kind=kLoop, calls=%update",
            2 * ARRAY,
        ),
        (
            "%u = f32[12,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%a, %b, %i, %i, %i)",
            2 * ARRAY,
        ),
        ("%v = f32[8,128]{1,0:T(8,128)} fusion(%b), kind=kLoop, calls=%copied", 2 * ARRAY),
        (
            "%v = f32[12,8,128]{2,1,0:T(8,128)} fusion(%a), kind=kLoop, "
            "output_to_operand_aliasing={{}: (0, {})}, calls=%in_place",
            0,
        ),
        ("%g = f32[3,128]{1,0:T(8,128)} gather(%b, %i), slice_sizes={1,128}", 2 * ARRAY),
        # Layouts are padded to whole tiles: 5 rows of 64 take 8 of 128.
        ("%n = f32[5,64]{1,0:T(8,128)} negate(%b)", 2 * ARRAY),
        ("%k = f32[8,128]{0,1:T(8,128)} copy(%b)", ARRAY + 4 * 128 * 128),
        # A gather's result begins with its operand.
        (
            "%g = (f32[8,128]{1,0:T(8,128)}, f32[32,128]{1,0:T(8,128)}) all-gather-start(%b), "
            "replica_groups=[1,4]<=[4], dimensions={0}",
            5 * ARRAY,
        ),
        ("%r = f32[8,128]{1,0:T(8,128)} all-reduce-start(%b), replica_groups={}", 2 * ARRAY),
        # Names of values, and room for them.
        ("%t = (f32[8,128]{1,0:T(8,128)}) tuple(%b)", 0),
        ('%m = f32[8,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"', 0),
        (
            '%m = f32[8,128]{1,0:T(8,128)} custom-call(%b), custom_call_target="tpu_custom_call"',
            2 * ARRAY,
        ),
    ],
)
def test_lines_of_a_tpus_program(line, expected):
    assert memory_traffic(TPU.replace("LINE", f"  ROOT {line}")) == expected


def test_the_parts_of_one_collective_count_once():
    """A TPU's fusion that ends one has nothing left to move."""
    text = """%start (p: f32[8,128]) -> (f32[8,128], f32[32,128]) {
  %p = f32[8,128]{1,0} parameter(0)
  %g = f32[32,128]{1,0} all-gather(%p), channel_id=7
  ROOT %s = (f32[8,128]{1,0}, f32[32,128]{1,0}) custom-call(%g), \
custom_call_target="AsyncCollectiveStart"
}

%done (p: f32[8,128], q: f32[32,128]) -> f32[32,128] {
  %p = f32[8,128]{1,0} parameter(0)
  %q = f32[32,128]{1,0} parameter(1)
  %g = f32[32,128]{1,0} all-gather(%p), channel_id=7
  ROOT %d = f32[32,128]{1,0} custom-call(%p, %q, %g), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: f32[8,128]) -> f32[32,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %one = (f32[8,128]{1,0}, f32[32,128]{1,0}) fusion(%a), kind=kCustom, \
output_to_operand_aliasing={{0}: (0, {})}, calls=%start
  %x = f32[8,128]{1,0} get-tuple-element(%one), index=0
  %y = f32[32,128]{1,0} get-tuple-element(%one), index=1
  ROOT %two = f32[32,128]{1,0} fusion(%x, %y), kind=kCustom, \
output_to_operand_aliasing={{}: (1, {})}, calls=%done
}"""
    assert memory_traffic(text) == 5 * ARRAY


def test_a_loop_of_unknown_length_counts_as_it_is_told():
    text = """%body (t: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %y = f32[8]{0} negate(%x)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %w = f32[8]{0} while(%a), condition=%c, body=%body
}"""
    text = "%c (t: f32[8]) -> pred[] {\n  ROOT %p = pred[] parameter(0)\n}\n\n" + text
    for turns in (0, 1, 3):
        assert memory_traffic(text, turns_of_endless=turns) == turns * 2 * 32
