"""fetch.fetch against real servers, proxies and directories."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bootstrap.servers import ABSENT, HIDDEN, Authority, Index, Proxy, dead_port
from tests.bootstrap.wheels import Wheel, make_wheel, write_index
from tools.start import fetch
from tools.start.machine import Machine

LOGIN = "me:s3cret"


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch, "PAUSE", 0.05)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC"):
            monkeypatch.delenv(name)


@dataclass
class Mirror:
    """A wheel, and an index of it in a directory."""

    root: Path
    wheel: Wheel
    target: Path

    @property
    def locked(self) -> str:
        return f"{ABSENT}/ab/cd/{self.wheel.path.name}"

    @property
    def page(self) -> str:
        return f"/simple/{self.wheel.project}/"

    @property
    def file(self) -> str:
        return f"/files/{self.wheel.path.name}"

    def fetch(self, machine: Machine, url: str = "", sha256: str = "") -> None:
        """Fetches, and checks that the bytes are there and nothing beside them."""
        digest = hashlib.sha256()
        fetch.fetch(machine, url or self.locked, sha256 or self.wheel.sha256, self.target, digest)
        assert self.target.read_bytes() == self.wheel.path.read_bytes()
        assert digest.hexdigest() == self.wheel.sha256
        assert list(self.target.parent.iterdir()) == [self.target]

    def fails(self, machine: Machine, url: str = "", sha256: str = "") -> str:
        """The message of a fetch that fails and leaves nothing."""
        self.target.unlink(missing_ok=True)
        with pytest.raises(fetch.FetchError) as raised:
            self.fetch(machine, url, sha256)
        assert list(self.target.parent.iterdir()) == []
        message = str(raised.value)
        assert len(message.splitlines()) == 1
        assert message.startswith(f"{self.wheel.path.name} could not be fetched (")
        return message


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    root = tmp_path / "a mirror"
    body = os.urandom(3 << 20)  # more than one part
    wheel = make_wheel(root / "files", "Some.Package", "1.0", {"some_package.bin": body})
    write_index(root, wheel)
    (tmp_path / "target").mkdir()
    return Mirror(root, wheel, tmp_path / "target" / wheel.path.name)


@pytest.fixture
def server(mirror: Mirror, serve: Callable[..., Index]) -> Index:
    return serve(mirror.root)


@pytest.fixture
def secure(mirror: Mirror, serve: Callable[..., Index], authority: Authority) -> Index:
    return serve(mirror.root, authority=authority)


def index_of(server: Index, **more: Any) -> Machine:
    return Machine(index=f"{server.url}/simple/", **more)


def test_from_the_url_of_the_lock(mirror: Mirror, server: Index) -> None:
    mirror.fetch(Machine(), url=server.url + mirror.file)
    assert server.asked == [mirror.file]


@pytest.mark.parametrize("slash", ["", "/"])
def test_from_an_index(slash: str, mirror: Mirror, server: Index) -> None:
    mirror.fetch(Machine(index=f"{server.url}/simple{slash}"))
    assert server.asked == [mirror.page, mirror.file]


def test_extra_index_serves_what_the_main_one_lacks(
    mirror: Mirror, server: Index, serve: Callable[..., Index], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    empty = serve(tmp_path / "empty")
    mirror.fetch(Machine(index=f"{empty.url}/simple", extra_indexes=(f"{server.url}/simple",)))
    assert empty.asked == [mirror.page]


def test_extra_index_is_not_asked_where_pypi_has_it(mirror: Mirror, server: Index) -> None:
    """An extra index alone is no mirror."""
    machine = Machine(extra_indexes=(f"{server.url}/simple",))
    mirror.fetch(machine, url=server.url + mirror.file)
    assert server.asked == [mirror.file]
    mirror.fetch(machine)


def test_own_authority(mirror: Mirror, secure: Index, authority: Authority) -> None:
    assert "certificate" in mirror.fails(index_of(secure)).lower()
    mirror.fetch(index_of(secure, certificate=str(authority.certificate)))


def test_directory_of_authorities(
    mirror: Mirror, secure: Index, authority: Authority, tmp_path: Path
) -> None:
    directory = tmp_path / "authorities"
    directory.mkdir()
    authority.write_hashed(directory)
    mirror.fetch(index_of(secure, certificate=str(directory)))


def test_authority_that_is_not_there_is_named(mirror: Mirror, secure: Index) -> None:
    assert "/no/such/bundle.pem" in mirror.fails(
        index_of(secure, certificate="/no/such/bundle.pem")
    )


@pytest.mark.parametrize("host", ["localhost", "localhost:{}", "https://localhost"])
def test_trusted_host_needs_no_authority(host: str, mirror: Mirror, secure: Index) -> None:
    mirror.fetch(index_of(secure, trusted_hosts=(host.format(secure.port),)))
    mirror.fails(index_of(secure, trusted_hosts=("other.example", "localhost:1")))


@pytest.mark.parametrize("login", ["", LOGIN])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_must_be_used(
    scheme: str,
    login: str,
    mirror: Mirror,
    server: Index,
    secure: Index,
    authority: Authority,
    proxy: Callable[..., Proxy],
) -> None:
    behind = {"http": server, "https": secure}[scheme]
    running = proxy({HIDDEN: behind.port}, login=login)
    index = f"{scheme}://{HIDDEN}/simple"
    for variable in (f"{scheme}_proxy", "all_proxy"):
        machine = Machine(
            index=index,
            certificate=str(authority.certificate),
            proxies=((variable, running.url),),
        )
        mirror.fetch(machine)
    assert set(running.asked) == {HIDDEN}
    assert behind.asked == [mirror.page, mirror.file] * 2
    mirror.fails(machine._replace(proxies=()))


def test_hosts_excepted_from_the_proxy(mirror: Mirror, server: Index) -> None:
    dead = f"http://127.0.0.1:{dead_port()}"
    for exceptions in ("localhost", f"other.example,localhost:{server.port}", "*"):
        mirror.fetch(index_of(server, proxies=(("http_proxy", dead), ("no_proxy", exceptions))))
    excepted = (("http_proxy", dead), ("no_proxy", "other.example"))
    mirror.fails(index_of(server, proxies=excepted))


def test_environment_says_nothing_beside_the_settings(
    mirror: Mirror, server: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{dead_port()}")
    mirror.fetch(index_of(server))


@pytest.mark.parametrize("form", ["path", "URL"])
def test_mirror_in_a_directory(form: str, mirror: Mirror) -> None:
    simple = mirror.root / "simple"
    mirror.fetch(Machine(index=str(simple) if form == "path" else simple.as_uri()))


def test_mirror_in_a_directory_without_pages(mirror: Mirror, tmp_path: Path) -> None:
    """Files below their project's name, as some mirroring tools leave them."""
    place = tmp_path / "plain" / mirror.wheel.project
    place.mkdir(parents=True)
    (place / mirror.wheel.path.name).write_bytes(mirror.wheel.path.read_bytes())
    mirror.fetch(Machine(index=str(place.parent)))


