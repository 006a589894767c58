"""What machine.read takes from pip and the environment, and what it lets through."""

from __future__ import annotations

import ast
import ensurepip
import itertools
import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bootstrap.conftest import read
from tests.bootstrap.servers import Authority
from tools.start import installers, machine, settings

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
    assert read(environ).index == "https://packages.example/simple"


@pytest.mark.parametrize(("lower", "upper"), list(itertools.combinations(PIP_LEVELS, 2)))
def test_pips_levels_outrank_each_other(
    lower: str, upper: str, user_home: Path, environ: dict[str, str]
) -> None:
    for level in (lower, upper):
        configure(
            level, user_home, environ, "index-url", f"https://{level.replace(' ', '-')}.example"
        )
    assert read(environ).index == f"https://{upper.replace(' ', '-')}.example"


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
            if name.startswith(f"{section}.") and value != "''":
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
    assert read(environ).index == pips_settings(pip, environ)["index-url"]


def test_named_file_replaces_the_users(
    user_home: Path, environ: dict[str, str], pip: list[str]
) -> None:
    configure("user", user_home, environ, "extra-index-url", "https://dead.example/simple")
    configure("named file", user_home, environ, "index-url", "https://alive.example/simple")
    assert "extra-index-url" not in pips_settings(pip, environ)
    assert read(environ).extra_indexes == ()


def test_section_of_the_command_outranks_the_global_one(
    user_home: Path, environ: dict[str, str], pip: list[str]
) -> None:
    """Even one of a lower level: pip merges the levels by section first."""
    write(user_home / ".config/pip/pip.conf", "[global]\nindex-url = https://global.example\n")
    write(user_home / "xdg one/pip/pip.conf", "[install]\nindex_url = https://install.example\n")
    assert pips_settings(pip, environ)["index-url"] == "https://install.example"
    assert read(environ).index == "https://install.example"


def test_null_file_means_no_files_of_pip(user_home: Path, environ: dict[str, str]) -> None:
    configure("user", user_home, environ, "index-url", "https://packages.example/simple")
    environ["PIP_CONFIG_FILE"] = os.devnull
    assert read(environ).index == ""


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
    assert read(environ) == machine.Machine(
        index="https://user:secret@packages.example/simple",
        extra_indexes=("https://one.example/simple", "https://two.example/simple"),
        find_links=("file:///opt/wheels", "https://links.example/all.html"),
        trusted_hosts=("packages.example", "one.example:8443"),
        certificates=(f"{user_home}/certificates/all of us.pem",),
        client_certificate="/etc/client certificate.pem",
        proxies=(
            ("http_proxy", "http://proxy.example:3128"),
            ("https_proxy", "http://proxy.example:3128"),
        ),
    )


@pytest.mark.parametrize(
    ("value", "is_set"), [("1", True), ("true", True), ("yes", True), ("0", False), ("no", False)]
)
def test_no_index(value: str, is_set: bool, user_home: Path, environ: dict[str, str]) -> None:
    """By a variable: of either tool no index; what the links are stays."""
    write(user_home / ".config/uv/uv.toml", 'index-url = "https://b.example"\n')
    environ.update(PIP_INDEX_URL="https://a.example", PIP_FIND_LINKS="/")
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX"):
        found = read({**environ, name: value})
        assert found.no_index is is_set
        assert found.indexes == (() if is_set else ("https://a.example", "https://b.example"))
        assert found.find_links == ("file:///",)
        assert not found.spare


def test_no_index_in_a_file_is_of_that_tool_alone(user_home: Path, environ: dict[str, str]) -> None:
    configure("user", user_home, environ, "no-index", "yes")
    assert read(environ).indexes == ()
    write(user_home / ".config/uv/uv.toml", 'index-url = "https://uv.example"\n')
    found = read(environ)
    assert (found.indexes, found.spare) == (("https://uv.example",), "")


