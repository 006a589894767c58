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

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

# What only a first start needs is imported where it is used: a warm one takes a tenth of a second.

SCHEMA_VERSION = 1
CANNOT_START = 78  # EX_CONFIG of sysexits.h: not 143, so that no engine takes it for a preemption
BUNDLE = os.path.dirname(os.path.abspath(__file__))
LOCK_WAIT = 1800.0  # seconds for another process to make the environment
LOCK_BEAT = 5.0  # seconds between two signs of life of a lock file's owner
NO_FLOCK = (errno.EINVAL, errno.EIO, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
LOCK_STALE = 60.0  # seconds without one after which the owner is taken for dead
DAY = 86400.0  # seconds; no installation takes as long
MERGED = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")  # the bundle's flags, then the user's, which win
DISK_FULL = ("No space left on device", "(os error 28)", "File too large", "Disk quota exceeded")
DISK_FULL += ("(os error 122)",)
STRICT = ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
QUIET = ["-q", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
NEEDS_NO_DATA = ("--data", "--help", "--plan", "-h")
SEAL = "complete.json"  # written last: the files without which a cached directory is not whole
PARTIAL = r"(.+-[0-9a-f]{16})\.(.+)\.[0-9]+(\.old)?(\.partial)+"  # see made_once
# Variables by which Python finds code that is not locked.
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONSTARTUP", "PYTHONUSERBASE")

PYPI = "https://pypi.org/simple"
ANSWER = 15.0  # seconds for an index to answer, where there are others
READ = 30.0  # seconds for the next bytes; the machine's settings may say more
RETRIES = 2
GATEWAY = (502, 503, 504)  # what a proxy says of an index that it does not reach
# The certificates of Debian, Fedora, SUSE and Alpine, where OpenSSL itself names none.
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
CERTIFICATE = rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----"
KEYRINGS = {"pip": ("auto", "disabled", "import", "subprocess"), "uv": ("disabled", "subprocess")}

HELD: set = set()  # descriptors of the locks that this process holds


class BundleError(Exception):
    """The program cannot be started; one line with the remedy."""


def say(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk may hold the log too
        print(f"bundle: {line}", file=sys.stderr, flush=True)


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
            say(f"{place}: {error.strerror}; using {places[-1]}")
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
def locked(path: str, wait: bool = True):
    """Whether this process alone holds path.lock. By flock; where there is none, by path.owner."""
    with open(path + ".lock", "w") as file, contextlib.ExitStack() as held:
        mine = True
        try:
            mine = _flock(file, path, wait)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            if wait:
                held.enter_context(owned(path + ".owner"))
            else:
                mine = False
        HELD.add(file.fileno())
        try:
            yield mine
        finally:
            HELD.discard(file.fileno())
            if mine:
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)


def _flock(file, path: str, wait: bool) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    if wait:
        say(f"waiting for another process, which makes {path}")
        fcntl.flock(file, fcntl.LOCK_EX)
    return wait


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
    """home/name, which make(DIRECTORY) makes and seals under another name; then it is renamed.

    What is there without a seal, or lacks a file that the seal names, is made anew.
    """
    path = os.path.join(home, name)
    if sealed(path):
        return path
    with locked(path):
        if sealed(path):
            return path
        sweep(home, name)
        partial = f"{path}.{socket.gethostname()}.{os.getpid()}.partial"
        aside = f"{partial[: -len('.partial')]}.old.partial"
        try:
            make(partial)
            if os.path.lexists(path) and not sealed(path):
                os.rename(path, aside)
            os.rename(partial, path)
        except OSError:
            if not sealed(path):
                raise  # else another host was faster
        finally:
            _remove(partial)
            _remove(aside)
    return path


def seal(path: str, names: list) -> None:
    """Marks a directory as complete, as long as the files `names` are in it."""
    with open(os.path.join(path, SEAL), "w", encoding="utf-8") as file:
        json.dump(sorted(names), file)


def sealed(path: str) -> bool:
    """Whether it is complete. Raises OSError where a disk that does not answer leaves it open."""
    try:
        with open(os.path.join(path, SEAL), encoding="utf-8") as file:
            names = json.load(file)
        for name in names:
            os.stat(os.path.join(path, name))
    except (FileNotFoundError, NotADirectoryError, TypeError, ValueError):
        return False
    return True


def sweep(home: str, mine: str = "") -> None:
    """Deletes what killed processes left half made: NAME.HOST.PID.partial, without NAME's lock.

    Of `mine` alone, whose lock this process holds, where it is given. Another host may be alive
    where its lock is not seen here: its files stay for a day.
    """
    for entry in os.listdir(home):
        match = entry.endswith(".partial") and re.fullmatch(PARTIAL, entry)
        if not match or (mine and match[1] != mine):
            continue
        path = os.path.join(home, entry)
        if match[2] != socket.gethostname():
            try:
                if time.time() - os.lstat(path).st_mtime < DAY:
                    continue
            except FileNotFoundError:
                continue
        if mine:
            _remove(path)
            continue
        with locked(os.path.join(home, match[1]), wait=False) as alone:
            if alone:
                _remove(path)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def unpack(path: str) -> None:
    """The sources as files: Python keeps their bytecode, and a run's record copies them."""
    import zipfile

    with zipfile.ZipFile(os.path.join(BUNDLE, "app.pex")) as archive:
        archive.extractall(path)
        seal(path, archive.namelist())


def imported() -> list:
    """The top-level modules that the program's own modules import as they are loaded."""
    import ast
    import zipfile

    found = set()
    with zipfile.ZipFile(os.path.join(BUNDLE, "app.pex")) as archive:
        for name in archive.namelist():
            if not name.endswith(".py"):
                continue
            with contextlib.suppress(SyntaxError):  # the program will tell
                for node in ast.parse(archive.read(name)).body:
                    if isinstance(node, ast.Import):
                        found.update(alias.name.partition(".")[0] for alias in node.names)
                    elif isinstance(node, ast.ImportFrom) and not node.level:
                        found.add(str(node.module).partition(".")[0])
    return sorted(found)


def install(path: str) -> None:
    """The bundle's locked environment."""
    names = ("requirements.txt", "installer.txt", "wheels")
    make_venv(path, *(os.path.join(BUNDLE, name) for name in names), modules=imported())


class Settings:
    """What one installer's settings say of where packages come from; the rest is not read."""

    def __init__(self) -> None:
        self.index, self.certificate, self.client = "", "", ""
        self.extra: list = []
        self.links: list = []
        self.hosts: list = []
        self.no_index = False
        self.timeout = 0.0
        self.proxies: dict = {}  # by "http", "https", "no"
        self.own: dict = {}  # variables of its cache and its keyring


def pip_settings() -> Settings:
    """pip's: the site's files, the user's, the interpreter's, PIP_CONFIG_FILE; PIP_* before all."""
    values = _pip_values()
    told = Settings()
    told.index = location(values["index-url"]) if "index-url" in values else ""
    told.extra = [location(url) for url in values.get("extra-index-url", "").split()]
    told.links = [location(place) for place in values.get("find-links", "").split()]
    told.hosts = values.get("trusted-host", "").split()
    told.no_index = _true(values.get("no-index"))
    told.timeout = _seconds(values.get("timeout", values.get("default-timeout")))
    told.certificate, told.client = (
        os.path.abspath(os.path.expanduser(values[name])) if name in values else ""
        for name in ("cert", "client-cert")
    )
    if "proxy" in values:
        told.proxies = dict.fromkeys(("http", "https"), values["proxy"])
    elif _true(values.get("no-proxy-env")):
        told.proxies = {"no": "*"}
    told.own = _own("pip", values, "no-cache-dir")
    return told


def _pip_values() -> dict:
    """The settings of `pip install` by name, weighed as pip does, without the empty ones."""
    import configparser

    sections: dict = {"global": {}, "install": {}}
    for path in _pip_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            say(f"pip's settings in {path} are left out: {_first_line(error)}")
            continue
        for name, values in sections.items():
            if parser.has_section(name):
                values.update((_setting(key), value) for key, value in parser.items(name))
    own = {_setting(n[4:]): value for n, value in os.environ.items() if n.startswith("PIP_")}
    result: dict = {}
    for values in (*sections.values(), own):
        result.update((name, value) for name, value in values.items() if value)
    return result


def _pip_files() -> list:
    """Where pip looks on Linux, the weakest first."""
    named = os.environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    site = [os.path.join(place, "pip") for place in _site_directories()]
    user = [os.path.expanduser("~/.pip"), os.path.join(_user_directory(), "pip")]
    user = [] if named and os.path.exists(named) else user
    files = [os.path.join(place, "pip.conf") for place in (*site, "/etc", *user, sys.prefix)]
    return [*files, *([named] if named else [])]


def _site_directories() -> list:
    places = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    return [place for place in places if place]


def _user_directory() -> str:
    return os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")


def _setting(name: str) -> str:
    name = name.lower().replace("_", "-")
    return name[2:] if name.startswith("--") else name


def _true(value) -> bool:
    return str(value).lower() in ("1", "on", "t", "true", "y", "yes")


def _seconds(value) -> float:
    try:
        return float(value or 0)
    except ValueError:
        return 0.0


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _own(tool: str, values: dict, no_cache: str) -> dict:
    """A tool's variables of its cache and its keyring, which change nothing in what it installs."""
    own = {}
    if values.get("cache-dir"):
        own[f"{tool}-cache-dir"] = os.path.abspath(os.path.expanduser(str(values["cache-dir"])))
    if _true(values.get(no_cache)):
        own[f"{tool}-{no_cache}"] = "1"
    if values.get("keyring-provider") in KEYRINGS[tool]:
        own[f"{tool}-keyring-provider"] = values["keyring-provider"]
    return {name.upper().replace("-", "_"): value for name, value in own.items()}


def uv_settings() -> Settings:
    """uv's: UV_* before the user's uv.toml, that before the site's; no project's."""
    told = Settings()
    for source, values in [("", _uv_variables()), *_uv_tables()]:
        try:
            _take_uv(told, source, values)
        except (AttributeError, TypeError, ValueError) as error:
            say(f"uv's settings in {source} are left out: {_first_line(error)}")
    return told


def _take_uv(told: Settings, source: str, values: dict) -> None:
    """Adds a uv.toml's settings, or variables in the same form, to those of stronger ones."""
    values = {**values, **values.get("pip", {})}  # as `uv pip` weighs them
    base = os.path.dirname(source)
    tables = [table for table in values.get("index", []) if not table.get("explicit")]
    default = [uv_index(t, base) for t in tables if t.get("default")]
    default += [uv_index({"url": values["index-url"]}, base)] if values.get("index-url") else []
    more = [{"url": url} for url in values.get("extra-index-url", [])]
    more += [table for table in tables if not table.get("default")]
    extra = [uv_index(table, base) for table in more if table.get("format") != "flat"]
    links = [location(place, base) for place in values.get("find-links", [])]
    links += [uv_index(table, base) for table in more if table.get("format") == "flat"]
    # A host may be written as a URL; pip knows it by its name alone.
    hosts = [host.rpartition("//")[2] for host in values.get("allow-insecure-host", [])]
    told.index = told.index or (default[0] if default else "")
    told.extra, told.links = [*told.extra, *extra], [*told.links, *links]
    told.hosts = [*told.hosts, *hosts]
    told.no_index = told.no_index or _true(values.get("no-index"))
    told.timeout = told.timeout or _seconds(values.get("http-timeout"))
    for name in ("http", "https", "no"):
        proxy = values.get(f"{name}-proxy")
        if proxy:
            told.proxies.setdefault(name, ",".join(proxy) if isinstance(proxy, list) else proxy)
    told.own = {**_own("uv", values, "no-cache"), **told.own}


def _uv_variables() -> dict:
    """UV_* in the form of a uv.toml."""
    get = os.environ.get
    return {
        "index-url": get("UV_DEFAULT_INDEX") or get("UV_INDEX_URL"),
        "extra-index-url": f"{get('UV_INDEX', '')} {get('UV_EXTRA_INDEX_URL', '')}".split(),
        "find-links": [place for place in get("UV_FIND_LINKS", "").split(",") if place],
        "allow-insecure-host": get("UV_INSECURE_HOST", "").split(),
        "no-index": get("UV_NO_INDEX"),
        "http-timeout": get("UV_HTTP_TIMEOUT") or get("UV_REQUEST_TIMEOUT"),
        "cache-dir": get("UV_CACHE_DIR"),
        "no-cache": get("UV_NO_CACHE"),
        "keyring-provider": get("UV_KEYRING_PROVIDER"),
    }


def _uv_tables() -> list:
    """Each uv.toml that uv reads outside of projects, the strongest first, with its content."""
    import tomllib

    if _true(os.environ.get("UV_NO_CONFIG")):
        return []
    named = os.environ.get("UV_CONFIG_FILE")
    site = [os.path.join(place, "uv/uv.toml") for place in _site_directories()]
    site = [path for path in [*site, "/etc/uv/uv.toml"] if os.path.exists(path)][:1]
    site = [] if _true(os.environ.get("UV_NO_SYSTEM_CONFIG")) else site
    user = os.path.join(_user_directory(), "uv/uv.toml")
    tables = []
    for path in [named] if named else [user, *site]:
        try:
            with open(path, "rb") as file:
                tables.append((os.path.abspath(path), tomllib.load(file)))
        except (OSError, ValueError) as error:
            if named or not isinstance(error, FileNotFoundError):
                say(f"uv's settings in {path} are left out: {_first_line(error)}")
    return tables


def uv_index(table: dict, base: str) -> str:
    """The URL of an index, with the name and password that UV_INDEX_NAME_... give for it."""
    import urllib.parse

    match = re.fullmatch(r"([A-Za-z0-9._-]+)=(.+)", table["url"])  # NAME=URL, in variables
    name, url = (match[1], match[2]) if match else (table.get("name"), table["url"])
    url = location(url, base)
    parts = urllib.parse.urlsplit(url)
    if name and parts.hostname and "@" not in parts.netloc:
        variable = f"UV_INDEX_{re.sub('[^A-Z0-9]', '_', name.upper())}_"
        who = [os.environ.get(variable + part, "") for part in ("USERNAME", "PASSWORD")]
        if any(who):
            quoted = ":".join(urllib.parse.quote(part, safe="") for part in who)
            url = parts._replace(netloc=f"{quoted}@{parts.netloc}").geturl()
    return url


def location(text: str, base: str = "") -> str:
    """A URL as it is; a path as a URL, which holds no space that would end it in a variable."""
    import urllib.parse

    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return text
    path = os.path.abspath(os.path.join(base, os.path.expanduser(text)))
    return "file://" + urllib.parse.quote(os.fsencode(path))


class Mirrors:
    """Where packages come from, by all that this machine says.

    `environment` is the installers': of the variables of pip, uv and Python it holds those that
    name mirrors, certificates and proxies, and no others.
    """

    def __init__(self, requirements: str, scratch: str, wheels: str = "") -> None:
        self.scratch = scratch
        self.silent: dict = {}  # why those that do not answer do not
        self.first = next(iter(pinned(requirements)), "")  # a page that every index has
        pip, uv = pip_settings(), uv_settings()
        self.hosts = _unique([*pip.hosts, *uv.hosts])
        foreign = ("PIP_", "_PIP_", "UV_", "PYTHON")
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith(foreign)}
        self.indexes: list = []
        self.links = [location(wheels)] if wheels else []
        if not wheels:
            self._take_proxies(pip, uv)
            self._take_certificates(pip, uv)
            self._choose(pip, uv)
        self._name_all(max(READ, pip.timeout, uv.timeout), {**pip.own, **uv.own})

    def _take_proxies(self, pip: Settings, uv: Settings) -> None:
        """pip's setting is meant for this and outranks the environment; uv's files do not."""
        env = self.environment
        if pip.proxies:
            for name in ("http", "https", "all"):
                env.pop(f"{name}_proxy", None)
                env.pop(f"{name.upper()}_PROXY", None)
        named = {n for n in env if n.lower().endswith("_proxy") and n.lower() != "no_proxy"}
        for name, proxy in (pip.proxies or ({} if named else uv.proxies)).items():
            url = proxy if name == "no" or "://" in proxy else f"http://{proxy}"
            env[f"{name}_proxy"] = env[f"{name.upper()}_PROXY"] = url

    def _take_certificates(self, pip: Settings, uv: Settings) -> None:
        """One file of what pip, requests, curl and OpenSSL are told to trust, and of the system's.

        Each installer reads another of these variables; the one that is there serves both.
        """
        env = self.environment
        places = [pip.certificate] if pip.certificate else []
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
            places += [place for place in env.pop(name, "").split(os.pathsep) if place]
        client = pip.client or env.pop("SSL_CLIENT_CERT", "")
        if client:
            env["PIP_CLIENT_CERT"] = env["SSL_CLIENT_CERT"] = client
        system = _system_certificates()
        blocks: dict = {}  # a set that keeps the order
        for place in _unique([*places, *system]):
            try:
                blocks.update(dict.fromkeys(_certificates(place)))
            except OSError as error:
                say(f"certificates in {place} are left out: {error.strerror}")
        if places and blocks:
            path = os.path.join(self.scratch, "certificates.pem")
            with open(path, "wb") as file:
                file.write(b"\n".join([*blocks, b""]))
            env["PIP_CERT"] = env["SSL_CERT_FILE"] = path
        elif system:
            env["SSL_CERT_FILE"] = system[0]  # pip has its own

    def _choose(self, pip: Settings, uv: Settings) -> None:
        """The indexes and places that answer: all that is installed is pinned, so any serves."""
        forbidden = any(_true(os.environ.get(name)) for name in ("PIP_NO_INDEX", "UV_NO_INDEX"))
        willing = [] if forbidden else [told for told in (uv, pip) if not told.no_index]
        none = forbidden or uv.no_index or pip.no_index
        named = [told.index for told in willing if told.index]
        # An index for uv alone leaves pip with its own, PyPI: asked where the other is silent.
        spare = [PYPI] if named and not pip.index and not none else []
        named = named or ([] if none else [PYPI])
        indexes = _unique([*named, *(url for told in willing for url in told.extra)])
        links = _unique([*uv.links, *pip.links])
        if spare or len(indexes) + len(links) > 1:
            self.silent = self._ask(indexes, links)
        self.indexes = [url for url in indexes if url not in self.silent]
        self.links = [url for url in links if url not in self.silent]
        instead = ""
        if spare and named[0] in self.silent and not self._ask(spare, []):
            self.indexes += spare
            instead = f", with {PYPI}"
        if self.indexes or self.links:
            for url, why in self.silent.items():
                say(f"{_shown(url)} does not answer ({why}): going on without it{instead}")
        else:
            self.indexes, self.links = indexes, links

    def silences(self) -> list:
        """Of each mirror that does not answer why, for a message; the one in use is asked now."""
        asked = {} if self.silent else self._ask(self.indexes, self.links)
        silent = self.silent or asked
        return [f"{_shown(url)} does not answer ({why})" for url, why in silent.items()]

    def _ask(self, indexes: list, links: list) -> dict:
        """Asks all at once, ANSWER seconds at most; those that do not answer, and why."""
        pages = {url: url for url in links}
        for url in indexes:
            # A directory need not have this page; a server that has it not says so.
            page = f"{url.rstrip('/')}/{self.first}/"
            pages[url] = url if url.startswith("file:") else page
        found: dict = {}

        def ask(url: str) -> None:
            found[url] = self._silence(pages[url])

        threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in pages]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + ANSWER
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = f"nothing within {ANSWER:.0f} s"
        return {url: why for url in pages for why in [dict(found).get(url, late)] if why}

    def _silence(self, url: str) -> str:
        """Why nothing answers at `url`, or "" where anything does, be it a refusal."""
        import http.client
        import ssl
        import urllib.error
        import urllib.parse
        import urllib.request

        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "file":
            there = os.path.exists(urllib.request.url2pathname(parts.path))
            return "" if there else os.strerror(errno.ENOENT)
        try:
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
            opener = self._opener(bare)
            if opener:
                opener.open(bare.geturl(), timeout=ANSWER).close()
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.reason}" if error.code in GATEWAY else ""
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLError) and "PIP_CERT" not in self.environment:
                return ""  # pip has certificates of its own
            return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return ""

    def _opener(self, parts):
        """Opens URLs as the installers do; None where only they know a proxy of this kind."""
        import ssl
        import urllib.request

        env = self.environment
        proxies = {}
        for name in (parts.scheme, "all"):
            proxy = env.get(f"{name}_proxy") or env.get(f"{name.upper()}_PROXY")
            if proxy:
                proxies.setdefault(parts.scheme, proxy)
        direct = (env.get("no_proxy") or env.get("NO_PROXY") or "").replace(" ", "").split(",")
        if any(name == "*" or _within(parts.hostname, name) for name in direct if name):
            proxies = {}
        if any("://" in url and not url.startswith("http://") for url in proxies.values()):
            return None
        context = ssl.create_default_context(cafile=env.get("SSL_CERT_FILE"))
        if "SSL_CLIENT_CERT" in env:
            context.load_cert_chain(env["SSL_CLIENT_CERT"])
        if parts.netloc in self.hosts or parts.hostname in self.hosts:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return urllib.request.build_opener(
            urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
        )

    def _name_all(self, timeout: float, own: dict) -> None:
        """Puts all of it into the variables by which pip and uv know it."""
        env = self.environment
        env.update(own)
        env.update(PIP_CONFIG_FILE=os.devnull, UV_NO_CONFIG="1", PYTHONNOUSERSITE="1")
        env.update(PIP_DEFAULT_TIMEOUT=f"{timeout:.0f}", UV_HTTP_TIMEOUT=f"{timeout:.0f}")
        env.update(PIP_RETRIES=str(RETRIES), UV_HTTP_RETRIES=str(RETRIES))
        env["UV_HTTP_CONNECT_TIMEOUT"] = f"{ANSWER:.0f}"
        env["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # any index may have the file of a digest
        if self.indexes:
            env["PIP_INDEX_URL"] = env["UV_DEFAULT_INDEX"] = self.indexes[0]
        else:
            env["PIP_NO_INDEX"] = "1"
        for pip_name, uv_name, values, comma in (
            ("PIP_EXTRA_INDEX_URL", "UV_INDEX", self.indexes[1:], " "),
            ("PIP_FIND_LINKS", "UV_FIND_LINKS", self.links, ","),
            ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST", self.hosts, " "),
        ):
            if values:
                env[pip_name] = " ".join(values)
                env[uv_name] = comma.join(value.replace(",", "%2C") for value in values)


def _within(host: str, domain: str) -> bool:
    return f".{host}".endswith(f".{domain.lstrip('.')}")


def _system_certificates() -> list:
    """The file of certificates that this system's programs trust, where there is one."""
    import ssl

    places = [ssl.get_default_verify_paths().openssl_cafile, *SYSTEM_CERTIFICATES]
    return [place for place in places if place and os.path.isfile(place)][:1]


def _certificates(place: str) -> list:
    """All in a file, or in the files of a directory."""
    if not os.path.isdir(place):
        with open(place, "rb") as file:
            return re.findall(CERTIFICATE, file.read())
    paths = [os.path.join(place, name) for name in sorted(os.listdir(place))]
    return [block for path in paths if os.path.isfile(path) for block in _certificates(path)]


def _unique(values) -> list:
    return list(dict.fromkeys(values))


def _shown(url: str) -> str:
    """A URL without the password in it."""
    return re.sub(r"(?<=//)[^/]*@", "", url)


def make_venv(path: str, requirements: str, installer: str, wheels: str, modules=()) -> None:
    """A virtual environment at `path`, to be moved to its place after, of pinned wheels alone.

    With the uv at hand, else with the one that the file `installer` pins and pip fetches to a
    directory beside `path`; where that fails, with pip. The directory `wheels`, where it exists,
    is asked instead of any index. Those of `modules` that were installed are imported once.

    Raises:
        BundleError: no installer could, or what it left is not what is locked or does not import.
        OSError: the disk is full.
    """
    began = time.monotonic()
    scratch = f"{path}.partial"
    os.makedirs(scratch)
    try:
        mirrors = Mirrors(requirements, scratch, wheels if os.path.isdir(wheels) else "")
        known = with_uv(path, requirements, installer, mirrors)
        known = known or with_pip(path, requirements, mirrors)
        check_imports(path, modules, mirrors)
        seal(path, ["bin/python", *known])
    finally:
        _remove(scratch)
    say(f"installed in {time.monotonic() - began:.1f} s")


def with_uv(path: str, requirements: str, installer: str, mirrors: Mirrors) -> list:
    """check_installed's files; none where there is no uv or it failed, and one line says why."""
    named = os.environ.get("GRUG_UV") or shutil.which("uv")
    if not named and not os.path.exists(installer):
        say("installing with pip...")
        return []
    say("installing with uv...")
    env = dict(mirrors.environment)
    try:
        if named:
            uv = os.path.abspath(named) if os.sep in named else named
        else:
            uv = fetched_uv(os.path.dirname(path), installer, mirrors)
            # Beside `path`, so that files are linked into place, and deleted with it.
            env.setdefault("UV_CACHE_DIR", os.path.join(mirrors.scratch, "cache"))
        python = os.path.join(path, "bin", "python")
        alone = ["-q", "--no-config"]
        create = [uv, "venv", *alone, "--no-project", "--relocatable", "--python", sys.executable]
        run([*create, path], mirrors, env, loud=False)
        no_index = ["--no-index"] if "PIP_NO_INDEX" in env else []
        what = [*STRICT, *no_index, "-r", requirements, "--python", python]
        run([uv, "pip", "install", *alone, *what], mirrors, env, loud=False)
        return check_installed(path, requirements)
    except BundleError as error:
        say(f"not with uv ({error}): installing with pip...")
        _remove(path)
        return []


def fetched_uv(home: str, installer: str, mirrors: Mirrors) -> str:
    """The uv that `installer` pins, which pip puts into `home` once."""

    def fetch(path: str) -> None:
        what = [*STRICT, "--no-compile", "-r", installer, "--target", path]
        run([*_pip(), "install", *QUIET, *what], mirrors, loud=False)
        if not os.path.exists(os.path.join(path, "bin", "uv")):
            raise BundleError("pip says that it installed uv, but it did not")
        seal(path, ["bin/uv"])

    name = f"uv-{platform.machine()}-{sha256(installer)[:16]}"
    return os.path.join(made_once(home, name, fetch), "bin", "uv")


def with_pip(path: str, requirements: str, mirrors: Mirrors) -> list:
    """check_installed's files. pip stays outside of the environment, where there is one."""
    python = os.path.join(path, "bin", "python")
    outer = _start([*_pip(), "--python", sys.executable, "--version"], mirrors)
    bare = ["--without-pip"] if outer.returncode == 0 else []
    run([sys.executable, "-I", "-m", "venv", *bare, path], mirrors)
    pip = [*_pip(), "--python", python] if bare else [python, "-I", "-m", "pip"]
    try:
        # Bytecode is written by whoever imports first: far less than all of it.
        run([*pip, "install", *QUIET, "--no-compile", *STRICT, "-r", requirements], mirrors)
    except BundleError as error:
        raise BundleError("; ".join([str(error), *mirrors.silences()])) from error
    return check_installed(path, requirements)


def _pip() -> list:
    """pip, without what the working directory, the user's site or PYTHONPATH hold."""
    return [sys.executable, "-I", "-m", "pip"]


def check_installed(path: str, requirements: str) -> list:
    """The files by which each distribution that is locked for this machine is known to be there.

    Raises:
        BundleError: one is not in the environment at `path`, has another version or lacks files.
    """
    import csv
    import importlib.metadata

    importlib.invalidate_caches()  # an installer that failed may have left the same directory
    site = _site_packages()
    there = importlib.metadata.distributions(path=[os.path.join(path, site)])
    found = {_canonical(d.metadata["Name"] or ""): d for d in there}
    known = []
    for name, version in pinned(requirements).items():
        if name not in found:
            raise BundleError(f"the installer left no {name} in the environment")
        if found[name].version != version:
            raise BundleError(f"the installer left {name} {found[name].version}, not {version}")
        # Not `files`, which leaves out those that are not there.
        record = csv.reader((found[name].read_text("RECORD") or "").splitlines())
        files = [os.path.join(site, row[0]) for row in record if row]
        lost = [file for file in files if not os.path.exists(os.path.join(path, file))]
        if lost or not files:
            raise BundleError(f"the installer left {name} without {(lost or ['its files'])[0]}")
        known += [file for file in files if file.endswith(".dist-info/METADATA")]
    return known


def pinned(requirements: str) -> dict:
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
            result[_canonical(name)] = version
    return result


def _site_packages() -> str:
    return "lib/python{}.{}/site-packages".format(*sys.version_info)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_imports(path: str, modules, mirrors: Mirrors) -> None:
    """Imports those of `modules` that are in the environment at `path`, as the program will."""
    site = os.path.join(path, _site_packages())
    there = {entry.partition(".")[0] for entry in os.listdir(site)}
    names = [name for name in modules if name in there]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    command = [os.path.join(path, "bin", "python"), "-I", "-c", code, *names]
    run(command, mirrors, failed="the locked packages were installed, but do not import here")


def run(command: list, mirrors: Mirrors, env=None, loud: bool = True, failed: str = "") -> None:
    """Runs an installer; a failure becomes one line, after all that it said where that is loud."""
    done = _start(command, mirrors, env)
    if done.returncode == 0:
        return
    said = done.stdout.strip()
    if any(sign in said for sign in DISK_FULL):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "ensurepip" in said:
        raise BundleError(
            f"{sys.executable} has neither pip nor ensurepip: install uv, or your system's "
            "packages python3-venv and python3-pip"
        )
    told = _last_line(said) if failed else _told(said)
    if loud:
        with contextlib.suppress(OSError):
            print(said, file=sys.stderr)
    raise BundleError(f"{failed or 'the locked packages could not be installed'}: {told}")


def _told(said: str) -> str:
    """The line that names the error, and what uv says of its causes: the first and the last."""
    lines = [line.strip() for line in said.splitlines()]
    error = next((line for line in lines if "error" in line.lower()), _last_line(said))
    causes = [x.partition(": ")[2] for x in lines if x.startswith(("cause: ", "Caused by: "))]
    return ": ".join(_unique([error, *causes[:1], *causes[-1:]]))


def _last_line(said: str) -> str:
    return said.rpartition("\n")[2].strip() or "it said nothing"


def _start(command: list, mirrors: Mirrors, env=None) -> subprocess.CompletedProcess:
    """Runs it where no project, pip.py or .python-version of a working directory has a say."""
    try:
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=env or mirrors.environment,
            cwd=mirrors.scratch,
            pass_fds=tuple(HELD),  # if this process is killed, its lock lasts as long as these
        )
    except OSError as error:
        raise BundleError(f"{command[0]} cannot be run: {error.strerror}") from error


