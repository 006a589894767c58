"""`./pants run launch -- VARIANT --on ENGINE`: a packed bundle, sent to where it shall run."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE

from tools.bundle import yaml_text
from tools.bundle.manifest import Pythons, read_manifest
from tools.bundle.settings import Settings, job_name
from tools.bundle.topology import Topology
from tools.common.errors import ToolError
from tools.common.files import MIB, read_text
from tools.common.paths import is_url
from tools.launch import bundles, checks
from tools.launch.engines import (
    ENGINES,
    REMEDIES,
    Command,
    Engine,
    Job,
    check_place,
    slurm_number,
    tell,
)
from tools.launch.jobs import Record
from tools.launch.options import ACCELERATORS, parse, variables

DEFAULT_ACCELERATOR = "gpu"
YAML = {name for name, engine in ENGINES.items() if engine.spec.endswith(".yaml")}
KUBECTL = ("namespace", "context", "cluster", "user", "kubeconfig")  # options of all its commands
# Of an allocation in which the launcher itself runs: for the new job they would be wrong. What
# says where a user's jobs go stays.
KEPT = {f"SBATCH_{name}" for name in ("ACCOUNT", "PARTITION", "QOS", "RESERVATION", "CONSTRAINT")}
KEPT |= {"SBATCH_CLUSTERS", "SLURM_CLUSTERS", "SLURM_CONF", "SLURM_JWT"}


@dataclass(frozen=True)
class Sending:
    """A job with its bundle and the engine that it is sent to."""

    name: str  # of the engine
    engine: Engine
    job: Job
    files: dict[str, bytes]  # of the bundle that is sent
    original: Path  # the bundle that it was made from


def prepare(root: Path, variant: str, options: argparse.Namespace) -> Sending:
    """Raises ToolError for what could not run there."""
    engine = ENGINES[options.on]
    if options.data:
        check_place(options.on, "--data", options.data)
    if options.branch_from:
        check_place(options.on, "--branch-from", options.branch_from)
    if options.run_dir or not engine.shared:
        check_place(options.on, "--run-dir", options.run_dir)
    if (options.on == "ssh") != bool(options.host):
        raise ToolError("name each host with --host, for --on ssh and no other engine")
    asked = find_topology(options.topology, options.accelerator)
    accelerator = options.accelerator or (asked.accelerator if asked else DEFAULT_ACCELERATOR)
    original = bundles.find(root, variant, accelerator)
    manifest = read_manifest(original)
    topology = asked or Topology(**manifest["topology"])
    checks.check_engine(options.on, topology, options.spot, str(options.spec or ""))
    settings = settings_of(variant, topology, Pythons(**manifest["python"]), options)
    files = bundles.adapted(original, settings)
    own = tuple(text for text in options.engine_arg if not in_spec(options.on, text))
    bundle = root / "runs/bundles" / settings.name
    if bundle.exists():
        place = bundle.relative_to(root)
        raise ToolError(f"--name {settings.name}: {place}/ is an earlier job's; choose another")
    job = Job(bundle, root, settings, tuple(options.host), options.follow, own)
    return Sending(options.on, engine, job, files, original)


def settings_of(
    variant: str, topology: Topology, pythons: Pythons, options: argparse.Namespace
) -> Settings:
    """What the specs of a sending are written from. Raises ToolError."""
    job = options.name or job_name(
        variant, topology.accelerator, options.run_dir, secrets.token_hex(3)
    )
    run_dir = options.run_dir.replace("{name}", job)
    data = ("--data", options.data) if options.data else ()
    branch = ("--branch-from", options.branch_from) if options.branch_from else ()
    kept = ("--run-dir", run_dir, "--resume") if ENGINES[options.on].flags else ()
    changes = [text for text in options.engine_arg if in_spec(options.on, text)]
    if wrong := [text for text in changes if "=" not in text]:
        raise ToolError(f"--engine-arg {wrong[0]}: write KEY=VALUE")
    spec = read_text(options.spec, MIB) if options.spec else ""
    in_yaml = options.on in YAML
    template = (yaml_text.parse(spec, str(options.spec)) or {}) if in_yaml else {}
    if not isinstance(template, dict):
        raise ToolError(f"{options.spec}: write a mapping, as {ENGINES[options.on].spec} is")
    return Settings(
        variant,
        topology,
        args=(*options.flags, *data, *branch, *kept),
        run_dir=run_dir,
        image=options.image,
        pythons=pythons,
        time_limit=options.time_limit,
        max_restarts=options.max_restarts,
        cpus=options.cpus,
        job=job,
        env=variables(options.env, own_environment()),
        secrets=tuple(options.secret),
        spot=options.spot,
        changes=tuple((path, value) for path, _, value in (c.partition("=") for c in changes)),
        template=template,
        prologue="" if in_yaml else spec,
    )


def in_spec(engine: str, text: str) -> bool:
    """Whether an --engine-arg has its place in the spec; all others are the program's options."""
    return engine in YAML and (engine != "k8s" or text.partition("=")[0] not in KUBECTL)


def find_topology(text: str, accelerator: str | None) -> Topology | None:
    """What `text` names, of `accelerator` or else of the one that it fits. Raises ToolError."""
    error = None
    for each in (accelerator,) if accelerator else ACCELERATORS:
        try:
            return Topology.parse(each, text) if text else None
        except ToolError as caught:
            error = caught
    raise error or AssertionError


