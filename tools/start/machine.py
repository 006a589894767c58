"""What this machine says of package indexes, certificates and proxies, read once, from one place.

pip's configuration at every level, uv's, and the environment are asked for the few settings without
which nothing can be fetched here, and put together; all else in them (constraints, targets,
prefixes, ...) would change what is installed, and is left out. Standard library only, for any
Python from 3.7 on: it runs before anything is installed, here and on a bundle's worker.
"""

from __future__ import annotations

import json
import os
from typing import Any, Mapping, NamedTuple, Tuple

from tools.start.settings import Say, Settings, absolute, pip_settings, unique, uv_settings

PYPI = "https://pypi.org/simple"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# Where programs that are neither pip nor uv are told of certificates, most specific first.
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
# What makes a Python, or a program in it, other than it was installed.
MISLEADING = (
    *("PYTHONCASEOK", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONINSPECT", "PYTHONOPTIMIZE"),
    *("PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONWARNINGS"),
)
Pairs = Tuple[Tuple[str, str], ...]


class Machine(NamedTuple):
    """How packages are fetched here: URLs of indexes and links, absolute paths of certificates.

    What was not given is "".
    """

    index: str = ""
    extra_indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    spare: str = ""  # the index to ask where `index` is silent
    certificates: tuple[str, ...] = ()  # files and directories, besides the system's own
    certificate: str = ""  # one file of them all: installers.with_certificate
    client_certificate: str = ""
    trusted_hosts: tuple[str, ...] = ()
    proxies: Pairs = ()  # (variable in lower case, value)
    timeout: float = 0.0  # seconds for the next bytes of an answer
    keyring: Pairs = ()  # (variable of pip or uv, value)
    caches: Pairs = ()  # likewise

    @property
    def indexes(self) -> tuple[str, ...]:
        """The main index, then the extra ones: of none of them only under no-index."""
        return () if self.no_index else (self.index or PYPI, *self.extra_indexes)

    def dumps(self) -> str:
        """The text that `loads` reads."""
        return json.dumps(self._asdict(), indent=1, sort_keys=True) + "\n"

    @classmethod
    def loads(cls, text: str) -> Machine:
        """What `dumps` wrote."""
        told: dict[str, Any] = json.loads(text)
        for name, value in told.items():
            if isinstance(value, list):
                pairs = [tuple(entry) if isinstance(entry, list) else entry for entry in value]
                told[name] = tuple(pairs)
        return cls(**told)


def read(environ: Mapping[str, str], say: Say, prefix: str | None = None) -> Machine:
    """All that pip's and uv's settings and the environment say, pip's before uv's.

    An index that the environment names comes before one that a file names. `prefix` is the
    environment of which pip.conf counts, by default the active one; `say` is told of each file that
    cannot be read.
    """
    active = environ.get("VIRTUAL_ENV", "") if prefix is None else prefix
    pip, uv = pip_settings(environ, active, say), uv_settings(environ, say)
    both = sorted((pip, uv), key=lambda told: not told.near)
    forbidden = any(told.forbidden for told in both)
    no_index = forbidden or any(told.no_index for told in both)
    willing = [told for told in both if not forbidden and not told.no_index]
    named = unique(told.index for told in willing)
    first = named or ([] if no_index else [""])
    indexes = [*first, *unique(url for told in willing for url in told.extra)]
    indexes = list(dict.fromkeys(indexes))
    # An index for uv alone leaves pip with its own, PyPI: asked where the other is silent.
    spare = bool(named) and not pip.index and not no_index and PYPI not in indexes
    variables = [environ.get(name, "") for name in CERTIFICATES[:-1]]
    directories = environ.get(CERTIFICATES[-1], "").split(os.pathsep)
    certificates = unique([pip.certificate, *map(absolute, [*variables, *directories])])
    return Machine(
        index=indexes[0] if indexes else "",
        extra_indexes=tuple(indexes[1:]),
        find_links=tuple(unique(url for told in both for url in told.links)),
        no_index=not indexes,
        spare=PYPI if spare else "",
        certificates=tuple(certificates),
        client_certificate=pip.client or absolute(environ.get("SSL_CLIENT_CERT", "")),
        trusted_hosts=tuple(unique(host for told in both for host in told.hosts)),
        proxies=proxies(environ, pip, uv),
        timeout=max(pip.timeout, uv.timeout),
        keyring=(*pip.keyring.items(), *uv.keyring.items()),
        caches=(*pip.caches.items(), *uv.caches.items()),
    )


def proxies(environ: Mapping[str, str], pip: Settings, uv: Settings) -> Pairs:
    """The environment's; pip's setting is meant for this and outranks them; uv's files do not."""
    told = {name: environ.get(name) or environ.get(name.upper(), "") for name in PROXIES}
    named = any(told[name] for name in PROXIES[:-1])
    if pip.proxies:
        told.update(dict.fromkeys(PROXIES[:-1], ""))
    for name, proxy in (pip.proxies or ({} if named else uv.proxies)).items():
        told[f"{name}_proxy"] = proxy if name == "no" or "://" in proxy else f"http://{proxy}"
    return tuple((name, value) for name, value in told.items() if value)