@pytest.mark.parametrize("form", ["path", "URL", "page", "served page"])
def test_find_links(form: str, mirror: Mirror, server: Index) -> None:
    files = mirror.root / "files"
    (mirror.root / "links.html").write_text(
        f'<a href="https://localhost:1/x.whl">x</a><a href="files/{mirror.wheel.path.name}">y</a>'
    )
    place = {
        "path": str(files),
        "URL": files.as_uri(),
        "page": str(mirror.root / "links.html"),
        "served page": f"{server.url}/links.html",
    }[form]
    mirror.fetch(Machine(no_index=True, find_links=("/no/such/directory", place)))


def test_without_index_no_index_is_asked(mirror: Mirror, server: Index) -> None:
    machine = index_of(server, no_index=True, extra_indexes=(f"{server.url}/simple",))
    mirror.fails(machine, url=server.url + mirror.file)
    assert server.asked == []


def test_login_in_the_url(mirror: Mirror, serve: Callable[..., Index]) -> None:
    server = serve(mirror.root, login=LOGIN)
    machine = Machine(index=f"{server.url_with_login}/simple")
    mirror.fetch(machine)
    assert server.asked == [mirror.page, mirror.file]
    assert "401" in mirror.fails(Machine(index=f"{server.url}/simple"))
    wrong = mirror.fails(Machine(index=machine.index.replace("s3cret", "wr0ng")))
    assert "401" in wrong
    assert "wr0ng" not in wrong


def test_login_with_signs_that_a_url_escapes(mirror: Mirror, serve: Callable[..., Index]) -> None:
    server = serve(mirror.root, login="me@example.com:p@ss/wörd")
    login = "me%40example.com:p%40ss%2Fw%C3%B6rd"
    mirror.fetch(Machine(index=f"{server.url.replace('://', f'://{login}@')}/simple"))


def test_login_serves_all_of_its_host(mirror: Mirror, serve: Callable[..., Index]) -> None:
    server = serve(mirror.root, login=LOGIN)
    server.faults[mirror.page] = [f"{server.url}{mirror.page}index.html"]
    server.faults[mirror.file] = [f"/files/../files/{mirror.wheel.path.name}"]
    mirror.fetch(Machine(index=f"{server.url_with_login}/simple"))
    assert server.seen[0][1] == server.seen[-1][1] != ""


