"""What pip and uv are told of this machine: the environment in which they run.

Of the variables of pip, uv and Python it holds those that name mirrors, certificates, proxies and
keyrings, and no others. Standard library only, for any Python from 3.7 on.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from pathlib import Path
from typing import Mapping

from tools.start.machine import CERTIFICATES, PROXIES, Machine
from tools.start.settings import Say, unique

ANSWER = 15.0  # seconds for a place to answer, where there are others
READ = 30.0  # seconds for the next bytes; the machine's settings may say more
RETRIES = 2
FOREIGN = ("PIP_", "_PIP_", "UV_", "PYTHON")
# The certificates of Debian, Fedora, SUSE and Alpine, where OpenSSL itself names none.
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
CERTIFICATE = rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----"


def environment(machine: Machine, base: Mapping[str, str]) -> dict[str, str]:
    """`base` for a program that fetches, without what would change what is installed.

    It says nothing of where packages are: see `sources`.
    """
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith(FOREIGN)
        and name.lower() not in PROXIES
        and name not in (*CERTIFICATES, "SSL_CLIENT_CERT")
    }
    kept.update(PIP_CONFIG_FILE=os.devnull, UV_NO_CONFIG="1", PYTHONNOUSERSITE="1")
    kept.update(machine.keyring)
    for name, value in machine.proxies:
        kept[name] = kept[name.upper()] = value
    if machine.certificate:
        # Each program reads another of these.
        kept.update({name: machine.certificate for name in CERTIFICATES[:-1]})
        kept["PIP_CERT"] = machine.certificate
    elif sys.platform == "darwin":
        kept["UV_SYSTEM_CERTS"] = kept["UV_NATIVE_TLS"] = "1"  # the keychain's
    else:
        kept.update(zip(["SSL_CERT_FILE"], system_certificates()))  # pip has its own
    if machine.client_certificate:
        kept["SSL_CLIENT_CERT"] = kept["PIP_CLIENT_CERT"] = machine.client_certificate
    return kept


def sources(machine: Machine) -> dict[str, str]:
    """The variables by which pip and uv know where packages are, and how long to wait for them.

    What is installed is pinned by digest, so any place that has the file serves.
    """
    wait = f"{max(READ, machine.timeout):.0f}"
    told = {
        "PIP_DEFAULT_TIMEOUT": wait,
        "PIP_RETRIES": str(RETRIES),
        "UV_HTTP_CONNECT_TIMEOUT": f"{ANSWER:.0f}",
        "UV_HTTP_RETRIES": str(RETRIES),
        "UV_HTTP_TIMEOUT": wait,
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    if machine.indexes:
        told["PIP_INDEX_URL"] = told["UV_DEFAULT_INDEX"] = machine.indexes[0]
    else:
        told["PIP_NO_INDEX"] = "1"
    for pip_name, uv_name, values, between in (
        ("PIP_EXTRA_INDEX_URL", "UV_INDEX", machine.indexes[1:], " "),
        ("PIP_FIND_LINKS", "UV_FIND_LINKS", machine.find_links, ","),
        ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST", machine.trusted_hosts, " "),
    ):
        if values:
            told[pip_name] = " ".join(values)
            told[uv_name] = between.join(value.replace(",", "%2C") for value in values)
    return told


def uv_flags(machine: Machine) -> list[str]:
    """What only some releases of uv read from a variable."""
    return [] if machine.indexes else ["--no-index"]


def with_certificate(machine: Machine, path: Path, say: Say) -> Machine:
    """`machine` with all certificates that it and the system trust in one file, at `path`.

    Where it names none nothing is written: installers know the system's by themselves. `say` is
    told of each place that cannot be read. Raises OSError where `path` cannot be written.
    """
    if not machine.certificates:
        return machine
    blocks: dict[bytes, None] = {}  # a set that keeps the order
    for place in unique([*machine.certificates, *system_certificates()]):
        try:
            blocks.update(dict.fromkeys(certificates_in(place)))
        except OSError as error:
            say(f"certificates in {place} are left out: {error.strerror}")
    if not blocks:
        return machine
    data = b"\n".join([*blocks, b""])
    if not path.exists() or path.read_bytes() != data:
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_bytes(data)
        os.replace(partial, path)
    return machine._replace(certificate=str(path))


def system_certificates() -> list[str]:
    """The file of certificates that this system's programs trust, where there is one."""
    places = [ssl.get_default_verify_paths().openssl_cafile, *SYSTEM_CERTIFICATES]
    return [place for place in places if place and os.path.isfile(place)][:1]


def certificates_in(place: str) -> list[bytes]:
    """All in a file, or in the files of a directory. Raises OSError."""
    if not os.path.isdir(place):
        return re.findall(CERTIFICATE, Path(place).read_bytes())
    paths = [os.path.join(place, name) for name in sorted(os.listdir(place))]
    return [block for path in paths if os.path.isfile(path) for block in certificates_in(path)]
