"""Hosts on loopback, each an sshd with keys, a home and an environment of its own."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.cluster import free_port

ADDRESSES = ("127.0.0.1", "127.0.0.2")
# Nothing of /etc/ssh is read. Without PAM and checks of modes it needs no rights but its user's.
SERVER = """
Port {port}
ListenAddress {address}
HostKey {dir}/host_key
AuthorizedKeysFile {dir}/user_key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
ForceCommand {dir}/{address}.login
"""
CLIENT = """
Host *
  Port {port}
  User {user}
  BatchMode yes
  ConnectTimeout 10
  IdentitiesOnly yes
  IdentityFile {dir}/user_key
  UserKnownHostsFile {dir}/known_hosts
  GlobalKnownHostsFile /dev/null
"""
# A home that is not the user's; `profile` is what a test wants to be wrong with this host.
LOGIN = """#!/bin/bash
cd {home} || exit 1
{variables}
[ -e profile ] && . ./profile
exec bash -c "$SSH_ORIGINAL_COMMAND"
"""


@dataclass(frozen=True)
class Hosts:
    ssh: str  # the command that reaches them
    homes: dict[str, Path]  # by address


def sshd() -> str:
    """The server's path; skips, or where it is required fails, without one."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH')}:/usr/sbin:/usr/local/sbin")
    if found and shutil.which("ssh"):
        return found
    said = "no sshd to test with: install openssh-server and openssh-client"
    if os.environ.get("GRUG_REQUIRE_SSH"):
        pytest.fail(said)
    pytest.skip(said)


@contextmanager
def hosts(directory: Path, variables: dict[str, str]) -> Generator[Hosts]:
    """Two hosts until the block ends."""
    server = sshd()
    if os.geteuid() == 0:  # what else the system's own start of sshd would make
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "user_key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(keygen, check=True)
    words = {"dir": directory, "port": free_port(), "user": getpass.getuser()}
    key = (directory / "host_key.pub").read_text()
    known = "".join(f"[{address}]:{words['port']} {key}" for address in ADDRESSES)
    (directory / "known_hosts").write_text(known)
    (directory / "client").write_text(CLIENT.format_map(words))
    exports = "\n".join(f"export {n}={shlex.quote(v)}" for n, v in variables.items())
    homes = {}
    with ExitStack() as running:
        for address in ADDRESSES:
            homes[address] = directory / f"home-{address}"
            homes[address].mkdir()
            login = directory / f"{address}.login"
            login.write_text(LOGIN.format(home=homes[address], variables=exports))
            login.chmod(0o755)
            config = directory / f"{address}.server"
            config.write_text(SERVER.format_map({**words, "address": address}))
            log = directory / f"{address}.log"
            process = subprocess.Popen([server, "-D", "-f", str(config), "-E", str(log)])
            running.callback(process.wait)
            running.callback(process.terminate)
        ssh = f"ssh -F {directory / 'client'}"
        for address in ADDRESSES:
            wait_for(f"{ssh} {address} true", directory / f"{address}.log")
        yield Hosts(ssh, homes)


def wait_for(command: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while (done := subprocess.run(command.split(), capture_output=True, text=True)).returncode:
        if time.monotonic() > deadline:
            server = log.read_text() if log.exists() else ""
            pytest.fail(f"{command}: {done.stderr}\n{server}")
        time.sleep(0.1)
