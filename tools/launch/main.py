"""The program of `./pants run launch`: chooses a variant, prepares its corpus, and becomes it."""

import difflib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tools.bundle.worker.start import FOREIGN
from tools.common.errors import ToolError
from tools.corpus.default import ELSEWHERE, default_cache_dir, is_prepared, prepare_default
from tools.launch import environments, jobs, plans, remote
from tools.launch.checks import Plan
from tools.launch.hardware import check_imports, python_for
from tools.launch.version import version
from tools.runs.run_summary import load_all
from tools.start.handover import leave_pants

USAGE = """\
usage: ./pants run launch -- [VARIANT] [FLAGS OF THE VARIANT]

Train a variant (default: base) on the default corpus, or on the token store that --data names. The
first launch prepares the default corpus; later ones find it.

  ./pants run launch                          base, preset tiny, on this machine
  ./pants run launch -- base --steps 50       with one field of the config changed
  ./pants run launch -- base --preset 1b --plan
  ./pants run launch -- base --preset 1b --plan --topology v5e:4x4
  ./pants run launch -- VARIANT --plan --against base   both plans in one table
  ./pants run launch -- --list                the variants
  ./pants run launch -- --jobs                what --on sent, and how it is going
  ./pants run launch -- --environments        what is installed here, with sizes
  ./pants run launch -- --environments --remove NAME
  ./pants run launch -- --version             the workspace's commit and the locked JAX
  ./pants run launch -- VARIANT --help        the variant's flags
  ./pants run launch -- VARIANT --on slurm    sends its bundle to slurm, k8s, sky, ray or ssh
  ./pants run launch -- VARIANT --on slurm --help

--on sends what `./pants package experiments/grug/VARIANT::` packed; --dry-run shows what it would
send.
"""

VARIANTS = "experiments/grug"
# With one of these the variant reads no data, so none is prepared.
NEEDS_NO_DATA = ("--plan", "--help", "-h")
NEEDS_NO_DATA += ("--tyro-print-completion", "--tyro-write-completion")

# What reads a variant's flags and does no more. A copy may have no `parse`: then its run tells.
CHECK = """
import sys
import {module} as launch
try:
    getattr(launch, "parse", list)(sys.argv[1:])
except ValueError as error:
    sys.exit(f"{variant}: {{error}}")
"""


def find_variants(root: Path) -> list[str]:
    """Names of the variants under `root`: directories that hold a launch.py."""
    return sorted(path.parent.name for path in root.glob(f"{VARIANTS}/*/launch.py"))


def choose(arguments: list[str], variants: list[str]) -> tuple[str, list[str]]:
    """(variant, its flags). Raises ValueError with the nearest names for an unknown variant."""
    if not arguments or arguments[0].startswith("-"):
        return "base", arguments
    name = arguments[0].rstrip("/").removeprefix(f"{VARIANTS}/")
    if name not in variants:
        close = difflib.get_close_matches(name, variants) or variants
        raise ValueError(f"no variant {name!r} in {VARIANTS}/; nearest: {', '.join(close)}")
    return name, arguments[1:]


def needs_data(flags: list[str]) -> bool:
    """Whether these flags start a run that needs data, but name none."""
    names_data = any(flag == "--data" or flag.startswith("--data=") for flag in flags)
    return not names_data and not any(flag in NEEDS_NO_DATA for flag in flags)


def planned_topology(flags: Sequence[str]) -> str:
    """The value of --topology, if --plan is given too; else empty."""
    topology = ""
    for flag, following in zip(flags, [*flags, ""][1:], strict=True):
        name, _, value = flag.partition("=")
        if name == "--topology":
            topology = value or following
    return topology if "--plan" in flags else ""


