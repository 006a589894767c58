"""What is said of hardware that is not here.

The compilers of TPUs and GPUs themselves are tried by tests/slow/topology.
"""

import importlib.metadata
import os

import jax
import pytest

from tests.contract.harness import under_test

launch = under_test().launch
leave_hardware_alone = under_test().topology.leave_hardware_alone
LIBTPU = any(importlib.metadata.distributions(name="libtpu"))


@pytest.mark.parametrize(
    "name",
    ["v5e", "v9:4x4", "v5p:4x4", "v5e:4x4x4", "8xb200", "h100", "0xh100", "0x8xh100", "tpu", "4x4"],
)
def test_unknown_hardware_is_one_line(name, capsys):
    assert launch.main(["--plan", "--topology", name]) == 1
    error = capsys.readouterr().err
    assert "v5e:4x4, 2xv6e:4x4" in error and "2x8xh100" in error and error.count("\n") == 1


@pytest.mark.skipif(LIBTPU, reason="the compiler is here")
@pytest.mark.parametrize("name, bundle", [("2xv5e:4x4", "for tpu"), ("2x8xh100", "for gpu")])
def test_a_missing_compiler_is_one_line(name, bundle, capsys):
    assert launch.main(["--plan", "--topology", name]) == 1
    error = capsys.readouterr().err
    assert "./pants run launch" in error and bundle in error and error.count("\n") == 1


def test_accelerators_compute_in_bfloat16():
    assert launch.parse(["--plan", "--topology", "v5e:4x4"]).train.model.compute_dtype == "bfloat16"
    assert launch.parse([]).train.model.compute_dtype == "float32"


def test_a_plan_for_other_hardware_leaves_this_machines_alone(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("JAX_PLATFORMS", None)
    leave_hardware_alone(["--plan", "--preset", "tiny"])
    assert "JAX_PLATFORMS" not in os.environ
    leave_hardware_alone(["--plan", "--topology=v5e:4x4"])
    jax.config.update("jax_enable_compilation_cache", True)
    assert os.environ["JAX_PLATFORMS"] == "cpu"
