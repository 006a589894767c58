"""Settings that are wrong, or that depend on where ./pants is called."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bootstrap.conftest import read
from tools.start import machine
from tools.start.settings import without_logins

pytestmark = pytest.mark.usefixtures("quiet_etc")

START = Path("tools/start")
# Run by whatever Python the machine has; the others run on the Python that Pants runs on.
EARLY = (
    *("environment", "fetch", "install", "installers", "interpreters", "machine", "mirrors"),
    *("settings", "uv"),
)


@pytest.mark.parametrize("name", EARLY)
def test_parses_as_python_3_7(name: str) -> None:
    ast.parse((START / f"{name}.py").read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("name", sorted(path.stem for path in START.glob("*.py")))
def test_parses_as_python_3_9(name: str) -> None:
    ast.parse((START / f"{name}.py").read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("name", EARLY)
def test_needs_the_standard_library_alone(name: str) -> None:
    """Each is imported by a Python that sees no installed package."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import tools.start.{name}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pip/pip.conf", b"index-url = https://packages.example\n"),
        ("pip/pip.conf", b"[global]\nindex-url = a\nindex-url = b\n"),
        ("pip/pip.conf", b"[global]\nindex-url = \xff\xfe\n"),
        ("uv/uv.toml", b"index-url = https://packages.example\n"),
        ("uv/uv.toml", b'index-url = "\xff\xfe"\n'),
        ("uv/uv.toml", b'pip = "https://packages.example"\n'),
        ("uv/uv.toml", b'[[index]]\nname = "no URL"\n'),
        ("uv/uv.toml", b"index-url = 3\n"),
        ("uv/uv.toml", b"pip = 3\n"),
        ("uv/uv.toml", b"index = 3\n"),
        ("uv/uv.toml", b"index = [3]\n"),
        ("uv/uv.toml", b'find-links = "x"\n'),
        ("uv/uv.toml", b"find-links = [3]\n"),
        ("uv/uv.toml", b"no-proxy = [3]\n"),
    ],
)
def test_broken_file_is_left_out_with_one_line(name: str, data: bytes, tmp_path: Path) -> None:
    """What the other settings say holds."""
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(data)
    said: list[str] = []
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    found = machine.read({**environ, "UV_INDEX": "https://more.example"}, said.append)
    assert found == machine.Machine(extra_indexes=("https://more.example",))
    (line,) = said
    assert line.startswith(f"{name[: name.index('/')]}'s settings in {path} are left out: ")
    assert line.endswith(": correct the file") and len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "tool"), [("PIP_CONFIG_FILE", "pip"), ("UV_CONFIG_FILE", "uv")]
)
def test_broken_file_that_a_variable_names(variable: str, tool: str, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text("[\n")
    said: list[str] = []
    machine.read({"HOME": str(tmp_path), variable: str(path)}, said.append)
    assert [line.split(":")[0] for line in said] == [f"{tool}'s settings in {path} are left out"]


def test_variables_that_are_broken_are_left_out_with_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    environ = {"HOME": str(tmp_path), "UV_INDEX_URL": "http://[1"}
    assert machine.read(environ, said.append) == machine.Machine()
    told = "uv's settings in the environment are left out: Invalid IPv6 URL: correct them"
    assert said == [told]


def test_file_that_a_variable_names_and_that_is_not_there(tmp_path: Path) -> None:
    """uv would end there; pip goes on."""
    said: list[str] = []
    environ = {"HOME": str(tmp_path), "UV_CONFIG_FILE": "/no/uv", "PIP_CONFIG_FILE": "/no/pip"}
    assert machine.read(environ, said.append) == machine.Machine()
    assert len(said) == 1 and "uv's settings in /no/uv are left out" in said[0]


@pytest.mark.parametrize("tool", ["pip/pip.conf", "uv/uv.toml"])
def test_no_file_in_a_place_that_is_no_directory(tool: str, tmp_path: Path) -> None:
    (tmp_path / tool.partition("/")[0]).write_text("")
    assert read({"HOME": "/dev/null", "XDG_CONFIG_HOME": str(tmp_path)}) == machine.Machine()


def test_directory_in_place_of_a_file_is_no_setting(tmp_path: Path) -> None:
    (tmp_path / "pip/pip.conf").mkdir(parents=True)
    settings = read({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    assert settings.index == ""


def test_paths_are_those_of_the_directory_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later steps run elsewhere."""
    (tmp_path / "a mirror").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    settings = read(
        {
            "PIP_INDEX_URL": "a mirror",
            "PIP_EXTRA_INDEX_URL": "file:///opt/more https://packages.example/simple ~/mine",
            "PIP_FIND_LINKS": "wheels ~/wheels https://packages.example/links.html",
            "PIP_CERT": "authority.pem",
            "PIP_CLIENT_CERT": "~/client.pem",
        }
    )
    assert settings == machine.Machine(
        index=f"{tmp_path.as_uri()}/a%20mirror",
        extra_indexes=(
            "file:///opt/more",
            "https://packages.example/simple",
            "file:///home/me/mine",
        ),
        find_links=(
            f"{tmp_path.as_uri()}/wheels",
            "file:///home/me/wheels",
            "https://packages.example/links.html",
        ),
        certificates=(f"{tmp_path}/authority.pem",),
        client_certificate="/home/me/client.pem",
    )


def test_paths_in_uvs_file_start_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "uv/uv.toml"
    path.parent.mkdir()
    path.write_text('find-links = ["wheels", "/opt/wheels"]\n[[index]]\nurl = "../mirror"\n')
    settings = read({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    assert settings.find_links == (f"{path.parent.as_uri()}/wheels", "file:///opt/wheels")
    assert settings.extra_indexes == ((tmp_path / "mirror").as_uri(),)


def test_secrets_are_not_shown() -> None:
    text = "https://me:s3cret@packages.example/simple/x/ said 404; http://token@b.example/ said no"
    shown = "https://packages.example/simple/x/ said 404; http://b.example/ said no"
    assert without_logins(text) == shown
    assert without_logins("me@example.org wrote // and https://a.example/@b") == (
        "me@example.org wrote // and https://a.example/@b"
    )
