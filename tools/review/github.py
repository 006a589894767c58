"""GitHub's REST API, as far as one comment needs it: pages, limits, failures, a download.

The token comes from the caller, is sent to the API's own host alone, and appears in no message.
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
# Seconds that GitHub advises to wait for a limit that does not say how long it lasts.
UNSAID_LIMIT = 60.0

_NEXT = re.compile(r'<([^<>]+)>\s*;[^,<]*\brel="?next"?')
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class LostReply(ToolError):
    """A request without a reply, so that it may or may not have been carried out."""


class NotFound(ToolError):
    """The requested object does not exist, or no longer exists."""


@dataclass(frozen=True)
class Reply:
    """An answer of GitHub."""

    status: int
    reason: str
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body's value. Raises ToolError if it is not JSON."""
        return parse_json(self.body.decode("utf-8", "replace"), "GitHub's reply")


def _opener() -> urllib.request.OpenerDirector:
    """An opener that follows no redirects: urllib would send the token to any host they name."""
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
        token: never shown, and sent to that host alone.
        backoff: seconds before the first retry; doubles with each.
        patience: seconds that all waits together may take.
        timeout: seconds without any data before a reply counts as lost.

    Raises:
        ToolError: `api` is not an https URL.
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
        """The value at a path. Raises ToolError if GitHub refuses or does not answer."""
        return self._try(self._request("GET", self.api + path)).json()

    def pages(self, path: str) -> Iterator[Any]:
        """Every element of a paged list, following its Link headers. Raises ToolError as `get`."""
        url = self.api + path
        for _ in range(MAX_PAGES):
            reply = self._try(self._request("GET", url))
            elements = reply.json()
            if not isinstance(elements, list):
                raise ToolError(f"GET {path}: GitHub sent no list")
            yield from elements
            match = _NEXT.search(reply.headers.get("Link", ""))
            if not match:
                return
            url = urljoin(url, match[1])
            if not url.startswith(f"{self.api}/"):
                raise ToolError(f"GET {path}: the next page is on another host, {_host(url)}")
        raise ToolError(f"GET {path}: more than {MAX_PAGES} pages")

    def patch(self, path: str, payload: Any) -> None:
        """Changes the object at a path. Raises ToolError as `get`."""
        self._try(self._request("PATCH", self.api + path, payload))

    def delete(self, path: str) -> None:
        """Deletes the object at a path. Raises ToolError as `get`."""
        self._try(self._request("DELETE", self.api + path))

    def post(self, path: str, payload: Any) -> None:
        """Creates an object; does not retry if that might create it twice.

        Raises:
            LostReply: there was no reply: check whether it exists before asking again.
            ToolError: as `get`.
        """
        self._try(self._request("POST", self.api + path, payload), creates=True)

    def download(self, path: str, limit: int) -> bytes:
        """A file of at most `limit` bytes. Another host may hold it, which gets no token."""
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

    def wait(self, seconds: float, reason: str) -> None:
        """Sleeps. Raises ToolError if that exceeds the patience."""
        if seconds > self.patience:
            raise ToolError(f"{reason}, for {seconds:.0f} s: too long to wait, run it again later")
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
        request_line = f"{request.get_method()} {urlsplit(request.full_url).path}"
        failure, pause = "", self.backoff
        for attempt in range(ATTEMPTS):
            if attempt:
                self.wait(pause, failure)
            pause = self.backoff * 2**attempt
            try:
                reply = self._send(request, limit)
            except (OSError, http.client.HTTPException) as error:
                failure, may_be_lost = f"{request_line}: no answer ({str(error)[:200]})", True
            else:
                redirected = redirects and reply.status < 400 and "Location" in reply.headers
                if reply.status < 300 or redirected:
                    return reply
                failure, may_be_lost = (
                    f"{request_line}: {reply.status} {_message(reply)}",
                    reply.status >= 500,
                )
                limit_seconds = _limited(reply)
                if limit_seconds is None and not may_be_lost:
                    raise _refusal(failure, reply.status)
                pause = pause if limit_seconds is None else limit_seconds
            if may_be_lost and creates:
                raise LostReply(failure)
        raise ToolError(f"{failure}, {ATTEMPTS} times: run it again later")

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
    """The scheme and host of a URL, without its query, which may hold a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"[:100]


def _message(reply: Reply) -> str:
    """GitHub's own message, on one line."""
    try:
        value = reply.json()
    except ToolError:
        value = None
    message = value.get("message") if isinstance(value, dict) else None
    return ascii(message)[:200] if isinstance(message, str) else reply.reason


def _limited(reply: Reply) -> float | None:
    """Seconds until a rate limit ends; None if the reply is not about one."""
    if reply.status not in (403, 429):
        return None
    after, reset = (reply.headers.get(h, "") for h in ("Retry-After", "X-RateLimit-Reset"))
    if after.isdecimal():
        return float(after)
    if reply.headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(1.0, float(reset) - time.time())
    if reply.status == 429 or "rate limit" in _message(reply).lower():
        return UNSAID_LIMIT
    return None


def _refusal(failure: str, status: int) -> ToolError:
    if status in (404, 410):
        return NotFound(f"{failure}: it is not there, or the token may not see it")
    if status == 401:
        return ToolError(f"{failure}: the token is not valid: pass the workflow's own")
    if status == 403:
        return ToolError(
            f"{failure}: the token may not do this: the job needs the permissions actions: read, "
            "contents: read and pull-requests: write"
        )
    return ToolError(failure)
