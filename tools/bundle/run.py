#!/usr/bin/env python3
"""Runs a launch bundle on this machine: python3 run.py [FLAGS OF THE PROGRAM]

Checks every file against bundle.json, makes the locked environment once a machine (or once a
shared home), and becomes the program, so that signals and the exit code are its own. Standard
library only.

  GRUG_VENVS   where environments and unpacked sources are kept (default: ~/.cache/grug/venvs)
  GRUG_UV      the uv to install with (default: uv on PATH, else the one that the bundle pins, which
               pip fetches; where that fails, pip)

Exit codes: the program's own, or 78 if it could not be started; then one line says why.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

SCHEMA_VERSION = 1
CANNOT_START = 78  # EX_CONFIG of sysexits.h: not 143, so that no engine takes it for a preemption
BUNDLE = os.path.dirname(os.path.abspath(__file__))
LOCK_WAIT = 1800.0  # seconds for another process to make the environment
LOCK_BEAT = 5.0  # seconds between two signs of life of a lock file's owner
NO_FLOCK = (errno.EINVAL, errno.EIO, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
LOCK_STALE = 60.0  # seconds without one after which the owner is taken for dead
MERGED = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")  # the bundle's flags, then the user's, which win
PIP = [sys.executable, "-m", "pip"]
QUIET = ["-q", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
# Settings of pip and the variables by which uv knows them.
UV_NAMES = {
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "index-url": "UV_DEFAULT_INDEX",
    "no-index": "UV_NO_INDEX",
    "proxy": "ALL_PROXY",
    "trusted-host": "UV_INSECURE_HOST",
}
NEEDS_NO_DATA = ("--data", "--help", "--plan", "-h")


class BundleError(Exception):
    """The program cannot be started; one line with the remedy."""


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def read_manifest() -> dict:
    """bundle.json, once its own digest and that of every file it names are found right."""
    path = os.path.join(BUNDLE, "bundle.json")
    again = "copy the bundle here again"
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        version, identity = manifest["schema_version"], manifest.pop("id")
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} cannot be read ({error}): {again}") from error
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"bundle.json has schema version {version}, this run.py reads {SCHEMA_VERSION}: "
            "use the run.py that lay beside it"
        )
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest() != identity:
        raise BundleError(f"bundle.json is not what was packed: {again}")
    for name, entry in files.items():
        try:
            found = sha256(os.path.join(BUNDLE, name))
        except OSError as error:
            raise BundleError(f"{name} cannot be read ({error.strerror}): {again}") from error
        if found != entry["sha256"]:
            raise BundleError(f"{name} is not what was packed: {again}")
    return {**manifest, "id": identity}


def numbers(version: str) -> tuple:
    return tuple(int(part) for part in version.split("."))


def check_machine(manifest: dict) -> None:
    """This Python, processor and C library against what the locked wheels need."""
    low, below = manifest["python"]["minimum"], manifest["python"]["below"]
    here = platform.python_version()
    if sys.implementation.name != "cpython" or not (
        numbers(low) <= sys.version_info[:2] < numbers(below)
    ):
        minors = range(numbers(below)[1] - 1, numbers(low)[1] - 1, -1)
        found = [f"python3.{minor}" for minor in minors if shutil.which(f"python3.{minor}")]
        remedy = f"use {found[0]} run.py" if found else f"install one ('uv python install {low}')"
        raise BundleError(
            f"{sys.executable} is {platform.python_implementation()} {here}, the bundle needs "
            f"CPython of at least {low} and below {below}: {remedy}"
        )
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in manifest["machines"]:
        known = " or ".join(manifest["machines"])
        raise BundleError(
            f"this is {platform.system()} on {machine}, the bundle's wheels are for Linux on "
            f"{known}: run it there, for example in a container"
        )
    wheels = manifest.get("wheels")
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if (
        wheels
        and os.path.isdir(os.path.join(BUNDLE, "wheels"))
        and ([wheels["python"], wheels["machine"]] != [minor, machine])
    ):
        raise BundleError(
            f"the bundle's wheels/ are for CPython {wheels['python']} on {wheels['machine']}, this "
            f"is {here} on {machine}: use python{wheels['python']} run.py there, or delete wheels/ "
            "where an index can be reached"
        )
    floor = manifest["machines"][machine]
    library, found_version = platform.libc_ver()
    if library != "glibc" or numbers(found_version) < numbers(floor):
        raise BundleError(
            f"the C library here is {library or 'not glibc'} {found_version}, the locked wheels "
            f"need glibc {floor} or newer: use a newer image of the system"
        )


def home_of_venvs() -> str:
    """A directory that can be written; one of this machine's own where the home cannot be."""
    named = os.environ.get("GRUG_VENVS")
    places = [named] if named else [os.path.expanduser("~/.cache/grug/venvs"), _temporary_home()]
    for place in places:
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            if error.errno == errno.ENOSPC or place == places[-1]:
                raise BundleError(_advice(place, error)) from error
            print(f"bundle: {place}: {error.strerror}; using {places[-1]}", file=sys.stderr)
            continue
        if place == places[-1] and not named and os.lstat(place).st_uid != os.getuid():
            raise BundleError(f"{place} belongs to another user: name a directory in GRUG_VENVS")
        return os.path.abspath(place)
    raise AssertionError


