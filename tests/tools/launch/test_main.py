import json
import os
import platform
import re
import subprocess
import sys

import pytest

from tests.tools.launch.terminal import on_a_terminal
from tools.launch.main import choose, find_variants, main, needs_data, planned_topology


def test_finds_directories_with_a_launch_file(tmp_path):
    for name in ("base", "moe"):
        (tmp_path / "experiments/grug" / name).mkdir(parents=True)
        (tmp_path / "experiments/grug" / name / "launch.py").touch()
    (tmp_path / "experiments/grug/notes").mkdir()
    assert find_variants(tmp_path) == ["base", "moe"]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], ("base", [])),
        (["--steps", "5"], ("base", ["--steps", "5"])),
        (["moe", "--steps", "5"], ("moe", ["--steps", "5"])),
        (["experiments/grug/moe/"], ("moe", [])),
    ],
)
def test_chooses_base_unless_a_variant_is_named(arguments, expected):
    assert choose(arguments, ["base", "moe"]) == expected


def test_unknown_variant_names_the_nearest():
    with pytest.raises(ValueError, match=r"no variant 'mow'.*nearest: moe"):
        choose(["mow"], ["base", "moe"])


def test_unknown_variant_ends_with_2_and_one_line(capsys):
    assert main(["no-such-variant"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--plan"],
        ["--data", "x"],
        ["--data=x"],
        ["--help"],
        ["--tyro-print-completion", "bash"],
        ["--tyro-write-completion", "bash", "x"],
    ],
)
def test_prepares_no_corpus_where_none_is_read(flags):
    assert not needs_data(flags)


PARSES = """
import sys

def parse(argv):
    if argv != ["--steps", "5"]:
        print("unknown flags", argv, file=sys.stderr)
        sys.exit(2)
"""
REFUSES = "def parse(argv):\n    raise ValueError(f'steps={argv[1]}: is too few; raise it')\n"


def launch(tmp_path, cache, variant: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Launches a variant below `tmp_path`, in a process of its own: a start would replace ours."""
    for name, text in (("strict", PARSES), ("firm", REFUSES), ("old", "print('ran')\n")):
        file = tmp_path / "experiments/grug" / name / "launch.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    code = (
        "import pathlib, sys, tools.launch.main as launch\n"
        "launch.prepare_default = lambda: print('prepares') or 'store'\n"
        f"sys.exit(launch.start({[variant, *flags]!r}, pathlib.Path({str(tmp_path)!r})))"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths, "GRUG_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )


def test_bad_flags_are_told_before_the_corpus_is_built(tmp_path):
    """With the variant's own words and exit code."""
    cache = tmp_path / "cache"
    result = launch(tmp_path, cache, "strict", "--stepz", "5")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "unknown flags ['--stepz', '5']\n"
    result = launch(tmp_path, cache, "firm", "--steps", "1")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "firm: steps=1: is too few; raise it\n"
    assert "prepares" in launch(tmp_path, cache, "strict", "--steps", "5").stdout
    assert "prepares" in launch(tmp_path, cache, "old", "--any").stdout
    assert not cache.exists()


def test_a_cache_that_cannot_be_used_names_the_remedy(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRUG_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tools.launch.main.check_flags", lambda *_: 0)
    assert main(["base", "--steps", "5"]) == 1
    assert re.fullmatch(r"launch: .*file.*; name another directory in GRUG_CACHE.*\n",
                        capsys.readouterr().err)  # fmt: skip
    monkeypatch.setenv("GRUG_HANDOVER", str(tmp_path / "word"))
    assert main(["base", "--steps", "5"]) == 1
    assert re.fullmatch(r"launch: .*file.*; name another directory in GRUG_CACHE.*\n",
                        capsys.readouterr().err)  # fmt: skip


def test_prepares_the_corpus_by_default():
    assert needs_data(["--steps", "5"])


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--plan", "--topology", "v5e:4x4"], "v5e:4x4"),
        (["--topology=8xh100", "--plan", "--steps", "3"], "8xh100"),
        (["--plan", "--topology", "8xh100", "--topology", "v5e:4x4"], "v5e:4x4"),
        (["--topology", "v5e:4x4"], ""),
        (["--plan"], ""),
    ],
)
def test_a_plan_for_other_hardware_names_it(flags, expected):
    assert planned_topology(flags) == expected


def test_no_compiler_ends_with_1_and_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["base", "--plan", "--topology", "v5e:4x4"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "tools/locks/tpu.lock cannot be read" in said


def write_lock(root, **versions: str) -> None:
    locked = [{"project_name": name, "version": version} for name, version in versions.items()]
    text = json.dumps({"locked_resolves": [{"locked_requirements": locked}]})
    (root / "tools/locks").mkdir(parents=True)
    (root / "tools/locks/cpu.lock").write_text(f"// made by a tool\n{text}\n")


def git(root, *words: str) -> str:
    who = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(root), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_version_is_the_commit_and_the_locked_jax(tmp_path, monkeypatch, capsys):
    write_lock(tmp_path, jax="9.8.7", jaxlib="9.8.6", numpy="1.0")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.chdir(tmp_path)
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    packages = f"jax 9.8.7, jaxlib 9.8.6, Python {platform.python_version()}\n"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"grug {commit}\n{packages}"
    (tmp_path / "notes").touch()
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"grug {commit}, with uncommitted changes\n{packages}"


def test_version_without_git_or_lock(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert main(["--version"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "tools/locks/cpu.lock cannot be read" in said
    write_lock(tmp_path, jax="9.8.7")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("grug of no commit\njax 9.8.7, Python")


@pytest.mark.parametrize("program", [("tools.launch.main", "base"), ("tools.corpus", "build")])
def test_help_has_colours_unless_they_are_not_wanted(program):
    assert b"\x1b[" in on_a_terminal(*program, "--help")
    plain = on_a_terminal(*program, "--help", NO_COLOR="1")
    assert b"\x1b" not in plain and b"usage" in plain.lower()
