"""What a virtual environment holds, against the pins that it was made from."""

from __future__ import annotations

import os
import platform
import re
import sys

from tools.bundle.worker.errors import WorkerError


def check_installed(path: str, requirements: str) -> list[str]:
    """The files by which each distribution that is locked for this machine is known to be there.

    Raises:
        WorkerError: one is not in the environment at `path`, has another version or lacks files.
    """
    import csv
    import importlib.metadata

    importlib.invalidate_caches()  # an installer that failed may have left the same directory
    site = site_packages()
    there = importlib.metadata.distributions(path=[os.path.join(path, site)])
    found = {canonical(d.metadata["Name"] or ""): d for d in there}
    known = []
    for name, version in pinned(requirements).items():
        if name not in found:
            raise WorkerError(f"the installer left no {name} in the environment")
        if found[name].version != version:
            raise WorkerError(f"the installer left {name} {found[name].version}, not {version}")
        # Not `files`, which leaves out those that are not there.
        record = csv.reader((found[name].read_text("RECORD") or "").splitlines())
        files = [os.path.join(site, row[0]) for row in record if row]
        lost = [file for file in files if not os.path.exists(os.path.join(path, file))]
        if lost or not files:
            raise WorkerError(f"the installer left {name} without {(lost or ['its files'])[0]}")
        known += [file for file in files if file.endswith(".dist-info/METADATA")]
    return known


def pinned(requirements: str) -> dict[str, str]:
    """The version of each distribution that this machine needs, by canonical name.

    tools/bundle/lock.py writes such files: NAME==VERSION, and the Pythons and processors for which
    not all are meant.
    """
    minor, machine = "{}.{}".format(*sys.version_info), platform.machine()
    here = f'python_version == "{minor}" and platform_machine == "{machine}"'
    result = {}
    with open(requirements, encoding="utf-8") as file:
        for line in file:
            pin, _, marker = line.rstrip("\\\n ").partition(" ; ")
            name, equals, version = pin.partition("==")
            if not equals or (marker and here not in marker.split(" or ")):
                continue
            result[canonical(name)] = version
    return result


def site_packages() -> str:
    """Where packages lie in an environment of this Python."""
    return "lib/python{}.{}/site-packages".format(*sys.version_info)


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
