"""`./pants run launch -- VARIANT --on ENGINE`: a packed bundle, sent to where it shall run."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

from tools.bundle.manifest import read_manifest
from tools.bundle.specs import Settings
from tools.bundle.topology import FORMS, Topology
from tools.common.errors import ToolError
from tools.common.paths import location
from tools.launch import bundles
from tools.launch.engines import ENGINES, REMEDIES, Engine, Job, check_place, tell

ACCELERATORS = ("cpu", "gpu", "tpu")
DEFAULT_ACCELERATOR = "gpu"


def parse(variant: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The launcher's options; all others are the program's, in `flags`. argparse ends the process
    on --help and on bad values."""
    parser = argparse.ArgumentParser(
        prog=f"./pants run launch -- {variant}",
        usage="%(prog)s --on ENGINE [OPTIONS] [FLAGS OF THE VARIANT]",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=100),
    )
    add = parser.add_argument
    add("--on", choices=sorted(ENGINES), required=True, help="engine that runs the job")
    add(
        "--accelerator",
        choices=ACCELERATORS,
        help="accelerator of the bundle (default: the topology's, or gpu)",
    )
    add("--topology", default="", help=f"{FORMS} (default: the bundle's)")
    add("--data", type=location, help="token store (default: the sample in the bundle)")
    add(
        "--run-dir",
        type=location,
        help="directory or URL of the run (Slurm's default: runs/NAME-JOB)",
    )
    add("--branch-from", type=location, metavar="RUN@STEP", help="checkpoint to begin with")
    add(
        "--host",
        action="append",
        default=[],
        help="host to start on over ssh; repeat for each host",
    )
    add("--time-limit", default=Settings.time_limit, help="time limit of a Slurm job (%(default)s)")
    add(
        "--cpus",
        type=int,
        default=Settings.cpus,
        help="CPUs of a node without GPU or TPU (%(default)s)",
    )
    add("--image", default=Settings.image, help="image of a pod (%(default)s)")
    add(
        "--max-restarts",
        type=int,
        default=Settings.max_restarts,
        help="restarts after a killed process; preemptions do not count (%(default)s)",
    )
    add("--follow", action=argparse.BooleanOptionalAction, default=True, help="show the job's log")
    add("--dry-run", action="store_true", help="print what would be sent, and send nothing")
    add("--resume", action="store_true", help=argparse.SUPPRESS)  # always
    options, flags = parser.parse_known_args(arguments)
    options.flags = tuple(flags)
    for name in ("data", "run_dir", "branch_from"):
        setattr(options, name, getattr(options, name) or "")
    return options


@dataclass(frozen=True)
class Sending:
    """A job with its bundle and the engine that it is sent to."""

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
    data = ("--data", options.data) if options.data else ()
    branch = ("--branch-from", options.branch_from) if options.branch_from else ()
    kept = ("--run-dir", options.run_dir, "--resume") if engine.flags else ()
    settings = Settings(
        variant,
        asked or Topology(**read_manifest(original)["topology"]),
        (*options.flags, *data, *branch, *kept),
        options.run_dir,
        options.image,
        options.time_limit,
        options.max_restarts,
        options.cpus,
    )
    files = bundles.adapted(original, settings)
    name = f"{variant}-{accelerator}-{json.loads(files['bundle.json'])['id'][:12]}"
    job = Job(root / "runs/bundles" / name, root, settings, tuple(options.host), options.follow)
    return Sending(engine, job, files, original)


def find_topology(text: str, accelerator: str | None) -> Topology | None:
    """What `text` names, of `accelerator` or else of the one that it fits. Raises ToolError."""
    error = None
    for each in (accelerator,) if accelerator else ACCELERATORS:
        try:
            return Topology.parse(each, text) if text else None
        except ToolError as caught:
            error = caught
    raise error or AssertionError


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
    bundles.keep(sending.files, job.bundle, sending.original)
    printed = ""
    for command in engine.commands(job):
        env = {**own, **command.env}
        if not engine.follow:  # its signals and its exit code are the job's
            os.chdir(command.cwd)
            os.execvpe(command.words[0], command.words, env)
        done = subprocess.run(command.words, cwd=command.cwd, env=env, stdout=PIPE, text=True)
        printed = done.stdout
        print(printed, end="", flush=True)
        if done.returncode:
            raise ToolError(f"it was not sent: {command}")
    return engine.follow(job, printed) if engine.follow and job.follow else 0


def own_environment() -> dict[str, str]:
    """The user's: Slurm takes it along, and there `python3` must not be the launcher's own."""
    env = dict(os.environ)
    if env.pop("PEX", "") and (venv := env.pop("VIRTUAL_ENV", "")):  # set by ./pants run
        path = env.get("PATH", "").split(os.pathsep)
        env["PATH"] = os.pathsep.join(each for each in path if each != f"{venv}/bin")
    return env


def main(variant: str, arguments: Sequence[str]) -> int:
    """Exit codes: 0 sent, or done; 1 not sent, in one line; 130 no longer followed; the job's."""
    options = parse(variant, arguments)
    try:
        sending = prepare(Path.cwd(), variant, options)
        if not options.data:
            tell("no --data: the job tries out the small sample in the bundle")
        if options.dry_run:
            show(sending)
            return 0
        return send(sending)
    except ToolError as error:
        tell(str(error))
        return 1
    except KeyboardInterrupt:
        tell("no longer followed; the job goes on")
        return 130
