"""One directory of installed packages per lock and interpreter, shared by all that runs here.

Pants has Pex build each environment as an archive of wheels, unpacks it, and copies it once more
for each program. Here uv installs what the lock names once, into a directory named by its content,
and the archive that Pants gets holds one small wheel that adds this directory to the path
(`reference`). Should the directory be deleted, the first program that misses it makes it again.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any, Generator, Iterable

from tools.start.machine import Machine
from tools.start.uv import StartError, Uv, say

UNUSED_DAYS = 30
SCHEMA = 1  # raise it when the same lock shall be installed anew
SETTINGS = "machine.json"
NAME = "grug_environment"
# Runs in each program's interpreter before anything else; the paths are this machine's.
MODULE = '''"""Adds the packages that {lock} names to the path."""

import os
import site
import subprocess

PLACE = {place!r}
if not os.path.isdir(PLACE):
    requirements = os.path.join(os.path.dirname(__file__), "{name}.txt")
    program = "import sys; from tools.start import environment as e; sys.exit(e.main(sys.argv[1:]))"
    make = [{installer!r}, "-Esc", program, requirements, {python!r}, PLACE]
    subprocess.run(make, check=True, cwd={home!r})
site.addsitedir(PLACE)
try:
    os.utime(PLACE)  # in use
except OSError:
    pass
'''


def start_home() -> Path:
    """Where this copy of Pants is installed: its venv, Pex, and these files."""
    return Path(__file__).resolve().parents[2]


def parse_lock(text: str) -> dict[str, Any]:
    """A Pex lock, without the header that Pants writes above it."""
    return json.loads("\n".join(line for line in text.splitlines() if not line.startswith("//")))


def place_for(lock: dict[str, Any], name: str, python: str, home: Path) -> Path:
    """The directory of this lock's packages for the interpreter at `python`."""
    status = os.stat(python)
    key = json.dumps([SCHEMA, lock, python, status.st_size, int(status.st_mtime)], sort_keys=True)
    return home / "environments" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def export(lock: dict[str, Any], python: str, directory: Path) -> str:
    """The lock's part for this interpreter, as pip and uv read requirements: with digests."""
    directory = directory.resolve()
    source, target = directory / "lock.json", directory / "requirements.txt"
    source.write_text(json.dumps(lock), encoding="utf-8")
    home = start_home()
    command = [home / "venv/bin/python", home / "pex", "lock", "export"]
    flags = ["--format", "pip", "--python", python, "--pex-root", directory / "pex"]
    env = {**os.environ, "PEX_SCRIPT": "pex3"}
    done = subprocess.run(
        [*map(str, [*command, *flags, "-o", target, source])],
        capture_output=True,
        cwd=home,
        env=env,
    )
    if done.returncode:
        raise StartError(f"the lock cannot be read: {done.stderr.decode('utf-8', 'replace')}")
    return target.read_text(encoding="utf-8")


def settings() -> Machine:
    """What ./pants wrote down of this machine when it last started."""
    try:
        return Machine.loads((start_home() / SETTINGS).read_text(encoding="utf-8"))
    except OSError:
        return Machine()


def make(requirements: str, python: str, place: Path, lock: str = "") -> None:
    """Installs into `place`, once, at whatever moment another process wants the same.

    Raises StartError if a package cannot be had or is missing afterwards. `place` is there only
    whole.
    """
    try:
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            with locked(place.with_name(f"{place.name}.lock")):
                if not place.is_dir():
                    make_whole(requirements, python, place, lock or "a lock")
    except OSError as error:
        raise StartError(f"{error.filename or place}: {error.strerror or error}") from error


def make_whole(requirements: str, python: str, place: Path, lock: str) -> None:
    """Installs what is pinned into `place`, or leaves nothing there. Raises StartError."""
    partial, cache = (place.with_name(place.name + end) for end in (".partial", ".uv"))
    shutil.rmtree(partial, ignore_errors=True)
    names = versions(requirements)
    say(f"installing {len(names)} packages of {lock}")
    listed = partial / "requirements.txt"
    partial.mkdir()
    listed.write_text(requirements, encoding="utf-8")
    home = start_home()
    try:
        Uv(home / "tools.lock", home.parent, settings()).install(
            f"install the packages of {lock}",
            next(iter(names), ""),
            *("--target", str(partial), "--python", python, "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--link-mode", "hardlink", "-r", str(listed)),
            # Beside it, so that files are linked and not copied; nothing of it is kept.
            UV_CACHE_DIR=str(cache),
        )
        check(partial, names)
        os.replace(partial, place)
        prune((path, path) for path in place.parent.iterdir() if path.is_dir())
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def prune(places: Iterable[tuple[Path, Path]]) -> None:
    """Deletes each directory whose second path was not touched for UNUSED_DAYS.

    All that lies there can be made anew.
    """
    for place, sign in places:
        with contextlib.suppress(OSError):
            if time.time() - sign.stat().st_mtime > UNUSED_DAYS * 86400:
                shutil.rmtree(place, ignore_errors=True)


def versions(requirements: str) -> dict[str, str]:
    """Normalized name -> version of each pinned line."""
    pins = re.findall(
        r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;\\]+)", requirements, re.MULTILINE
    )
    return {normalized(name): version for name, version in pins}


def normalized(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check(directory: Path, names: dict[str, str]) -> None:
    """That every package is there, at its version: an installer that did nothing says nothing."""
    found = set()
    for path in directory.glob("*.dist-info"):
        name, _, version = path.name[: -len(".dist-info")].rpartition("-")
        found.add((normalized(name), version))
    missing = sorted(set(names.items()) - found)
    if missing:
        told = ", ".join("==".join(pair) for pair in missing[:3])
        raise StartError(f"{len(missing)} packages were not installed, {told} among them")


@contextlib.contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Holds the lock in the file `path`."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def reference(requirements: str, python: str, place: Path, lock: str, directory: Path) -> Path:
    """A wheel that stands for `place`: deterministic, a few kilobytes, written to `directory`."""
    home = start_home()
    module = MODULE.format(
        lock=lock,
        name=NAME,
        place=str(place),
        python=python,
        installer=str(home / "venv/bin/python"),
        home=str(home),
    )
    info = f"{NAME}-{SCHEMA}.dist-info"
    tag = "py3-none-any"
    files = {
        # The path alone is for type checkers, which read it and run nothing.
        f"{NAME}.pth": f"{place}\nimport {NAME}\n",
        f"{NAME}.py": module,
        f"{NAME}.txt": requirements,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {SCHEMA}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{name},{record_of(text)}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = directory / f"{NAME}-{SCHEMA}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return path


def record_of(text: str) -> str:
    """The digest and the size of a file, as a wheel's RECORD has them."""
    data = text.encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(data)}"


def main(arguments: list[str]) -> int:
    """`arguments`: a file of requirements, the interpreter, the directory to make."""
    requirements, python, place = arguments
    try:
        make(Path(requirements).read_text(encoding="utf-8"), python, Path(place))
    except StartError as error:
        say(str(error))
        return 1
    return 0