def test_without_settings_the_index_is_pypi(environ: dict[str, str]) -> None:
    assert read(environ) == machine.Machine()
    assert machine.Machine().indexes == ("https://pypi.org/simple",)


def test_indexes_of_both_tools_are_put_together(user_home: Path, environ: dict[str, str]) -> None:
    """Those that the environment names first; else pip's first. Each tool weighs its own."""
    write(user_home / "xdg one/uv/uv.toml", 'index-url = "https://site.example"\n')
    write(user_home / ".config/uv/uv.toml", 'index-url = "https://uv-file.example"\n')
    found = read(environ)
    assert (found.indexes, found.spare) == (("https://uv-file.example",), machine.PYPI)
    configure("site", user_home, environ, "index-url", "https://pip-file.example")
    found = read(environ)
    assert found.indexes == ("https://pip-file.example", "https://uv-file.example")
    assert not found.spare
    environ["UV_INDEX_URL"] = "https://uv.example"
    assert read(environ).indexes == ("https://uv.example", "https://pip-file.example")
    environ["PIP_INDEX_URL"] = "https://pip.example"
    assert read(environ).indexes == ("https://pip.example", "https://uv.example")
    environ["PIP_EXTRA_INDEX_URL"] = environ["UV_INDEX"] = "https://more.example"
    assert read(environ).extra_indexes == ("https://uv.example", "https://more.example")


def test_proxies(environ: dict[str, str]) -> None:
    environ.update(
        HTTPS_PROXY="http://upper.example:1",
        https_proxy="http://lower.example:1",
        HTTP_PROXY="http://plain.example:1",
        ALL_PROXY="",
        NO_PROXY="localhost,.example",
    )
    assert read(environ).proxies == (
        ("http_proxy", "http://plain.example:1"),
        ("https_proxy", "http://lower.example:1"),
        ("no_proxy", "localhost,.example"),
    )
    environ["PIP_PROXY"] = "http://pip.example:1"
    assert dict(read(environ).proxies) == {
        "http_proxy": "http://pip.example:1",
        "https_proxy": "http://pip.example:1",
        "no_proxy": "localhost,.example",
    }


def test_proxies_of_settings(user_home: Path, environ: dict[str, str]) -> None:
    """pip's is for this alone and outranks the environment, uv's file does not."""
    write(user_home / ".config/uv/uv.toml", 'https-proxy = "uv:1"\nno-proxy = ["a", "b"]\n')
    both = (("https_proxy", "http://uv:1"), ("no_proxy", "a,b"))
    assert read(environ).proxies == both
    environ["all_proxy"] = "http://all:1"
    assert read(environ).proxies == (("all_proxy", "http://all:1"),)
    assert read({**environ, "PIP_NO_PROXY_ENV": "1"}).proxies == (("no_proxy", "*"),)
    assert dict(read({**environ, "PIP_PROXY": "pip:1"}).proxies) == {
        "http_proxy": "http://pip:1",
        "https_proxy": "http://pip:1",
    }


CERTIFICATE_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@pytest.mark.parametrize("variable", [*CERTIFICATE_VARIABLES, "SSL_CERT_DIR"])
def test_certificates(variable: str, environ: dict[str, str]) -> None:
    """Each known alone is enough."""
    assert read({**environ, variable: "/alone.pem"}).certificates == ("/alone.pem",)


def test_certificates_are_put_together(environ: dict[str, str]) -> None:
    environ.update((name, f"/{name}.pem") for name in CERTIFICATE_VARIABLES)
    environ["SSL_CERT_DIR"] = "/one:/two"
    environ["CURL_CA_BUNDLE"] = environ["SSL_CERT_FILE"]
    assert read(environ).certificates == (
        *("/PIP_CERT.pem", "/REQUESTS_CA_BUNDLE.pem", "/SSL_CERT_FILE.pem", "/one", "/two"),
    )


