"""`package` of a launch bundle: the variant's closure, its lock, and the same bytes again."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator

import pytest
from pants.core.goals.package import BuiltPackage
from pants.engine.addresses import Address
from pants.engine.fs import Digest, DigestContents, DigestSubset, PathGlobs, Snapshot
from pants.engine.internals.scheduler import ExecutionError
from pants.testutil.rule_runner import RuleRunner

from grug.bundle import BundleFieldSet
from grug.target_types import LaunchBundle
from tests.plugin.cases.conftest import INHERITED, OPTIONS

HERE = "experiments/grug/packed"
NAME = "bundles/packed-cpu"
WORDS = "".join(f"# words of line {i} among many\n\n" for i in range(2000))
FILES = {
    "launch.py": f"from {HERE.replace('/', '.')} import train\n",
    "train.py": "import jax\nfrom experiments.grug.packed import model\n" + WORDS,
    "model.py": "WIDTH = 1\n",
    "unused.py": "",
    "test_model.py": "",
    "kernels/table.json": "[1, 2]",
    ".notes": "",
}
BUILD = (
    "grug_variant(resolve='cpu', accelerators=['cpu'], launch_args=['--preset', 'it is'], "
    "topologies={'cpu': '3'})"
)


def package(runner: RuleRunner, build: str = BUILD, **files: str) -> BuiltPackage:
    texts = {**FILES, **{f"{name}.py": text for name, text in files.items()}, "BUILD": build}
    runner.write_files({f"{HERE}/{name}": text for name, text in texts.items()})
    return packed(runner)


def packed(runner: RuleRunner) -> BuiltPackage:
    target = runner.get_target(Address(HERE, generated_name="launch-cpu"))
    assert type(target) is LaunchBundle
    built = runner.request(BuiltPackage, [BundleFieldSet.create(target)])
    assert [a.relpath for a in built.artifacts] == [NAME, f"{NAME}.tar.gz"]
    return built


def contents(runner: RuleRunner, *request: str, **files: str) -> dict[str, bytes]:
    built = package(runner, *request, **files)
    return {f.path: f.content for f in runner.request(DigestContents, [built.digest])}


def test_a_bundle_holds_what_the_variant_needs(runner: RuleRunner) -> None:
    first = contents(runner)
    manifest = json.loads(first["bundles/packed-cpu/bundle.json"])
    assert manifest["entry"] == "experiments.grug.packed.launch"
    assert manifest["args"] == ["--preset", "it is"]
    assert manifest["topology"]["nodes"] == 3
    assert manifest["versions"]["jax"] == "0.12.0.1"
    application = first["bundles/packed-cpu/app.pex"]
    assert b"experiments/grug/packed/model.py" in application
    assert b"unused.py" not in application and b"test_model.py" not in application
    requirements = first["bundles/packed-cpu/requirements.txt"].decode()
    assert manifest["wheels"] is None
    assert first["bundles/packed-cpu/installer.txt"].startswith(b"uv==")
    assert "\njaxlib==" in requirements and "pytest==" not in requirements
    assert contents(runner) == first
    assert contents(runner, model="WIDTH = 2\n") != first


def test_a_bundle_holds_the_data_that_the_variant_reads(runner: RuleRunner) -> None:
    first = contents(runner)
    application = zipfile.ZipFile(io.BytesIO(first[f"{NAME}/app.pex"]))
    assert application.read(f"{HERE}/kernels/table.json") == b"[1, 2]"
    assert not [name for name in application.namelist() if "notes" in name or "BUILD" in name]
    runner.write_files({f"{HERE}/kernels/table.json": "[3]"})
    edited = {f.path: f.content for f in runner.request(DigestContents, [packed(runner).digest])}
    assert edited[f"{NAME}/app.pex"] != first[f"{NAME}/app.pex"]
    declared = (
        f"resource(name='t', source='kernels/table.json')\n{BUILD[:-1]}, dependencies=[':t'])"
    )
    assert contents(runner, declared)[f"{NAME}/app.pex"] == first[f"{NAME}/app.pex"]


def test_a_resolve_that_is_none_is_named(runner: RuleRunner) -> None:
    build = BUILD.replace("launch_args", "bundle_resolves={'cpu': 'tin'}, launch_args")
    with pytest.raises(ExecutionError, match="launch-cpu: .*has no 'tin'; it has cpu, docs, tools"):
        package(runner, build)
    package(runner)


def test_an_import_that_the_resolve_lacks_is_named_with_its_line(runner: RuleRunner) -> None:
    build = BUILD.replace("launch_args", "bundle_resolves={'cpu': 'docs'}, launch_args")
    message = (
        rf"#launch-cpu: bundle: {HERE}/train\.py:1: import jax: needs jax, which "
        r"tools/locks/docs\.in lacks: \./pants run locks -- add jax"
    )
    with pytest.raises(ExecutionError, match=message):
        package(runner, build)
    package(runner)


@pytest.fixture
def options(runner: RuleRunner) -> Iterator[Callable[..., None]]:
    """options(FLAG...): sets these besides the usual ones, for one test."""
    yield lambda *flags: runner.set_options((*OPTIONS, *flags), env_inherit=INHERITED)
    runner.set_options(OPTIONS, env_inherit=INHERITED)


def test_wheels_are_for_the_workers_that_are_named(runner: RuleRunner, options) -> None:
    options("--bundle-wheels", "--bundle-wheels-python=3.13", "--bundle-wheels-machine=aarch64")
    built = package(runner)
    paths = runner.request(Snapshot, [built.digest]).files
    wheels = [path.rpartition("/")[2] for path in paths if path.startswith(f"{NAME}/wheels/")]
    native = [wheel for wheel in wheels if not wheel.endswith("-none-any.whl")]
    assert any(wheel.startswith("jaxlib-0.12.0.1-cp313-cp313-manylinux") for wheel in native)
    assert any(wheel.startswith("uv-") for wheel in native)
    assert all("_aarch64" in wheel for wheel in native)
    only = DigestSubset(built.digest, PathGlobs([f"{NAME}/bundle.json"]))
    (file,) = runner.request(DigestContents, [runner.request(Digest, [only])])
    assert json.loads(file.content)["wheels"] == {"python": "3.13", "machine": "aarch64"}
    assert package(runner).digest == built.digest


def test_wheels_for_a_python_that_is_not_locked(runner: RuleRunner, options) -> None:
    options("--bundle-wheels", "--bundle-wheels-python=3.11")
    with pytest.raises(ExecutionError, match=r"CPython 3\.11: the lock is for 3\.12, 3\.13, 3\.14"):
        package(runner)