def _temporary_home() -> str:
    return os.path.join(tempfile.gettempdir(), f"grug-venvs-{os.getuid()}")


def _advice(place: str, error: OSError) -> str:
    return (
        f"{place}: {error.strerror}: name a directory with room that can be written in GRUG_VENVS"
    )


@contextlib.contextmanager
def locked(path: str):
    """One process at a time. By flock; where the file system has none, by a file's existence."""
    with open(path + ".lock", "w") as file, contextlib.ExitStack() as held:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            held.enter_context(owned(path + ".owner"))
        yield


@contextlib.contextmanager
def owned(path: str):
    """Holds `path`, which names its owner and is touched while it lives; takes a dead one's."""
    beat = None
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            break
        except FileExistsError:
            _drop_if_stale(path)
        if time.monotonic() > deadline:
            raise BundleError(
                f"{path} is held for {LOCK_WAIT:.0f} s: if nobody installs, delete it"
            )
        time.sleep(0.2)
    try:
        me = f"{socket.gethostname()} {os.getpid()}"
        os.write(descriptor, me.encode())
        os.close(descriptor)
        beat = _keep_alive(path)
        yield
    finally:
        if beat:
            beat.set()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _keep_alive(path: str):
    stop = threading.Event()

    def touch() -> None:
        while not stop.wait(LOCK_BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=touch, daemon=True).start()
    return stop


def _drop_if_stale(path: str) -> None:
    """Deletes a lock file whose owner died: at once on this host, after LOCK_STALE on another."""
    try:
        with open(path) as file:
            host, _, pid = file.read().partition(" ")
        before = os.stat(path)
        if host == socket.gethostname() and pid.isdecimal():
            os.kill(int(pid), 0)
        # By the server's clock on both sides: hosts may disagree about the time.
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path)) as probe:
            now = os.stat(probe.name).st_mtime
        if now - before.st_mtime < LOCK_STALE:
            return
    except ProcessLookupError:
        pass
    except (FileNotFoundError, PermissionError):
        return
    # Renamed first: of two that see the dead owner, one moves the file that it looked at.
    aside = f"{path}.{socket.gethostname()}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        os.unlink(aside)


