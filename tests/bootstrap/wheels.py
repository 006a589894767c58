"""Small real wheels, an index of them, and locks that pin them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wheel:
    path: Path
    name: str
    version: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def project(self) -> str:
        return re.sub(r"[-_.]+", "-", self.name).lower()

    @property
    def pin(self) -> str:
        """A line of a requirements file."""
        return f"{self.name}=={self.version} \\\n    --hash=sha256:{self.sha256}\n"


def make_wheel(
    directory: Path,
    name: str,
    version: str,
    files: dict[str, str | bytes],
    tag: str = "py3-none-any",
    requires: tuple[str, ...] = (),
) -> Wheel:
    """Writes a wheel of these files; scripts go below NAME-VERSION.data/scripts/."""
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    contents = {
        **files,
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n"
        ),
    }
    record = "".join(f"{path},{record_of(data)}\n" for path, data in contents.items())
    contents[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in contents.items():
            archive.writestr(zipfile.ZipInfo(member), data)
    return Wheel(path, name, version)


def record_of(data: str | bytes) -> str:
    data = data.encode() if isinstance(data, str) else data
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(data)}"


def write_index(root: Path, *wheels: Wheel) -> Path:
    """simple/PROJECT/index.html (PEP 503) beside the wheels' own directory, both below `root`."""
    for wheel in wheels:
        page = root / "simple" / wheel.project / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        place = wheel.path.relative_to(root)
        with page.open("a") as file:
            file.write(f'<a href="../../{place}#sha256={wheel.sha256}">{wheel.path.name}</a><br>\n')
    return root / "simple"


def pex_lock(artifacts: list[tuple[Wheel, str]], **changes: object) -> str:
    """The text of a Pex lock of these (wheel, URL), in the form that Pants writes."""
    lock = {
        "allow_builds": True,
        "allow_prereleases": False,
        "allow_wheels": True,
        "build_isolation": True,
        "constraints": [],
        "locked_resolves": [
            {
                "locked_requirements": [
                    {
                        "artifacts": [{"algorithm": "sha256", "hash": wheel.sha256, "url": url}],
                        "project_name": wheel.project,
                        "requires_dists": [],
                        "requires_python": None,
                        "version": wheel.version,
                    }
                    for wheel, url in artifacts
                ],
                "platform_tag": None,
            }
        ],
        "only_builds": [],
        "only_wheels": [],
        "path_mappings": {},
        "pex_version": "2.73.1",
        "pip_version": "23.1.2",
        "prefer_older_binary": False,
        "requirements": sorted(wheel.project for wheel, _ in artifacts),
        "requires_python": [],
        "resolver_version": "pip-2020-resolver",
        "style": "universal",
        "target_systems": ["linux", "mac"],
        "transitive": True,
        "use_pep517": None,
        "use_system_time": False,
        **changes,
    }
    return "// --- BEGIN PANTS LOCKFILE METADATA ---\n" + json.dumps(lock, indent=2)
