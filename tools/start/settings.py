"""What pip's and uv's own settings say of where packages come from; the rest is not read.

Each installer's levels (environment, named file, user, site) are weighed as that installer weighs
them. A file that cannot be read is left out, and one line names it. Standard library only, for any
Python from 3.7 on: this runs before anything is installed, here and on a bundle's worker.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import urllib.parse
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping

Say = Callable[[str], None]
KEYRINGS = {"pip": ("auto", "disabled", "import", "subprocess"), "uv": ("disabled", "subprocess")}


class Settings:
    """One installer's: URLs of indexes and of places to find links, absolute paths of files."""

    def __init__(self) -> None:
        self.index, self.certificate, self.client = "", "", ""
        self.near = False  # whether the environment, and no file, names the index
        self.forbidden = False  # whether the environment forbids every index
        self.no_index = False
        self.extra: list[str] = []
        self.links: list[str] = []
        self.hosts: list[str] = []
        self.timeout = 0.0  # seconds
        self.proxies: dict[str, str] = {}  # by "http", "https", "no"
        self.keyring: dict[str, str] = {}  # the installer's variables of it
        self.caches: dict[str, str] = {}  # likewise


def pip_settings(environ: Mapping[str, str], prefix: str, say: Say) -> Settings:
    """`prefix`: the environment of which pip.conf counts, "" for none."""
    values = pip_values(environ, prefix, say)
    own = pip_variables(environ)
    told = Settings()
    told.index = location(values["index-url"]) if "index-url" in values else ""
    told.near = bool(own.get("index-url"))
    told.forbidden = is_true(own.get("no-index"))
    told.no_index = is_true(values.get("no-index"))
    told.extra = [location(url) for url in values.get("extra-index-url", "").split()]
    told.links = [location(place) for place in values.get("find-links", "").split()]
    told.hosts = values.get("trusted-host", "").split()
    told.timeout = seconds(values.get("timeout", values.get("default-timeout")))
    told.certificate = absolute(values.get("cert", ""))
    told.client = absolute(values.get("client-cert", ""))
    if "proxy" in values:
        told.proxies = dict.fromkeys(("http", "https"), values["proxy"])
    elif is_true(values.get("no-proxy-env")):
        told.proxies = {"no": "*"}
    told.keyring, told.caches = keyring("pip", values), caches("pip", values, "no-cache-dir")
    return told


def pip_values(environ: Mapping[str, str], prefix: str, say: Say) -> dict[str, str]:
    """The settings of `pip install` by name, weighed as pip does, without the empty ones.

    The section outranks the file, and the environment both.
    """
    import configparser

    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for path in pip_files(environ, prefix):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(text_of(path), source=path)
        except OSError:
            continue
        except (configparser.Error, UnicodeDecodeError) as error:
            say(f"pip's settings in {path} are left out: {first_line(error)}: correct the file")
            continue
        for name, values in sections.items():
            if parser.has_section(name):
                values.update((setting(key), value) for key, value in parser.items(name))
    result: dict[str, str] = {}
    for values in (*sections.values(), pip_variables(environ)):
        result.update((name, value) for name, value in values.items() if value)
    return result


def pip_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's settings in the environment, by name."""
    return {setting(n[4:]): v.strip() for n, v in environ.items() if n.startswith("PIP_")}


def setting(name: str) -> str:
    """A setting's name, of the ways to write it."""
    name = name.lower().replace("_", "-")
    return name[2:] if name.startswith("--") else name


def pip_files(environ: Mapping[str, str], prefix: str) -> list[str]:
    """Where pip looks, the weakest first, as `pip config debug` lists them."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    site = [os.path.join(place, "pip/pip.conf") for place in site_directories(environ)]
    own = user_directory(environ)
    if sys.platform == "darwin":
        site.append("/Library/Application Support/pip/pip.conf")
        support = os.path.join(home(environ), "Library/Application Support")
        own = support if os.path.isdir(os.path.join(support, "pip")) else own
    user = [os.path.join(home(environ), ".pip/pip.conf"), os.path.join(own, "pip/pip.conf")]
    user = [] if named and os.path.exists(named) else user
    files = [*site, "/etc/pip.conf", *user]
    files += [os.path.join(prefix, "pip.conf")] if prefix else []
    return [*files, named] if named else files


def home(environ: Mapping[str, str]) -> str:
    """The user's home."""
    return environ.get("HOME") or os.path.expanduser("~")


