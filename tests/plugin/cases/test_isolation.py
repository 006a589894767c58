"""Forbidden dependencies, however they come about, stop each goal; lint lists them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pants.core.goals.lint import LintResult
from pants.engine.addresses import Address
from pants.engine.internals.scheduler import ExecutionError
from pants.testutil.rule_runner import RuleRunner

from grug.isolation import IsolationLintFieldSet, IsolationLintRequest
from tests.plugin.cases.conftest import INHERITED, OPTIONS
from tests.plugin.cases.workspace import dependencies, lint

BASE = "experiments/grug/base"
MODEL = "WIDTH = 8\n"


@pytest.fixture(autouse=True, scope="module")
def base(runner: RuleRunner) -> None:
    runner.write_files({f"{BASE}/BUILD": "grug_variant()", f"{BASE}/model.py": MODEL})


def write(runner: RuleRunner, name: str, files: dict[str, str], build: str = "grug_variant()"):
    runner.write_files({f"experiments/grug/{name}/{n}": t for n, t in files.items()})
    runner.write_files({f"experiments/grug/{name}/BUILD": build})


def resolve(runner: RuleRunner, name: str, file: str = "model.py") -> list[str]:
    return dependencies(runner, Address(f"experiments/grug/{name}", relative_file_path=file))


def lint_variant(runner: RuleRunner, name: str, *files: str) -> LintResult:
    address = (Address(f"experiments/grug/{name}", relative_file_path=file) for file in files)
    targets = [runner.get_target(a) for a in address]
    return lint(runner, IsolationLintRequest, IsolationLintFieldSet, targets)


def test_own_files_and_third_parties_are_fine(runner: RuleRunner) -> None:
    code = "import json\nfrom experiments.grug.good import model\nfrom . import model as again\n"
    write(runner, "good", {"model.py": MODEL, "train.py": code})
    assert resolve(runner, "good", "train.py") == ["experiments/grug/good/model.py"]
    assert lint_variant(runner, "good", "model.py", "train.py").exit_code == 0


def test_the_message_names_file_line_import_rule_and_remedy(runner: RuleRunner) -> None:
    write(runner, "bad", {"model.py": "import json\nfrom experiments.grug.base import model\n"})
    with pytest.raises(ExecutionError) as raised:
        resolve(runner, "bad")
    message = str(raised.value)
    assert "experiments/grug/bad/model.py:2: imports experiments.grug.base (model)" in message
    assert "Rule: experiments/grug/bad/ reaches only its own files and third-party" in message
    assert "Remedy: copy the code into experiments/grug/bad/" in message
    assert "depends on" not in message, "said twice"


def test_a_test_file_is_held_to_it_too(runner: RuleRunner) -> None:
    write(runner, "tested", {"test_model.py": "from experiments.grug.base.model import WIDTH\n"})
    with pytest.raises(ExecutionError, match="test_model.py:1: imports experiments.grug.base.mod"):
        resolve(runner, "tested", "test_model.py")


ROUNDABOUT = {
    "relative": "from ..base import model\n",
    "relative_package": "from .. import base\n",
    "import_module": "import importlib\nimportlib.import_module('experiments.grug.base.model')\n",
    "computed_module": "import importlib\nimportlib.import_module('.'.join(['a', 'b']))\n",
    "dunder_import": "__import__('experiments.grug.base.model')\n",
    "string_import": "TARGET = 'experiments.grug.base.model'\n",
    "joined_string": "TARGET = 'experiments.grug.' + 'base.model'\n",
    "exec_of_a_path": "exec(open('experiments/grug/base/model.py').read())\n",
    "runpy": "import runpy\nrunpy.run_path('anything')\n",
    "sys_path": "import sys\nsys.path.append('elsewhere')\n",
    "sys_path_taken": "from sys import path\n",
    "spec": "from importlib import util\n",
    "relative_read": "TEXT = open('experiments/grug/base/model.py').read()\n",
    "joined_read": "from pathlib import Path\nTEXT = Path('experiments') / 'grug' / 'base'\n",
    "climbing_read": "TEXT = open('../base/model.py').read()\n",
    "tool": "from tools.corpus import cli\n",
    "tests": "import tests.contract.harness\n",
}


@pytest.mark.parametrize("way", ROUNDABOUT)
def test_ways_around_stop_the_goal_and_are_listed(runner: RuleRunner, way: str) -> None:
    write(runner, f"way_{way}", {"model.py": ROUNDABOUT[way]})
    line = f"experiments/grug/way_{way}/model.py:1: "
    if way not in ("runpy", "spec", "sys_path_taken"):  # refused at the import itself
        last = ROUNDABOUT[way].count("\n")
        line = line.replace(":1:", f":{last}:")
    with pytest.raises(ExecutionError, match=line):
        resolve(runner, f"way_{way}")
    result = lint_variant(runner, f"way_{way}", "model.py")
    assert result.exit_code == 1 and line in result.stdout


def test_explicit_dependencies_are_no_way_around(runner: RuleRunner) -> None:
    build = "grug_variant(dependencies=['experiments/grug/base/model.py'])"
    write(runner, "explicit", {"model.py": MODEL}, build)
    with pytest.raises(ExecutionError, match="model.py: depends on experiments/grug/base/model"):
        resolve(runner, "explicit")


def test_a_resource_from_outside(runner: RuleRunner) -> None:
    runner.write_files({"docs/BUILD": "resources(sources=['*.txt'])", "docs/words.txt": "a"})
    build = "grug_variant(dependencies=['docs'])"
    write(runner, "resourceful", {"model.py": MODEL}, build)
    with pytest.raises(ExecutionError, match="depends on docs"):
        resolve(runner, "resourceful")


def test_its_own_resources_are_fine(runner: RuleRunner) -> None:
    build = "resources(name='data', sources=['*.txt'])\ngrug_variant(dependencies=[':data'])"
    write(runner, "owner", {"model.py": MODEL, "words.txt": "a"}, build)
    # As a BUILD file had to name them once, and as grug_variant finds them.
    found = ["experiments/grug/owner/words.txt", "experiments/grug/owner:data"]
    assert sorted(resolve(runner, "owner")) == found


DECLARED = {
    "python_source": "python_source(name='more', source='model.py', run_goal_use_sandbox=False)",
    "pex_binary": "pex_binary(name='more', entry_point='model.py')",
}


@pytest.mark.parametrize("kind", DECLARED)
def test_other_targets_in_its_build_file(runner: RuleRunner, kind: str) -> None:
    build = f"grug_variant(sources=['train.py'])\n{DECLARED[kind]}"
    write(runner, f"declares_{kind}", {"model.py": MODEL, "train.py": ""}, build)
    with pytest.raises(ExecutionError, match="BUILD declares a grug_variant, files and resources"):
        dependencies(runner, Address(f"experiments/grug/declares_{kind}", target_name="more"))


def test_no_field_runs_a_variant_outside_the_sandbox(runner: RuleRunner) -> None:
    write(runner, "unboxed", {"model.py": MODEL}, "grug_variant(run_goal_use_sandbox=False)")
    with pytest.raises(ExecutionError, match="run_goal_use_sandbox"):
        resolve(runner, "unboxed")
    write(runner, "unboxed", {"model.py": MODEL})


def test_links_that_lead_out(runner: RuleRunner) -> None:
    write(runner, "linked", {"model.py": MODEL})
    link = Path(runner.build_root, "experiments/grug/linked/other.py")
    os.symlink("../base/model.py", link)
    line = "experiments/grug/linked/other.py:1: is a symbolic link to ../base/model.py"
    with pytest.raises(ExecutionError, match=line):
        resolve(runner, "linked")
    assert line in lint_variant(runner, "linked", "model.py").stdout
    link.unlink()
    link.write_text(MODEL)  # the remedy: the same content, as a file of its own
    runner.set_options(OPTIONS, env_inherit=INHERITED)  # a new session, as the next command is
    assert resolve(runner, "linked") == []


def test_a_requirement_that_is_the_workspace_in_disguise(runner: RuleRunner) -> None:
    runner.write_files(
        {
            "tools/locks/disguised/BUILD": (
                "python_requirement(name='mapped', requirements=['pytest'], resolve='cpu', "
                "modules=['experiments.grug.base'])\n"
                "python_requirement(name='local', requirements=['x @ file:///x.whl'], "
                "resolve='cpu')\n"
                "python_requirement(name='leaning', requirements=['pytest'], resolve='cpu', "
                "dependencies=['experiments/grug/base/model.py'])\n"
            )
        }
    )
    for name, message in (
        ("mapped", "brings code of the workspace in as a third party: experiments.grug.base"),
        ("local", "brings code of the workspace in as a third party: x@ file:///x.whl"),
        ("leaning", "a requirement depends on requirements only"),
    ):
        with pytest.raises(ExecutionError, match=message):
            dependencies(runner, Address("tools/locks/disguised", target_name=name))
    runner.write_files({"tools/locks/disguised/BUILD": ""})


def test_only_tests_and_the_launcher_depend_on_variants(runner: RuleRunner) -> None:
    use = {"use.py": "from experiments.grug.base import model\n", "BUILD": "python_sources()"}
    for directory in ("tools/user", "scripts", "tests/user"):
        runner.write_files({f"{directory}/{name}": text for name, text in use.items()})
    runner.write_files({"tests/user/lib.py": "", "tools/user/lean.py": "import tests.user.lib\n"})

    def of(directory: str, file: str = "use.py") -> list[str]:
        return dependencies(runner, Address(directory, relative_file_path=file))

    with pytest.raises(
        ExecutionError, match="(?s)tools/user/use.py depends on .*tools depend on tools"
    ):
        of("tools/user")
    with pytest.raises(ExecutionError, match="(?s)tools/user/lean.py depends on tests/user/lib.py"):
        of("tools/user", "lean.py")
    with pytest.raises(ExecutionError, match="(?s)scripts/use.py.*only tests and the launcher"):
        of("scripts")
    assert of("tests/user") == [f"{BASE}/model.py"]


def test_exemptions_are_read_and_expire(runner: RuleRunner) -> None:
    def noted(comment: str) -> LintResult:
        write(runner, "exempt", {"model.py": f"{comment}\nWIDTH = 1\n"})
        return lint_variant(runner, "exempt", "model.py")

    reason = "a prefix attends both ways, which is the experiment"
    overdue = noted(f"# grug: no-contract causality until 2020-01-31: {reason}")
    assert overdue.exit_code == 1 and "model.py:1: " in overdue.stdout
    assert "2020-01-31" in overdue.stdout
    assert noted("# grug: no-contract causality").exit_code == 1
    assert noted("# an ordinary comment").exit_code == 0
