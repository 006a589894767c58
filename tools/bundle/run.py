#!/usr/bin/env python3
"""Runs a launch bundle on this machine: python3 run.py [FLAGS OF THE PROGRAM]

Checks every file against bundle.json, makes the locked environment once a machine (or once a
shared home), and becomes the program, so that signals and the exit code are its own. Standard
library only. This file checks; the rest is in parts/, of which it runs the very bytes it checked.

  GRUG_VENVS   where environments and unpacked sources are kept (default: ~/.cache/grug/venvs)
  GRUG_UV      the uv to install with (default: uv on PATH, else the one that the bundle pins, which
               pip fetches; where that fails, pip)

Exit codes: the program's own, or 78 if it could not be started; then one line says why.
"""

from __future__ import annotations

import os
import sys

BUNDLE = os.path.dirname(os.path.abspath(__file__))
# Python looks there first, but for what it brings itself nothing in the bundle may stand.
sys.path = [place for place in sys.path if os.path.realpath(place) != os.path.realpath(BUNDLE)]

import contextlib  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
from importlib.machinery import ModuleSpec  # noqa: E402
from types import ModuleType  # noqa: E402
from typing import Any  # noqa: E402

SCHEMA_VERSION = 2
CANNOT_START = 78  # EX_CONFIG of sysexits.h: not 143, so that no engine takes it for a preemption
PARTS = "parts/"


class NotAsPacked(Exception):
    """The bundle is not whole; one line with the remedy."""


def read_manifest() -> tuple[dict[str, Any], dict[str, bytes]]:
    """(bundle.json, the text of each part), once the digest of every file is found right."""
    path = os.path.join(BUNDLE, "bundle.json")
    again = "copy the bundle here again"
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        version, identity = manifest["schema_version"], manifest.pop("id")
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotAsPacked(f"{path} cannot be read ({error}): {again}") from error
    if version != SCHEMA_VERSION:
        raise NotAsPacked(
            f"bundle.json has schema version {version}, this run.py reads {SCHEMA_VERSION}: "
            "use the run.py that lay beside it"
        )
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest() != identity:
        raise NotAsPacked(f"bundle.json is not what was packed: {again}")
    parts = {}
    for name, entry in files.items():
        try:
            found, data = read_file(name)
        except OSError as error:
            raise NotAsPacked(f"{name} cannot be read ({error.strerror}): {again}") from error
        if found != entry["sha256"]:
            raise NotAsPacked(f"{name} is not what was packed: {again}")
        if name.startswith(PARTS):
            parts[name] = data
    return {**manifest, "id": identity}, parts


def read_file(name: str) -> tuple[str, bytes]:
    """(the digest of a file, its bytes where it is a part)."""
    digest, kept = hashlib.sha256(), b""
    with open(os.path.join(BUNDLE, name), "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
            kept += block if name.startswith(PARTS) else b""
    return digest.hexdigest(), kept


def path_of(module: str) -> str:
    """The path in the bundle of the part that is this module."""
    return f"{PARTS}{module.replace('.', '/')}.py"


class Finder:
    """Imports parts/X/Y.py as X.Y from bytes that were checked.

    Whatever else lies in the bundle or on Python's path (a `tools` of somebody else's, bytecode of
    an older bundle) has no say, and nothing is written into the bundle.
    """

    def __init__(self, parts: dict[str, bytes]) -> None:
        self.parts = parts
        names = [name.split("/")[1:-1] for name in parts]
        self.packages = {".".join(name[:end]) for name in names for end in range(1, len(name) + 1)}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Where a part is, or a package of some; None for all else."""
        if path_of(name) in self.parts:
            place = os.path.join(BUNDLE, path_of(name))
            spec = ModuleSpec(name, self, origin=place)  # ty: ignore
            spec.has_location = True
            return spec
        known = name in self.packages
        return ModuleSpec(name, self, is_package=True) if known else None  # ty: ignore

    def create_module(self, spec: ModuleSpec) -> None:
        """A plain module."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs a part; a package is empty."""
        path = path_of(module.__name__)
        if path in self.parts:
            place = os.path.join(BUNDLE, path)
            exec(compile(self.parts[path], place, "exec", dont_inherit=True), module.__dict__)


def refuse(error: Exception) -> int:
    """The exit code of a start that failed, after one line that says why."""
    with contextlib.suppress(OSError):  # a full disk may hold the log too
        print(f"bundle: {error}", file=sys.stderr, flush=True)
    return CANNOT_START


def main() -> None:
    """Becomes the program, or exits with one line."""
    try:
        manifest, parts = read_manifest()
    except NotAsPacked as error:
        sys.exit(refuse(error))
    sys.meta_path.insert(0, Finder(parts))
    from tools.bundle.worker import start
    from tools.bundle.worker.errors import WorkerError

    try:
        start.main(BUNDLE, manifest, sys.argv[1:])
    except WorkerError as error:
        sys.exit(refuse(error))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
