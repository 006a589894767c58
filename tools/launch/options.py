"""The options of `./pants run launch -- VARIANT --on ENGINE`, from the command line and a site."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.bundle.settings import Settings
from tools.bundle.topology import FORMS
from tools.common.errors import ToolError
from tools.common.paths import local_path, location
from tools.launch import site
from tools.launch.engines import ENGINES

ACCELERATORS = ("cpu", "gpu", "tpu")
CHECKS = ("plan", "compile", "none")


def parse(variant: str, arguments: Sequence[str], root: Path) -> argparse.Namespace:
    """The launcher's options; all others are the program's, in `flags`. argparse ends the process
    on --help and on bad values.

    Raises:
        ToolError: a site's defaults are wrong.
    """
    parser = _parser(variant)
    asked, _ = parser.parse_known_args(arguments)
    defaults = site.words(parser, asked.on, ENGINES, root)
    if asked.host:  # hosts are not added to others
        defaults = [word for word in defaults if not word.startswith("--host=")]
    options, flags = parser.parse_known_args([*defaults, *arguments])
    options.flags = tuple(flags)
    for name in ("data", "run_dir", "branch_from"):
        setattr(options, name, getattr(options, name) or "")
    return options


def _parser(variant: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"./pants run launch -- {variant}",
        usage="%(prog)s --on ENGINE [OPTIONS] [FLAGS OF THE VARIANT]",
        epilog=f"Defaults of a site: [engines] in {site.FILE}, see docs/reference/bundles.md.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=100),
    )
    add = parser.add_argument
    add("--on", choices=sorted(ENGINES), required=True, help="engine that runs the job")
    add("--name", default="", help="name of the job (default: variant, run and a random end)")
    _add_run(parser)
    _add_engine(parser)
    add(
        "--check",
        choices=CHECKS,
        default=CHECKS[0],
        help="what to check before sending: plan the run, or also compile it (default: plan)",
    )
    add("--follow", action=argparse.BooleanOptionalAction, default=True, help="show the job's log")
    add("--dry-run", action="store_true", help="print what would be sent, and send nothing")
    add("--resume", action="store_true", help=argparse.SUPPRESS)  # always
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    """What the run is, whatever the engine."""
    add = parser.add_argument
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
        help="directory or URL of the run, where {name} is the job's name (Slurm's default: "
        "runs/NAME-JOB)",
    )
    add("--branch-from", type=location, metavar="RUN@STEP", help="checkpoint to begin with")
    add(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="variable of the run; without a value, that of this shell; repeat for each",
    )
    add(
        "--secret",
        action="append",
        default=[],
        metavar="NAME",
        help="variable of this shell whose value no file and no log may show; repeat for each",
    )
    add(
        "--max-restarts",
        type=int,
        default=Settings.max_restarts,
        help="restarts after a killed process; preemptions do not count (%(default)s)",
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    """What engines call by other names, or only one of them has."""
    add = parser.add_argument
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
    add("--image", default="", help="image of a pod (default: Python's own)")
    add(
        "--spot",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="machines that may be taken away (k8s, sky; SkyPilot's default)",
    )
    add(
        "--engine-arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="setting of the engine's own, such as partition=h100 or pod.priorityClassName=high; "
        "repeat for each",
    )
    add(
        "--spec",
        type=local_path,
        metavar="FILE",
        help="spec of yours, whose fields ours fills: YAML for k8s and sky, #SBATCH lines and "
        "commands for slurm",
    )


def variables(texts: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """NAME=VALUE, or NAME for what the environment has. Raises ToolError where it has not."""
    found = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not given and name not in environment:
            raise ToolError(f"--env {name}: this shell has no such variable; write {name}=VALUE")
        found[name] = value if given else environment[name]
    return found