def site_directories(environ: Mapping[str, str]) -> list[str]:
    """Where the site's configuration is, the strongest first."""
    places = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    return [place for place in places if place]


def user_directory(environ: Mapping[str, str]) -> str:
    """Where the user's configuration is."""
    return environ.get("XDG_CONFIG_HOME") or os.path.join(home(environ), ".config")


def uv_settings(environ: Mapping[str, str], say: Say) -> Settings:
    """UV_* before the user's uv.toml, that before the site's; no project's."""
    told = Settings()
    told.near = bool(environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL"))
    told.forbidden = is_true(environ.get("UV_NO_INDEX"))
    for source, values in [("", uv_variables(environ)), *uv_tables(environ, say)]:
        try:
            take_uv(told, source, values, environ)
        except (AttributeError, TypeError, ValueError) as error:
            left_out(source, error, say)
    return told


def left_out(source: str, error: Exception, say: Say) -> None:
    """Says that a file of uv's, or its variables, are not heeded."""
    where, what = (source, "the file") if source else ("the environment", "them")
    say(f"uv's settings in {where} are left out: {first_line(error)}: correct {what}")


def take_uv(
    told: Settings, source: str, values: dict[str, Any], environ: Mapping[str, str]
) -> None:
    """Adds a uv.toml's settings, or variables in the same form, to those of stronger ones."""
    values = {**values, **values.get("pip", {})}  # as `uv pip` weighs them
    base = os.path.dirname(source)
    tables = [table for table in listed(values, "index") if not table.get("explicit")]
    default = [uv_index(t, base, environ) for t in tables if t.get("default")]
    if values.get("index-url"):
        default.append(uv_index({"url": values["index-url"]}, base, environ))
    more = [{"url": url} for url in listed(values, "extra-index-url")]
    more += [table for table in tables if not table.get("default")]
    extra = [uv_index(table, base, environ) for table in more if table.get("format") != "flat"]
    links = [location(place, base) for place in listed(values, "find-links")]
    links += [uv_index(table, base, environ) for table in more if table.get("format") == "flat"]
    # A host may be written as a URL; pip knows it by its name alone.
    names = [*listed(values, "allow-insecure-host"), *listed(values, "trusted-host")]
    hosts = [host.rpartition("//")[2] for host in names]
    proxies = {name: values.get(f"{name}-proxy") for name in ("http", "https", "no")}
    texts = {n: ",".join(p) if isinstance(p, list) else str(p) for n, p in proxies.items() if p}
    # Nothing of a broken file counts.
    told.index = told.index or (default[0] if default else "")
    told.extra, told.links = [*told.extra, *extra], [*told.links, *links]
    told.hosts = [*told.hosts, *hosts]
    told.no_index = told.no_index or is_true(values.get("no-index"))
    told.timeout = told.timeout or seconds(values.get("http-timeout"))
    told.proxies = {**texts, **told.proxies}
    told.keyring = {**keyring("uv", values), **told.keyring}
    told.caches = {**caches("uv", values, "no-cache"), **told.caches}


def listed(values: dict[str, Any], name: str) -> list[Any]:
    """A setting that is a list. Raises ValueError for any other."""
    value = values.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list")
    return value


def uv_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """UV_* in the form of a uv.toml."""

    def get(name: str) -> str:
        return environ.get(name, "")

    return {
        "index-url": get("UV_DEFAULT_INDEX") or get("UV_INDEX_URL"),
        "extra-index-url": f"{get('UV_INDEX')} {get('UV_EXTRA_INDEX_URL')}".split(),
        "find-links": [place for place in get("UV_FIND_LINKS").split(",") if place],
        "allow-insecure-host": get("UV_INSECURE_HOST").split(),
        "no-index": get("UV_NO_INDEX"),
        "http-timeout": get("UV_HTTP_TIMEOUT") or get("UV_REQUEST_TIMEOUT"),
        "cache-dir": get("UV_CACHE_DIR"),
        "no-cache": get("UV_NO_CACHE"),
        "keyring-provider": get("UV_KEYRING_PROVIDER"),
    }


def uv_tables(environ: Mapping[str, str], say: Say) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each uv.toml that uv reads outside of projects, the strongest first, with its content."""
    if is_true(environ.get("UV_NO_CONFIG")):
        return
    named = environ.get("UV_CONFIG_FILE")
    site = [os.path.join(place, "uv/uv.toml") for place in site_directories(environ)]
    site = [path for path in [*site, "/etc/uv/uv.toml"] if os.path.exists(path)][:1]
    site = [] if is_true(environ.get("UV_NO_SYSTEM_CONFIG")) else site
    user = os.path.join(user_directory(environ), "uv/uv.toml")
    for path in [named] if named else [user, *site]:
        try:
            table = parse_toml(text_of(path), path, say)
        except (OSError, ValueError) as error:
            if named or not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                left_out(path, error, say)
            continue
        yield os.path.abspath(path), table


def parse_toml(text: str, path: str, say: Say) -> dict[str, Any]:
    """By the standard library (3.11 on), else by what Pex or pip carry; else not at all.

    Raises ValueError for what is no TOML.
    """
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
    say(f"uv's settings in {path} are left out: this Python reads no TOML, one from 3.11 on does")
    return {}


def uv_index(table: dict[str, Any], base: str, environ: Mapping[str, str]) -> str:
    """The URL of an index, with the name and password that UV_INDEX_NAME_... give for it."""
    if not table.get("url"):
        raise ValueError("an index needs a url")
    match = re.fullmatch(r"([A-Za-z0-9._-]+)=(.+)", table["url"])  # NAME=URL, in variables
    name, url = (match[1], match[2]) if match else (table.get("name"), table["url"])
    url = location(url, base)
    parts = urllib.parse.urlsplit(url)
    if name and parts.hostname and "@" not in parts.netloc:
        variable = f"UV_INDEX_{re.sub('[^A-Z0-9]', '_', name.upper())}_"
        login = [environ.get(variable + part, "") for part in ("USERNAME", "PASSWORD")]
        if any(login):
            quoted = ":".join(urllib.parse.quote(part, safe="") for part in login)
            url = parts._replace(netloc=f"{quoted}@{parts.netloc}").geturl()
    return url


def keyring(tool: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The variable of the way in which a tool asks for passwords."""
    provider = values.get("keyring-provider")
    known = provider in KEYRINGS[tool]
    return {f"{tool.upper()}_KEYRING_PROVIDER": str(provider)} if known else {}


def caches(tool: str, values: Mapping[str, Any], no_cache: str) -> dict[str, str]:
    """The variables of a tool's cache, which change nothing in what it installs."""
    own = {}
    if values.get("cache-dir"):
        own[f"{tool}-cache-dir"] = absolute(str(values["cache-dir"]))
    if is_true(values.get(no_cache)):
        own[f"{tool}-{no_cache}"] = "1"
    return {name.upper().replace("-", "_"): value for name, value in own.items()}


def text_of(path: str) -> str:
    """The text of a file. Raises OSError and UnicodeDecodeError."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def is_true(value: Any) -> bool:
    """Whether a setting is on, as pip and uv read it."""
    return str(value).lower() in ("1", "on", "t", "true", "y", "yes")


def seconds(value: Any) -> float:
    """A number of seconds, 0 where it is none."""
    try:
        return float(value or 0)
    except ValueError:
        return 0.0


def first_line(error: Exception) -> str:
    """What an error says first."""
    return str(error).strip().partition("\n")[0]


def unique(values: Iterable[str]) -> list[str]:
    """Those that are not empty, each once, in their order."""
    return [value for value in dict.fromkeys(values) if value]


def absolute(path: str) -> str:
    """An absolute path, "" of ""."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def is_url(place: str) -> bool:
    """Whether a place is a URL and no path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", place))


def location(place: str, base: str = "") -> str:
    """A URL as it is; a path, from `base` on, as a URL: no space in it ends it in a variable."""
    if is_url(place):
        return place
    path = os.path.abspath(os.path.join(base, os.path.expanduser(place)))
    return "file://" + urllib.parse.quote(os.fsencode(path))


def without_logins(text: str) -> str:
    """`text` with no user and password in its URLs, to be shown."""
    return re.sub(r"(?<=//)[^/\s]*@", "", text)
