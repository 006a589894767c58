"""The reference of goals and target types is what ./pants says of them."""

from pathlib import Path

from tests.workspace.workspace import Workspace
from tools.reference import pages
from tools.reference.pants_help import parse

ROOT = Path(__file__).parents[2]


def test_goals_and_targets_are_what_pants_says(tmp_path):
    workspace = Workspace(ROOT, tmp_path)
    # For one question a daemon is not worth its start.
    run = workspace.pants("--no-pantsd", "help-all")
    assert run.returncode == 0, run.stderr
    message = parse(run.stdout, "./pants help-all")
    written = {pages.GOALS: pages.goals_page(message), pages.TARGETS: pages.targets_page(message)}
    for name, text in written.items():
        assert str(tmp_path) not in text
        assert not pages.is_stale(ROOT / name, text), pages.remedy(name)
