"""bundle.json: what a bundle holds and needs, with a name that follows from its content."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bundle.lock import Target
from tools.bundle.topology import Topology
from tools.common.errors import ToolError
from tools.common.files import MIB
from tools.common.jsonio import json_line, json_text, read_json

SCHEMA_VERSION = 2
# In version 1 run.py was one file; all that the tools read is the same in both.
READABLE = (1, SCHEMA_VERSION)
MAX_MANIFEST = 16 * MIB
VERSIONS = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")


@dataclass(frozen=True)
class Pythons:
    """Minor versions from `minimum` to below `below`: "3.12", "3.15"."""

    minimum: str
    below: str

    @classmethod
    def parse(cls, constraint: str) -> Pythons:
        """Reads `CPython>=3.12,<3.15`. Raises ToolError for any other form."""
        text = constraint.replace(" ", "").removeprefix("CPython")
        parts = sorted(text.split(","), reverse=True)
        match = re.fullmatch(r">=3\.(\d+)(?:\.0)?,<3\.(\d+)(?:\.0)?", ",".join(parts))
        if match and int(match[1]) < int(match[2]):
            return cls(f"3.{match[1]}", f"3.{match[2]}")
        if exact := re.fullmatch(r"==3\.(\d+)\.\*", text):
            return cls(f"3.{exact[1]}", f"3.{int(exact[1]) + 1}")
        raise ToolError(
            f"interpreter constraint {constraint!r}: write CPython>=3.A,<3.B or CPython==3.A.*"
        )

    def minors(self) -> list[str]:
        """Every minor version, oldest first: "3.12", "3.13"."""
        first, last = (int(text.split(".")[1]) for text in (self.minimum, self.below))
        return [f"3.{minor}" for minor in range(first, last)]


@dataclass(frozen=True)
class Manifest:
    """bundle.json without its id. `machines` maps `uname -m` to its glibc floor."""

    variant: str
    accelerator: str
    entry: str
    args: tuple[str, ...]
    python: Pythons
    machines: Mapping[str, str]
    lock: str  # sha256 of the resolve's lock in the workspace
    versions: Mapping[str, str]
    env: Mapping[str, str]
    topology: Topology
    commit: str | None
    dirty: bool | None
    sample: str | None
    wheels: Target | None  # the workers that wheels/ are for, where the bundle has them

    def render(self, files: Mapping[str, bytes]) -> bytes:
        """The file, with the digest of every other file of the bundle and of itself."""
        body: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "variant": self.variant,
            "accelerator": self.accelerator,
            "entry": self.entry,
            "args": list(self.args),
            "python": {"minimum": self.python.minimum, "below": self.python.below},
            "machines": dict(self.machines),
            "lock": self.lock,
            "versions": dict(self.versions),
            "env": dict(self.env),
            "topology": self.topology.as_dict(),
            "git": {"commit": self.commit, "dirty": self.dirty},
            "sample": self.sample,
            "wheels": dataclasses.asdict(self.wheels) if self.wheels else None,
            "files": {name: describe(data) for name, data in sorted(files.items())},
        }
        return json_text({**body, "id": identity(body)}).encode()


def describe(data: bytes) -> dict[str, Any]:
    """The digest and the size of a file, as the manifest lists it."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def identity(body: Mapping[str, Any]) -> str:
    """sha256 of the manifest's canonical JSON, all but the id itself."""
    return hashlib.sha256(json_line(body).encode()).hexdigest()


def read_manifest(directory: Path) -> dict[str, Any]:
    """bundle.json in the directory of a bundle of any version that is read. Raises ToolError."""
    path = directory / "bundle.json"
    try:
        manifest = read_json(path, MAX_MANIFEST)
    except ToolError as error:
        raise ToolError(f"{error}; name a bundle's directory") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") not in READABLE:
        known = " or ".join(map(str, READABLE))
        raise ToolError(f"{path} has another schema version than {known}: pack it anew")
    return manifest