def test_login_in_netrc(
    mirror: Mirror, serve: Callable[..., Index], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = serve(mirror.root, login=LOGIN)
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / ".netrc"
    path.write_text("machine localhost login me password s3cret\n")
    path.chmod(0o600)
    mirror.fetch(Machine(index=f"{server.url}/simple"))
    path.write_text("this is no netrc\n")
    assert "401" in mirror.fails(Machine(index=f"{server.url}/simple"))
    (tmp_path / "another").write_text("machine localhost login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "another"))
    mirror.fetch(Machine(index=f"{server.url}/simple"))


def test_login_goes_to_its_host_alone(
    mirror: Mirror, server: Index, serve: Callable[..., Index]
) -> None:
    """Neither a redirect nor a link to another host carries it."""
    first = serve(mirror.root, login=LOGIN)
    first.faults[mirror.file] = [server.url + mirror.file]
    mirror.fetch(Machine(index=f"{first.url_with_login}/simple"))
    assert server.seen == [(mirror.file, "")]
    page = mirror.root / "simple" / mirror.wheel.project / "index.html"
    page.write_text(f'<a href="{server.url}{mirror.file}">the file</a>')
    mirror.fetch(Machine(index=f"{first.url_with_login}/simple"))
    assert server.seen == [(mirror.file, "")] * 2


def test_redirect_of_a_page_and_of_a_file(mirror: Mirror, server: Index) -> None:
    server.faults[mirror.page] = [f"{server.url}{mirror.page}index.html"]
    server.faults[mirror.file] = [f"{server.url}{mirror.file}?moved"]
    mirror.fetch(index_of(server))


@pytest.mark.parametrize("fault", [503, 429, "truncated"])
@pytest.mark.parametrize("of", ["page", "file"])
def test_what_passes_is_asked_again(
    of: str, fault: int | str, mirror: Mirror, server: Index
) -> None:
    server.faults[getattr(mirror, of)] = [fault, fault]
    mirror.fetch(index_of(server))


def test_what_stays_is_not_asked_for_ever(mirror: Mirror, server: Index) -> None:
    server.faults[mirror.file] = [503] * 9
    assert "503" in mirror.fails(Machine(), url=server.url + mirror.file)
    assert server.asked == [mirror.file] * fetch.TRIES


def test_truncated_file_is_no_file(mirror: Mirror, server: Index) -> None:
    server.faults[mirror.file] = ["truncated"] * 9
    message = mirror.fails(Machine(), url=server.url + mirror.file)
    assert "12 of 100000 bytes" in message


@pytest.mark.parametrize("status", [403, 404])
def test_refusal_is_final_and_told(status: int, mirror: Mirror, server: Index) -> None:
    server.faults[mirror.file] = [status] * 9
    message = mirror.fails(Machine(), url=server.url + mirror.file)
    assert f"{status}" in message
    assert server.url + mirror.file in message
    assert server.asked == [mirror.file]


def test_mirrors_own_refusal_is_told(mirror: Mirror, server: Index) -> None:
    """Not only that of the lock's URL, which nobody here expects to answer."""
    server.faults[mirror.page] = [403] * 9
    message = mirror.fails(index_of(server))
    assert "403" in message
    assert server.url in message


def test_wrong_digest_is_refused(mirror: Mirror, server: Index) -> None:
    message = mirror.fails(Machine(), url=server.url + mirror.file, sha256="0" * 64)
    assert mirror.wheel.sha256[:16] in message
    assert "0000" in message


def test_wrong_file_on_one_mirror_is_passed_over(
    mirror: Mirror, server: Index, tmp_path: Path
) -> None:
    other = make_wheel(tmp_path / "other/files", "Some.Package", "1.0", {"other.py": ""})
    simple = write_index(tmp_path / "other", other)
    mirror.fetch(Machine(index=simple.as_uri(), extra_indexes=(f"{server.url}/simple",)))


def test_host_that_is_not_there(mirror: Mirror) -> None:
    start = time.monotonic()
    message = mirror.fails(Machine())
    assert ABSENT in message
    assert "refused" in message
    assert time.monotonic() - start < 5  # it was not asked again
    assert HIDDEN in mirror.fails(Machine(), url=f"https://{HIDDEN}/{mirror.wheel.path.name}")


def test_host_that_never_answers(
    mirror: Mirror, server: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.5)
    server.faults[mirror.page] = ["silence"] * 9
    start = time.monotonic()
    assert "timed out" in mirror.fails(index_of(server))
    assert server.asked == [mirror.page] * fetch.TRIES
    assert time.monotonic() - start < 10


def test_other_schemes_are_refused(mirror: Mirror) -> None:
    for url in ("ftp://packages.example/", "packages.example/"):
        assert "http, https or file" in mirror.fails(Machine(), url=url + mirror.wheel.path.name)


def test_names_of_projects() -> None:
    names = {
        "Some_Package-1.0-py3-none-any.whl": "some-package",
        "zope.interface-6.0.tar.gz": "zope-interface",
        "pantsbuild_pants-2.17.1-cp39-cp39-macosx_11_0_arm64.whl": "pantsbuild-pants",
    }
    assert {name: fetch.project(name) for name in names} == names
