"""python tools/site/serve.py SITE [--port 8000]

Serves a built site on this machine alone. An open page reloads itself when the server returns with
another site. Uses the standard library only, because it runs as a script beside the site.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import sys
from pathlib import Path
from typing import Any

from tools.common.paths import local_path

HOST = "127.0.0.1"
VERSION = "/-/version"
SCRIPT = "/-/reload.js"
# A file of its own: the pages' policy forbids scripts in them.
RELOAD = f'<script src="{SCRIPT}"></script>'
# While the server restarts with the next site there is no answer: ask again.
RELOADING = """(() => {
  let seen;
  setInterval(async () => {
    try {
      const answer = await (await fetch("/-/version")).text();
      seen ??= answer;
      if (answer !== seen) location.reload();
    } catch {}
  }, 1000);
})();
"""


def version(site: Path) -> str:
    """A digest of the site's names and bytes."""
    digest = hashlib.sha256()
    for file in sorted(path for path in site.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(site).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site's files, and adds to pages the script that reloads them."""

    def __init__(self, *args: Any, site: Path, version: str) -> None:
        self.version = version
        super().__init__(*args, directory=str(site))

    def do_GET(self) -> None:
        """Sends a file, a page that reloads itself, the script that does so, or the version."""
        if self.path == VERSION:
            return self.answer(self.version.encode(), "text/plain")
        if self.path == SCRIPT:
            return self.answer(RELOADING.encode(), "text/javascript")
        name = self.translate_path(self.path)
        page = Path(name, "index.html") if name.endswith("/") else Path(name)
        if page.suffix != ".html" or not page.is_file():
            return super().do_GET()
        head, end, tail = page.read_text(encoding="utf-8").rpartition("</body>")
        self.answer(f"{head}{RELOAD if end else ''}{end}{tail}".encode(), "text/html")

    def answer(self, body: bytes, kind: str) -> None:
        """Sends a body that must not be cached."""
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Logs nothing: log_error writes a line for what could not be served."""


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="serve", description="Serve a built site on this machine."
    )
    parser.add_argument("site", type=local_path, help="directory that holds index.html")
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on; 0 takes any free one"
    )
    options = parser.parse_args(arguments)
    if not (options.site / "index.html").is_file():
        parser.exit(1, f"{options.site}: no index.html: build it with ./pants package docs:site\n")
    handler = functools.partial(Handler, site=options.site, version=version(options.site))
    try:
        server = http.server.ThreadingHTTPServer((HOST, options.port), handler)
    except OSError as error:
        parser.exit(1, f"port {options.port}: {error.strerror}: choose another with --port N\n")
    with server:
        print(f"http://{HOST}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
