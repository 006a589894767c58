"""Settings that are wrong, or that depend on where ./pants is called."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tools.start import machine

START = Path("tools/start")
# Run by whatever Python the machine has; the others run on the Python that Pants runs on.
EARLY = ("environment", "fetch", "install", "interpreters", "machine", "uv")


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
    ],
)
def test_broken_file_is_named_in_one_line(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(ValueError) as raised:
        machine.read({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    assert str(raised.value).startswith(f"{path} cannot be read (")
    assert str(raised.value).endswith("): correct it")
    assert len(str(raised.value).splitlines()) == 1


def test_directory_in_place_of_a_file_is_no_setting(tmp_path: Path) -> None:
    (tmp_path / "pip/pip.conf").mkdir(parents=True)
    settings = machine.read({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    assert settings.index == ""


def test_paths_are_those_of_the_directory_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later steps run elsewhere."""
    (tmp_path / "a mirror").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    settings = machine.read(
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
            f"{tmp_path}/wheels",
            "/home/me/wheels",
            "https://packages.example/links.html",
        ),
        certificate=f"{tmp_path}/authority.pem",
        client_certificate="/home/me/client.pem",
    )


def test_paths_in_uvs_file_start_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "uv/uv.toml"
    path.parent.mkdir()
    path.write_text('find-links = ["wheels", "/opt/wheels"]\n[[index]]\nurl = "../mirror"\n')
    settings = machine.read({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    assert settings.find_links == (f"{path.parent}/wheels", "/opt/wheels")
    assert settings.extra_indexes == ((tmp_path / "mirror").as_uri(),)


def test_secrets_are_not_shown() -> None:
    index = "https://me:s3cret@packages.example/simple"
    text = machine.without_secrets(f"{index}/x/ said 404", [index, "", "/opt/wheels"])
    assert text == "https://me:****@packages.example/simple/x/ said 404"
