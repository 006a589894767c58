"""The server of a built site: what it answers, and to whom."""

import functools
import http.server
import threading
import urllib.error
import urllib.request

import pytest

from tools.site import serve


@pytest.fixture
def site(tmp_path):
    root = tmp_path / "site"
    (root / "sub").mkdir(parents=True)
    (root / "index.html").write_text("<body><p>home</p></body>")
    (root / "sub/part.html").write_text("<p>é: no body</p>", encoding="utf-8")
    (root / "data.json").write_text('{"body": "</body>"}')
    (tmp_path / "secret.html").write_text("<body>secret</body>")
    return root


@pytest.fixture
def get(site):
    """Asks a server of `site` for a path."""
    handler = functools.partial(serve.Handler, site=site, version=serve.version(site))
    with http.server.ThreadingHTTPServer((serve.HOST, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def ask(path):
            with urllib.request.urlopen(
                f"http://{serve.HOST}:{server.server_port}{path}"
            ) as actual:
                return actual.read().decode()

        yield ask
        server.shutdown()


def test_pages_reload_themselves_and_nothing_else_is_changed(get):
    assert get("/") == get("/index.html") == f"<body><p>home</p>{serve.RELOAD}</body>"
    assert get("/sub/part.html") == "<p>é: no body</p>"
    assert get(serve.SCRIPT) == serve.RELOADING
    assert get("/data.json") == '{"body": "</body>"}'


def test_nothing_beside_the_site_is_served(get):
    for path in ("/../secret.html", "/%2e%2e/secret.html", "/sub/../../secret.html", "/none.html"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(path)


def test_the_version_tells_one_site_from_the_next(get, site):
    before = get(serve.VERSION)
    assert before == serve.version(site)
    (site / "sub/part.html").write_text("<p>e: no body</p>")
    assert serve.version(site) != before
    (site / "sub/part.html").rename(site / "sub/other.html")
    renamed = serve.version(site)
    (site / "sub/other.html").rename(site / "other.html")
    assert len({before, renamed, serve.version(site)}) == 3


def test_faults_are_named(tmp_path, site, capsys):
    with pytest.raises(SystemExit) as ended:
        serve.main([str(tmp_path / "nowhere")])
    assert ended.value.code == 1 and "./pants package docs:site" in capsys.readouterr().err
    with (
        http.server.ThreadingHTTPServer(
            (serve.HOST, 0), http.server.BaseHTTPRequestHandler
        ) as taken,
        pytest.raises(SystemExit) as ended,
    ):
        serve.main([str(site), f"--port={taken.server_port}"])
    assert ended.value.code == 1 and "choose another with --port N" in capsys.readouterr().err
