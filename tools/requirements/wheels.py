"""Which modules a distribution brings: read from the names of the files in one of its wheels."""

from __future__ import annotations

import hashlib
import os
import posixpath
import ssl
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from tools.bundle.lock import Lock
from tools.common.errors import ToolError

SUFFIXES = (".py", ".so", ".pyd")
# What wheels carry by mistake, beside what they are for.
STRAY = frozenset(("benchmarks", "doc", "docs", "examples", "scripts", "test", "tests", "tools"))
# Files of certificates, as pip and most programs are told of them.
CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
TIMEOUT = 60  # seconds that a server may be silent
CHUNK = 1 << 20


def modules(files: Iterable[str]) -> tuple[str, ...]:
    """The modules to import from a wheel of these files: `yaml`, or `google.cloud.storage`.

    A directory without an __init__.py is a namespace, which several distributions may share: then
    its parts count. Private modules and stray ones count only where there is nothing else.
    """
    found: set[str] = set()
    paths = {path for file in files if (path := _installed(file))}
    packages = {path.parent for path in paths if path.stem == "__init__"}
    for path in paths:
        above = [p for p in reversed(path.parents) if p.parts]
        package = next((p for p in above if p in packages), None)
        parts = package.parts if package else (*path.parts[:-1], path.name.split(".")[0])
        if all(part.isidentifier() for part in parts):
            found.add(".".join(parts))
    public = {name for name in found if not name.startswith("_")}
    meant = {name for name in public if name.split(".")[0] not in STRAY}
    return tuple(sorted(meant or public or found))


def _installed(file: str) -> PurePosixPath | None:
    """Where a wheel's file goes below site-packages, if it is a module."""
    path = PurePosixPath(file)
    if path.parts and path.parts[0].endswith(".data"):
        if path.parts[1:2] not in (("purelib",), ("platlib",)):
            return None
        path = PurePosixPath(*path.parts[2:])
    if not path.parts or path.parts[0].endswith(".dist-info"):
        return None
    return path if path.name.endswith(SUFFIXES) else None


def modules_of(lock: Lock, name: str) -> tuple[str, ...]:
    """The modules of a locked distribution, by its canonical name. Downloads one wheel.

    Raises:
        ToolError: it has no wheel, or the wheel cannot be had or read.
    """
    artifact = _a_wheel(lock.distributions[name]["artifacts"])
    if artifact is None:
        raise ToolError(f"{name} has no wheel to look into")
    with tempfile.TemporaryFile() as file:
        _download(artifact, file)
        try:
            with zipfile.ZipFile(file) as wheel:
                return modules(wheel.namelist())
        except zipfile.BadZipFile as error:
            raise ToolError(f"{artifact['url']}: is no wheel: {error}") from error


def _a_wheel(artifacts: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """One for Linux if there is: those for other systems may hold other modules."""
    wheels = [
        (not any(word in name for word in ("linux", "-any")), name, artifact)
        for artifact in artifacts
        if (name := unquote(posixpath.basename(urlsplit(artifact["url"]).path))).endswith(".whl")
    ]
    return min(wheels, key=lambda wheel: wheel[:2])[2] if wheels else None


def _download(artifact: Mapping[str, Any], into: IO[bytes]) -> None:
    url = artifact["url"]
    digest = hashlib.new(artifact["algorithm"])
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT, context=_context()) as answer:
            while chunk := answer.read(CHUNK):
                digest.update(chunk)
                into.write(chunk)
    except (OSError, ValueError) as error:
        raise ToolError(f"{url}: cannot be downloaded: {error}") from error
    if digest.hexdigest() != artifact["hash"]:
        raise ToolError(f"{url}: has another {artifact['algorithm']} than the lock says")


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    for path in filter(None, map(os.environ.get, CERTIFICATES)):
        if os.path.isfile(path):
            context.load_verify_locations(path)
    return context
