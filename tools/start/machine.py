"""What this machine says of package indexes, certificates and proxies, read once, from one place.

pip's configuration at every level, uv's, and the environment are asked for the few settings without
which nothing can be fetched here; all else in them (constraints, targets, prefixes, ...) would
change what is installed, and is left out. Standard library only, for any Python from 3.7 on: it
runs before anything is installed.
"""

from __future__ import annotations

import configparser
import importlib
import json
import os
import re
import sys
import urllib.parse
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple

PYPI = "https://pypi.org/simple"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# Where programs that are neither pip nor uv are told of a certificate bundle, most specific first.
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
# What makes a Python, or a program in it, other than it was installed.
MISLEADING = (
    *("PYTHONCASEOK", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONINSPECT", "PYTHONOPTIMIZE"),
    *("PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONWARNINGS"),
)
# uv's names for what pip calls otherwise, in its environment and in uv.toml.
UV_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "no-index": ("UV_NO_INDEX",),
    "trusted-host": ("UV_INSECURE_HOST",),
}
UV_KEYS = {
    "index-url": ("index-url",),
    "extra-index-url": ("extra-index-url",),
    "find-links": ("find-links",),
    "no-index": ("no-index",),
    "trusted-host": ("allow-insecure-host", "trusted-host"),
}
# Sections of pip.conf for the commands that fetch; the command's own outranks the global one.
SECTIONS = ("global", "download", "install")
# Settings of pip that are one value, which may have spaces in it; the others are lists.
SINGLE = ("index-url", "cert", "client-cert", "proxy")
Settings = Dict[str, List[str]]


