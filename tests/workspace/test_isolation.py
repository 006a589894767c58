"""Isolation and changed variants, as ./pants itself enforces and reports them in a workspace."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workspace.workspace import Workspace

RULE = "Rule: experiments/grug/moe/ reaches only its own files and third-party requirements."
ONLY_TESTS = "--filter-target-type=python_test,grug_contract"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Iterator[Workspace]:
    workspace = Workspace(Path(__file__).parents[2], tmp_path_factory.mktemp("workspace"))
    workspace.fork("moe")
    workspace.commit()
    yield workspace
    workspace.stop()


@pytest.fixture
def edit(workspace: Workspace):
    """Writes a file of the workspace for one test."""
    before: dict[Path, str | None] = {}

    def write(path: str, text: str) -> None:
        file = workspace.root / path
        before.setdefault(file, file.read_text() if file.exists() else None)
        file.write_text(text)

    yield write
    for file, text in before.items():
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
    workspace.commit()


def test_an_import_of_another_variant_stops_each_goal_and_lint_lists_it(workspace, edit):
    bad = "from experiments.grug.base import model as other\n"
    path = "experiments/grug/moe/train.py"
    text = (workspace.root / path).read_text()
    at = text[: text.index("import jax\n")].count("\n") + 1
    edit(path, text.replace("import jax\n", bad + "import jax\n", 1))
    line = f"{path}:{at}: imports experiments.grug.base (model), outside experiments/grug/moe/"
    for goal in (
        ("test", "experiments/grug/moe::"),
        ("check", "experiments/grug/moe::"),
        ("package", "experiments/grug/moe::"),
        ("dependencies", path),
    ):
        run = workspace.pants(*goal)
        assert run.returncode != 0, goal
        for part in (line, RULE, "Remedy: copy the code into experiments/grug/moe/"):
            assert part in run.stderr, (goal, run.stderr)
    lint = workspace.pants("lint", "::")
    assert lint.returncode != 0
    assert line in lint.stdout + lint.stderr
    for other in ("✓ shellcheck", "ruff"):  # the other linters went on
        assert other in lint.stderr, lint.stderr


def list_tests(workspace: Workspace) -> list[str]:
    """What `./pants --changed-since=HEAD~1 test` runs."""
    run = workspace.pants("--changed-since=HEAD~1", ONLY_TESTS, "list")
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_a_change_of_a_variant_runs_its_own_tests_and_contract(workspace, edit):
    workspace.commit()
    text = (workspace.root / "experiments/grug/moe/model.py").read_text()
    edit("experiments/grug/moe/model.py", text + "\n# a change\n")
    workspace.commit()
    tests = list_tests(workspace)
    assert tests and all(test.startswith("experiments/grug/moe") for test in tests), tests
    assert "experiments/grug/moe#contract" in tests
    assert "experiments/grug/moe/test_model.py" in tests
    assert "experiments/grug/moe#plumbing" not in list_tests(workspace)  # it is base's
    changed = workspace.pants("--changed-since=HEAD~1", "variants", "--format=json")
    (row,) = json.loads(changed.stdout)["variants"]
    assert (row["name"], row["reasons"]) == ("moe", ["sources: model.py"])


def test_a_copy_with_plumbing_of_its_own_is_held_to_the_plumbings_tests(workspace, edit):
    workspace.commit()
    path = "experiments/grug/moe/plumbing/data.py"
    edit(path, (workspace.root / path).read_text() + "\n# a change\n")
    workspace.commit()
    assert "experiments/grug/moe#plumbing" in list_tests(workspace)


def test_a_change_of_base_runs_no_test_of_its_copies(workspace, edit):
    workspace.commit()
    text = (workspace.root / "experiments/grug/base/model.py").read_text()
    edit("experiments/grug/base/model.py", text + "\n# a change\n")
    workspace.commit()
    tests = list_tests(workspace)
    assert "experiments/grug/base#contract" in tests
    assert not [test for test in tests if "moe" in test]


def test_a_change_of_the_contract_runs_every_contract_and_nothing_else(workspace, edit):
    workspace.commit()
    text = (workspace.root / "tests/contract/conftest.py").read_text()
    edit("tests/contract/conftest.py", text + "\n# a change\n")
    workspace.commit()
    assert list_tests(workspace) == [
        "experiments/grug/base#contract",
        "experiments/grug/base#plumbing",
        "experiments/grug/moe#contract",
    ]
    changed = workspace.pants("--changed-since=HEAD~1", "variants", "--format=names")
    assert changed.stdout == "base\nmoe\n"


def test_no_change_and_no_such_ref(workspace):
    workspace.commit()
    none = workspace.pants("--changed-since=HEAD", "variants")
    assert (none.returncode, none.stdout) == (0, "No variant changed.\n")
    unknown = workspace.pants("--changed-since=nowhere", "variants")
    assert unknown.returncode != 0
    assert "bad revision 'nowhere...HEAD'" in unknown.stderr


SNEAKY = """
from pathlib import Path

import pytest
from _pytest.outcomes import Skipped

PARTS = ["experiments", "grug", "ba" "se", "model"]

def test_a_path_put_together_at_run_time_is_not_there():
    with pytest.raises(FileNotFoundError):
        open("/".join(PARTS) + ".py")

def test_nor_beside_this_file():
    assert Path(__file__).exists()
    assert not Path(__file__).parents[1].joinpath(*PARTS[2:3]).exists()

def test_a_module_name_put_together_at_run_time_is_not_found():
    with pytest.raises(Skipped, match="could not import"):
        pytest.importorskip(".".join(PARTS))
"""


def test_what_no_source_shows_is_not_in_the_sandbox(workspace, edit):
    edit("experiments/grug/moe/test_sneaky.py", SNEAKY)
    run = workspace.pants("test", "--output=all", "experiments/grug/moe/test_sneaky.py")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stderr + run.stdout
