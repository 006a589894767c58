from __future__ import annotations

from pants.engine.addresses import Address
from pants.testutil.rule_runner import RuleRunner

from tests.plugin.cases.workspace import dependencies


def test_the_launcher_depends_on_each_variant_that_can_be_launched(runner: RuleRunner) -> None:
    runner.write_files(
        {
            "tools/launch/BUILD": "python_source(name='launch', source='start.py')\n"
            "python_source(name='other', source='other.py')",
            "tools/launch/start.py": "",
            "tools/launch/other.py": "",
            "experiments/grug/able/BUILD": "grug_variant()",
            "experiments/grug/able/launch.py": "",
            "experiments/grug/unable/BUILD": "grug_variant()",
            "experiments/grug/unable/model.py": "",
        }
    )
    result = dependencies(runner, Address("tools/launch", target_name="launch"))
    assert "experiments/grug/able/launch.py" in result
    assert not any("unable" in spec for spec in result)
    assert "experiments/grug/able/launch.py" not in dependencies(
        runner, Address("tools/launch", target_name="other")
    )
