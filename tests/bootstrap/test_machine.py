"""What machine.read takes from pip and the environment, and what it lets through."""

from __future__ import annotations

import ast
import ensurepip
import itertools
import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.start import machine

pytestmark = pytest.mark.usefixtures("quiet_etc")

# Every level at which pip is configured, the most important last.
PIP_LEVELS = ("site", "later site", "legacy user", "user", "venv", "named file", "environment")
RUN_PIP = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("pip", run_name="__main__")
"""
# None of this may change what is installed. The value is one that uv or pip would act on.
FORBIDDEN = {
    "constraint": "/no/such/constraints.txt",
    "target": "/no/such/target",
    "prefix": "/no/such/prefix",
    "root": "/no/such/root",
    "user": "1",
    "dry-run": "1",
    "require-virtualenv": "1",
    "no-binary": ":all:",
    "only-binary": ":none:",
    "require-hashes": "1",
    "no-deps": "1",
    "python": "/no/such/python",
    "exclude-newer": "2001-01-01",
    "project-environment": "/no/such/environment",
    "offline": "1",
    "log": "/no/such/log",
}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def configure(level: str, user_home: Path, environ: dict[str, str], key: str, value: str) -> None:
    """Sets `key` at one of pip's levels."""
    if level == "environment":
        environ[f"PIP_{key.upper().replace('-', '_')}"] = value
        return
    files = {
        "site": user_home / "xdg one/pip/pip.conf",
        "later site": user_home / "xdg two/pip/pip.conf",
        "legacy user": user_home / ".pip/pip.conf",
        "user": user_home / ".config/pip/pip.conf",
        "venv": user_home / "venv/pip.conf",
        "named file": user_home / "named.conf",
    }
    if level == "venv":
        environ["VIRTUAL_ENV"] = str(user_home / "venv")
    if level == "named file":
        environ["PIP_CONFIG_FILE"] = str(files[level])
    write(files[level], f"[global]\n{key} = {value}\n")


@pytest.mark.parametrize("level", PIP_LEVELS)
def test_pip_is_heard_at_every_level(level: str, user_home: Path, environ: dict[str, str]) -> None:
    configure(level, user_home, environ, "index-url", "https://packages.example/simple")
    assert machine.read(environ).index == "https://packages.example/simple"