def check(sending: Sending, options: argparse.Namespace, plan: checks.Plan) -> None:
    """Raises ToolError for a run that would end at its start, or that does not fit."""
    settings, how = sending.job.settings, options.check
    if how == "none":
        return
    shared = sending.engine.shared and options.data and not is_url(options.data)
    if shared and not (sending.job.here / options.data).exists():
        raise ToolError(
            f"--data {options.data}: there is nothing here, and the nodes share this disk: name a "
            "token store, or send it all the same with --check none"
        )
    tell(f"checking the flags on {settings.topology} ...")
    checks.check_plan(settings.args, settings.topology, plan)
    if how == "compile" and settings.topology.accelerator != "cpu":
        checks.check_compiled(settings.args, settings.topology, plan)


def show(sending: Sending) -> None:
    """What would be sent, and how."""
    spec = f"launch/{sending.engine.spec}"
    bundle = sending.job.bundle.relative_to(sending.job.here)
    print(f"# A copy of {sending.original.relative_to(sending.job.here)}/ in {bundle}/")
    print(f"# with this {spec}:\n\n{sending.files[spec].decode()}\n# Sent by:\n")
    for command in sending.engine.commands(sending.job):
        print(command)


def send(sending: Sending) -> int:
    """Exit code: the job's where it is followed, else that of the engine's program."""
    engine, job, own = sending.engine, sending.job, own_environment()
    if not shutil.which(engine.program, path=own.get("PATH")):
        raise ToolError(f"no {engine.program} on PATH: {REMEDIES[engine.program]}")
    if absent := [name for name in job.settings.secrets if name not in own]:
        raise ToolError(f"--secret {absent[0]}: this shell has no such variable; export it")
    bundles.keep(sending.files, job.bundle, sending.original, archive=engine.archive)
    try:
        for command in engine.asks(job) if engine.asks else ():
            run(command, own)
        record = record_of(sending)
        if not engine.follow:  # the engine's program takes this one's place
            record.write(job.here)
            tell_ways(record)
        printed = start(engine.commands(job), own, become=not engine.follow)
    except ToolError:
        bundles.remove(job.bundle)
        raise
    record = replace(record, number=slurm_number(printed) if engine.shared else "")
    record.write(job.here)
    if not engine.follow or not job.follow:
        return 0
    try:
        return engine.follow(job, printed)
    except KeyboardInterrupt:
        tell("no longer followed; the job goes on")
        tell_ways(record)
        return 130


def record_of(sending: Sending) -> Record:
    """What --jobs will ask the engine by."""
    job, settings = sending.job, sending.job.settings
    options = job.flags if sending.name in ("k8s", "ray") else ()
    return Record(settings.name, sending.name, settings.variant, settings.run_dir, options=options)


def tell_ways(record: Record) -> None:
    """Says how to see, follow and stop a job."""
    for how, way in record.ways.items():
        tell(f"{how} it: {way}")


def start(commands: Sequence[Command], own: Mapping[str, str], become: bool) -> str:
    """What the last command printed; with `become`, that takes this process's place.

    Raises:
        ToolError: one failed. What those before it did is undone.
    """
    printed = ""
    for number, command in enumerate(commands):
        if become:  # its signals and its exit code are the job's
            os.chdir(command.cwd)
            if command.form:
                feed(command.input(own))
            os.execvpe(command.words[0], command.words, {**own, **command.env})
        try:
            printed = run(command, own)
        except ToolError:
            for done in reversed(commands[:number]):
                if done.undo:
                    subprocess.run(done.undo, env=dict(own), stdout=PIPE, check=False)
            raise
        print(printed, end="", flush=True)
    return printed


def run(command: Command, own: Mapping[str, str]) -> str:
    """What it printed. Raises ToolError with its own words where it failed."""
    done = subprocess.run(
        command.words,
        cwd=command.cwd,
        env={**own, **command.env},
        input=command.input(own),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise ToolError(f"it was not sent: {said or done.returncode}: {shlex.join(command.words)}")
    return done.stdout


def feed(text: str) -> None:
    """Makes `text` the input of this process, through memory and no file."""
    file = os.memfd_create("input")
    os.write(file, text.encode())
    os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)


def own_environment() -> dict[str, str]:
    """The user's: Slurm takes it along, and there `python3` must not be the launcher's own."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or not name.startswith(("SLURM_", "SBATCH_"))
    }
    if env.pop("PEX", "") and (venv := env.pop("VIRTUAL_ENV", "")):  # set by ./pants run
        path = env.get("PATH", "").split(os.pathsep)
        env["PATH"] = os.pathsep.join(each for each in path if each != f"{venv}/bin")
    return env


def main(variant: str, arguments: Sequence[str], plan: checks.Plan) -> int:
    """Exit codes: 0 sent, or done; 1 not sent, in one line; 130 no longer followed; the job's."""
    try:
        options = parse(variant, arguments, Path.cwd())
        sending = prepare(Path.cwd(), variant, options)
        if not options.data:
            tell("no --data: the job tries out the small sample in the bundle")
        check(sending, options, plan)
        if options.dry_run:
            show(sending)
            return 0
        return send(sending)
    except ToolError as error:
        tell(str(error))
        return 1
    except KeyboardInterrupt:
        tell("interrupted before the job was sent")
        return 130
