"""interpreters.find in the layouts of version managers, and what it asks an interpreter.

The stand-ins answer as CPython 3.60 to 3.62, which no machine has: what is found is the test's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from tools.start import interpreters
from tools.start.interpreters import Python, find

RANGE = range(60, 63)
# Answers as an interpreter does, and notes that it was asked.
STAND_IN = """#!/bin/sh
echo "$0" >> "$(dirname "$0")/asked"
printf '%s\\n' {implementation} {minor} {fits} "{path}"
"""


def install(
    place: Path, minor: int, name: str = "", *, fits: int = 1, implementation: str = "CPython"
) -> Python:
    """A stand-in at `place`/bin."""
    path = place / "bin" / (name or f"python3.{minor}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        STAND_IN.format(implementation=implementation, minor=minor, fits=fits, path=path)
    )
    path.chmod(0o755)
    return Python(str(path), minor)


def shim(directory: Path, name: str, text: str = "echo 'no such version' >&2; exit 127") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


def path_of(*places: Path) -> str:
    return os.pathsep.join(str(place) for place in places)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a höme"


LAYOUTS = {
    "pyenv": ({}, ".pyenv/versions/3.61.4"),
    "pyenv elsewhere": ({"PYENV_ROOT": "py env"}, "py env/versions/3.61.4"),
    "uv": ({}, ".local/share/uv/python/cpython-3.61.4-linux-x86_64-gnu"),
    "uv below XDG_DATA_HOME": (
        {"XDG_DATA_HOME": "data"},
        "data/uv/python/cpython-3.61.4-macos-aarch64-none",
    ),
    "uv elsewhere": ({"UV_PYTHON_INSTALL_DIR": "u"}, "u/cpython-3.61.4-linux-x86_64-musl"),
    "mise": ({}, ".local/share/mise/installs/python/3.61.4"),
    "mise elsewhere": ({"MISE_DATA_DIR": "m"}, "m/installs/python/3.61.4"),
    "asdf": ({}, ".asdf/installs/python/3.61.4"),
    "asdf elsewhere": ({"ASDF_DATA_DIR": "a"}, "a/installs/python/3.61.4"),
    "conda": ({"CONDA_EXE": "conda/bin/conda"}, "conda"),
    "conda environment": ({"CONDA_EXE": "conda/bin/conda"}, "conda/envs/mine"),
    "miniconda": ({}, "miniconda3"),
    "miniconda environment": ({}, "miniconda3/envs/mine"),
    "anaconda": ({}, "anaconda3"),
    "miniforge": ({}, "miniforge3"),
    "mambaforge": ({}, "mambaforge"),
    "micromamba": ({}, "micromamba/envs/mine"),
    "Homebrew": ({"HOMEBREW_PREFIX": "brew"}, "brew/opt/python@3.61"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_finds_what_a_version_manager_installed(layout: str, home: Path) -> None:
    variables, place = LAYOUTS[layout]
    wanted = install(home / place, 61)
    environ = {name: str(home / value) for name, value in variables.items()}
    assert find(RANGE, {"HOME": str(home), "PATH": "/no/such/bin", **environ}) == wanted


OPT = """
mount -t tmpfs none /opt && cp -R "$1"/. /opt && exec "$2" -c '
from tools.start.interpreters import find
print(find(range(60, 63), {"PATH": "", "HOME": "/no/such/home"}).path)'
"""


@pytest.mark.parametrize("place", ["python3.61", "python/3.61.4", "python/cp361-cp361"])
def test_finds_what_lies_in_opt(place: str, tmp_path: Path, namespace: list[str]) -> None:
    install(tmp_path / place, 61)
    done = subprocess.run(
        [*namespace, "sh", "-c", OPT, "sh", str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{tmp_path / place / 'bin/python3.61'}\n"


def test_pyenv_is_found_from_its_shims(home: Path, tmp_path: Path) -> None:
    """Without PYENV_ROOT, and with a shim that runs nothing here."""
    shims = tmp_path / "pyenv/shims"
    for name in ("python3.61", "python3", "python"):
        shim(shims, name)
    wanted = install(shims.parent / "versions/3.61.4", 61)
    assert find(RANGE, {"HOME": str(home), "PATH": path_of(shims)}) == wanted


def test_shim_that_runs_something_is_an_interpreter(home: Path, tmp_path: Path) -> None:
    """One file for every version, which looks at the name that it is called by."""
    versions = tmp_path / "elsewhere"
    newest = install(versions / "3.62.0", 62)
    install(versions / "3.60.0", 60)
    shims = tmp_path / "manager/shims"
    shim(shims, "run", f'exec "{versions}"/"${{0##*python}}".0/bin/"${{0##*/}}"')
    for minor in RANGE:
        (shims / f"python3.{minor}").symlink_to("run")
    assert find(RANGE, {"HOME": str(home), "PATH": path_of(shims)}) == newest


def test_shims_with_nothing_behind_are_nothing(home: Path, tmp_path: Path) -> None:
    shim(tmp_path / "shims", "python3.61")
    shim(tmp_path / "shims", "python3", "echo Python 3.61.0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3.62").write_text("not executable")
    (tmp_path / "bin/python3.60").symlink_to("/no/such/python")
    (tmp_path / "bin/python").mkdir()
    environ = {"HOME": str(home), "PATH": path_of(tmp_path / "shims", tmp_path / "bin")}
    assert find(RANGE, environ) is None


def test_interpreter_that_hangs_is_passed_over(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters, "SECONDS", 0.3)
    shim(tmp_path / "bin", "python3.62", "exec sleep 30")
    wanted = install(tmp_path / "usable", 61)
    environ = {"HOME": str(home), "PATH": path_of(tmp_path / "bin", tmp_path / "usable/bin")}
    start = time.monotonic()
    assert find(RANGE, environ) == wanted
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", ["python3", "python"])
def test_plain_name_is_asked_for_its_version(name: str, home: Path, tmp_path: Path) -> None:
    wanted = install(tmp_path, 60, name)
    environ = {"HOME": str(home), "PATH": path_of(tmp_path / "bin")}
    assert find(range(60, 61), environ) == wanted
    assert find(range(61, 62), environ) is None


def test_newest_in_range_wins(home: Path, tmp_path: Path) -> None:
    """Wherever each lies, and whatever is newer than the range."""
    for minor in (60, 61):
        install(tmp_path / "usr", minor)
    install(tmp_path / "usr", 63)
    install(tmp_path / "usr", 60, "python3")
    environ = {"HOME": str(home), "PATH": path_of(tmp_path / "usr/bin")}
    assert find(RANGE, environ) == Python(str(tmp_path / "usr/bin/python3.61"), 61)
    newest = install(home / ".pyenv/versions/3.62.0", 62)
    assert find(RANGE, environ) == newest
    assert find(range(60, 61), environ) == Python(str(tmp_path / "usr/bin/python3.60"), 60)


def test_of_equal_ones_the_first_on_the_path_wins(home: Path, tmp_path: Path) -> None:
    first, second = (install(tmp_path / name, 61) for name in ("z", "a"))
    third = install(home / ".pyenv/versions/3.61.4", 61)
    for wanted, places in ((first, ["z", "a"]), (second, ["a", "z"]), (third, [])):
        path = path_of(*(tmp_path / place / "bin" for place in places))
        assert find(RANGE, {"HOME": str(home), "PATH": path}) == wanted


def test_of_one_managers_the_latest_release_wins(home: Path) -> None:
    for release in ("3.61.9", "3.61.0rc1", "3.61.10", "3.61.2"):
        install(home / ".pyenv/versions" / release, 61)
    wanted = str(home / ".pyenv/versions/3.61.10/bin/python3.61")
    assert find(RANGE, {"HOME": str(home), "PATH": ""}) == Python(wanted, 61)


def test_each_is_asked_once_and_none_after_the_newest(home: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    install(one, 62)
    install(two, 61)
    (two / "bin/python").symlink_to("python3.61")
    (one / "bin/python3.61").symlink_to(two / "bin/python3.61")
    environ = {"HOME": str(home), "PATH": path_of(two / "bin", one / "bin")}
    assert find(RANGE, environ)
    assert len((one / "bin/asked").read_text().splitlines()) == 1
    assert not (two / "bin/asked").exists()
    (one / "bin/python3.62").unlink()
    assert find(RANGE, environ)
    assert len((two / "bin/asked").read_text().splitlines()) == 1


@pytest.mark.parametrize("unfit", [{"fits": 0}, {"implementation": "PyPy"}])
def test_unfit_ones_are_passed_over(unfit: Mapping, home: Path, tmp_path: Path) -> None:
    install(tmp_path / "new", 62, **unfit)
    wanted = install(tmp_path / "old", 60)
    environ = {"HOME": str(home), "PATH": path_of(tmp_path / "new/bin", tmp_path / "old/bin")}
    assert find(RANGE, environ) == wanted


def answers(change: str) -> list[str]:
    """What a real interpreter answers after `change`, without the path."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import platform, sys, sysconfig\n{change}\n{interpreters.QUESTION}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[:3]


