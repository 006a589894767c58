"""Where run.py has packages from: each way to name a mirror, a certificate and a proxy."""

import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.tools.bundle.conftest import starts
from tests.tools.bundle.machine import (
    CERTIFICATES,
    DEAD,
    HOST,
    INDEXES,
    NOWHERE,
    PROXIES,
    Machine,
    make_index,
    serving,
)
from tools.bundle.worker.venv import Mirrors
from tools.start import machine as start_machine


def mirrors(machine: Machine, monkeypatch, pypi: str = DEAD, **env: str) -> Mirrors:
    """What a worker finds on the machine, in this process; PyPI is at `pypi`."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in machine.environment(**env).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(start_machine, "PYPI", pypi)
    scratch = machine.root / "scratch"
    scratch.mkdir(exist_ok=True)
    pins = machine.root / "pins.txt"
    pins.write_text("jax==1 \\\n")
    return Mirrors(str(pins), str(scratch))


# From a start to its end, one tool's settings with the other tool; every way, with the real uv, is
# in tests/slow/bundle.
@pytest.mark.parametrize(
    ("way", "installer"),
    [
        ("PIP_INDEX_URL", "uv"),
        ("UV_DEFAULT_INDEX", "pip"),
        ("pip.conf, site", "uv"),
        ("uv.toml, user", "pip"),
    ],
    indirect=["installer"],
)
def test_an_index_on_the_network(machine, thin, index, installer, way):
    with serving(index.parent) as server:
        starts(machine, thin, **INDEXES[way](machine, f"{server.url}/simple"), **installer)
        assert "/simple/jax/" in server.requests


@pytest.mark.parametrize("way", INDEXES)
def test_each_way_to_name_an_index(machine, monkeypatch, index, way):
    with serving(index.parent) as server:
        url = f"{server.url}/simple"
        found = mirrors(machine, monkeypatch, **INDEXES[way](machine, url))
    assert found.machine.indexes == (url,) and found.environment["PIP_INDEX_URL"] == url
    assert found.environment["UV_DEFAULT_INDEX"] == url


def comma(url: str) -> str:
    """As a person may write it; uv has commas between its places."""
    return url.replace("%2C", ",")


@pytest.mark.parametrize("kind", ["index", "find-links", "a path", "paths"])
def test_an_index_on_this_machine(machine, thin, tmp_path, wheels, installer, kind):
    index = make_index(tmp_path / "a mirror, with café", wheels[0])
    env = {
        "index": {"PIP_INDEX_URL": index.as_uri()},
        "find-links": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": comma(index.parent.as_uri())},
        "a path": {"UV_INDEX_URL": "../a mirror, with café/simple"},
        "paths": {"UV_NO_INDEX": "1"},
    }[kind]
    if kind == "paths":
        machine.configure("uv", f'find-links = ["/no/such", "{index.parent}"]\n')
    starts(machine, thin, **env, **installer)


@pytest.mark.parametrize(
    ("way", "installer"),
    [("REQUESTS_CA_BUNDLE", "uv"), ("SSL_CERT_DIR", "pip")],
    indirect=["installer"],
)
def test_a_certificate_authority_of_its_own(machine, thin, index, installer, authority, way):
    with serving(index.parent, authority.server) as server:
        env = {"PIP_INDEX_URL": f"{server.url}/simple", **installer}
        starts(machine, thin, **env, **CERTIFICATES[way](machine, str(authority.ca)))


@pytest.mark.parametrize("way", CERTIFICATES)
def test_each_way_to_name_a_certificate(machine, monkeypatch, index, authority, way):
    """Two mirrors, so that each is asked: with a certificate that was not found none answers."""
    with serving(index.parent, authority.server) as server:
        urls = [f"{server.url}/simple", f"{server.url}/simple/."]
        env = {"PIP_INDEX_URL": urls[0], "PIP_EXTRA_INDEX_URL": urls[1]}
        env |= CERTIFICATES[way](machine, str(authority.ca))
        found = mirrors(machine, monkeypatch, **env)
    assert found.machine.indexes == (*urls,) and not found.silent
    trusted = Path(found.machine.certificate).read_text()
    names = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    assert {found.environment[name] for name in names} == {found.machine.certificate}
    assert authority.ca.read_text().strip() in trusted
    assert trusted.count("BEGIN") == len(set(trusted.split("-----BEGIN"))) - 1 > 1
    assert "SSL_CERT_DIR" not in found.environment


@pytest.mark.parametrize("known", [False, True])
def test_a_certificate_that_nobody_knows(machine, thin, index, installer, authority, known):
    with serving(index.parent, authority.server) as server:
        env = {"PIP_INDEX_URL": f"{server.url}/simple", **installer}
        if known:
            machine.configure("uv", 'allow-insecure-host = ["https://localhost"]\n', "site")
            starts(machine, thin, **env)
            return
        done = machine.run(thin.command(), **env)
        assert done.returncode == 78 and not list(machine.venvs.glob("py*[0-9a-f]"))


@pytest.mark.parametrize("way", ["PIP_CLIENT_CERT", "SSL_CLIENT_CERT"])
def test_a_mirror_that_asks_who_it_serves(machine, thin, index, authority, way):
    with serving(index.parent, authority.server, clients=authority.ca) as server:
        trust = {"PIP_CERT": str(authority.ca), way: str(authority.server)}
        extra = {"PIP_INDEX_URL": DEAD, "PIP_EXTRA_INDEX_URL": f"{server.url}/simple"}
        starts(machine, thin, **extra, **trust)


@pytest.mark.parametrize(
    ("way", "installer"),
    [("PIP_PROXY", "uv"), ("https_proxy", "pip"), ("uv.toml", "pip")],
    indirect=["installer"],
)
def test_a_proxy_that_alone_gets_to_the_index(
    machine, thin, index, installer, authority, way, tmp_path
):
    with (
        serving(index.parent, authority.server) as server,
        serving(tmp_path, tunnel=urlsplit(server.url).port) as proxy,
    ):
        env = {"PIP_INDEX_URL": f"https://{HOST}/simple", "PIP_CERT": str(authority.ca)}
        starts(machine, thin, **env, **PROXIES[way](machine, proxy.url), **installer)
        assert f"{HOST}:443" in proxy.requests and "/simple/jax/" in server.requests


@pytest.mark.parametrize("way", PROXIES)
def test_each_way_to_name_a_proxy(machine, monkeypatch, index, authority, way, tmp_path):
    """The index is asked through it, and so is another that the proxy does not get to."""
    with (
        serving(index.parent, authority.server) as server,
        serving(tmp_path, tunnel=urlsplit(server.url).port) as proxy,
    ):
        env = {"PIP_INDEX_URL": f"https://{HOST}/simple", "PIP_CERT": str(authority.ca)}
        env |= {"PIP_EXTRA_INDEX_URL": f"https://{NOWHERE}/simple"}
        found = mirrors(machine, monkeypatch, **env, **PROXIES[way](machine, proxy.url))
        assert found.machine.indexes == (f"https://{HOST}/simple",) and len(found.silent) == 1
        assert {f"{HOST}:443", f"{NOWHERE}:443"} <= set(proxy.requests)
    handed = {n: v for n, v in found.environment.items() if n.lower().endswith("_proxy")}
    assert set(handed.values()) == {proxy.url}


@pytest.mark.parametrize(
    ("name", "kind", "installer"),
    [
        ("PIP_EXTRA_INDEX_URL", "refuses", "uv"),
        ("PIP_FIND_LINKS", "no such directory", "uv"),
        ("UV_INDEX", "no such name", "pip"),
    ],
    indirect=["installer"],
)
def test_a_dead_source_beside_a_live_one(machine, thin, index, installer, name, kind):
    names = {"no such name": f"http://{HOST}/simple", "refuses": DEAD}
    dead, began = names.get(kind, "/no/such/place"), time.monotonic()
    done = starts(machine, thin, **{name: dead, "PIP_INDEX_URL": index.as_uri()}, **installer)
    assert time.monotonic() - began < 60
    assert f"{dead} does not answer" in done.stderr


def test_the_index_of_uv_alone_is_dead(machine, thin, index, installer):
    env = {"UV_DEFAULT_INDEX": DEAD, "PIP_INDEX_URL": index.as_uri()}
    done = starts(machine, thin, **env, **installer)
    assert f"{DEAD} does not answer (Connection refused): going on without it" in done.stderr


def test_no_index_answers(machine, thin, installer):
    began = time.monotonic()
    env = {"PIP_INDEX_URL": DEAD, "PIP_EXTRA_INDEX_URL": f"http://user:secret@{HOST}/simple"}
    done = machine.run(thin.command(), **env, **installer)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 78 and time.monotonic() - began < 60
    assert f"{DEAD} does not answer (Connection refused)" in last
    assert f"http://{HOST}/simple does not answer" in last and "secret" not in done.stderr
    done = machine.run(thin.command(), PIP_INDEX_URL=DEAD, **installer)
    assert f"{DEAD} does not answer (Connection refused)" in done.stderr.splitlines()[-1]
    assert not [path for path in machine.venvs.glob("py*") if path.suffix != ".lock"]


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "PIP_INDEX_URL"])
@pytest.mark.parametrize("extra", [False, True])
def test_pypi_is_pips_where_only_uv_has_another(machine, monkeypatch, index, name, extra, capsys):
    more = [index.as_uri()] if extra else []
    env = {name: DEAD} | ({"PIP_EXTRA_INDEX_URL": more[0]} if extra else {})
    with serving(index.parent) as server:
        pypi = f"{server.url}/simple"
        found = mirrors(machine, monkeypatch, pypi, **env)
    if name == "UV_DEFAULT_INDEX":
        assert found.machine.indexes == (*more, pypi)
        assert f"going on without it, with {pypi}" in capsys.readouterr().err
    else:
        assert found.machine.indexes == (*(more or [DEAD]),)
        assert not server.requests


def test_what_is_handed_on_and_nothing_else(machine, monkeypatch, index):
    env = {"PIP_INDEX_URL": index.as_uri(), "PIP_CACHE_DIR": "/c", "UV_CACHE_DIR": "/u"}
    env |= {"PIP_DEFAULT_TIMEOUT": "180", "UV_HTTP_TIMEOUT": "20", "PIP_TRUSTED_HOST": "a b:1"}
    env |= {"PIP_ANYTHING": "1", "UV_ANYTHING": "1", "PYTHONANYTHING": "1", "ANYTHING": "1"}
    machine.configure("pip", "[global]\nno-cache-dir = yes\nkeyring-provider = nonsense\n")
    machine.configure("uv", 'keyring-provider = "subprocess"\n')
    found = mirrors(machine, monkeypatch, **env).environment
    own = {n: v for n, v in found.items() if n.startswith(("PIP_", "UV_", "PYTHON"))}
    assert own == {
        "PIP_CACHE_DIR": "/c",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_DEFAULT_TIMEOUT": "180",
        "PIP_INDEX_URL": index.as_uri(),
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "2",
        "PIP_TRUSTED_HOST": "a b:1",
        "PYTHONNOUSERSITE": "1",
        "UV_CACHE_DIR": "/u",
        "UV_DEFAULT_INDEX": index.as_uri(),
        "UV_HTTP_CONNECT_TIMEOUT": "15",
        "UV_HTTP_RETRIES": "2",
        "UV_HTTP_TIMEOUT": "180",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "a b:1",
        "UV_KEYRING_PROVIDER": "subprocess",
        "UV_NO_CONFIG": "1",
    } | ({"PIP_CERT": found["PIP_CERT"]} if "PIP_CERT" in found else {})  # of a real /etc/pip.conf
    assert found["ANYTHING"] == "1"
