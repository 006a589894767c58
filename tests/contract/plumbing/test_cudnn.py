"""What is asked of cuDNN, computed by XLA, against attention with all scores at hand.

cuDNN itself needs a GPU. Both take the same arguments of jax.nn.dot_product_attention.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract.attention import HEADS, attended, causal, one_of_the_future, plain, window
from tests.contract.harness import under_test

module, kernels = under_test().cudnn, under_test().kernels
LENGTH = 200


def late(query: Any, key: Any) -> Any:
    return (query >= key) | ((query == 600) & (key == 601))


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(module, "IMPLEMENTATION", "xla")


@pytest.mark.parametrize("sees", [causal, window, one_of_the_future])
def test_it_asks_for_plain_attention(sees, on_cpu):
    ours, expected = (attended(f, LENGTH, sees) for f in (module.cudnn, plain))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize("sees", [window, one_of_the_future])
def test_the_comparison_sees_another_mask(sees, on_cpu):
    ours, expected = attended(module.cudnn, LENGTH, sees), attended(plain, LENGTH, causal)
    assert np.abs(ours[0] - expected[0]).max() > 1e-3


@pytest.mark.parametrize("sees, expected", [(causal, True), (window, True), (late, False)])
def test_what_is_above_the_diagonal_is_left_out_where_nothing_sees_it(sees, expected):
    assert module.is_causal(sees, 1000) is expected


@pytest.mark.parametrize(
    "dtype, width, length, message",
    [
        (jnp.float32, 64, 64, "computes in bfloat16, not in float32: set model.compute_dtype"),
        (jnp.bfloat16, 256, 64, "a head_dim of 8, 16, ... 128, not 256: change model.head_dim"),
        (jnp.bfloat16, 60, 64, "not 60: change model.head_dim"),
        (jnp.bfloat16, 64, 63, "rows of an even length, not of 63: change sequence_length"),
    ],
)
def test_what_it_cannot_do_is_one_line(dtype, width, length, message):
    q = jnp.zeros((2, length, HEADS, width), dtype)
    with pytest.raises(ValueError, match="^model.attention=cudnn .*, or use chunks$") as error:
        module.cudnn(q, q, q, jnp.ones((2, length), jnp.int32), causal)
    assert message in str(error.value)


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_a_kernel_is_for_one_platform(name):
    assert kernels.kernel_for(name, kernels.PLATFORMS[name]) == name
    for platform in {"cpu", "gpu", "tpu"} - {kernels.PLATFORMS[name]}:
        with pytest.raises(ValueError, match=f"{name} runs on a .*, not on a {platform}: use"):
            kernels.kernel_for(name, platform)


@pytest.mark.parametrize(
    "platform, chosen", [("cpu", "chunks"), ("gpu", "chunks"), ("tpu", "splash")]
)
def test_auto_is_what_the_platform_has(platform, chosen):
    assert kernels.kernel_for("auto", platform) == chosen
    assert kernels.kernel_for("chunks", platform) == "chunks"
