"""Which of the places that a machine names answer, and what pip and uv are told of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bootstrap.servers import HIDDEN, Authority, Index, Proxy, dead_port
from tools.start import installers, machine, mirrors
from tools.start.machine import Machine

PAGE = "/simple/jax/"


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*machine.CERTIFICATES, "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def live(tmp_path: Path, serve: Callable[..., Index]) -> Index:
    (tmp_path / "simple/jax").mkdir(parents=True)
    return serve(tmp_path)


def answering(named: Machine) -> tuple[Machine, dict[str, str], list[str]]:
    """(what is left, why the others are silent, what was said)"""
    said: list[str] = []
    left, silent = mirrors.answering(named, "jax", said.append)
    return left, silent, said


def dead() -> str:
    return f"http://localhost:{dead_port()}/simple"


def index(server: Index) -> str:
    return f"{server.url}/simple"


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_a_refusal_is_an_answer(status: int, live: Index) -> None:
    live.faults[PAGE] = [status]
    assert mirrors.silence(Machine(), live.url + PAGE) == ""
    assert live.asked == [PAGE]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_answers_for_nobody(status: int, live: Index) -> None:
    live.faults[PAGE] = [status]
    other = f"{live.url}/other"
    left, silent, said = answering(Machine(index=index(live), extra_indexes=(other,)))
    assert (left.indexes, list(silent)) == ((other,), [index(live)])
    assert silent[index(live)].startswith(f"{status} ")
    assert said == [f"{index(live)} does not answer ({silent[index(live)]}): going on without it"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_get_there(
    scheme: str, live: Index, proxy: Callable[..., Proxy]
) -> None:
    running = proxy({HIDDEN: live.port})
    told = tuple((f"{name}_proxy", running.url) for name in ("http", "https"))
    there, nowhere = f"http://{HIDDEN}/simple", f"{scheme}://nowhere.invalid/simple"
    left, silent, _ = answering(Machine(index=nowhere, extra_indexes=(there,), proxies=told))
    assert left.indexes == (there,) and "502" in silent[nowhere]
    assert sorted(running.asked) == ["nowhere.invalid", HIDDEN]


def test_only_installers_know_proxies_of_other_kinds() -> None:
    named = Machine(proxies=(("http_proxy", "socks5://127.0.0.1:9"),))
    assert mirrors.silence(named, dead()) == ""


def test_places_that_say_nothing_or_never_all_of_it(
    live: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are asked at once, and none is waited for longer than for the others."""
    monkeypatch.setattr(mirrors, "ANSWER", 3.0)
    dripping = tuple(f"{live.url}/{number}" for number in range(3))
    live.faults.update({f"/{number}/jax/": ["drip"] for number in range(3)})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        quiet = f"http://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        named = Machine(index=index(live), extra_indexes=(*dripping, quiet))
        left, silent, said = answering(named)
        took = time.monotonic() - began
    assert took < 9, took  # 12 in turn
    assert left.indexes == (index(live),) and list(silent) == [*dripping, quiet] and len(said) == 4
    assert [silent[place] for place in dripping] == ["nothing within 3 s"] * 3
    assert silent[quiet] in ("timed out", "nothing within 3 s")


def test_what_is_no_url_is_left_out(live: Index) -> None:
    """At once, as one that refuses a connection."""
    left, silent, _ = answering(Machine(index="http://[1", extra_indexes=(index(live),)))
    assert left.indexes == (index(live),) and silent == {"http://[1": "Invalid IPv6 URL"}


def test_find_links_that_are_gone_are_left_out(tmp_path: Path) -> None:
    here = (tmp_path / "a place").as_uri()
    (tmp_path / "a place").mkdir()
    gone = (tmp_path / "no place").as_uri()
    left, silent, said = answering(Machine(no_index=True, find_links=(gone, here)))
    assert (left.find_links, left.indexes) == ((here,), ())
    assert silent == {gone: "No such file or directory"} and len(said) == 1


