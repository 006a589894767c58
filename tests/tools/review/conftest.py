"""A GitHub on this machine, with a second host that holds the artifacts."""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tools.review import post
from tools.review.github import Client

REPOSITORY = "lab/grug"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "ghs_secret"
SUMMARY = "### `moe` copied from `base`\n\n**3** added, **1** deleted.\n"


@dataclass
class Fault:
    """What happens instead, or after, the next request that `method` and `path` match."""

    method: str
    path: str
    status: int = 0  # 0: the connection ends without a word
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    done: bool = False  # the request is carried out all the same


@dataclass
class GitHub:
    pulls: list[dict[str, Any]] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[int, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    per_page: int = 100
    url: str = ""
    store: str = ""
    ids: Iterator[int] = field(default_factory=lambda: iter(range(1000, 9000)))

    def pull(self, number: int = 7, **head: Any) -> dict[str, Any]:
        repo = {"id": 55, "full_name": "someone/grug"}
        created = {
            "number": number,
            "state": "open",
            "head": {"ref": "try relu", "sha": COMMIT, "repo": repo, **head},
            "base": {"ref": "main", "repo": {"full_name": REPOSITORY}},
        }
        self.pulls.append(created)
        return created

    def say(self, body: str, login: str = post.BOT) -> dict[str, Any]:
        created = {"id": next(self.ids), "user": {"login": login}, "body": body}
        self.comments.append(created)
        return created

    def answer(self, method: str, path: str, query: dict[str, list[str]], payload: Any) -> Any:
        """(status, JSON, headers) of a request, carried out."""
        if method == "GET" and path == f"/repos/{REPOSITORY}/pulls":
            owner = query["head"][0].partition(":")[0]
            expected = [p for p in self.pulls if owner == "someone" and p["state"] == "open"]
            return self.page(path, query, expected)
        if re.fullmatch(f"/repos/{REPOSITORY}/issues/7/comments", path):
            if method == "POST":
                return 201, self.say(payload["body"]), {}
            return self.page(path, query, self.comments)
        if result := re.fullmatch(rf"/repos/{REPOSITORY}/issues/comments/(\d+)", path):
            (one,) = [c for c in self.comments if c["id"] == int(result[1])] or (None,)
            if one is None:
                return 404, {"message": "Not Found"}, {}
            if method == "DELETE":
                self.comments.remove(one)
                return 204, None, {}
            one["body"] = payload["body"]
            return 200, one, {}
        if re.fullmatch(rf"/repos/{REPOSITORY}/actions/runs/99/artifacts", path):
            listed = [
                {"id": i, "name": query["name"][0], "expired": False, "size_in_bytes": len(data)}
                for i, data in self.artifacts.items()
            ]
            return 200, {"total_count": len(listed), "artifacts": listed}, {}
        if result := re.fullmatch(rf"/repos/{REPOSITORY}/actions/artifacts/(\d+)/zip", path):
            return 302, None, {"Location": f"{self.store}/blob/{result[1]}?sig=signature"}
        return 404, {"message": "Not Found"}, {}

    def page(self, path: str, query: dict[str, list[str]], elements: list[Any]) -> Any:
        size, number = min(self.per_page, int(query["per_page"][0])), int(query.get("page", "1")[0])
        headers = {}
        if number * size < len(elements):
            rest = "&".join(f"{k}={v[0]}" for k, v in query.items() if k != "page")
            address = f"{self.url}{path}?{rest}&page={number + 1}".replace(" ", "%20")
            headers["Link"] = f'<{self.url}/first>; rel="first", <{address}>; rel="next"'
        return 200, elements[(number - 1) * size : number * size], headers


def handler(github: GitHub, *, is_store: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length", 0))
            payload = json.loads(self.rfile.read(length)) if length else None
            github.asked.append((self.command, parts.path))
            github.tokens.append((parts.path, self.headers.get("Authorization")))
            fault = next((f for f in github.faults if self.is_of(f, parts.path)), None)
            if fault:
                github.faults.remove(fault)
                if fault.done:
                    github.answer(self.command, parts.path, parse_qs(parts.query), payload)
                if fault.status:
                    self.reply(fault.status, fault.body or {"message": "as told"}, fault.headers)
                self.close_connection = True
            elif is_store:
                self.reply(200, github.artifacts[int(parts.path.rpartition("/")[2])], {})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.reply(401, {"message": "Bad credentials"}, {})
            else:
                self.reply(*github.answer(self.command, parts.path, parse_qs(parts.query), payload))

        def is_of(self, fault: Fault, path: str) -> bool:
            return fault.method == self.command and re.search(fault.path, path) is not None

        do_GET = do_POST = do_PATCH = do_DELETE = serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def github() -> Iterator[GitHub]:
    created = GitHub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), handler(created, is_store=is_store))
        for is_store in (False, True)
    ]
    created.url, created.store = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield created
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def client(github: GitHub) -> Client:
    return Client(github.url, TOKEN, backoff=0.01, patience=10, timeout=5)


def event(**changes: Any) -> dict[str, Any]:
    """A workflow_run event of a fork's pull request, which lists no pull requests."""
    run = {
        "id": 99,
        "event": "pull_request",
        "conclusion": "success",
        "head_sha": COMMIT,
        "head_branch": "try relu",
        "head_repository": {"id": 55, "owner": {"login": "someone"}},
        "pull_requests": [],
        **changes,
    }
    home = {"full_name": REPOSITORY, "default_branch": "main"}
    return {"action": "completed", "workflow_run": run, "repository": home}


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def handed_over(names: tuple[str, ...] = ("moe",), summary: str = SUMMARY) -> bytes:
    manifest = json.dumps({"schema_version": 1, "reports": list(names)})
    pages = {f"reports/{name}.html": "<!doctype html>" for name in names}
    return zipped({"manifest.json": manifest, "summary.md": summary if names else "", **pages})
