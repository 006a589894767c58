"""Fetches one file that a lock pins by digest, from wherever this machine gets packages.

Locks name the absolute URLs of one index. A machine that has a mirror of it gets the same file
there, found by its name on the mirror's page of the project (PEP 503). Standard library only.
"""

from __future__ import annotations

import hashlib
import html.parser
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, Callable, Iterator

from tools.start.machine import Machine
from tools.start.mirrors import open_url
from tools.start.settings import location, without_logins

TIMEOUT = 20.0  # seconds without a byte
TRIES = 3
PAUSE = 1.0  # seconds before the second try; twice that before the third
PART = 1 << 20


class FetchError(Exception):
    """No place that this machine knows has the file; the message names the last reason."""


def fetch(machine: Machine, url: str, sha256: str, path: str | Path, digest: Any = None) -> None:
    """Writes the file of `url` with this digest to `path`; tells `digest` its bytes, if given.

    Raises FetchError. Nothing is left at `path` then.
    """
    wanted = filename(url)
    reasons: list[str] = []
    partial = f"{path}.partial"
    try:
        for candidate in candidates(machine, url, reasons):
            found = attempt(download, machine, candidate, partial, reasons)
            if found == sha256:
                finish(partial, path, digest)
                return
            if found:
                told = f"its sha256 is {found[:16]}..., the lock's {sha256[:16]}..."
                reasons.append(f"{candidate}: {told}")
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    reason = "; ".join(reasons) or "no place to look for it is configured"
    raise FetchError(without_logins(f"{wanted} could not be fetched ({reason})"))


def finish(partial: str, path: str | Path, digest: Any) -> None:
    """Moves a file that is whole to its place, and lets `digest` have its bytes."""
    if digest is not None:
        with open(partial, "rb") as file:
            for part in iter(lambda: file.read(PART), b""):
                digest.update(part)
    os.replace(partial, path)


def attempt(
    get: Callable[..., Any], machine: Machine, url: str, path: str, reasons: list[str]
) -> Any:
    """What `get` makes of a URL, tried again where that may help; None, and why, if it fails."""
    for tried in range(TRIES):
        time.sleep(tried * PAUSE)
        try:
            return get(machine, url, path)
        except (OSError, HTTPException, ValueError) as error:
            reason: Any = getattr(error, "reason", None) or error
            if isinstance(error, urllib.error.HTTPError):
                reason = f"{error.code} {reason}"
            if not is_passing(error):
                break
    reasons.append(f"{url}: {reason}")
    return None


def is_passing(error: Exception) -> bool:
    """Whether asking again may help: not where the place said no, or there is no such place."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == 429 or error.code >= 500
    cause = getattr(error, "reason", error)
    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_AGAIN
    return not isinstance(
        cause, (FileNotFoundError, ConnectionRefusedError, ssl.SSLError, ValueError)
    )


def filename(url: str) -> str:
    """The name of the file that a URL leads to."""
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])


def project(name: str) -> str:
    """The normalized project name of a wheel's or source archive's file name (PEP 503)."""
    stem = name.split("-")[0] if name.endswith(".whl") else name.rpartition("-")[0]
    return re.sub(r"[-_.]+", "-", stem).lower()


def candidates(machine: Machine, url: str, reasons: list[str]) -> Iterator[str]:
    """Where the file may be: where there is a mirror the mirror first, else the lock's own URL.

    Tells `reasons` of the pages that do not name it.
    """
    mirrored = bool(machine.index or machine.no_index)
    if not mirrored:
        yield url
    wanted = filename(url)
    for index in (*([machine.index] if machine.index else []), *machine.extra_indexes):
        if not machine.no_index:
            page = f"{location(index).rstrip('/')}/{project(wanted)}/"
            yield from on_page(machine, page, wanted, reasons)
    for place in machine.find_links:
        local = Path(urllib.request.url2pathname(urllib.parse.urlsplit(location(place)).path))
        if location(place).startswith("file:") and local.is_dir():
            if (local / wanted).is_file():
                yield (local / wanted).as_uri()
        else:
            yield from on_page(machine, location(place), wanted, reasons)
    if mirrored and not machine.no_index:
        yield url


class Links(html.parser.HTMLParser):
    """The targets of a page's links, as they are written there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the target of a link."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def on_page(machine: Machine, page: str, wanted: str, reasons: list[str]) -> Iterator[str]:
    """The links of a page (of a directory: its index.html) to a file of this name."""
    if page.startswith("file:") and page.endswith("/"):
        directory = Path(urllib.request.url2pathname(urllib.parse.urlsplit(page).path))
        if (directory / wanted).is_file():
            yield (directory / wanted).as_uri()
        page += "index.html"
    found = attempt(read_page, machine, page, "", reasons)
    if not found:
        return
    text, base = found
    links = Links()
    links.feed(text)
    targets = [urllib.parse.urljoin(base, link) for link in links.found]
    targets = [target for target in targets if filename(target) == wanted]
    if not targets:
        reasons.append(f"{page}: has no such file")
    for target in targets:
        yield with_login(urllib.parse.urldefrag(target)[0], page)


def read_page(machine: Machine, url: str, _: str) -> tuple[str, str]:
    """(text, URL after redirects)"""
    with open_url(machine, url, TIMEOUT) as answer:
        data = b"".join(whole(answer))
        return data.decode("utf-8", "replace"), answer.geturl()


def with_login(url: str, page: str) -> str:
    """The URL with the login of the page that names it, if both are of one host."""
    parts, of_page = urllib.parse.urlsplit(url), urllib.parse.urlsplit(page)
    _, at, host = of_page.netloc.rpartition("@")
    if at and (parts.scheme, parts.netloc) == (of_page.scheme, host):
        return parts._replace(netloc=of_page.netloc).geturl()
    return url


def download(machine: Machine, url: str, path: str) -> str:
    """The sha256 of what was written to `path`."""
    found = hashlib.sha256()
    with open_url(machine, url, TIMEOUT) as answer, open(path, "wb") as file:
        for part in whole(answer):
            found.update(part)
            file.write(part)
    return found.hexdigest()


def whole(answer: Any) -> Iterator[bytes]:
    """The parts of an answer. Raises OSError if it ends before its end."""
    size = 0
    for part in iter(lambda: answer.read(PART), b""):
        size += len(part)
        yield part
    length = answer.headers.get("Content-Length")
    if length and length.isdecimal() and size != int(length):
        raise OSError(f"ended after {size} of {length} bytes")
