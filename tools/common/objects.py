"""git's ids of files and directories, computed without git: they name content wherever it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tools.common.files import Mode

_MODES: dict[Mode, bytes] = {
    "file": b"100644",
    "executable": b"100755",
    "link": b"120000",
    "submodule": b"160000",
}
_ALGORITHMS = {40: "sha1", 64: "sha256"}


def algorithm_of(digest: str) -> str:
    """The hash function of a repository, by the length of its full ids. Raises KeyError."""
    return _ALGORITHMS[len(digest)]


def blob_id(content: bytes, algorithm: str = "sha1") -> str:
    """The id of a file's content."""
    return _digest(b"blob", content, algorithm)


def tree_id(files: Mapping[str, tuple[Mode, str]], algorithm: str = "sha1") -> str:
    """The id of a directory, from the mode and the id of each file by its path within."""
    entries: dict[bytes, tuple[bytes, str]] = {}
    below: dict[str, dict[str, tuple[Mode, str]]] = {}
    for path, (mode, blob) in files.items():
        name, slash, rest = path.partition("/")
        if slash:
            below.setdefault(name, {})[rest] = (mode, blob)
        else:
            entries[_bytes(name)] = (_MODES[mode], blob)
    for name, inner in below.items():
        entries[_bytes(name)] = (b"40000", tree_id(inner, algorithm))
    # git sorts a directory as if its name ended with a slash.
    order = sorted(entries, key=lambda name: name + b"/" * (entries[name][0] == b"40000"))
    rows = (
        entries[name][0] + b" " + name + b"\0" + bytes.fromhex(entries[name][1]) for name in order
    )
    return _digest(b"tree", b"".join(rows), algorithm)


def _digest(kind: bytes, content: bytes, algorithm: str) -> str:
    header = kind + b" %d\0" % len(content)
    return hashlib.new(algorithm, header + content, usedforsecurity=False).hexdigest()


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