def test_one_file_of_certificates(
    tmp_path: Path, environ: dict[str, str], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that are named and the system's, each once; what cannot be read is left out."""
    one, other = authority.certificate, tmp_path / "others/other.pem"
    other.parent.mkdir()
    text = one.read_text() + authority.server.read_text()
    other.write_text(text)
    (tmp_path / "system.pem").write_text(one.read_text())
    monkeypatch.setattr(installers, "system_certificates", lambda: [str(tmp_path / "system.pem")])
    said: list[str] = []
    path = tmp_path / "certificates.pem"
    nothing = installers.with_certificate(machine.Machine(), path, said.append)
    assert nothing == machine.Machine() and not path.exists()
    environ.update(PIP_CERT="/no/such.pem", SSL_CERT_FILE=str(one), SSL_CERT_DIR=str(other.parent))
    found = installers.with_certificate(read(environ), path, said.append)
    assert found.certificate == str(path)
    assert said == ["certificates in /no/such.pem are left out: No such file or directory"]
    assert path.read_text().count("BEGIN CERTIFICATE") == 2 and "PRIVATE" not in path.read_text()
    assert one.read_text().strip() in path.read_text()
    before = path.stat()
    assert installers.with_certificate(read(environ), path, said.append) == found
    assert path.stat() == before and len(list(tmp_path.glob("certificates.pem*"))) == 1
    told = installers.environment(found, environ)
    assert {told[name] for name in CERTIFICATE_VARIABLES} == {str(path)}
    assert "SSL_CERT_DIR" not in told


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
    found = read(all_forbidden)
    assert found == machine.Machine(timeout=7.0)
    told = installers.environment(found, all_forbidden)
    own = {name: told[name] for name in told if name.startswith(("PIP_", "UV_", "PYTHON"))}
    keychain = {"UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1"} if sys.platform == "darwin" else {}
    assert own == {
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONNOUSERSITE": "1",
        "UV_NO_CONFIG": "1",
        **keychain,
    }
    assert told["PATH"] == all_forbidden["PATH"]
    values = set(FORBIDDEN.values()) - {"1"}
    assert not values.intersection([*told.values(), *installers.sources(found).values()])


def test_settings_survive_being_written(environ: dict[str, str]) -> None:
    environ.update(
        PIP_INDEX_URL="https://a.example",
        PIP_FIND_LINKS="/a /b",
        PIP_CERT="/c",
        HTTPS_PROXY="http://proxy.example",
        UV_KEYRING_PROVIDER="subprocess",
        UV_CACHE_DIR="/u",
        UV_HTTP_TIMEOUT="99",
    )
    found = read(environ)
    assert found.proxies and found.keyring and found.caches and found.timeout == 99
    assert machine.Machine.loads(found.dumps()) == found


def test_weighed_as_pip_weighs_them(
    user_home: Path, environ: dict[str, str], pip: list[str]
) -> None:
    """Each setting is said at another set of levels; pip itself tells which holds."""
    levels = {"site": "xdg one/pip", "legacy": ".pip", "user": ".config/pip"}
    texts = dict.fromkeys(levels, "")
    for number in range(1, 8):
        for bit, level in enumerate(texts):
            if number >> bit & 1:
                texts[level] += f"Name_{number} = {level}\n"
    for level, text in texts.items():
        lists = "[install]\nsome-list =\n  a\n  b\nempty =\n"
        write(user_home / levels[level] / "pip.conf", f"[global]\n{text}{lists}")
    write(user_home / "named", "[global]\nname-1 = named\n--name-9 = named\n")
    environ.update(PIP_NAME_2="variable", PIP_NAME_3="")
    for named in ({}, {"PIP_CONFIG_FILE": str(user_home / "named")}, {"PIP_CONFIG_FILE": "none"}):
        told = pips_settings(pip, {**environ, **named})
        # Not what this machine's own /etc/pip.conf says.
        expected = {n: v for n, v in told.items() if n.startswith(("name-", "some-list"))}
        found = settings.pip_values({**environ, **named}, "", pytest.fail)
        assert {n: v for n, v in found.items() if n != "config-file"} == expected
        assert len(expected) >= 7