def environment(manifest: dict) -> dict:
    """The program's: what the bundle sets, unless the user did; flags of both, the user's last.

    Nothing in it leads Python to code that is neither the bundle's nor locked.
    """
    result = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    if os.environ.get("PYTHONPATH"):
        say("PYTHONPATH is not handed on: the program imports what is locked, and nothing else")
    result["PYTHONNOUSERSITE"] = "1"
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
        say("no --data: training on the small sample in the bundle, to try it out")
        every += ["--data", os.path.join(BUNDLE, manifest["sample"])]
    return every


def main() -> None:
    manifest = read_manifest()
    check_machine(manifest)
    home = home_of_venvs()
    files = manifest["files"]
    # On a shared home the hosts may have different interpreters, each with its own environment.
    interpreter = f"{os.path.realpath(sys.executable)} {platform.python_version()}"
    # Environments without a seal, which older versions of this file made, keep their name.
    key = f"sealed {files['requirements.txt']['sha256']} {platform.machine()} {interpreter}"
    python = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    venv_name = f"{python}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    try:
        sweep(home)
        app = made_once(home, f"app-{files['app.pex']['sha256'][:16]}", unpack)
        venv = made_once(home, venv_name, install)
    except OSError as error:
        raise BundleError(_advice(home, error)) from error
    program = os.path.join(venv, "bin", "python")
    if not os.access(program, os.X_OK):
        raise BundleError(f"{venv} holds no Python that runs: delete it, and it is made again")
    env = environment(manifest)
    env["PYTHONPATH"] = app
    env["GRUG_BUNDLE"] = BUNDLE
    given = arguments(manifest, sys.argv[1:])
    sys.stderr.flush()
    os.execve(program, [program, "-P", "-s", "-m", manifest["entry"], *given], env)


if __name__ == "__main__":
    try:
        main()
    except BundleError as error:
        say(str(error))
        sys.exit(CANNOT_START)
    except KeyboardInterrupt:
        sys.exit(130)
