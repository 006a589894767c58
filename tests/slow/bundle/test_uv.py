"""run.py with the real uv: it heeds no settings but those of mirrors, each in every form."""

import time
from urllib.parse import urlsplit

import pytest

from tests.tools.bundle.conftest import starts
from tests.tools.bundle.machine import (
    CERTIFICATES,
    DEAD,
    HOST,
    INDEXES,
    PIP_SETTINGS,
    PROXIES,
    UV_FILES,
    UV_SETTINGS,
    make_index,
    serving,
    silent_server,
)


@pytest.mark.parametrize("name", UV_SETTINGS)
def test_variables(machine, thin, index, real_uv, name):
    env = {f"UV_{name}": UV_SETTINGS[name].format(root=machine.root), "GRUG_UV": real_uv}
    with serving(index.parent) as server:
        starts(machine, thin, UV_DEFAULT_INDEX=f"{server.url}/simple", **env)


@pytest.mark.parametrize("level", ["user", "site"])
@pytest.mark.parametrize("name", UV_FILES)
def test_files(machine, thin, index, real_uv, level, name):
    machine.configure("uv", UV_FILES[name].format(root=machine.root), level)
    with serving(index.parent) as server:
        starts(machine, thin, GRUG_UV=real_uv, UV_DEFAULT_INDEX=f"{server.url}/simple")


@pytest.mark.parametrize("name", PIP_SETTINGS)
def test_pips_variables_where_it_fetches_uv(machine, make, wheels_and_uv, tools_lock, name):
    variable = "PIP_" + name.upper().replace("-", "_")
    env = {variable: PIP_SETTINGS[name].format(root=machine.root)}
    done = starts(machine, make(wheels_and_uv, tools=tools_lock), **env)
    assert "installing with uv..." in done.stderr


def test_a_project_in_the_working_directory(machine, thin, index, real_uv):
    (machine.root / "pyproject.toml").write_text('[tool.uv]\nconstraint-dependencies=["jax<0.1"]\n')
    (machine.root / ".python-version").write_text("3.8\n")
    (machine.root / "uv.toml").write_text("[\n")
    starts(machine, thin, GRUG_UV=real_uv, UV_DEFAULT_INDEX=index.as_uri())


@pytest.mark.parametrize("way", INDEXES)
def test_indexes(machine, thin, index, real_uv, way):
    with serving(index.parent) as server:
        env = INDEXES[way](machine, f"{server.url}/simple")
        starts(machine, thin, GRUG_UV=real_uv, **env)
        assert "/simple/jax/" in server.requests


@pytest.mark.parametrize("kind", ["index", "find-links", "a path"])
def test_an_index_on_this_machine(machine, thin, tmp_path, wheels, real_uv, kind):
    index = make_index(tmp_path / "a mirror, with café", wheels[0])
    env = {
        "index": {"PIP_INDEX_URL": index.as_uri()},
        "find-links": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": index.parent.as_uri()},
        "a path": {"UV_INDEX_URL": "../a mirror, with café/simple"},
    }[kind]
    starts(machine, thin, GRUG_UV=real_uv, **env)


@pytest.mark.parametrize("way", CERTIFICATES)
def test_certificates(machine, thin, index, real_uv, authority, way):
    with serving(index.parent, authority.server) as server:
        env = CERTIFICATES[way](machine, str(authority.ca))
        starts(machine, thin, GRUG_UV=real_uv, PIP_INDEX_URL=f"{server.url}/simple", **env)


def test_a_mirror_that_asks_who_it_serves(machine, thin, index, real_uv, authority):
    with serving(index.parent, authority.server, clients=authority.ca) as server:
        trust = {"PIP_CERT": str(authority.ca), "PIP_CLIENT_CERT": str(authority.server)}
        starts(machine, thin, GRUG_UV=real_uv, PIP_INDEX_URL=f"{server.url}/simple", **trust)


def test_a_trusted_host(machine, thin, index, real_uv, authority):
    with serving(index.parent, authority.server) as server:
        env = {"PIP_INDEX_URL": f"{server.url}/simple", "PIP_TRUSTED_HOST": "localhost"}
        starts(machine, thin, GRUG_UV=real_uv, **env)


@pytest.mark.parametrize("way", PROXIES)
def test_proxies(machine, thin, index, real_uv, authority, way, tmp_path):
    with (
        serving(index.parent, authority.server) as server,
        serving(tmp_path, tunnel=urlsplit(server.url).port) as proxy,
    ):
        env = {"PIP_INDEX_URL": f"https://{HOST}/simple", "PIP_CERT": str(authority.ca)}
        starts(machine, thin, GRUG_UV=real_uv, **env, **PROXIES[way](machine, proxy.url))
        assert f"{HOST}:443" in proxy.requests and "/simple/jax/" in server.requests


@pytest.mark.parametrize("name", ["PIP_EXTRA_INDEX_URL", "UV_INDEX", "PIP_FIND_LINKS"])
def test_a_dead_source_beside_a_live_one(machine, thin, index, real_uv, name):
    with silent_server() as silent:
        began = time.monotonic()
        env = {name: f"{silent} {DEAD} /no/such"}
        starts(machine, thin, GRUG_UV=real_uv, PIP_INDEX_URL=index.as_uri(), **env)
        assert time.monotonic() - began < 60