def test_an_index_that_is_a_directory_need_not_have_the_page(tmp_path: Path) -> None:
    (tmp_path / "simple").mkdir()
    here, gone = (tmp_path / "simple").as_uri(), (tmp_path / "gone").as_uri()
    left, silent, _ = answering(Machine(index=here, extra_indexes=(gone,)))
    assert (left.indexes, list(silent)) == ((here,), [gone])


def test_an_index_that_is_gone_leaves_none(tmp_path: Path) -> None:
    left, _, _ = answering(Machine(index=dead(), find_links=(tmp_path.as_uri(),)))
    assert left.no_index and left.find_links == (tmp_path.as_uri(),)
    assert installers.uv_flags(left) == ["--no-index"]
    assert installers.sources(left)["PIP_NO_INDEX"] == "1"


def test_where_none_answers_all_stay_and_nothing_is_said(tmp_path: Path) -> None:
    one, other = dead(), dead().replace("://", "://me:s3cret@")
    named = Machine(index=one, extra_indexes=(other,))
    left, silent, said = answering(named)
    assert left == named and said == []
    assert silent == dict.fromkeys((one, other), "Connection refused")


def test_a_password_is_not_shown(live: Index) -> None:
    place = dead().replace("://", "://me:s3cret@")
    _, _, (line,) = answering(Machine(index=index(live), extra_indexes=(place,)))
    assert "s3cret" not in line and line.startswith("http://localhost:")


@pytest.mark.parametrize("spare", [False, True])
def test_one_alone_is_asked_only_where_another_can_take_its_place(spare: bool, live: Index) -> None:
    left, silent, said = answering(Machine(index=index(live), spare=dead() if spare else ""))
    assert left.indexes == (index(live),) and not silent and not said
    assert live.asked == [PAGE] * spare
    named = Machine(index=dead(), spare=index(live) if spare else "")
    left, silent, said = answering(named)
    assert left.indexes == ((index(live),) if spare else named.indexes)
    assert [line.rpartition(" it")[2] for line in said] == [f", with {index(live)}"] * spare


def test_the_spare_is_silent_too(tmp_path: Path) -> None:
    named = Machine(index=dead(), spare=dead())
    left, silent, said = answering(named)
    assert (left, list(silent), said) == (named, [named.index], [])
    links = named._replace(find_links=(tmp_path.as_uri(),))
    left, _, said = answering(links)
    assert left.indexes == () and said[0].endswith("going on without it")


def test_an_authority_that_only_installers_may_know(
    tmp_path: Path, serve: Callable[..., Index], authority: Authority
) -> None:
    """pip has certificates of its own; where the machine names some, those count."""
    server = serve(tmp_path, authority=authority)
    assert mirrors.silence(Machine(), server.url) == ""
    known = Machine(certificate=str(authority.certificate))
    assert mirrors.silence(known, server.url) == ""
    (other,) = installers.system_certificates()
    assert "certificate" in mirrors.silence(Machine(certificate=other), server.url).lower()


def test_what_pip_and_uv_are_told() -> None:
    """uv has commas between its places to find links, so that none may be in one."""
    named = Machine(
        index="https://a/x,y",
        extra_indexes=("https://b/x,y", "https://c"),
        find_links=("https://d/x,y", "file:///e"),
        trusted_hosts=("a", "b:1"),
        timeout=99.4,
    )
    assert installers.sources(named) == {
        "PIP_DEFAULT_TIMEOUT": "99",
        "PIP_EXTRA_INDEX_URL": "https://b/x,y https://c",
        "PIP_FIND_LINKS": "https://d/x,y file:///e",
        "PIP_INDEX_URL": "https://a/x,y",
        "PIP_RETRIES": "2",
        "PIP_TRUSTED_HOST": "a b:1",
        "UV_DEFAULT_INDEX": "https://a/x,y",
        "UV_FIND_LINKS": "https://d/x%2Cy,file:///e",
        "UV_HTTP_CONNECT_TIMEOUT": "15",
        "UV_HTTP_RETRIES": "2",
        "UV_HTTP_TIMEOUT": "99",
        "UV_INDEX": "https://b/x%2Cy https://c",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "a b:1",
    }
    assert installers.uv_flags(named) == []
    assert installers.sources(Machine())["UV_DEFAULT_INDEX"] == machine.PYPI
