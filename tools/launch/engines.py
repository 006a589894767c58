"""The commands by which each engine runs a bundle, and functions that follow its job to the end."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tools.bundle.settings import Settings
from tools.bundle.yaml_text import yaml_text
from tools.common.errors import ToolError

REMEDIES = {
    "sbatch": "run this where Slurm's programs are, as on a login node",
    "kubectl": "install it, and name a cluster with JobSet: https://kubernetes.io/docs/tasks/tools/",
    "sky": "pip install skypilot, with the clouds that you use",
    "ray": "pip install 'ray[default]', of the cluster's version",
    "ssh": "install your system's package openssh-client",
}
URL = re.compile(r"(gs|s3)://.+")
PAUSE = 2.0  # seconds between two queries to an engine


@dataclass(frozen=True)
class Job:
    """A run to send. `bundle` is the directory where it will be, `here` the workspace.

    `options`: what a person told the engine's own program, KEY=VALUE or KEY each.
    """

    bundle: Path
    here: Path
    settings: Settings
    hosts: tuple[str, ...] = ()
    follow: bool = True
    options: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """The options as GNU's long ones."""
        return tuple(f"--{option}" for option in self.options)


@dataclass(frozen=True)
class Command:
    """A program to start: its words, its directory, and additions to its environment.

    `undo` takes back what it did if a later command fails. `secrets` are variables whose values it
    reads from its input, where nobody else sees them, as `form` writes them.
    """

    words: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    undo: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    form: Callable[[Mapping[str, str]], str] | None = None

    def __str__(self) -> str:
        """The command as a line to paste into a shell, with what it reads above."""
        names = "".join(f"{name}={shlex.quote(value)} " for name, value in self.env.items())
        line = f"cd {shlex.quote(str(self.cwd))} && {names}{shlex.join(self.words)}"
        if not self.form:
            return line
        shown = self.form({name: f"${name}" for name in self.secrets})
        head = "".join(f"#   {each}\n" for each in shown.splitlines())
        return f"# The next command reads, with these variables' values:\n{head}{line}"

    def input(self, environment: Mapping[str, str]) -> str:
        """What the program reads from its input."""
        values = {name: environment[name] for name in self.secrets}
        return self.form(values) if self.form else ""


@dataclass(frozen=True)
class Engine:
    """A cluster manager, or ssh.

    `spec` is its file in a bundle's launch/. `shared`: its nodes see this machine's disk. `flags`:
    the spec leaves --run-dir and --resume to the program's flags. `archive`: it takes the bundle's
    .tar.gz. `asks` are commands that fail where the engine would refuse the job. `follow` takes the
    job and the output of the last command, and returns the job's exit code; the commands of an
    engine without it follow the job themselves.
    """

    program: str
    spec: str
    commands: Callable[[Job], list[Command]]
    shared: bool = False
    flags: bool = False
    archive: bool = False
    asks: Callable[[Job], list[Command]] | None = None
    follow: Callable[[Job, str], int] | None = None


def check_place(engine: str, flag: str, place: str) -> None:
    """Raises ToolError unless all of a job's nodes can reach `place`, the value of `flag`."""
    if URL.fullmatch(place) or (ENGINES[engine].shared and "://" not in place):
        return
    url = f"{flag} {place or 'is missing'}: name a URL, gs://BUCKET/PATH or s3://BUCKET/PATH"
    if engine in ("k8s", "sky"):
        raise ToolError(f"{url}; a disk goes with its machine")
    if not place.startswith("/"):
        raise ToolError(f"{url}, or an absolute path that is the same storage on every host")


def slurm(job: Job) -> list[Command]:
    """The command that sends the job to Slurm.

    The job writes its log, and by default its run, below the directory in which it is started.
    """
    return [_sbatch(job, "--parsable")]


def ask_slurm(job: Job) -> list[Command]:
    """Whether there are such a partition, account, GPUs and so on for this user."""
    return [_sbatch(job, "--test-only")]


def _sbatch(job: Job, how: str) -> Command:
    script = str(job.bundle / "launch/job.sbatch")
    words = ("sbatch", how, "--output=runs/%x-%j.log", *job.flags, script)
    env = {"BUNDLE": str(job.bundle), "RUN_DIR": job.settings.run_dir}  # else the user's own
    return Command(words, job.here, env)


def k8s(job: Job) -> list[Command]:
    """The commands that send the job to Kubernetes, as a JobSet."""
    name, packed = job.settings.name, f"../{job.bundle.name}.tar.gz"
    kubectl = ("kubectl", *job.flags)
    create = (*kubectl, "create", "configmap", name, f"--from-file=bundle.tar.gz={packed}")
    made = [Command(create, job.bundle, undo=(*kubectl, "delete", "configmap", name))]
    if job.settings.secrets:
        create, undo = (*kubectl, "create", "-f", "-"), (*kubectl, "delete", "secret", name)
        given = job.settings.secrets, partial(_kubernetes_secret, name)
        made.append(Command(create, job.bundle, {}, undo, *given))
    return [*made, Command((*kubectl, "create", "-f", "launch/jobset.yaml"), job.bundle)]


def _kubernetes_secret(name: str, values: Mapping[str, str]) -> str:
    kind = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    return yaml_text({**kind, "stringData": dict(values)})


