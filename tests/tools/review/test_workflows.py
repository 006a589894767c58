"""The workflows, for what zizmor, which lint runs over them, does not know of this workspace."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.review.artifact import ARTIFACT

WORKFLOWS = Path(__file__).parents[3] / ".github/workflows"
NAMES = ["ci.yml", "comment.yml", "report.yml", "site.yml"]


def workflow(name):
    return (WORKFLOWS / name).read_text()


def test_all_of_them_are_here():
    assert sorted(path.name for path in WORKFLOWS.glob("*.yml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_named_by_commit_and_version(name):
    uses = re.findall(r"uses: *(.*)", workflow(name))
    assert uses
    for one in uses:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one), one


def test_one_action_is_one_commit():
    pins = {}
    for name in NAMES:
        for action, commit in re.findall(r"uses: (\S+)@(\S+)", workflow(name)):
            assert pins.setdefault(action, commit) == commit, action


@pytest.mark.parametrize("name", NAMES)
def test_each_job_has_no_more_than_it_needs(name):
    text = workflow(name)
    assert re.search(r"^permissions: \{\}$", text, re.M)
    granted = set(re.findall(r"^ +([a-z-]+: (?:write|read)) #", text, re.M))
    writes = {one for one in granted if one.endswith("write")}
    assert (
        writes
        == {
            "ci.yml": set(),
            "report.yml": set(),
            "comment.yml": {"pull-requests: write"},
            "site.yml": {"id-token: write", "pages: write"},
        }[name]
    )
    assert "secrets." not in text and "pull_request_target" not in text


def test_the_token_is_where_the_pull_requests_code_is_not():
    for name in ("ci.yml", "report.yml", "site.yml"):
        assert "github.token" not in workflow(name)
    text = workflow("comment.yml")
    assert re.findall(r"^ +run: (.*)", text, re.M) == ["python3 -m tools.review comment"]
    assert re.findall(r"^ +ref: (.*)", text, re.M) == [
        "${{ github.event.repository.default_branch }}"
    ]
    assert "cache" not in text and "download-artifact" not in text


def test_what_one_hands_over_the_other_asks_for():
    assert f"name: {ARTIFACT}\n" in workflow("report.yml")
    assert "workflows: [report]" in workflow("comment.yml")
    assert re.search(r"^name: report$", workflow("report.yml"), re.M)


def test_what_has_the_token_needs_nothing_installed():
    """No site-packages: `-I -S` has the standard library alone."""
    root = str(WORKFLOWS.parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); import tools.review.__main__"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
