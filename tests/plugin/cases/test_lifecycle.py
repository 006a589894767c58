"""What a variant's tests say before its change goes into its origin."""

from __future__ import annotations

from pants.engine.unions import UnionMembership
from pants.option.global_options import GlobalOptions
from pants.testutil.option_util import create_options_bootstrapper
from pants.testutil.rule_runner import RuleRunner

from grug import lifecycle
from grug.lifecycle import VariantTests, VariantTestsRequest


def failed(runner: RuleRunner, name: str, width: int, expected: int) -> tuple[str, ...]:
    """The failing tests of a variant with a test of its own and, by its three files, a contract."""
    here = f"experiments/grug/{name}"
    test = (
        f"from experiments.grug.{name} import model\n\n"
        f"def test_own():\n    assert model.WIDTH == {expected}\n"
    )
    runner.write_files(
        {
            "tests/contract/test_width.py": (
                "import importlib, os\n\ndef test_width():\n"
                "    name = os.environ['GRUG_VARIANT'] + '.model'\n"
                "    assert importlib.import_module(name).WIDTH == 8\n"
            ),
            f"{here}/BUILD": "grug_variant(resolve='cpu')",
            f"{here}/model.py": f"WIDTH = {width}\n",
            f"{here}/train.py": "",
            f"{here}/launch.py": "",
            f"{here}/test_model.py": test,
        }
    )
    return runner.request(VariantTests, [VariantTestsRequest(here)]).failed


def test_green_tests_let_it_pass(runner: RuleRunner) -> None:
    assert failed(runner, "green", 8, 8) == ()


def test_a_red_test_and_a_red_contract_are_named(runner: RuleRunner) -> None:
    assert failed(runner, "red", 8, 9) == ("experiments/grug/red/test_model.py",)
    assert failed(runner, "loose", 9, 9) == ("experiments/grug/loose#contract",)


def test_a_sentence_that_begins_with_an_at_sign_names_no_file() -> None:
    """Elsewhere in Pants `@` names a file that holds an option's value."""
    sentences = (
        (lifecycle.ForkSubsystem, "purpose"),
        (lifecycle.RetireSubsystem, "verdict"),
        (lifecycle.UpstreamSubsystem, "verdict"),
    )
    for subsystem, name in sentences:
        bootstrapper = create_options_bootstrapper([f"--{subsystem.name}-{name}=@alice asks"])
        options = bootstrapper.full_options_for_scopes(
            [GlobalOptions.get_scope_info(), subsystem.get_scope_info()], UnionMembership({})
        )
        assert options.for_scope(subsystem.name)[name] == "@alice asks"