def ask_k8s(job: Job) -> list[Command]:
    """Whether the cluster has JobSets, and would take this one into the namespace."""
    dry = ("create", "--dry-run=server", "--output=name", "-f", "launch/jobset.yaml")
    return [Command(("kubectl", *job.flags, *dry), job.bundle)]


def sky(job: Job) -> list[Command]:
    """The command that sends the job to SkyPilot."""
    detach = () if job.follow else ("--detach-run",)
    secrets = tuple(word for name in job.settings.secrets for word in ("--secret", name))
    words = ("sky", "jobs", "launch", "--yes", *detach, *secrets, "launch/sky.yaml")
    return [Command(words, job.bundle)]


def ray(job: Job) -> list[Command]:
    """The command that sends the job to a Ray cluster."""
    wait = () if job.follow else ("--no-wait",)
    secrets, form = job.settings.secrets, None
    if secrets:
        wait = (*wait, "--runtime-env=/dev/stdin")
        form = _ray_environment
    words = ("ray", "job", "submit", *wait, f"--submission-id={job.settings.name}", *job.flags)
    program = ("--", "python", "launch/ray_driver.py")
    words = (*words, "--working-dir", ".", *program)
    return [Command(words, job.bundle, secrets=secrets, form=form)]


def _ray_environment(values: Mapping[str, str]) -> str:
    return yaml_text({"env_vars": dict(values)})


def ssh(job: Job) -> list[Command]:
    """The command that starts the job on each host over ssh."""
    options = " ".join(f"-o {option}" for option in job.options)
    env = {"SSH": f"ssh -o BatchMode=yes {options}"} if options else {}
    return [Command(("launch/ssh.sh", *job.hosts), job.bundle, env)]


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


def slurm_number(printed: str) -> str:
    """The job's number in what `sbatch --parsable` prints: NUMBER, or NUMBER;CLUSTER."""
    return printed.strip().partition(";")[0]


def follow_slurm(job: Job, printed: str) -> int:
    """Shows the log as it grows, and each change of the job's state, across requeues too."""
    number = slurm_number(printed)
    log = job.here / f"runs/{job.settings.name}-{number}.log"
    tell(f"job {number}, log {log.relative_to(job.here)}; it goes on without this command")
    shown, position = "", 0
    while True:
        answer = run("scontrol", "show", "job", "--oneliner", number)
        position = _show(log, position)
        facts = dict(word.partition("=")[::2] for word in answer.stdout.split())
        if "Invalid job id" in answer.stderr:
            raise ToolError(f"Slurm has forgotten job {number}; its log is {log}")
        state = facts.get("JobState", shown)
        attempt = f", attempt {facts['Restarts']}" if facts.get("Restarts", "0") != "0" else ""
        reason = f" ({facts['Reason']})" if facts.get("Reason", "None") != "None" else ""
        if f"{state}{reason}{attempt}" != shown:
            shown = f"{state}{reason}{attempt}"
            tell(f"job {number} is {shown}")
        if state in SLURM_ENDS:
            code, _, signal = facts["ExitCode"].partition(":")
            by_signal = 128 + int(signal) if int(signal) else 0
            return int(code) or by_signal or int(state != "COMPLETED")
        time.sleep(PAUSE)


def _show(log: Path, start: int) -> int:
    """Prints the log from byte `start` on; returns the byte after the last."""
    if not log.exists():
        return start
    with log.open("rb") as file:
        file.seek(start)
        sys.stdout.buffer.write(file.read())
        sys.stdout.buffer.flush()
        return file.tell()


def follow_k8s(job: Job, printed: str) -> int:
    """Shows the pods' logs, and those of the pods that replace them after a restart."""
    name, kubectl = job.settings.name, ("kubectl", *job.flags)
    tell(f"JobSet {name} goes on without this command")
    ended = '{.status.conditions[?(@.status=="True")].type}'
    pods = f"--selector=jobset.sigs.k8s.io/jobset-name={name}"
    max_requests = f"--max-log-requests={job.settings.topology.nodes}"
    since, complaint = "1970-01-01T00:00:00Z", ""
    while True:
        answer = run(*kubectl, "get", "jobset", name, f"--output=jsonpath={ended}")
        if "NotFound" in answer.stderr:
            raise ToolError(f"JobSet {name} was deleted")
        conditions = answer.stdout.split()
        if {"Completed", "Failed"} & set(conditions):
            return int("Completed" not in conditions)
        logs = (
            *kubectl,
            "logs",
            "--follow",
            "--prefix",
            pods,
            max_requests,
            f"--since-time={since}",
        )
        process = subprocess.run(logs, stderr=subprocess.PIPE, text=True)
        if process.returncode == 0:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        elif complaint != (complaint := process.stderr.strip()):
            tell(f"no log yet: {complaint}")  # usually because no container runs yet
        time.sleep(PAUSE)


ENGINES = {
    "slurm": Engine(
        "sbatch", "job.sbatch", slurm, shared=True, asks=ask_slurm, follow=follow_slurm
    ),
    "k8s": Engine("kubectl", "jobset.yaml", k8s, archive=True, asks=ask_k8s, follow=follow_k8s),
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