def main(arguments: list[str]) -> int:
    """Returns an exit code only if no variant runs here.

    0 after --help and the like, 2 for an unknown variant, 1 for an expected failure, the variant's
    own for its bad flags, and with --on the code of tools.launch.remote.
    """
    root = Path(__file__).parents[2]
    try:
        leave_pants(Path(__file__).with_name("__main__.py"), arguments, root, default_cache_dir())
        return start(arguments, root)
    except ValueError as error:
        print(f"launch: {error}", file=sys.stderr)
        return 2
    except ToolError as error:
        print(f"launch: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"{error.filename}: {error.strerror}" if error.filename else error
        print(f"launch: {place}; {ELSEWHERE}", file=sys.stderr)
        return 1


def start(arguments: list[str], root: Path) -> int:
    """Starts what the command line asks for.

    Raises:
        ValueError: there is no such variant, or --against lacks one.
        ToolError: an expected failure.
        OSError: the directory of caches cannot be used.
    """
    variants = find_variants(root)
    if text := answer(arguments, variants):
        print(text)
        return 0
    variant, flags = choose(arguments, variants)
    other, flags = plans.take_flag("--against", flags)
    if other:
        return compare_plans(variant, choose([other], variants)[0], flags, root)
    if any(flag.partition("=")[0] == "--on" for flag in flags):
        return remote.main(variant, flags, planner(variant, root))
    if needs_data(flags):
        # A minute's work is no answer to a flag that is wrong.
        if not is_prepared() and (code := check_flags(variant, flags, root)):
            return code
        flags = [*flags, "--data", str(prepare_default())]
    become(module_of(variant), flags, python_of(variant, flags, root), root)


def answer(arguments: list[str], variants: list[str]) -> str:
    """What the launcher itself is asked for; empty if a variant is to start. Raises ToolError."""
    if arguments[:2] == ["--environments", "--remove"] and len(arguments) == 3:
        return environments.remove(arguments[2])
    answers = {
        "--help": lambda: USAGE,
        "-h": lambda: USAGE,
        "--list": lambda: "\n".join(variants),
        # `root` is a copy of the sources, without git and locks.
        "--version": lambda: version(Path.cwd()),
        "--jobs": lambda: jobs.table(Path.cwd()),
        "--environments": environments.table,
    }
    asked = answers.get(arguments[0]) if arguments else None
    return asked() if asked else ""


def python_of(variant: str, flags: Sequence[str], root: Path) -> Path:
    """The Python to run a variant in: the compilers for other hardware are in other locks."""
    topology = planned_topology(flags)
    if not topology:
        return Path(sys.executable)
    python = python_for(topology, Path.cwd())
    check_imports(python, root, f"{VARIANTS}/{variant}", topology)
    return python


def compare_plans(variant: str, other: str, flags: list[str], root: Path) -> int:
    """Prints the plans of two variants in one table; 1 if one does not fit, else 0.

    Raises:
        ValueError: these flags ask for no two plans.
        ToolError: a variant has no plan for them.
    """
    if "--plan" not in flags:
        raise ValueError("--against compares plans: add --plan, or remove it")
    if "--json" in flags:
        raise ValueError("--against prints a table: remove --json")
    if other == variant:
        raise ValueError(f"--against {other}: is the variant itself; name another")

    def start(name: str) -> subprocess.CompletedProcess[str]:
        return planner(name, root)([*flags, "--json"], {})

    return plans.compare([variant, other], start, load_all(Path.cwd())[0])


def planner(variant: str, root: Path) -> Plan:
    """What plans a variant in a process of its own: (flags, variables) -> the ended process."""

    def plan(
        flags: Sequence[str], variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        python = python_of(variant, flags, root)
        return subprocess.run(
            [str(python), "-sP", "-m", module_of(variant), *flags],
            env={**environment_of(root), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return plan


def check_flags(variant: str, flags: list[str], root: Path) -> int:
    """0 if the variant takes these flags; else its exit code, after it said what is wrong.

    It reads its flags in a process of its own, as a run would, without the devices of one.
    """
    code = CHECK.format(module=module_of(variant), variant=variant)
    environment = environment_of(root) | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-sP", "-c", code, *flags]
    return subprocess.run(command, env=environment, check=False).returncode


def module_of(variant: str) -> str:
    """The module that runs a variant."""
    return f"{VARIANTS.replace('/', '.')}.{variant}.launch"


def environment_of(root: Path) -> dict[str, str]:
    """The variables of a variant's process."""
    # Variables set for other Pythons would take precedence over the locked packages.
    user_environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {
        # Huge pages give XLA's buffers on a CPU 512 times fewer page faults. It must be set before
        # the process starts.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        **({"PYTHON_TYRO_ANSI_CODES": "False"} if os.environ.get("NO_COLOR") else {}),
        # A second start need not compile again.
        "JAX_COMPILATION_CACHE_DIR": str(default_cache_dir() / "xla"),
        **user_environment,
        # The variant's sources are the launcher's, a copy of the workspace's, which has the commit.
        "PYTHONPATH": str(root),
        "GRUG_WORKSPACE": str(Path.cwd()),
    }


def become(module: str, flags: list[str], python: Path, root: Path) -> NoReturn:
    """Replaces this process by the variant's, so that signals and its exit code are its own."""
    sys.stdout.flush()
    # -P: import nothing from the working directory, which is the workspace, not Pants' sandbox.
    os.execve(python, [str(python), "-sP", "-m", module, *flags], environment_of(root))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
