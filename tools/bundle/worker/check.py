"""Whether this Python, processor and C library are ones that a bundle's wheels are for."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from tools.bundle.worker.errors import WorkerError


def numbers(version: str) -> tuple[int, ...]:
    """(3, 12) of "3.12"."""
    return tuple(int(part) for part in version.split("."))


def check_machine(bundle: str, manifest: dict[str, Any]) -> None:
    """This Python, processor and C library against what the locked wheels need."""
    low, below = manifest["python"]["minimum"], manifest["python"]["below"]
    here = platform.python_version()
    if sys.implementation.name != "cpython" or not (
        numbers(low) <= sys.version_info[:2] < numbers(below)
    ):
        import shutil

        minors = range(numbers(below)[1] - 1, numbers(low)[1] - 1, -1)
        found = [f"python3.{minor}" for minor in minors if shutil.which(f"python3.{minor}")]
        remedy = f"use {found[0]} run.py" if found else f"install one ('uv python install {low}')"
        raise WorkerError(
            f"{sys.executable} is {platform.python_implementation()} {here}, the bundle needs "
            f"CPython of at least {low} and below {below}: {remedy}"
        )
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in manifest["machines"]:
        known = " or ".join(manifest["machines"])
        raise WorkerError(
            f"this is {platform.system()} on {machine}, the bundle's wheels are for Linux on "
            f"{known}: run it there, for example in a container"
        )
    wheels = manifest.get("wheels")
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if (
        wheels
        and os.path.isdir(os.path.join(bundle, "wheels"))
        and ([wheels["python"], wheels["machine"]] != [minor, machine])
    ):
        raise WorkerError(
            f"the bundle's wheels/ are for CPython {wheels['python']} on {wheels['machine']}, this "
            f"is {here} on {machine}: use python{wheels['python']} run.py there, or delete wheels/ "
            "where an index can be reached"
        )
    floor = manifest["machines"][machine]
    library, found_version = platform.libc_ver()
    if library != "glibc" or numbers(found_version) < numbers(floor):
        raise WorkerError(
            f"the C library here is {library or 'not glibc'} {found_version}, the locked wheels "
            f"need glibc {floor} or newer: use a newer image of the system"
        )
