"""What each engine is told to run a bundle, and how its job is followed to the end."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.bundle.specs import Settings
from tools.common.errors import ToolError

REMEDIES = {
    "sbatch": "run this where Slurm's programs are, as on a login node",
    "kubectl": "install it, and name a cluster with JobSet: https://kubernetes.io/docs/tasks/tools/",
    "sky": "pip install skypilot, with the clouds that you use",
    "ray": "pip install 'ray[default]', of the cluster's version",
    "ssh": "install your system's package openssh-client",
}
URL = re.compile(r"(gs|s3)://.+")
PAUSE = 2.0  # seconds between two questions to an engine


@dataclass(frozen=True)
class Job:
    """A run to be sent. `bundle` is where it will lie, `here` the workspace."""

    bundle: Path
    here: Path
    settings: Settings
    hosts: tuple[str, ...] = ()
    follow: bool = True


@dataclass(frozen=True)
class Command:
    """A program to start: its words, its directory and what its environment adds."""

    words: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """For a shell, to be pasted."""
        names = "".join(f"{name}={shlex.quote(value)} " for name, value in self.env.items())
        return f"cd {shlex.quote(str(self.cwd))} && {names}{shlex.join(self.words)}"


@dataclass(frozen=True)
class Engine:
    """`spec` is the file of launch/ that says what is wanted; `shared`: nodes see this disk.

    `flags`: the spec leaves --run-dir and --resume to the flags of the program. `follow` is given
    the job and what the last command printed, and returns the job's exit code; an engine without
    it follows by itself.
    """

    program: str
    spec: str
    commands: Callable[[Job], list[Command]]
    shared: bool = False
    flags: bool = False
    follow: Callable[[Job, str], int] | None = None


def check_place(engine: str, flag: str, place: str) -> None:
    """Whether all of a job's nodes can reach `place`. Raises ToolError."""
    if URL.fullmatch(place) or (ENGINES[engine].shared and "://" not in place):
        return
    url = f"{flag} {place or 'is missing'}: name a URL, gs://BUCKET/PATH or s3://BUCKET/PATH"
    if engine in ("k8s", "sky"):
        raise ToolError(f"{url}; a disk goes with its machine")
    if not place.startswith("/"):
        raise ToolError(f"{url}, or an absolute path that is the same storage on every host")


def slurm(job: Job) -> list[Command]:
    """Where it is started, a job writes its log and, if no other --run-dir is named, its run."""
    words = (
        "sbatch",
        "--parsable",
        "--output=runs/%x-%j.log",
        str(job.bundle / "launch/job.sbatch"),
    )
    env = {"BUNDLE": str(job.bundle), "RUN_DIR": job.settings.run_dir}  # else the user's own
    return [Command(words, job.here, env)]


def k8s(job: Job) -> list[Command]:
    """The commands that send the job to Kubernetes, as a JobSet."""
    name, packed = job.settings.name, f"../{job.bundle.name}.tar.gz"
    create = ("kubectl", "create", "configmap", name, f"--from-file=bundle.tar.gz={packed}")
    apply = ("kubectl", "apply", "-f", "launch/jobset.yaml")
    return [Command(create, job.bundle), Command(apply, job.bundle)]


def sky(job: Job) -> list[Command]:
    """The command that sends the job to SkyPilot."""
    detach = () if job.follow else ("--detach-run",)
    words = ("sky", "jobs", "launch", "--yes", *detach, "launch/sky.yaml")
    return [Command(words, job.bundle)]


def ray(job: Job) -> list[Command]:
    """The command that sends the job to a Ray cluster."""
    wait = () if job.follow else ("--no-wait",)
    program = ("--", "python", "launch/ray_driver.py")
    return [Command(("ray", "job", "submit", *wait, "--working-dir", ".", *program), job.bundle)]


def ssh(job: Job) -> list[Command]:
    """The command that starts the job on each host over ssh."""
    return [Command(("launch/ssh.sh", *job.hosts), job.bundle)]


SLURM_ENDS = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


def follow_slurm(job: Job, printed: str) -> int:
    """Shows the log as it grows and each change of the job's state, over requeues too."""
    number = printed.strip().partition(";")[0]
    log = job.here / f"runs/{job.settings.name}-{number}.log"
    tell(f"job {number}, log {log.relative_to(job.here)}; it goes on without this command")
    told, at = "", 0
    while True:
        asked = run("scontrol", "show", "job", "--oneliner", number)
        at = _show(log, at)
        facts = dict(word.partition("=")[::2] for word in asked.stdout.split())
        if "Invalid job id" in asked.stderr:
            raise ToolError(f"Slurm has forgotten job {number}; its log is {log}")
        state = facts.get("JobState", told)
        attempt = f", attempt {facts['Restarts']}" if facts.get("Restarts", "0") != "0" else ""
        reason = f" ({facts['Reason']})" if facts.get("Reason", "None") != "None" else ""
        if f"{state}{reason}{attempt}" != told:
            told = f"{state}{reason}{attempt}"
            tell(f"job {number} is {told}")
        if state in SLURM_ENDS:
            code, _, signal = facts["ExitCode"].partition(":")
            by_signal = 128 + int(signal) if int(signal) else 0
            return int(code) or by_signal or int(state != "COMPLETED")
        time.sleep(PAUSE)


def _show(log: Path, at: int) -> int:
    """Prints what follows byte `at`; returns where it ends."""
    if not log.exists():
        return at
    with log.open("rb") as file:
        file.seek(at)
        sys.stdout.buffer.write(file.read())
        sys.stdout.buffer.flush()
        return file.tell()


def follow_k8s(job: Job, printed: str) -> int:
    """Shows the pods' logs, and those of the pods that come after a restart."""
    name = job.settings.name
    tell(f"JobSet {name} goes on without this command; kubectl delete jobset,configmap {name}")
    ended = '{.status.conditions[?(@.status=="True")].type}'
    pods = f"--selector=jobset.sigs.k8s.io/jobset-name={name}"
    most = f"--max-log-requests={job.settings.topology.nodes}"
    since, said = "1970-01-01T00:00:00Z", ""
    while True:
        asked = run("kubectl", "get", "jobset", name, f"--output=jsonpath={ended}")
        if "NotFound" in asked.stderr:
            raise ToolError(f"JobSet {name} was deleted")
        conditions = asked.stdout.split()
        if {"Completed", "Failed"} & set(conditions):
            return int("Completed" not in conditions)
        logs = ("kubectl", "logs", "--follow", "--prefix", pods, most, f"--since-time={since}")
        showed = subprocess.run(logs, stderr=subprocess.PIPE, text=True)
        if showed.returncode == 0:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        elif said != (said := showed.stderr.strip()):
            tell(f"no log yet: {said}")  # mostly that no container runs
        time.sleep(PAUSE)


ENGINES = {
    "slurm": Engine("sbatch", "job.sbatch", slurm, shared=True, follow=follow_slurm),
    "k8s": Engine("kubectl", "jobset.yaml", k8s, follow=follow_k8s),
    "sky": Engine("sky", "sky.yaml", sky),
    "ray": Engine("ray", "ray_driver.py", ray, flags=True),
    "ssh": Engine("ssh", "ssh.sh", ssh, flags=True),
}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of an engine and captures what it prints."""
    return subprocess.run(words, capture_output=True, text=True)


def tell(text: str) -> None:
    """Prints a line of the launcher's own."""
    print(f"launch: {text}", file=sys.stderr, flush=True)
