"""What is installed on this machine: listed with sizes, and removed where nothing runs from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.launch.main import main


@pytest.fixture
def homes(tmp_path, monkeypatch) -> dict[str, Path]:
    monkeypatch.setenv("GRUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRUG_VENVS", str(tmp_path / "venvs"))
    found = {}
    for home, name in (("cache/environments", "cpu-1"), ("venvs", "plan-tpu-2"), ("venvs", "3")):
        found[name] = tmp_path / home / name
        found[name].mkdir(parents=True)
        (found[name] / "file").write_bytes(os.urandom(3 * 2**20))
    os.link(found["3"] / "file", found["plan-tpu-2"] / "same")
    (tmp_path / "cache/environments/cpu-1.lock").write_text("")
    return found


def test_sizes_count_what_is_shared_once(homes, capsys):
    assert main(["--environments"]) == 0
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["MiB", "environment"] and last.split() == ["9", "in", "all"]
    assert [row.split() for row in rows] == [
        ["3", str(homes[name])] for name in ("3", "cpu-1", "plan-tpu-2")
    ]


def test_one_is_removed_by_its_name(homes, capsys):
    assert main(["--environments", "--remove", "cpu-1"]) == 0
    assert capsys.readouterr().out == f"removed {homes['cpu-1']}\n"
    assert not homes["cpu-1"].exists() and homes["3"].exists()
    assert not homes["cpu-1"].with_name("cpu-1.lock").exists()
    assert main(["--environments", "--remove", "cpu-1"]) == 1
    assert "no environment 'cpu-1'; there are 3, plan-tpu-2" in capsys.readouterr().err


def test_one_that_runs_stays(homes, capsys):
    program = homes["3"] / "bin/python"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    waits = "import sys; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [program, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline()
        assert main(["--environments", "--remove", "3"]) == 1
        assert f"3 is in use, by process {process.pid}" in capsys.readouterr().err
        process.communicate()
    assert main(["--environments", "--remove", "3"]) == 0
