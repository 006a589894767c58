"""Requirements of a bundle: from the workspace's own locks, and from small ones with a fault."""

import json
import re
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from tools.bundle.lock import (
    MACHINES,
    Lock,
    Target,
    Wheel,
    machines_of,
    one_wheel_each,
    requirements_text,
)
from tools.common.errors import ToolError

LOCKS = Path(__file__).parents[3] / "tools/locks"
PYTHONS = ("3.12", "3.13", "3.14")
TARGETS = [Target(python, machine) for python in PYTHONS for machine in MACHINES]


def read(accelerator: str) -> Lock:
    path = LOCKS / f"{accelerator}.lock"
    return Lock.parse(path.read_text(), path.name)


def test_one_jax_and_the_same_versions_of_all_else():
    cpu, gpu, tpu = (read(name) for name in ("cpu", "gpu", "tpu"))
    assert cpu.version("jax") == gpu.version("jax") == tpu.version("jax") == "0.12.0.1"
    for other in (gpu, tpu):
        shared = set(cpu.distributions) & set(other.distributions)
        assert {name: cpu.version(name) for name in shared} == {
            name: other.version(name) for name in shared
        }


def test_what_a_variant_needs_and_nothing_of_the_tests():
    names = {pin.name for pin in read("cpu").needed(["jax", "equinox", "grain"], TARGETS)}
    assert {"jax", "jaxlib", "numpy", "scipy", "equinox", "jaxtyping"} <= names
    assert not {"pytest", "playwright", "flax"} & names
    assert "libtpu" in {pin.name for pin in read("tpu").needed(["jax[tpu]"], TARGETS)}
    assert "libtpu" not in {pin.name for pin in read("tpu").needed(["jax"], TARGETS)}
    gpu = {pin.name for pin in read("gpu").needed(["jax[cuda13]"], TARGETS)}
    assert {"jax-cuda13-plugin", "nvidia-cublas"} <= gpu


def test_glibc_floors_and_machines_come_from_the_wheels():
    floors = machines_of(read("tpu").needed(["jax[tpu]"], TARGETS), PYTHONS)
    assert floors == {"x86_64": "2.31"}  # libtpu has no wheel for aarch64
    assert set(machines_of(read("cpu").needed(["jax"], TARGETS), PYTHONS)) == set(MACHINES)


@pytest.mark.parametrize(
    ("name", "python", "floor"),
    [
        ("a-1-py3-none-any.whl", "3.12", (0, 0)),
        ("a-1-cp312-cp312-manylinux2014_x86_64.whl", "3.12", (2, 17)),
        ("a-1-cp312-cp312-manylinux2014_x86_64.whl", "3.13", None),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64.manylinux_2_17_x86_64.whl", "3.13", (2, 17)),
        ("a-1-cp313-abi3-manylinux_2_28_x86_64.whl", "3.12", None),
        ("a-1-cp313-cp313t-manylinux_2_28_x86_64.whl", "3.13", None),
        ("a-1-cp312-cp312-musllinux_1_2_x86_64.whl", "3.12", None),
        ("a-1-cp312-cp312-manylinux_2_28_aarch64.whl", "3.12", None),
        ("a-1-cp312-cp312-macosx_11_0_arm64.whl", "3.12", None),
    ],
)
def test_which_wheels_run_where(name, python, floor):
    assert Wheel(name, "", "").floor(Target(python, "x86_64")) == floor


def small(*entries: dict) -> Lock:
    text = json.dumps({"locked_resolves": [{"locked_requirements": list(entries)}]})
    return Lock.parse("// a header\n" + text, "small.lock")


def entry(name: str, *needs: str, wheel: str = "py3-none-any") -> dict:
    url = f"https://files.example.org/{name}-1-{wheel}.whl"
    artifact = {"algorithm": "sha256", "hash": "a" * 64, "url": url}
    sdist = {"algorithm": "sha256", "hash": "b" * 64, "url": f"https://x.org/{name}-1.tar.gz"}
    artifacts = [artifact, sdist]
    return {"project_name": name, "version": "1", "requires_dists": needs, "artifacts": artifacts}


def test_requirements_hold_wheels_alone_and_markers_where_they_differ():
    old = 'b; python_version < "3.13"'
    lock = small(entry("a", old, 'c; sys_platform == "win32"'), entry("b"))
    text = requirements_text(lock.needed(["A"], TARGETS), TARGETS)
    assert re.findall(r"sha256:(.)", text) == ["a", "a"]
    first, second = [line for line in text.splitlines() if "==1" in line]
    assert first == "a==1 \\"
    assert 'python_version == "3.12" and platform_machine == "x86_64"' in second
    assert "3.13" not in second


def test_faults_are_named():
    with pytest.raises(
        ToolError, match=r"small\.lock has no b, which .* run locks -- update small"
    ):
        small(entry("a", "b")).needed(["a"], TARGETS)
    with pytest.raises(ToolError, match="x.lock is no Pex lock"):
        Lock.parse("{}", "x.lock")
    lock = small(entry("a", wheel="cp312-cp312-macosx_11_0_arm64"))
    with pytest.raises(ToolError, match="a 1 has no wheel for Linux x86_64"):
        machines_of(lock.needed(["a"], TARGETS), PYTHONS)


@pytest.mark.parametrize("machine", MACHINES)
def test_wheels_for_one_kind_of_worker(machine):
    target = Target("3.12", machine)
    pins = read("cpu").needed(["jax", "tensorstore", "grain"], [target])
    download = one_wheel_each(pins, target)
    found = re.findall(r"^(\S+)==", download.requirements, re.MULTILINE)
    assert found == [pin.name for pin in pins] and ";" not in download.requirements
    hashes = re.findall(r"--hash=sha256:(\w+)", download.requirements)
    assert len(hashes) == len(pins)
    tags = set(json.loads(download.platform)["compatible_tags"])
    chosen = [w for pin in pins for w in pin.wheels if w.sha256 in hashes]
    assert all(tags & set(map(str, parse_wheel_filename(w.name)[3])) for w in chosen)
    assert not any("musllinux" in tag or "cp313-cp313" in tag for tag in tags)


def test_no_wheels_for_a_worker_that_cannot_be():
    target = Target("3.12", "aarch64")
    pins = read("tpu").needed(["jax[tpu]"], [target])
    with pytest.raises(ToolError, match="not every .* aarch64: there are all for x86_64"):
        one_wheel_each(pins, target)