class Machine(NamedTuple):
    """How packages are fetched here: URLs of indexes, URLs or absolute paths of the rest.

    What was not given is "".
    """

    index: str = ""
    extra_indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    certificate: str = ""
    client_certificate: str = ""
    trusted_hosts: tuple[str, ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()  # (variable in lower case, value)

    @property
    def indexes(self) -> tuple[str, ...]:
        """The main index, then the extra ones: of none of them only under no-index."""
        return () if self.no_index else (self.index or PYPI, *self.extra_indexes)

    def dumps(self) -> str:
        return json.dumps(self._asdict(), indent=1, sort_keys=True) + "\n"

    @classmethod
    def loads(cls, text: str) -> Machine:
        told: dict[str, Any] = json.loads(text)
        for name in ("extra_indexes", "find_links", "trusted_hosts"):
            told[name] = tuple(told[name])
        told["proxies"] = tuple((name, value) for name, value in told["proxies"])
        return cls(**told)


def read(environ: Mapping[str, str] = os.environ) -> Machine:
    """The settings in force: the environment's, else pip's files', else uv's files'.

    Raises ValueError, naming the file, for a configuration that cannot be read.
    """
    levels = [
        from_pip_environment(environ),
        from_uv_environment(environ),
        from_pip_files(pip_files(environ)),
        *reversed([from_uv_file(path, environ) for path in uv_files(environ)]),
    ]

    def first(name: str) -> list[str]:
        return next((level[name] for level in levels if level.get(name)), [])

    certificate = first("cert") or [environ[name] for name in CERTIFICATES if environ.get(name)]
    return Machine(
        index=one([as_url(place) for place in first("index-url")]),
        extra_indexes=tuple(as_url(place) for place in first("extra-index-url")),
        find_links=tuple(absolute(place) for place in first("find-links")),
        no_index=one(first("no-index")).lower() in ("1", "true", "yes", "on"),
        certificate=one([absolute(path) for path in certificate]),
        client_certificate=one([absolute(path) for path in first("client-cert")]),
        trusted_hosts=tuple(first("trusted-host")),
        proxies=tuple(proxies(environ, one(first("proxy")))),
    )


def one(values: list[str]) -> str:
    return values[0] if values else ""


def proxies(environ: Mapping[str, str], for_pip: str) -> Iterator[tuple[str, str]]:
    """The environment's proxies, in lower case (which outranks); pip's own for both schemes."""
    for name in PROXIES:
        value = environ.get(name) or environ.get(name.upper(), "")
        if for_pip and name in ("http_proxy", "https_proxy"):
            value = for_pip
        if value:
            yield name, value


def from_pip_environment(environ: Mapping[str, str]) -> Settings:
    return dict(
        pip_setting(name[4:].lower(), value)
        for name, value in environ.items()
        if name.startswith("PIP_") and value.strip()
    )


def pip_setting(key: str, value: str) -> tuple[str, list[str]]:
    key = key.replace("_", "-")
    return key, [value.strip()] if key in SINGLE else value.split()


def from_uv_environment(environ: Mapping[str, str]) -> Settings:
    found: Settings = {}
    for key, names in UV_VARIABLES.items():
        for name in names:
            values = re.split(r"[\s,]+" if key == "find-links" else r"\s+", environ.get(name, ""))
            # An index may have a name: NAME=URL.
            named = [re.fullmatch(r"(?:([\w.-]+)=)?(.*)", value) for value in values if value]
            if named and key not in found:
                found[key] = [with_login(m[2], m[1] or "", environ) for m in named if m]
    return found


def with_login(url: str, name: str, environ: Mapping[str, str]) -> str:
    """The URL of uv's index of this name, with the login that the environment has for it."""
    variable = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    login = [environ.get(f"{variable}_{part}", "") for part in ("USERNAME", "PASSWORD")]
    parts = urllib.parse.urlsplit(url)
    if not name or not any(login) or "@" in parts.netloc:
        return url
    user, password = (urllib.parse.quote(part, safe="") for part in login)
    return parts._replace(netloc=f"{user}:{password}@{parts.netloc}").geturl()


def configuration_homes(environ: Mapping[str, str]) -> tuple[list[Path], Path]:
    """The directories of the machine's configuration, in the order given, and the user's."""
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    shared = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    own = environ.get("XDG_CONFIG_HOME") or str(home / ".config")
    return [Path(path) for path in shared if path], Path(own)


def pip_files(environ: Mapping[str, str]) -> list[Path]:
    """pip's configuration files, least important first, as `pip config debug` lists them."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    shared, own = configuration_homes(environ)
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    if sys.platform == "darwin":
        shared.append(Path("/Library/Application Support"))
        own_pip = home / "Library/Application Support/pip"
        own = own_pip.parent if own_pip.is_dir() else own
    files = [*(path / "pip/pip.conf" for path in shared), Path("/etc/pip.conf")]
    if not named or not os.path.exists(named):
        files += [home / ".pip/pip.conf", own / "pip/pip.conf"]
    if environ.get("VIRTUAL_ENV"):
        files.append(Path(environ["VIRTUAL_ENV"], "pip.conf"))
    return [*files, Path(named)] if named else files


def from_pip_files(paths: list[Path]) -> Settings:
    """Of these files, least important first; for pip the section outranks the file."""
    parsers = [parse_pip_file(path) for path in paths]
    found: Settings = {}
    for section in SECTIONS:
        for parser in parsers:
            if parser.has_section(section):
                found.update(pip_setting(*item) for item in parser.items(section))
    return found


def parse_pip_file(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except OSError:
        pass
    except (configparser.Error, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read ({first}): correct it") from error
    return parser


def uv_files(environ: Mapping[str, str]) -> list[Path]:
    """uv's configuration files, least important first: of shared ones the first named counts."""
    if environ.get("UV_NO_CONFIG"):
        return []
    if environ.get("UV_CONFIG_FILE"):
        return [Path(environ["UV_CONFIG_FILE"])]
    shared, own = configuration_homes(environ)
    files = [Path("/etc/uv/uv.toml"), *(path / "uv/uv.toml" for path in reversed(shared))]
    return [*files, own / "uv/uv.toml"]


def from_uv_file(path: Path, environ: Mapping[str, str]) -> Settings:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read (not UTF-8): correct it") from error
    try:
        return from_toml(parse_toml(text), path.parent, environ)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): correct it") from error


