"""A packed bundle of a variant: found, held to the working tree, and given other settings."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Collection
from pathlib import Path

from tools.bundle.manifest import describe, identity, read_manifest
from tools.bundle.pack import worker_files, write
from tools.bundle.settings import Settings
from tools.bundle.specs import render
from tools.common.errors import ToolError
from tools.common.git import Git
from tools.common.jsonio import json_text
from tools.common.sources import is_source


def find(root: Path, variant: str, accelerator: str) -> Path:
    """dist/bundles/VARIANT-ACCELERATOR. Raises ToolError where there is none, or a stale one."""
    directory = root / f"dist/bundles/{variant}-{accelerator}"
    remedy = f"./pants package experiments/grug/{variant}::"
    if not directory.is_dir():
        raise ToolError(f"no bundle in {directory.relative_to(root)}/: {remedy}")
    if changed := stale(root, directory):
        raise ToolError(
            f"{directory.relative_to(root)}/ was packed before {changed} changed: {remedy}"
        )
    return directory


def stale(root: Path, bundle: Path) -> str:
    """A file of the working tree that is not the one in the bundle; "" if there is none.

    What a BUILD file says is not looked at.
    """
    with zipfile.ZipFile(bundle / "app.pex") as app:
        for name in sorted(app.namelist()):
            source = root / name
            if name == "__main__.py" or name.endswith("/"):
                continue
            if not source.is_file() or source.read_bytes() != app.read(name):
                return name
        if added := _added(root, read_manifest(bundle)["entry"], set(app.namelist())):
            return added
    locks = sorted(root.glob("tools/locks/*.lock"))
    digests = {hashlib.sha256(lock.read_bytes()).hexdigest() for lock in locks}
    if read_manifest(bundle)["lock"] not in digests:
        return "its lock in tools/locks/"
    for name, data in worker_files().items():
        packed = bundle / name
        if not packed.is_file() or packed.read_bytes() != data:
            return "tools/bundle/run.py" if name == "run.py" else name.removeprefix("parts/")
    return ""


def _added(root: Path, entry: str, packed: Collection[str]) -> str:
    """A file that a run in the working tree may read and the bundle lacks; "" if there is none.

    A variant that keeps no record of its sources is packed without the modules that it never
    imports, so of such a one no file counts.
    """
    variant = entry.rpartition(".")[0].replace(".", "/")
    if f"{variant}/plumbing/record.py" not in packed:
        return ""
    # What git ignores, Pants does, too.
    command = ("ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", variant)
    names = (Git(root).answer(*command) or b"").decode("utf-8", "surrogateescape").split("\0")
    inside = len(variant) + 1
    own = (name for name in sorted(names) if is_source(name[inside:]) and name not in packed)
    return next((name for name in own if (root / name).is_file()), "")


def adapted(bundle: Path, settings: Settings) -> dict[str, bytes]:
    """The bundle's files, with launch/ rendered anew and a manifest that fits.

    Another content has another id: a job's bundle says what the job was told.
    """
    body = read_manifest(bundle)
    del body["id"]
    files = {name: (bundle / name).read_bytes() for name in body["files"]}
    files |= {f"launch/{name}": data for name, data in render(settings).items()}
    body["topology"] = settings.topology.as_dict()
    body["files"] = {name: describe(data) for name, data in sorted(files.items())}
    manifest = json_text({**body, "id": identity(body)})
    return {**files, "bundle.json": manifest.encode()}


SHARED = ".files"  # beside the bundles of jobs: what several of them hold, by digest


def keep(files: dict[str, bytes], directory: Path, original: Path, *, archive: bool) -> None:
    """Writes the bundle that a job will run and run again, whatever is packed in the meantime.

    Jobs differ in what they were told; the rest is on the disk once.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    write(files, directory, archive=archive)
    if (original / "wheels").is_dir():  # gigabytes: not copied where a link will do
        shutil.copytree(original / "wheels", directory / "wheels", copy_function=_link)
    for name, data in files.items():
        _share(directory / name, directory.parent / SHARED / hashlib.sha256(data).hexdigest())


def remove(directory: Path) -> None:
    """Removes the bundle of a job that was not sent."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.with_name(f"{directory.name}.tar.gz").unlink(missing_ok=True)


def _share(file: Path, shared: Path) -> None:
    """Makes both one file, where the disk can."""
    partial = file.with_name(f".{file.name}.shared")
    try:
        if shared.is_file() and shared.stat().st_mode == file.stat().st_mode:
            os.link(shared, partial)
            partial.replace(file)
        elif not shared.exists():
            shared.parent.mkdir(exist_ok=True)
            os.link(file, shared)
    except OSError:  # a copy is as good
        partial.unlink(missing_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
