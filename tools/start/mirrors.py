"""The places that this machine names for packages: opened as installers do, and which answer.

Standard library only, for any Python from 3.7 on: it runs before anything is installed, here and on
a bundle's worker.
"""

from __future__ import annotations

import errno
import netrc
import os
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any, Iterable

from tools.start.installers import ANSWER, system_certificates
from tools.start.machine import Machine
from tools.start.settings import Say, without_logins

GATEWAY = (502, 503, 504)  # what a proxy says of a server that it does not reach


def answering(machine: Machine, project: str, say: Say) -> tuple[Machine, dict[str, str]]:
    """`machine` without the places that do not answer, and of each of those why.

    pip goes on without them, uv does not. They are asked, all at once and for the page of
    `project`, only where there are several; if none answers, all of them stay, for the installer to
    say what is wrong.
    """
    indexes, links = machine.indexes, machine.find_links
    if len(indexes) + len(links) < 2 and not machine.spare:
        return machine, {}
    silent = ask(machine, indexes, links, project)
    if not silent:
        return machine, {}
    left = [url for url in indexes if url not in silent]
    instead = ""
    if machine.spare and machine.index in silent and not ask(machine, [machine.spare], (), project):
        left.append(machine.spare)
        instead = f", with {machine.spare}"
    left_links = tuple(url for url in links if url not in silent)
    if not left and not left_links:
        return machine, silent
    for url, reason in silent.items():
        shown = without_logins(url)
        say(f"{shown} does not answer ({reason}): going on without it{instead}")
    index, extra = (left[0], tuple(left[1:])) if left else ("", ())
    fewer = machine._replace(index=index, extra_indexes=extra, find_links=left_links, spare="")
    return fewer._replace(no_index=not left), silent


def ask(
    machine: Machine, indexes: Iterable[str], links: Iterable[str], project: str
) -> dict[str, str]:
    """Asks all at once, ANSWER seconds at most; those that do not answer, and why."""
    pages = {url: url for url in links}
    for url in indexes:
        # A directory need not have this page; a server that has it not says so.
        page = f"{url.rstrip('/')}/{project}/"
        pages[url] = url if url.startswith("file:") else page
    found: dict[str, str] = {}

    def tell(url: str) -> None:
        found[url] = silence(machine, pages[url])

    threads = [threading.Thread(target=tell, args=(url,), daemon=True) for url in pages]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + ANSWER
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"nothing within {ANSWER:.0f} s"
    reasons = {url: dict(found).get(url, late) for url in pages}
    return {url: reason for url, reason in reasons.items() if reason}


def silence(machine: Machine, url: str) -> str:
    """Why nothing answers at `url`, or "" where anything does, be it a refusal."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "file":
            there = os.path.exists(urllib.request.url2pathname(parts.path))
            return "" if there else os.strerror(errno.ENOENT)
        proxy = proxies_for(machine, parts.netloc.rpartition("@")[2]).get(parts.scheme, "")
        if "://" in proxy and not proxy.startswith("http://"):
            return ""  # only installers know a proxy of this kind
        open_url(machine, url, ANSWER).close()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.reason}" if error.code in GATEWAY else ""
    except (OSError, HTTPException, ValueError) as error:
        reason: Any = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError) and not machine.certificate:
            return ""  # pip has certificates of its own
        return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return ""


def open_url(machine: Machine, url: str, timeout: float) -> Any:
    """An answer to read from. Credentials in the URL are sent to its host alone."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(f"a URL of http, https or file is needed, not {parts.scheme or url!r}")
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(
        parts._replace(netloc=host).geturl(), headers={"Accept": "text/html,*/*;q=0.1"}
    )
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    user, password = login_for(parts)
    if user:
        # For all of the host: a page may name files elsewhere on it, or redirect to them.
        place = f"{parts.scheme}://{host}/"
        passwords.add_password(None, place, user, password, is_authenticated=True)
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler(proxies_for(machine, host)),
        urllib.request.HTTPBasicAuthHandler(passwords),
    ]
    if parts.scheme != "file":
        secure = context(machine, parts.hostname or "", parts.port)
        handlers.append(urllib.request.HTTPSHandler(context=secure))
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)


def login_for(parts: urllib.parse.SplitResult) -> tuple[str, str]:
    """The user and password in the URL, else those of ~/.netrc, as for pip and uv."""
    if parts.username:
        return urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
    path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        user, _, password = netrc.netrc(path).authenticators(parts.hostname or "") or ("", "", "")
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return "", ""
    return user or "", password or ""


def proxies_for(machine: Machine, host: str) -> dict[str, str]:
    """The proxy for each scheme on the way to `host`."""
    told = dict(machine.proxies)
    without = {"no": told.get("no_proxy", "")}
    if urllib.request.proxy_bypass_environment(host, without):  # ty: ignore
        return {}
    general = told.get("all_proxy", "")
    named = {scheme: told.get(f"{scheme}_proxy", general) for scheme in ("http", "https")}
    return {scheme: proxy for scheme, proxy in named.items() if proxy}


def context(machine: Machine, host: str, port: int | None) -> ssl.SSLContext:
    """Raises ValueError where a certificate of the machine's is gone."""
    result = ssl.create_default_context()
    trusted = {name.partition("://")[2] or name for name in machine.trusted_hosts}
    if host in trusted or f"{host}:{port}" in trusted:
        result.check_hostname, result.verify_mode = False, ssl.CERT_NONE
    elif machine.certificate and not os.path.exists(machine.certificate):
        raise ValueError(f"the certificate bundle {machine.certificate} is not there")
    elif machine.certificate:
        name = "capath" if os.path.isdir(machine.certificate) else "cafile"
        result.load_verify_locations(**{name: machine.certificate})
    elif not ssl.get_default_verify_paths().cafile:
        # A Python that was built elsewhere does not know where this system has its own.
        for place in system_certificates():
            result.load_verify_locations(cafile=place)
    if machine.client_certificate:
        result.load_cert_chain(machine.client_certificate)
    return result