def from_toml(told: dict[str, Any], directory: Path, environ: Mapping[str, str]) -> Settings:
    """Of uv's file in this directory, from which the paths in it start."""
    found: Settings = {}
    pip = told.get("pip", {})
    if not isinstance(pip, dict):
        raise ValueError("pip must be a table")
    for table in (told, pip):
        for key, names in UV_KEYS.items():
            values = [value for name in names for value in as_list(table.get(name))]
            if values:
                found[key] = values
    indexes = [entry for entry in as_list(told.get("index")) if isinstance(entry, dict)]
    if not all(entry.get("url") for entry in indexes):
        raise ValueError("an index needs a url")
    for key, default in (("index-url", True), ("extra-index-url", False)):
        chosen = [entry for entry in indexes if bool(entry.get("default")) == default]
        if chosen:
            found[key] = [
                with_login(str(entry["url"]), str(entry.get("name", "")), environ)
                for entry in chosen
            ]
    for key in ("index-url", "extra-index-url", "find-links"):
        places = found.get(key, [])
        found[key] = [place if is_url(place) else str(directory / place) for place in places]
    return found


def as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    return [v if isinstance(v, dict) else str(v) for v in values]


def parse_toml(text: str) -> dict[str, Any]:
    """By the standard library (3.11 on), else by what Pex or pip carry; else not at all."""
    carried = Path(__file__).resolve().parents[2] / "pexlib/pex/vendor/_vendored/tomli"
    sys.path.append(str(carried))
    try:
        for name in ("tomllib", "tomli", "pip._vendor.tomli"):
            try:
                return importlib.import_module(name).loads(text)
            except ImportError:
                continue
    finally:
        sys.path.remove(str(carried))
    print("pants: this Python reads no TOML: uv's own files are not asked", file=sys.stderr)
    return {}


def environment(machine: Machine, base: Mapping[str, str]) -> dict[str, str]:
    """`base` for a program that fetches: of pip, uv and Python only the certificate and proxies.

    uv reads its indexes from `uv_arguments`, pip from `pip_arguments`.
    """
    dropped = ("PIP_", "UV_", "PYTHON")
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith(dropped) and name.lower() not in PROXIES
    }
    kept.update(PIP_CONFIG_FILE=os.devnull, UV_NO_CONFIG="1", PYTHONNOUSERSITE="1")
    for name, value in machine.proxies:
        kept[name] = kept[name.upper()] = value
    if machine.certificate:
        kept.update({name: machine.certificate for name in CERTIFICATES})
        kept["PIP_CERT"] = machine.certificate
    else:
        kept["UV_SYSTEM_CERTS"] = kept["UV_NATIVE_TLS"] = "1"
    if machine.client_certificate:
        kept["SSL_CLIENT_CERT"] = kept["PIP_CLIENT_CERT"] = machine.client_certificate
    return kept


def uv_arguments(machine: Machine, everything: bool) -> list[str]:
    """Where uv looks: in the main index, or in `everything` that is configured.

    What is installed is pinned by digest, so the first place that has it serves.
    """
    arguments = ["--index-strategy", "unsafe-best-match"]
    if machine.no_index:
        arguments.append("--no-index")
    else:
        arguments += ["--default-index", machine.index or PYPI]
    if everything or machine.no_index:
        for url in () if machine.no_index else machine.extra_indexes:
            arguments += ["--index", url]
        for place in machine.find_links:
            # For uv, unlike pip, one that is not there is an error.
            if not is_missing(place):
                arguments += ["--find-links", place]
    for host in machine.trusted_hosts:
        arguments += ["--allow-insecure-host", host]
    return arguments


def is_url(place: str) -> bool:
    return len(urllib.parse.urlsplit(place).scheme) > 1


def is_missing(place: str) -> bool:
    """Whether this is a place in the file system where nothing is."""
    parts = urllib.parse.urlsplit(as_url(place))
    return parts.scheme == "file" and not os.path.exists(urllib.parse.unquote(parts.path))


def absolute(place: str) -> str:
    """A place that may be a path, as seen from anywhere."""
    return place if is_url(place) else os.path.abspath(os.path.expanduser(place))


def as_url(place: str) -> str:
    """A URL for a place that may be a path."""
    return place if is_url(place) else Path(absolute(place)).as_uri()


def without_secrets(text: str, places: Iterable[str]) -> str:
    """`text` with the passwords of these URLs left out, to be shown."""
    for place in places:
        parts = urllib.parse.urlsplit(place)
        if parts.password:
            text = text.replace(parts.password, "****")
    return text
