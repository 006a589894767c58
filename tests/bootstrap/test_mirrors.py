"""First starts from indexes over HTTP and HTTPS, with a login, and through a proxy."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable

import pytest

from tests.bootstrap.checkout import Checkout
from tests.bootstrap.servers import HIDDEN, Authority, Index, Proxy


@pytest.fixture
def without_uv(checkout: Checkout) -> Checkout:
    """uv, too, comes from the index."""
    (checkout.bin / "uv").unlink()
    return checkout


def test_mirror_over_http(without_uv: Checkout, serve: Callable[..., Index]) -> None:
    server = serve(without_uv.packages.root)
    told = without_uv.run(PIP_INDEX_URL=f"{server.url}/simple").check()
    assert f"/files/{without_uv.packages.uv.path.name}" in server.asked
    indexes = ast.literal_eval(told.environment["PANTS_PYTHON_REPOS_INDEXES"])
    assert indexes == [f"{server.url}/simple"]


def test_mirror_that_wants_a_login(without_uv: Checkout, serve: Callable[..., Index]) -> None:
    server = serve(without_uv.packages.root, login="me:s3cret")
    told = without_uv.run(PIP_INDEX_URL=f"{server.url_with_login}/simple").check()
    assert "s3cret" not in told.errors
    wrong = f"{server.url_with_login.replace('s3cret', 'wr0ng')}/simple"
    shutil.rmtree(without_uv.home / ".cache")
    told = without_uv.run(PIP_INDEX_URL=wrong).check_failed("401")
    assert "wr0ng" not in told.errors


@pytest.mark.parametrize(
    "variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT"]
)
def test_authority_known_by_one_variable_alone(
    variable: str, without_uv: Checkout, serve: Callable[..., Index], authority: Authority
) -> None:
    server = serve(without_uv.packages.root, authority=authority)
    index = f"{server.url}/simple"
    without_uv.run(PIP_INDEX_URL=index, **{variable: str(authority.certificate)}).check()


def test_unknown_authority_is_refused(
    without_uv: Checkout, serve: Callable[..., Index], authority: Authority
) -> None:
    server = serve(without_uv.packages.root, authority=authority)
    told = without_uv.run(PIP_INDEX_URL=f"{server.url}/simple")
    assert "CERTIFICATE_VERIFY_FAILED" in told.check_failed().errors


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY", "PIP_PROXY"])
def test_proxy_that_must_be_used(
    variable: str,
    without_uv: Checkout,
    serve: Callable[..., Index],
    authority: Authority,
    proxy: Callable[..., Proxy],
) -> None:
    server = serve(without_uv.packages.root, authority=authority)
    running = proxy({HIDDEN: server.port}, login="me:s3cret")
    without_uv.env.update(
        PIP_INDEX_URL=f"https://{HIDDEN}/simple", REQUESTS_CA_BUNDLE=str(authority.certificate)
    )
    without_uv.run(**{variable: running.url}).check()
    assert set(running.asked) == {HIDDEN}
    (cache,) = without_uv.caches  # where Pex reads of it
    assert running.url in (cache / "machine.json").read_text()
    shutil.rmtree(without_uv.home / ".cache")
    without_uv.run().check_failed(HIDDEN)
