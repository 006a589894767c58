"""What a start needs of the network: nothing before it trains, and nothing at all when alone."""

import shutil
import socket
import subprocess
import threading

import pytest

from tests.engines.cluster import MODULES, START_S, finish, kill, start, train

TWO_STEPS = ["--steps", "2"]
ALONE_S = 60


@pytest.fixture
def proxy():
    """(variables that name a proxy which never answers, the connections that it was asked for)."""
    asked, listener = [], socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                asked.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield {name: url for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "grpc_proxy")}, asked
    listener.close()


@pytest.mark.parametrize(
    ("processes", "excepted"),
    [(1, {}), (2, {}), (2, {"no_grpc_proxy": "else", "NO_PROXY": "else"})],
)
def test_a_proxy_is_not_asked_for_this_machine(store, cache, proxy, tmp_path, processes, excepted):
    variables, asked = proxy
    sizes = {"processes": processes, "devices": 1}
    workers = train(
        "base",
        store,
        tmp_path / "run",
        TWO_STEPS,
        tmp_path,
        **sizes,
        **cache,
        **variables,
        **excepted,
    )
    assert finish(workers, within=START_S) == [0] * processes, workers[0].text()
    assert not asked
    assert not any("JAX detected proxy" in worker.text() for worker in workers)


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--help"], 0, "usage: launch"),
        (["--plan"], 0, "memory per device"),
        (["--no-such-flag"], 2, "no-such-flag"),
    ],
)
def test_what_needs_no_other_process_waits_for_none(tmp_path, flags, code, text):
    workers = start(MODULES["base"], flags, tmp_path, processes=2, devices=1, absent=0)
    assert finish(workers, within=ALONE_S) == [code], workers[0].text()
    assert text in workers[0].text()


def test_without_any_network_a_process_alone_trains(store, cache, tmp_path):
    """Not even the loopback interface is up."""
    isolated = ["unshare", "--net"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*isolated, "true"], capture_output=True).returncode
    ):
        pytest.skip("this machine lets no user make a network namespace")
    workers = train(
        "base",
        store,
        tmp_path / "run",
        TWO_STEPS,
        tmp_path,
        processes=1,
        devices=1,
        through=isolated,
        **cache,
    )
    try:
        assert finish(workers, within=ALONE_S) == [0], workers[0].text()
    finally:
        kill(workers)
