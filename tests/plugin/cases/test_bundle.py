"""`package` of a launch bundle: the variant's closure, its lock, and the same bytes again."""

from __future__ import annotations

import json

import pytest
from pants.core.goals.package import BuiltPackage
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.engine.internals.scheduler import ExecutionError
from pants.testutil.rule_runner import RuleRunner

from grug.bundle import BundleFieldSet
from grug.target_types import LaunchBundle

HERE = "experiments/grug/packed"
WORDS = "".join(f"# words of line {i} among many\n\n" for i in range(2000))
FILES = {
    "launch.py": f"from {HERE.replace('/', '.')} import train\n",
    "train.py": "import jax\nfrom experiments.grug.packed import model\n" + WORDS,
    "model.py": "WIDTH = 1\n",
    "unused.py": "",
    "test_model.py": "",
}
BUILD = (
    "grug_variant(resolve='cpu', accelerators=['cpu'], launch_args=['--preset', 'it is'], "
    "topologies={'cpu': '3'})"
)


def package(runner: RuleRunner, build: str = BUILD, **files: str) -> dict[str, bytes]:
    texts = {**FILES, **{f"{name}.py": text for name, text in files.items()}, "BUILD": build}
    runner.write_files({f"{HERE}/{name}": text for name, text in texts.items()})
    target = runner.get_target(Address(HERE, generated_name="launch-cpu"))
    assert type(target) is LaunchBundle
    built = runner.request(BuiltPackage, [BundleFieldSet.create(target)])
    name = "bundles/packed-cpu"
    assert [a.relpath for a in built.artifacts] == [name, f"{name}.tar.gz"]
    return {f.path: f.content for f in runner.request(DigestContents, [built.digest])}


def test_a_bundle_holds_what_the_variant_needs(runner: RuleRunner) -> None:
    first = package(runner)
    manifest = json.loads(first["bundles/packed-cpu/bundle.json"])
    assert manifest["entry"] == "experiments.grug.packed.launch"
    assert manifest["args"] == ["--preset", "it is"]
    assert manifest["topology"]["nodes"] == 3
    assert manifest["versions"]["jax"] == "0.10.2"
    application = first["bundles/packed-cpu/app.pex"]
    assert b"experiments/grug/packed/model.py" in application
    assert b"unused.py" not in application and b"test_model.py" not in application
    requirements = first["bundles/packed-cpu/requirements.txt"].decode()
    assert "\njaxlib==" in requirements and "pytest==" not in requirements
    assert package(runner) == first
    assert package(runner, model="WIDTH = 2\n") != first


def test_a_resolve_that_is_none_is_named(runner: RuleRunner) -> None:
    build = BUILD.replace("launch_args", "bundle_resolves={'cpu': 'tin'}, launch_args")
    with pytest.raises(ExecutionError, match="launch-cpu: .*has no 'tin'; it has cpu, docs, tools"):
        package(runner, build)
    package(runner)
