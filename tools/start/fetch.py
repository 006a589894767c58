"""Fetches one file that a lock pins by digest, from wherever this machine gets packages.

Locks name the absolute URLs of one index. A machine that has a mirror of it gets the same file
there, found by its name on the mirror's page of the project (PEP 503). Standard library only.
"""

from __future__ import annotations

import hashlib
import html.parser
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, Iterator

from tools.start.machine import Machine, as_url, without_secrets

TIMEOUT = 20.0  # seconds without a byte
TRIES = 3
PART = 1 << 20


class FetchError(Exception):
    """No place that this machine knows has the file; the message names the last reason."""


def fetch(machine: Machine, url: str, sha256: str, path: str | Path, digest: Any = None) -> None:
    """Writes the file of `url` with this digest to `path`; tells `digest` its bytes, if given.

    Raises FetchError. Nothing is left at `path` then.
    """
    wanted = filename(url)
    reason = "no place to look for it is configured"
    partial = f"{path}.partial"
    for candidate in candidates(machine, url):
        for attempt in range(TRIES):
            try:
                found = download(machine, candidate, partial)
            except (OSError, HTTPException, ValueError) as error:
                reason = f"{candidate}: {getattr(error, 'reason', None) or error}"
                if not is_passing(error):
                    break
                time.sleep(attempt)
                continue
            if found == sha256:
                finish(partial, path, digest)
                return
            reason = f"{candidate}: its sha256 is {found[:16]}..., the lock's {sha256[:16]}..."
            break
    if os.path.exists(partial):
        os.unlink(partial)
    places = (machine.index, *machine.extra_indexes, *machine.find_links)
    raise FetchError(without_secrets(f"{wanted} could not be fetched ({reason})", places))


def finish(partial: str, path: str | Path, digest: Any) -> None:
    if digest is not None:
        with open(partial, "rb") as file:
            for part in iter(lambda: file.read(PART), b""):
                digest.update(part)
    os.replace(partial, path)


def is_passing(error: Exception) -> bool:
    """Whether asking again may help: not where the place said no, or there is no such place."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == 429 or error.code >= 500
    return not isinstance(getattr(error, "reason", error), (FileNotFoundError, ValueError))


def filename(url: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])


def project(name: str) -> str:
    """The normalized project name of a wheel's or source archive's file name (PEP 503)."""
    stem = name.split("-")[0] if name.endswith(".whl") else name.rpartition("-")[0]
    return re.sub(r"[-_.]+", "-", stem).lower()


def candidates(machine: Machine, url: str) -> Iterator[str]:
    """Where the file may be: where there is a mirror the mirror first, else the lock's own URL."""
    mirrored = bool(machine.index or machine.no_index)
    if not mirrored:
        yield url
    wanted = filename(url)
    for index in (*([machine.index] if machine.index else []), *machine.extra_indexes):
        if not machine.no_index:
            yield from on_page(machine, f"{as_url(index).rstrip('/')}/{project(wanted)}/", wanted)
    for place in machine.find_links:
        local = Path(urllib.request.url2pathname(urllib.parse.urlsplit(as_url(place)).path))
        if as_url(place).startswith("file:") and local.is_dir():
            if (local / wanted).is_file():
                yield (local / wanted).as_uri()
        else:
            yield from on_page(machine, as_url(place), wanted)
    if mirrored and not machine.no_index:
        yield url


class Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def on_page(machine: Machine, page: str, wanted: str) -> Iterator[str]:
    """The links of a page (of a directory: its index.html) to a file of this name."""
    if page.startswith("file:") and page.endswith("/"):
        directory = Path(urllib.request.url2pathname(urllib.parse.urlsplit(page).path))
        if (directory / wanted).is_file():
            yield (directory / wanted).as_uri()
        page += "index.html"
    try:
        with open_url(machine, page) as answer:
            text, base = answer.read().decode("utf-8", "replace"), answer.geturl()
    except (OSError, HTTPException, ValueError):
        return
    links = Links()
    links.feed(text)
    for link in links.found:
        target = urllib.parse.urljoin(base, link)
        if filename(target) == wanted:
            yield urllib.parse.urldefrag(target)[0]


def open_url(machine: Machine, url: str) -> Any:
    """An answer to read from. Credentials in the URL are sent to its host alone."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(f"a URL of http, https or file is needed, not {parts.scheme or url!r}")
    request = urllib.request.Request(url, headers={"Accept": "text/html,*/*;q=0.1"})
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    if parts.username:
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        request = urllib.request.Request(bare.geturl(), headers=dict(request.header_items()))
        user, password = (urllib.parse.unquote(x or "") for x in (parts.username, parts.password))
        passwords.add_password(None, bare.geturl(), user, password, is_authenticated=True)
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context(machine, parts.hostname or "", parts.port)),
        urllib.request.ProxyHandler(proxies_for(machine, parts.netloc.rpartition("@")[2])),
        urllib.request.HTTPBasicAuthHandler(passwords),
    )
    return opener.open(request, timeout=TIMEOUT)


def proxies_for(machine: Machine, host: str) -> dict[str, str]:
    told = dict(machine.proxies)
    without = {"no": told.get("no_proxy", "")}
    if urllib.request.proxy_bypass_environment(host, without):  # ty: ignore
        return {}
    general = told.get("all_proxy", "")
    named = {scheme: told.get(f"{scheme}_proxy", general) for scheme in ("http", "https")}
    return {scheme: proxy for scheme, proxy in named.items() if proxy}


def context(machine: Machine, host: str, port: int | None) -> ssl.SSLContext:
    result = ssl.create_default_context()
    trusted = {name.partition("://")[2] or name for name in machine.trusted_hosts}
    if host in trusted or f"{host}:{port}" in trusted:
        result.check_hostname, result.verify_mode = False, ssl.CERT_NONE
    elif machine.certificate:
        directory = os.path.isdir(machine.certificate)
        places = {"capath" if directory else "cafile": machine.certificate}
        result.load_verify_locations(**places)
    if machine.client_certificate:
        result.load_cert_chain(machine.client_certificate)
    return result


def download(machine: Machine, url: str, path: str) -> str:
    """The sha256 of what was written to `path`."""
    found = hashlib.sha256()
    with open_url(machine, url) as answer, open(path, "wb") as file:
        for part in iter(lambda: answer.read(PART), b""):
            found.update(part)
            file.write(part)
        length = answer.headers.get("Content-Length")
        if length and length.isdecimal() and file.tell() != int(length):
            raise OSError(f"ended after {file.tell()} of {length} bytes")
    return found.hexdigest()
