"""A real Slurm on this machine: a controller and two nodes, in a directory of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

NODES = ("127.0.0.1", "127.0.0.2")  # JAX must be able to look up a node's name
CPUS = 4  # of a node, whatever this machine has: a job of the tests takes whole nodes
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "sinfo")
SBIN = "/usr/sbin:/usr/local/sbin"

# cred_expire: a requeued job waits for as long (120 s by default).
# PreemptMode and PriorityTier: a job in `urgent` takes the nodes of one in `spot`, which has
# GraceTime seconds after SIGTERM.
CONFIG = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
JobCompType=jobcomp/filetxt
JobCompLoc={home}/ended
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
"""
NODE = "NodeName={at} NodeHostname=localhost NodeAddr={at} Port={port} CPUs={cpus}"
PARTITIONS = """
PartitionName=spot Nodes=ALL Default=YES PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF State=UP
"""


def missing() -> list[str]:
    """The programs of Slurm that are not installed here."""
    return [name for name in PROGRAMS if not shutil.which(name, path=_path())]


def _path() -> str:
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{SBIN}"


class Slurm:
    """`with Slurm(directory) as slurm`: up when entered, gone when left, running jobs too."""

    def __init__(self, home: Path):
        self.home, self.daemons = home, []
        self.env = {"PATH": _path(), "SLURM_CONF": str(home / "slurm.conf")}

    def __enter__(self) -> Slurm:
        home, (controller, *ports) = self.home, _free_ports(1 + len(NODES))
        each = zip(NODES, ports, strict=True)
        nodes = "\n".join(NODE.format(at=at, port=port, cpus=CPUS) for at, port in each)
        config = CONFIG.format(home=home, user=getpass.getuser(), controller=controller)
        (home / "slurm.conf").write_text(config + nodes + PARTITIONS)
        (home / "state").mkdir()
        (home / "munge.key").touch(mode=0o600)
        (home / "munge.key").write_bytes(os.urandom(128))
        files = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        munge = [f"--{name}={home}/munge.{name.removesuffix('-file')}" for name in files]
        try:
            self._start("munged", "--foreground", "--force", *munge)
            wait_for("munged", (home / "munge.socket").exists, 10)
            self._start("slurmctld", "-D")
            for at in NODES:
                self._start("slurmd", "-D", "-N", at)
            wait_for("idle nodes", lambda: set(self.tell("sinfo", "-h", "-o%t")) == {"idle"}, 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.cancel_all()  # the processes of jobs outlive the daemons
        finally:
            for daemon in self.daemons:
                daemon.terminate()
            for daemon in self.daemons:
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def _start(self, name: str, *options: str) -> None:
        with (self.home / f"{name}{len(self.daemons)}.out").open("wb") as out:
            self.daemons.append(
                subprocess.Popen(
                    [name, *options], env={**os.environ, **self.env}, stdout=out, stderr=out
                )
            )

    def cancel_all(self) -> None:
        for job in self.tell("squeue", "-h", "-o%i"):
            self.run("scancel", job)
        wait_for("the end of all jobs", lambda: not self.tell("squeue", "-h", "-o%i"), 60)

    def run(self, *command: str, **options) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **self.env}
        return subprocess.run(command, env=env, capture_output=True, text=True, **options)

    def tell(self, *command: str) -> list[str]:
        """The words that a command prints; none where it fails."""
        return self.run(*command).stdout.split()

    def show(self, job: str) -> dict[str, str]:
        """`scontrol show job`: JobState, ExitCode, Restarts, ..."""
        words = self.tell("scontrol", "show", "job", "--oneliner", job)
        return dict(word.partition("=")[::2] for word in words)


def wait_for(what: str, found: Callable[[], bool], within: float) -> None:
    deadline = time.monotonic() + within
    while not found():
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    """Held all at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