def test_what_makes_an_interpreter_unfit() -> None:
    minor = str(sys.version_info.minor)
    assert answers("sysconfig.get_config_var = lambda name: 0") == ["CPython", minor, "1"]
    without_lock = "sysconfig.get_config_var = {'Py_GIL_DISABLED': 1}.get"
    assert answers(without_lock) == ["CPython", minor, "0"]
    candidate = "sys.version_info = (3, 99, 0, 'candidate', 2)"
    assert answers(candidate) == ["CPython", "99", "0"]
    assert answers("platform.python_implementation = lambda: 'PyPy'")[0] == "PyPy"


def test_interpreter_without_what_no_package_brings_is_unfit(tmp_path: Path) -> None:
    """One that was built where OpenSSL's headers were missing."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['ssl'] = None\n{interpreters.QUESTION}"],
        capture_output=True,
    )
    assert done.returncode


@pytest.mark.parametrize("symlinks", [True, False])
def test_virtual_environment_leads_to_its_base(symlinks: bool, tmp_path: Path, home: Path) -> None:
    venv.create(tmp_path / "one", symlinks=symlinks)
    minor = sys.version_info.minor
    # And the environment of that one, too.
    python = tmp_path / "one/bin/python"
    how = "--symlinks" if symlinks else "--copies"
    subprocess.run([python, "-m", "venv", "--without-pip", how, tmp_path / "two"], check=True)
    base = Path(sys.base_prefix).resolve()
    for name in ("one", "two"):
        environ = {"HOME": str(home), "PATH": path_of(tmp_path / name / "bin")}
        found = find(range(minor, minor + 1), environ)
        assert found
        assert found.minor == minor
        assert Path(found.path).is_relative_to(base)
        assert not Path(found.path).is_relative_to(tmp_path)


def test_environment_does_not_mislead_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/no/such/home")
    monkeypatch.setenv("PYTHONPATH", "/no/such/path")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    found = interpreters.ask(sys.executable)
    assert found
    assert found.minor == sys.version_info.minor


@pytest.mark.parametrize("command", ["/no/such/python", "/", "/etc/hostname", "/bin/true"])
def test_what_is_no_interpreter(command: str) -> None:
    assert interpreters.ask(command) is None


def test_range_of_the_code() -> None:
    line = 'interpreter_constraints = ["CPython>=3.12,<3.15"]'
    assert interpreters.code_range(f"[python]\n{line}\nother = 1\n") == (12, 15)
    for other in (f"# {line}", 'interpreter_constraints = ["CPython==3.12.*"]', ""):
        with pytest.raises(ValueError, match="interpreter_constraints"):
            interpreters.code_range(other)


def test_range_of_this_workspace_is_read() -> None:
    low, end = interpreters.code_range(Path("pants.toml").read_text())
    assert interpreters.PANTS_MINOR < low < end
    assert sys.version_info.minor in range(low, end)
