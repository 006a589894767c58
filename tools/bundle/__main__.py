"""Launch bundles: what a variant needs to run elsewhere, in one directory.

    python -m tools.bundle pack --help
    python -m tools.bundle specs BUNDLE --out DIR --topology 2x8xh100 --run-dir gs://... -- FLAGS
    python -m tools.bundle wheels --help

Exit codes: 0; 1 for an expected failure, in one line with the remedy; 2 for a bad command line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.bundle import specs
from tools.bundle.imports import Import, check
from tools.bundle.lock import MACHINES, Lock, Target, one_wheel_each
from tools.bundle.manifest import Pythons, read_manifest
from tools.bundle.pack import INSTALLER, JAX, WHEELS, Contents, bundle, jax_for, write
from tools.bundle.settings import Settings
from tools.bundle.topology import DEFAULTS, Topology
from tools.common.errors import ToolError
from tools.common.paths import local_path, local_text, location


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="bundle", description="Pack a variant as a launch bundle."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    needs = _needs()
    pack = commands.add_parser("pack", parents=[needs], help="write a bundle and its .tar.gz")
    pack.add_argument("--variant", required=True)
    pack.add_argument("--entry", required=True, help="module that a worker runs")
    pack.add_argument("--out", type=local_path, required=True, help="directory of the bundle")
    pack.add_argument(
        "--wheels", type=local_path, help="directory of wheels to add, as `pex3 download` made it"
    )
    pack.add_argument(
        "--topology", default="", help="devices of the job, such as 2x8xh100 or v5e:4x4"
    )
    pack.add_argument(
        "--arg", action="append", default=[], help="flag of the variant on every start"
    )
    pack.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    pack.add_argument("--commit", default=None)
    pack.add_argument("--dirty", choices=("true", "false"), default=None)
    pack.add_argument("--sample", type=local_path, help="small token store to try the bundle with")
    pack.add_argument("sources", nargs="+", type=local_text, metavar="SOURCE")
    again = commands.add_parser("specs", help="write launch/ of a bundle with other settings")
    again.add_argument("bundle", type=local_path, metavar="BUNDLE")
    again.add_argument("--out", type=local_path, required=True)
    again.add_argument("--topology", default="")
    again.add_argument("--run-dir", type=location)
    again.add_argument("--image", default=Settings.image)
    again.add_argument("--time-limit", default=Settings.time_limit)
    again.add_argument("--max-restarts", type=int, default=Settings.max_restarts)
    again.add_argument("--cpus", type=int, default=Settings.cpus)
    wheels = commands.add_parser(
        "wheels", parents=[needs], help="write what to tell `pex3 download` for the wheels"
    )
    wheels.add_argument("out", type=local_path, metavar="DIR")
    # What stands after -- is the program's, whatever it looks like.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:end])
    options.flags = arguments[end + 1 :]
    return options


def _needs() -> argparse.ArgumentParser:
    """The options that say of which packages and workers a bundle is."""
    needs = argparse.ArgumentParser(add_help=False)
    needs.add_argument("--accelerator", choices=sorted(JAX), required=True)
    needs.add_argument("--lock", type=local_path, required=True, help="Pex lock of the resolve")
    needs.add_argument("--tools-lock", type=local_path, help="Pex lock that has uv")
    needs.add_argument("--requirement", action="append", default=[], metavar="NAME")
    needs.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="NAME:MODULE:PATH",
        help="file that imports a module of a requirement",
    )
    needs.add_argument(
        "--root", type=local_path, default=Path("."), help="directory that sources are relative to"
    )
    needs.add_argument("--python", default="CPython>=3.12,<3.15", help="interpreter constraint")
    needs.add_argument(
        "--wheels-python", help="CPython version of the workers; default: the oldest"
    )
    needs.add_argument(
        "--wheels-machine",
        choices=MACHINES,
        default="x86_64",
        help="processor of the workers, as `uname -m` names it",
    )
    return needs


def read_tree(root: Path) -> dict[str, bytes]:
    """The files below a directory, by path."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def read_lock(path: Path) -> Lock:
    """A Pex lock from its file. Raises ToolError."""
    return Lock.parse(path.read_text(), str(path))


def lock_of(options: argparse.Namespace) -> Lock:
    """The resolve's lock. Raises ToolError where it lacks what the variant imports."""
    lock = read_lock(options.lock)
    check(lock, map(Import.parse, options.imports), options.root)
    return lock


def target_of(options: argparse.Namespace) -> Target:
    """The workers that wheels are for. Raises ToolError for a Python that the lock is not for."""
    minors = Pythons.parse(options.python).minors()
    python = options.wheels_python or minors[0]
    if python not in minors:
        raise ToolError(f"wheels for CPython {python}: the lock is for {', '.join(minors)}")
    return Target(python, options.wheels_machine)


def pack(options: argparse.Namespace) -> None:
    """Writes a bundle and its .tar.gz."""
    env = dict(pair.partition("=")[::2] for pair in options.env) if options.env else None
    topology = options.topology or DEFAULTS[options.accelerator]
    contents = Contents(
        variant=options.variant,
        accelerator=options.accelerator,
        entry=options.entry,
        sources={name: (options.root / name).read_bytes() for name in options.sources},
        lock=lock_of(options),
        requirements=tuple(sorted(options.requirement)),
        pythons=Pythons.parse(options.python),
        topology=Topology.parse(options.accelerator, topology),
        args=tuple(options.arg),
        env=env,
        commit=options.commit,
        dirty=None if options.dirty is None else options.dirty == "true",
        sample=read_tree(options.sample) if options.sample else None,
        tools=read_lock(options.tools_lock) if options.tools_lock else None,
        wheels=target_of(options) if options.wheels else None,
    )
    wheels = sorted(options.wheels.glob("*.whl")) if options.wheels else []
    files = {f"{WHEELS}/{path.name}": path for path in wheels}
    write({**bundle(contents), **files}, options.out)


def write_wheels(options: argparse.Namespace) -> None:
    """For one kind of worker: the wheels of every other would be hundreds of megabytes."""
    target = target_of(options)
    lock = lock_of(options)
    pins = lock.needed((*options.requirement, jax_for(options.accelerator, lock)), [target])
    if options.tools_lock:
        pins += read_lock(options.tools_lock).needed([INSTALLER], [target])
    download = one_wheel_each(pins, target)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "requirements.txt").write_text(download.requirements)
    (options.out / "platform.json").write_text(download.platform)


def render_specs(options: argparse.Namespace) -> None:
    """Writes launch/ of a bundle anew, with the settings that were asked for."""
    manifest = read_manifest(options.bundle)
    packed = Topology(**manifest["topology"])
    asked = options.topology
    settings = Settings(
        manifest["variant"],
        Topology.parse(packed.accelerator, asked) if asked else packed,
        args=tuple(options.flags),
        run_dir=options.run_dir or "",
        image=options.image,
        pythons=Pythons(**manifest["python"]),
        time_limit=options.time_limit,
        max_restarts=options.max_restarts,
        cpus=options.cpus,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    for name, data in specs.render(settings).items():
        (options.out / name).write_bytes(data)
        (options.out / name).chmod(0o755 if name.endswith(".sh") else 0o644)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    options = parse(arguments)
    try:
        {"pack": pack, "specs": render_specs, "wheels": write_wheels}[options.command](options)
    except ToolError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bundle: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
