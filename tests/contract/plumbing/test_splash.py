"""The splash kernel, interpreted, against attention with all scores at hand.

Whether it compiles is tried by tests/slow/topology.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract.attention import (
    GROUPS,
    HEADS,
    WIDTH,
    attended,
    causal,
    one_of_the_future,
    plain,
    window,
)
from tests.contract.harness import under_test

module = under_test().splash
ROWS = 2


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(module, "INTERPRET", True)


# 200 positions are filled up to 256, and 640 make five blocks.
@pytest.mark.parametrize("length", [128, 200, 640])
@pytest.mark.parametrize("sees", [causal, window, one_of_the_future])
def test_splash_is_plain_attention(length, sees):
    ours, expected = (attended(f, length, sees) for f in (module.splash, plain))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize("sees", [window, one_of_the_future])
def test_the_comparison_sees_another_mask(sees):
    ours, expected = attended(module.splash, 200, sees), attended(plain, 200, causal)
    assert np.abs(ours[0] - expected[0]).max() > 1e-3


def test_a_type_stays_what_it_is():
    shapes = [(ROWS, 64, n, WIDTH) for n in (HEADS, GROUPS, GROUPS)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    segments = jax.ShapeDtypeStruct((ROWS, 64), jnp.int32)
    attend = jax.eval_shape(lambda *x: module.splash(*x, causal), *arrays, segments)
    assert (attend.shape, attend.dtype) == (shapes[0], jnp.bfloat16)


def test_the_program_tells_its_flops():
    """Of the blocks that are not skipped: with 1024 positions in blocks of 512, three of four."""
    shapes = [(ROWS, 1024, n, WIDTH) for n in (HEADS, GROUPS, GROUPS)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    segments = jax.ShapeDtypeStruct((ROWS, 1024), jnp.int32)
    text = jax.jit(lambda *x: module.splash(*x, causal)).lower(*arrays, segments).as_text()
    product = 2 * ROWS * HEADS * 3 * 512 * 512 * WIDTH
    assert f'flops_fwd = "{2 * product}"' in text and f'flops_dkv = "{5 * product}"' in text
