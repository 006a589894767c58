"""The machine's own matrix-product peak: square products by one library.

python -m tests.benchmarks.matmul JOB numpy|xla|torch SIZE float32|bfloat16 [--gpu]
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks.worker import Job, Step, cores, serve


def numpy_product(size: int, dtype: str) -> Callable[[], Any]:
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    return lambda: (a @ b)[0, 0]


def xla_product(size: int, dtype: str) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    a, b = jax.random.uniform(jax.random.key(0), (2, size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    return lambda: product(a, b)[0, 0]


def torch_product(size: int, dtype: str) -> Callable[[], Any]:
    import torch  # pants: no-infer-dep  # ty: ignore[import-not-found]

    torch.set_num_threads(cores())
    device = "cuda" if "--gpu" in sys.argv else "cpu"
    a, b = torch.rand((2, size, size), dtype=getattr(torch, dtype), device=device)
    return lambda: (a @ b)[0, 0]


PRODUCTS = {"numpy": numpy_product, "xla": xla_product, "torch": torch_product}


def build(job: Job) -> Step:
    """A step is one product; its corner stands for the loss."""
    product = PRODUCTS[sys.argv[2]](int(sys.argv[3]), sys.argv[4])
    return lambda index: (product(), 0.0)


if __name__ == "__main__":
    serve(build, {})