@pytest.mark.parametrize(("lower", "upper"), list(itertools.combinations(PIP_LEVELS, 2)))
def test_pips_levels_outrank_each_other(
    lower: str, upper: str, user_home: Path, environ: dict[str, str]
) -> None:
    for level in (lower, upper):
        configure(
            level, user_home, environ, "index-url", f"https://{level.replace(' ', '-')}.example"
        )
    assert machine.read(environ).index == f"https://{upper.replace(' ', '-')}.example"


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a real pip in a virtual environment, from the wheel that Python carries."""
    places = [Path(ensurepip.__file__).parent / "_bundled"]
    if sysconfig.get_config_var("WHEEL_PKG_DIR"):
        places.append(Path(sysconfig.get_config_var("WHEEL_PKG_DIR")))
    wheels = [str(wheel) for place in places for wheel in place.glob("pip-*.whl")]
    if not wheels:
        pytest.skip("this Python carries no pip to compare with")
    directory = tmp_path_factory.mktemp("pip") / "venv"
    venv.create(directory, symlinks=True, with_pip=False)
    return [str(directory / "bin/python"), "-c", RUN_PIP, wheels[0]]


def pips_settings(pip: list[str], environ: dict[str, str]) -> dict[str, str]:
    """Setting -> value in force for `pip install`, as pip itself says."""
    # Where it is installed in one, pip reads the configuration of its own virtual environment.
    prefix = Path(pip[0]).parents[1]
    environ = {**environ, "PYTHONDONTWRITEBYTECODE": "1"}
    source = Path(environ.get("VIRTUAL_ENV", "/no/such")) / "pip.conf"
    (prefix / "pip.conf").unlink(missing_ok=True)
    if source.exists():
        (prefix / "pip.conf").write_text(source.read_text())
    done = subprocess.run(
        [*pip, "config", "list"], env=environ, capture_output=True, text=True, check=True
    )
    listed = dict(line.split("=", 1) for line in done.stdout.splitlines())
    values = {}
    for section in ("global", "install", ":env:"):
        for name, value in listed.items():
            if name.startswith(f"{section}."):
                values[name[len(section) + 1 :]] = ast.literal_eval(value)
    return values


@pytest.mark.parametrize(("lower", "upper"), list(itertools.pairwise(PIP_LEVELS)))
def test_levels_are_those_of_pip(
    lower: str, upper: str, user_home: Path, environ: dict[str, str], pip: list[str]
) -> None:
    for level in (lower, upper):
        configure(
            level, user_home, environ, "index-url", f"https://{level.replace(' ', '-')}.example"
        )
    assert machine.read(environ).index == pips_settings(pip, environ)["index-url"]


def test_named_file_replaces_the_users(
    user_home: Path, environ: dict[str, str], pip: list[str]
) -> None:
    configure("user", user_home, environ, "extra-index-url", "https://dead.example/simple")
    configure("named file", user_home, environ, "index-url", "https://alive.example/simple")
    assert "extra-index-url" not in pips_settings(pip, environ)
    assert machine.read(environ).extra_indexes == ()


def test_section_of_the_command_outranks_the_global_one(
    user_home: Path, environ: dict[str, str], pip: list[str]
) -> None:
    """Even one of a lower level: pip merges the levels by section first."""
    write(user_home / ".config/pip/pip.conf", "[global]\nindex-url = https://global.example\n")
    write(user_home / "xdg one/pip/pip.conf", "[install]\nindex_url = https://install.example\n")
    assert pips_settings(pip, environ)["index-url"] == "https://install.example"
    assert machine.read(environ).index == "https://install.example"


def test_null_file_means_no_files_of_pip(user_home: Path, environ: dict[str, str]) -> None:
    configure("user", user_home, environ, "index-url", "https://packages.example/simple")
    environ["PIP_CONFIG_FILE"] = os.devnull
    assert machine.read(environ).index == ""


def test_everything_that_fetching_needs_is_read_from_pip(
    user_home: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(user_home))
    write(
        user_home / ".config/pip/pip.conf",
        """[global]
index-url = https://user:secret@packages.example/simple
extra-index-url =
    https://one.example/simple
    https://two.example/simple
find_links = /opt/wheels https://links.example/all.html
trusted-host = packages.example
    one.example:8443
