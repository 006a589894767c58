"""Rows that devices share: the same steps as on one device."""

import jax
import numpy as np
import pytest

from tests.contract.harness import make_mesh, take_steps

pytestmark = pytest.mark.contract("context")


def test_steps_over_parts_of_rows_are_the_steps(variant, run_config, steps):
    with jax.set_mesh(make_mesh(variant, data=2, context=2)):
        metrics = take_steps(variant, run_config, len(steps.metrics)).metrics
    for number, (ours, theirs) in enumerate(zip(metrics, steps.metrics, strict=True)):
        for name, x in theirs.items():
            np.testing.assert_allclose(ours[name], x, rtol=1e-4, err_msg=f"{name}, step {number}")
