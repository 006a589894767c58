"""The days on which experiments came, from git."""

import subprocess

import pytest

from tests.tools.runs.conftest import GIT, entry
from tools.site import dates


@pytest.fixture
def repository(workspace):
    def git(*arguments, day="2026-11-29"):
        when = f"{day}T12:00:00+0000"
        environment = {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when, "PATH": "/usr/bin:/bin"}
        command = [*GIT, *arguments]
        done = subprocess.run(
            command, cwd=workspace.root, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message=one", day="2025-01-02")
    first = git("rev-parse", "HEAD")
    git("commit", "--quiet", "--allow-empty", "--message=two", day="2026-03-04")
    return workspace, first, git("rev-parse", "HEAD")


def test_the_day_of_the_commit_that_introduced_it_or_it_was_copied_from(repository, capsys):
    workspace, first, second = repository
    workspace.write_ledger(
        entry("base", introduced=first[:12]),
        entry("moe", introduced=second[:12], forked_at=first[:12]),
        entry("new", introduced="pending", forked_at=second[:12]),
        entry("lost", introduced="0" * 12),
        entry("bare"),
    )
    assert dates.dates(workspace.root) == {
        "base": "2025-01-02",
        "moe": "2026-03-04",
        "new": "2026-03-04",
    }
    assert dates.main(["--root", str(workspace.root)]) == 0
    assert '"base": "2025-01-02"' in capsys.readouterr().out


def test_a_ledger_without_commits(repository):
    workspace, _, _ = repository
    assert dates.dates(workspace.root) == {}
