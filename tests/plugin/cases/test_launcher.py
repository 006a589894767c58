from __future__ import annotations

from pants.engine.addresses import Address
from pants.testutil.rule_runner import RuleRunner

from tests.plugin.cases.workspace import dependencies


def test_the_launcher_depends_on_each_variant_that_can_be_launched(runner: RuleRunner) -> None:
    runner.write_files(
        {
            "BUILD": "pex_binary(name='launch', entry_point='start.py')\n"
            "pex_binary(name='other', entry_point='start.py')\npython_sources()",
            "start.py": "",
            "experiments/grug/able/BUILD": "grug_variant()",
            "experiments/grug/able/launch.py": "",
            "experiments/grug/unable/BUILD": "grug_variant()",
            "experiments/grug/unable/model.py": "",
        }
    )
    found = dependencies(runner, Address("", target_name="launch"))
    assert "experiments/grug/able/launch.py" in found
    assert not any("unable" in spec for spec in found)
    assert "experiments/grug/able/launch.py" not in dependencies(
        runner, Address("", target_name="other")
    )