def made_once(home: str, name: str, make) -> str:
    """home/name, made by make(DIRECTORY) under another name and renamed when it is complete."""
    path = os.path.join(home, name)
    if os.path.isdir(path):
        return path
    with locked(path):
        if os.path.isdir(path):
            return path
        # Of this host's killed processes; another host's may be alive where its lock is not ours.
        host = socket.gethostname()
        for name in os.listdir(home):
            if name.startswith(f"{os.path.basename(path)}.{host}.") and name.endswith(".partial"):
                _remove(os.path.join(home, name))
        partial = f"{path}.{host}.{os.getpid()}.partial"
        try:
            make(partial)
            os.rename(partial, path)
        except BaseException as error:
            _remove(partial)
            if not (isinstance(error, OSError) and os.path.isdir(path)):
                raise  # else another host was faster
    return path


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)


def unpack(path: str) -> None:
    """The sources as files: Python keeps their bytecode, and a run's record copies them."""
    with zipfile.ZipFile(os.path.join(BUNDLE, "app.pex")) as archive:
        archive.extractall(path)


def install(path: str) -> None:
    """The bundle's locked environment."""
    names = ("requirements.txt", "installer.txt", "wheels")
    make_venv(path, *(os.path.join(BUNDLE, name) for name in names))


def make_venv(path: str, requirements: str, installer: str, wheels: str) -> None:
    """A virtual environment at `path`, to be moved to its place after, of pinned wheels alone.

    With the uv at hand, else with the one that the file `installer` pins and pip fetches to a
    directory beside `path`, else with pip. The directory `wheels`, where it exists, is asked
    instead of any index.
    """
    source = ["--no-index", "--find-links", wheels] if os.path.isdir(wheels) else []
    strict = ["--require-hashes", "--only-binary", ":all:", "--no-deps", *source]
    uv = os.environ.get("GRUG_UV") or shutil.which("uv")
    began = time.monotonic()
    fetch = not uv and os.path.exists(installer)
    print(
        f"bundle: installing with {'uv' if uv or fetch else 'pip'}...", file=sys.stderr, flush=True
    )
    if uv:
        with_uv(uv, path, [*strict, "-r", requirements])
    elif not (fetch and with_fetched_uv(path, requirements, installer, strict)):
        with_pip(path, [*strict, "-r", requirements])
    print(f"bundle: installed in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


def with_uv(uv: str, path: str, what: list, **how) -> None:
    python = os.path.join(path, "bin", "python")
    run([uv, "venv", "-q", "--no-config", "--relocatable", "--python", sys.executable, path], **how)
    run([uv, "pip", "install", "-q", *what, "--python", python], **how)


def with_pip(path: str, what: list) -> None:
    """pip stays outside of the environment where there is one: making another takes seconds."""
    python = os.path.join(path, "bin", "python")
    outer = subprocess.run([*PIP, "--python", sys.executable, "--version"], capture_output=True)
    bare = ["--without-pip"] if outer.returncode == 0 else []
    run([sys.executable, "-m", "venv", *bare, path])
    pip = [*PIP, "--python", python] if bare else [python, "-m", "pip"]
    # Bytecode is written by whoever imports first: far less than all of it.
    run([*pip, "install", *QUIET, "--no-compile", *what])


def with_fetched_uv(path: str, requirements: str, installer: str, strict: list) -> bool:
    """Whether it could: where pip cannot fetch uv, or uv fails, pip is asked to do it all."""
    home, cache = os.path.dirname(path), f"{path}.partial"
    # Beside it, so that files are linked into place, and deleted: nothing else is left behind.
    env = {"UV_CACHE_DIR": cache}
    name = f"uv-{platform.machine()}-{sha256(installer)[:16]}"
    into = ["--retries=1", "--no-compile", *strict, "-r", installer, "--target"]
    online = "--no-index" not in strict
    try:
        asked = subprocess.Popen(
            [*PIP, "config", "list"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        with asked:
            uv = made_once(
                home, name, lambda p: run([*PIP, "install", *QUIET, *into, p], loud=False)
            )
            settings = asked.communicate()[0]
        env = {**env, **as_uv_knows(settings)} if online else env
        what = [*strict, "-r", requirements]
        with_uv(os.path.join(uv, "bin", "uv"), path, what, env={**env, **os.environ}, loud=False)
    except BundleError as error:
        print(f"bundle: not with uv ({error}): installing with pip...", file=sys.stderr, flush=True)
        _remove(path)
        return False
    finally:
        _remove(cache)
    return True


def as_uv_knows(settings: str) -> dict:
    """What `pip config list` tells of indexes and certificates, as variables that uv reads."""
    import ssl  # not at the top: a warm start needs none of it

    found = {}
    for line in settings.splitlines():
        key, _, value = line.partition("=")
        name = UV_NAMES.get(key.rpartition(".")[2])
        if name:
            values = ast.literal_eval(value).split()
            found[name] = ("," if name == "UV_FIND_LINKS" else " ").join(values)
    # pip takes the pinned file from any index; its digest is checked.
    found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    system = ssl.get_default_verify_paths()
    if "SSL_CERT_FILE" not in found and (system.cafile or system.capath):
        found["UV_SYSTEM_CERTS"] = "1"
    return found


def run(command: list, env=None, loud: bool = True) -> None:
    """Runs an installer; a failure becomes one line, after all that it said where that is loud."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    try:
        done = subprocess.run(command, stdout=pipe, stderr=both, text=True, env=env)
    except OSError as error:
        raise BundleError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode == 0:
        return
    said = done.stdout.strip()
    if "No space left on device" in said or "File too large" in said or "(os error 28)" in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "ensurepip" in said:
        raise BundleError(
            f"{sys.executable} has neither pip nor ensurepip: install uv, or your system's "
            "packages python3-venv and python3-pip"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = next((x for x in lines if "error" in x.lower()), lines[-1] if lines else "nothing")
    if loud:
        with contextlib.suppress(OSError):
            print(said, file=sys.stderr)
    raise BundleError(f"the locked packages could not be installed: {told}")


def environment(manifest: dict) -> dict:
    """The program's: what the bundle sets, unless the user did; flags of both, the user's last."""
    result = dict(os.environ)
    for name, value in manifest["env"].items():
        if name in MERGED:
            result[name] = f"{value} {result.get(name, '')}".strip()
        else:
            result.setdefault(name, value)
    return result


def arguments(manifest: dict, given: list) -> list:
    """The bundle's, then the user's; the sample of text where neither names any data."""
    every = [*manifest["args"], *given]
    if manifest["sample"] and not any(a.partition("=")[0] in NEEDS_NO_DATA for a in every):
        print(
            "bundle: no --data: training on the small sample in the bundle, to try it out",
            file=sys.stderr,
        )
        every += ["--data", os.path.join(BUNDLE, manifest["sample"])]
    return every


def main() -> None:
    manifest = read_manifest()
    check_machine(manifest)
    home = home_of_venvs()
    files = manifest["files"]
    # On a shared home the hosts may have different interpreters, each with its own environment.
    interpreter = f"{os.path.realpath(sys.executable)} {platform.python_version()}"
    key = f"{files['requirements.txt']['sha256']} {platform.machine()} {interpreter}"
    python = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    venv_name = f"{python}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    try:
        app = made_once(home, f"app-{files['app.pex']['sha256'][:16]}", unpack)
        venv = made_once(home, venv_name, install)
    except OSError as error:
        raise BundleError(_advice(home, error)) from error
    program = os.path.join(venv, "bin", "python")
    if not os.access(program, os.X_OK):
        raise BundleError(f"{venv} holds no Python that runs: delete it, and it is made again")
    env = environment(manifest)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [app, env.get("PYTHONPATH", "")]))
    env["GRUG_BUNDLE"] = BUNDLE
    given = arguments(manifest, sys.argv[1:])
    sys.stderr.flush()
    os.execve(program, [program, "-P", "-m", manifest["entry"], *given], env)


if __name__ == "__main__":
    try:
        main()
    except BundleError as error:
        print(f"bundle: {error}", file=sys.stderr)
        sys.exit(CANNOT_START)
    except KeyboardInterrupt:
        sys.exit(130)
