"""What holds of the locks that bundles install."""

import pytest
from packaging.requirements import Requirement

from tests.tools.requirements.conftest import entry, make_lock
from tools.common.errors import ToolError
from tools.requirements import check_locks
from tools.requirements.workspace import Resolve

RESOLVES = [Resolve(n, f"tools/locks/{n}.lock") for n in ("cpu", "gpu", "tpu")]
BOTH = ("cp312-abi3-manylinux_2_28_x86_64", "cp312-abi3-manylinux_2_28_aarch64")


def test_one_jax():
    check_locks.one_jax({"cpu": "0.12", "gpu": "0.12", "tpu": None}, RESOLVES)
    check_locks.one_jax({}, [])
    with pytest.raises(ToolError) as caught:
        check_locks.one_jax({"cpu": "0.12", "gpu": "0.10", "tpu": "0.10"}, RESOLVES)
    said = str(caught.value)
    assert "0.12 in cpu, 0.10 in gpu, 0.10 in tpu" in said and "\n" not in said
    assert said.endswith(
        "into tools/locks/cpu.in, tools/locks/gpu.in, tools/locks/tpu.in, then ./pants run locks "
        "-- update cpu gpu tpu"
    )


@pytest.mark.parametrize(
    ("line", "version"),
    [("JAX[tpu]==0.12.0", "0.12.0"), ("jax", None), ("jax>=0.12,<0.13", None), ("jaxlib==1", None)],
)
def test_what_a_requirement_fixes_jax_to(line, version):
    assert check_locks.pinned([Requirement("numpy==2"), Requirement(line)]) == version


def test_bundles_install_wheels():
    lock = make_lock(entry("jax", "1", tags=BOTH), entry("a", "1", needs=["b"]), entry("b", "1"))
    assert check_locks.machines(lock, "cpu", ["a"]) == {"aarch64": "2.28", "x86_64": "2.28"}
    lock = make_lock(entry("jax", "1", tags=BOTH), entry("a", "1", tags=BOTH[:1]))
    assert check_locks.machines(lock, "tpu", ["a"]) == {"x86_64": "2.28"}
    assert set(check_locks.machines(lock, "tpu", [])) == {"aarch64", "x86_64"}
    lock = make_lock(entry("jax", "1"), entry("a", "1", tags=["cp312-cp312-macosx_11_0_arm64"]))
    with pytest.raises(ToolError, match=r"^tools/locks/cpu.lock: a 1 has no wheel for Linux"):
        check_locks.machines(lock, "cpu", ["a"])
    with pytest.raises(ToolError, match="has no jax, which a bundle needs"):
        check_locks.machines(make_lock(entry("a", "1")), "gpu", ["a"])


def test_what_variants_may_import_of_the_cpus_resolve():
    locks = {
        "cpu": make_lock(asked=["jax==1", "Numpy", "pytest", "rich>=1"]),
        "tpu": make_lock(asked=["jax[tpu]==1", "numpy", "rich>=1"]),
    }
    assert check_locks.shared("cpu", locks) == ["jax==1", "Numpy", "rich>=1"]
    assert check_locks.shared("tpu", locks) == ["jax[tpu]==1", "numpy", "rich>=1"]
    assert check_locks.shared("cpu", {"cpu": locks["cpu"]}) == list(locks["cpu"].requirements)