cert = ~/certificates/all of us.pem
client-cert = /etc/client certificate.pem
proxy = http://proxy.example:3128
""",
    )
    assert machine.read(environ) == machine.Machine(
        index="https://user:secret@packages.example/simple",
        extra_indexes=("https://one.example/simple", "https://two.example/simple"),
        find_links=("/opt/wheels", "https://links.example/all.html"),
        trusted_hosts=("packages.example", "one.example:8443"),
        certificate=f"{user_home}/certificates/all of us.pem",
        client_certificate="/etc/client certificate.pem",
        proxies=(
            ("http_proxy", "http://proxy.example:3128"),
            ("https_proxy", "http://proxy.example:3128"),
        ),
    )


@pytest.mark.parametrize(
    ("value", "is_set"), [("1", True), ("true", True), ("yes", True), ("0", False), ("no", False)]
)
def test_no_index(value: str, is_set: bool, environ: dict[str, str]) -> None:
    settings = machine.read(
        {**environ, "PIP_NO_INDEX": value, "PIP_INDEX_URL": "https://a.example"}
    )
    assert settings.no_index is is_set
    assert settings.indexes == (() if is_set else ("https://a.example",))


def test_without_settings_the_index_is_pypi(environ: dict[str, str]) -> None:
    assert machine.read(environ) == machine.Machine()
    assert machine.Machine().indexes == ("https://pypi.org/simple",)


def test_environment_outranks_pips_files_and_those_uvs(
    user_home: Path, environ: dict[str, str]
) -> None:
    write(user_home / ".config/uv/uv.toml", 'index-url = "https://uv-file.example"\n')
    assert machine.read(environ).index == "https://uv-file.example"
    configure("site", user_home, environ, "index-url", "https://pip-file.example")
    assert machine.read(environ).index == "https://pip-file.example"
    environ["UV_INDEX_URL"] = "https://uv.example"
    assert machine.read(environ).index == "https://uv.example"
    environ["PIP_INDEX_URL"] = "https://pip.example"
    assert machine.read(environ).index == "https://pip.example"


def test_proxies(environ: dict[str, str]) -> None:
    environ.update(
        HTTPS_PROXY="http://upper.example:1",
        https_proxy="http://lower.example:1",
        HTTP_PROXY="http://plain.example:1",
        ALL_PROXY="",
        NO_PROXY="localhost,.example",
    )
    assert machine.read(environ).proxies == (
        ("http_proxy", "http://plain.example:1"),
        ("https_proxy", "http://lower.example:1"),
        ("no_proxy", "localhost,.example"),
    )
    environ["PIP_PROXY"] = "http://pip.example:1"
    assert dict(machine.read(environ).proxies) == {
        "http_proxy": "http://pip.example:1",
        "https_proxy": "http://pip.example:1",
        "no_proxy": "localhost,.example",
    }


CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT")


@pytest.mark.parametrize("count", range(1, 5))
def test_certificates(count: int, environ: dict[str, str]) -> None:
    """Each known alone is enough, and the more specific one outranks."""
    last = CERTIFICATE_VARIABLES[count - 1]
    assert machine.read({**environ, last: "/alone.pem"}).certificate == "/alone.pem"
    for name in CERTIFICATE_VARIABLES[:count]:
        environ[name] = f"/{name}.pem"
    settings = machine.read(environ)
    assert settings.certificate == f"/{last}.pem"
    told = machine.environment(settings, environ)
    assert {told[name] for name in CERTIFICATE_VARIABLES} == {f"/{last}.pem"}


@pytest.fixture
def all_forbidden(user_home: Path, environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """Every setting that would change what is installed, at every level of pip and uv."""
    lines = "".join(f"{key} = {value}\n" for key, value in FORBIDDEN.items())
    for level in PIP_LEVELS[:-1]:
        configure(level, user_home, environ, "timeout", f"7\n{lines}")
    write(user_home / ".config/uv/uv.toml", f"[pip]\n{toml(FORBIDDEN)}")
    for key, value in FORBIDDEN.items():
        name = key.upper().replace("-", "_")
        environ.update({f"PIP_{name}": value, f"UV_{name}": value})
    environ.update(PYTHONPATH="/poison", PYTHONHOME="/poison", PYTHONSTARTUP="/poison.py")
    yield environ


def toml(settings: dict[str, str]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def test_nothing_else_reaches_what_fetches(all_forbidden: dict[str, str]) -> None:
    settings = machine.read(all_forbidden)
    assert settings == machine.Machine()
    told = machine.environment(settings, all_forbidden)
    assert {name: told[name] for name in told if name.startswith(("PIP_", "UV_", "PYTHON"))} == {
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONNOUSERSITE": "1",
        "UV_NATIVE_TLS": "1",
        "UV_NO_CONFIG": "1",
        "UV_SYSTEM_CERTS": "1",
    }
    assert told["PATH"] == all_forbidden["PATH"]
    values = set(FORBIDDEN.values()) - {"1"}
    assert not values.intersection([*told.values(), *machine.uv_arguments(settings, True)])


def test_settings_survive_being_written(environ: dict[str, str]) -> None:
    environ.update(
        PIP_INDEX_URL="https://a.example",
        PIP_FIND_LINKS="/a /b",
        HTTPS_PROXY="http://proxy.example",
        PIP_NO_INDEX="1",
    )
    settings = machine.read(environ)
    assert machine.Machine.loads(settings.dumps()) == settings
