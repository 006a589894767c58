"""Kernels on devices that have a part of each row, against attention with whole rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.contract.attention import (
    GROUPS,
    HEADS,
    WIDTH,
    attended,
    causal,
    plain,
    random_rows,
    window,
)
from tests.contract.harness import make_mesh, under_test

variant = under_test()
kernels = variant.kernels
LENGTH = 512


@pytest.fixture(autouse=True)
def anywhere(monkeypatch):
    monkeypatch.setattr(variant.splash, "INTERPRET", True)
    monkeypatch.setattr(variant.cudnn, "IMPLEMENTATION", "xla")


def attended_in_parts(attend: Callable[..., jax.Array], context: int) -> list[np.ndarray]:
    """As `attended`, with each row's positions split over devices."""
    arrays, segments = random_rows(LENGTH)
    half = LENGTH // 2
    assert (segments[:, half - 1] == segments[:, half]).all()  # documents cross from part to part
    heads = P(None, "context", None, None)
    with jax.set_mesh(make_mesh(variant, context=context)):
        *qkv, direction = (jax.device_put(x, heads) for x in arrays)
        local = kernels.to_whole_rows(attend, "context")
        mapped = jax.shard_map(local, out_specs=heads, check_vma=False)
        whole = jax.device_put(segments, P(None, None))

        @jax.jit
        def run(*qkv: jax.Array) -> tuple[jax.Array, ...]:
            y, pull_back = jax.vjp(lambda *qkv: mapped(*qkv, whole), *qkv)
            return y, *pull_back(direction)

        return [np.asarray(x) for x in run(*qkv)]


@pytest.mark.parametrize("sees", [causal, window])
@pytest.mark.parametrize("name", kernels.KERNELS)
@pytest.mark.parametrize("context", [2, 4])
def test_parts_of_rows_are_whole_rows(name, sees, context):
    def attend(*arrays: Any, **part: Any) -> jax.Array:
        return kernels.KERNELS[name](*arrays, sees=sees, **part)

    expected = attended(plain, LENGTH, sees)
    for a, b in zip(attended_in_parts(attend, context), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)

    def first_part(*arrays: Any, part: Any = 0) -> jax.Array:
        return attend(*arrays, part=0 * part)

    assert np.abs(attended_in_parts(first_part, context)[0] - expected[0]).max() > 1e-3


def test_a_part_that_splash_cannot_take_is_one_line():
    q, k = jnp.zeros((1, 64, HEADS, WIDTH)), jnp.zeros((1, 128, GROUPS, WIDTH))
    with pytest.raises(ValueError, match="splash takes parts of 128, 256, .* not of 64"):
        variant.splash.splash(q, k, k, jnp.ones((1, 128), jnp.int32), causal, part=1)
