"""GitHub's REST API, as far as one comment needs it: pages, limits, failures, a download.

The token comes from the caller, goes to the API's own host alone, and stands in no message.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import urljoin, urlsplit

from tools.common.errors import ToolError
from tools.common.files import MIB
from tools.common.jsonio import parse_json

API_VERSION = "2022-11-28"
MAX_REPLY = 32 * MIB
MAX_PAGES = 100
ATTEMPTS = 5
MAX_HOPS = 3
# GitHub's advice for a limit that does not say how long it lasts.
UNSAID_LIMIT = 60.0

_NEXT = re.compile(r'<([^<>]+)>\s*;[^,<]*\brel="?next"?')
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class LostReply(ToolError):
    """A request that may have been carried out, or not."""


class NotFound(ToolError):
    """What was asked for is not there, or not any more."""


@dataclass(frozen=True)
class Reply:
    """An answer of GitHub."""

    status: int
    reason: str
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body's value. Raises ToolError where it is no JSON."""
        return parse_json(self.body.decode("utf-8", "replace"), "GitHub's reply")


def _opener() -> urllib.request.OpenerDirector:
    """One that follows no redirect: urllib would send the token on to whatever host it names."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


@dataclass
class Client:
    """Requests to one API.

    Attributes:
        api: the base URL, e.g. https://api.github.com.
        token: never shown, sent to that host alone.
        backoff: seconds before the first repetition; doubles with each.
        patience: seconds that all waiting together may take.
        timeout: seconds without a sign of life before a reply counts as lost.
    """

    api: str
    token: str = field(repr=False)
    backoff: float = 1.0
    patience: float = 600.0
    timeout: float = 30.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.api)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ToolError(f"{self.api}: the API's address begins with https://")
        self.api = self.api.rstrip("/")
        self._opener = _opener()

    def get(self, path: str) -> Any:
        """The value that a path holds. Raises ToolError."""
        return self._try(self._request("GET", self.api + path)).json()

    def pages(self, path: str) -> Iterator[Any]:
        """Every element of a list that comes in pages, as its Link headers lead."""
        url = self.api + path
        for _ in range(MAX_PAGES):
            reply = self._try(self._request("GET", url))
            elements = reply.json()
            if not isinstance(elements, list):
                raise ToolError(f"GET {path}: GitHub sent no list")
            yield from elements
            found = _NEXT.search(reply.headers.get("Link", ""))
            if not found:
                return
            url = urljoin(url, found[1])
            if not url.startswith(f"{self.api}/"):
                raise ToolError(f"GET {path}: the next page is on another host, {_host(url)}")
        raise ToolError(f"GET {path}: more than {MAX_PAGES} pages")

    def patch(self, path: str, payload: Any) -> None:
        """Changes what a path holds. Raises ToolError."""
        self._try(self._request("PATCH", self.api + path, payload))

    def delete(self, path: str) -> None:
        """Deletes what a path holds. Raises ToolError."""
        self._try(self._request("DELETE", self.api + path))

    def post(self, path: str, payload: Any) -> None:
        """Creates something, and does not ask twice where that might create it twice.

        Raises:
            LostReply: look whether it is there before asking again.
        """
        self._try(self._request("POST", self.api + path, payload), creates=True)

    def download(self, path: str, limit: int) -> bytes:
        """A file of at most `limit` bytes, which another host may hold: that one gets no token."""
        request = self._request("GET", self.api + path)
        for _ in range(MAX_HOPS):
            reply = self._try(request, limit=limit, redirects=True)
            if reply.status < 300:
                return reply.body
            url = urljoin(request.full_url, reply.headers["Location"])
            if urlsplit(url).scheme != urlsplit(self.api).scheme:
                raise ToolError(f"GET {path}: refused a redirect to {_host(url)}")
            request = urllib.request.Request(url)
        raise ToolError(f"GET {path}: more than {MAX_HOPS - 1} redirects")

    def wait(self, seconds: float, why: str) -> None:
        """Sleeps. Raises ToolError where that takes longer than patience lasts."""
        if seconds > self.patience:
            raise ToolError(f"{why}, for {seconds:.0f} s: too long to wait, run it again later")
        self.patience -= seconds
        time.sleep(seconds)

    def _request(self, method: str, url: str, payload: Any = None) -> urllib.request.Request:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "User-Agent": "grug-review",
            "X-GitHub-Api-Version": API_VERSION,
        }
        data = None
        if payload is not None:
            data = json.dumps(payload).encode()
            headers["Content-Type"] = "application/json"
        return urllib.request.Request(url, data, headers, method=method)

    def _try(
        self,
        request: urllib.request.Request,
        *,
        creates: bool = False,
        redirects: bool = False,
        limit: int = MAX_REPLY,
    ) -> Reply:
        what = f"{request.get_method()} {urlsplit(request.full_url).path}"
        why, pause = "", self.backoff
        for attempt in range(ATTEMPTS):
            if attempt:
                self.wait(pause, why)
            pause = self.backoff * 2**attempt
            try:
                reply = self._send(request, limit)
            except (OSError, http.client.HTTPException) as error:
                why, lost = f"{what}: no answer ({str(error)[:200]})", True
            else:
                redirected = redirects and reply.status < 400 and "Location" in reply.headers
                if reply.status < 300 or redirected:
                    return reply
                why, lost = f"{what}: {reply.status} {_said(reply)}", reply.status >= 500
                limited = _limited(reply)
                if limited is None and not lost:
                    raise _refusal(why, reply.status)
                pause = pause if limited is None else limited
            if lost and creates:
                raise LostReply(why)
        raise ToolError(f"{why}, {ATTEMPTS} times: run it again later")

    def _send(self, request: urllib.request.Request, limit: int) -> Reply:
        try:
            response = self._opener.open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            body = response.read(limit + 1)
            expected = response.headers.get("Content-Length", "")
        if len(body) > limit:
            path = urlsplit(request.full_url).path
            raise ToolError(f"{request.get_method()} {path}: more than {limit:,} bytes")
        if expected.isdecimal() and len(body) < int(expected[:20]):
            raise http.client.IncompleteRead(body)
        return Reply(response.status or 0, response.reason or "", response.headers, body)


def _host(url: str) -> str:
    """Where a URL leads, without the signature that its query may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"[:100]


def _said(reply: Reply) -> str:
    """GitHub's own words, on one line."""
    try:
        found = reply.json()
    except ToolError:
        found = None
    message = found.get("message") if isinstance(found, dict) else None
    return ascii(message)[:200] if isinstance(message, str) else reply.reason


def _limited(reply: Reply) -> float | None:
    """Seconds until a limit ends; None where the reply is not about one."""
    if reply.status not in (403, 429):
        return None
    after, reset = (reply.headers.get(h, "") for h in ("Retry-After", "X-RateLimit-Reset"))
    if after.isdecimal():
        return float(after)
    if reply.headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(1.0, float(reset) - time.time())
    if reply.status == 429 or "rate limit" in _said(reply).lower():
        return UNSAID_LIMIT
    return None


def _refusal(why: str, status: int) -> ToolError:
    if status in (404, 410):
        return NotFound(f"{why}: it is not there, or the token may not see it")
    if status == 401:
        return ToolError(f"{why}: the token is not valid: pass the workflow's own")
    if status == 403:
        return ToolError(
            f"{why}: the token may not do this: the job needs the permissions actions: read, "
            "contents: read and pull-requests: write"
        )
    return ToolError(why)
