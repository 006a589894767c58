"""What `./pants run launch` runs: chooses a variant, prepares its text, hands over to it."""

import difflib
import os
import sys
from pathlib import Path
from typing import NoReturn

from tools.common.errors import ToolError
from tools.corpus.default import default_cache_dir, prepare_default
from tools.launch import remote
from tools.launch.hardware import check_imports, python_for
from tools.launch.version import version
from tools.start.handover import leave_pants

USAGE = """\
usage: ./pants run launch -- [VARIANT] [FLAGS OF THE VARIANT]

Trains a variant of the template (default: base), on the default corpus unless --data names a token
store. The corpus is prepared on the first launch and found again later.

  ./pants run launch                          base, preset tiny, on this machine
  ./pants run launch -- base --steps 50       with a field of its config changed
  ./pants run launch -- base --preset 1b --plan
  ./pants run launch -- base --preset 1b --plan --topology v5e:4x4
  ./pants run launch -- --list                the variants
  ./pants run launch -- --version             the workspace's commit and the locked JAX
  ./pants run launch -- VARIANT --help        the variant's flags
  ./pants run launch -- VARIANT --on slurm    sends its bundle to slurm, k8s, sky, ray or ssh
  ./pants run launch -- VARIANT --on slurm --help

--on takes what `./pants package experiments/grug/VARIANT::` has packed; --dry-run shows what would
be sent.
"""

VARIANTS = "experiments/grug"
# With one of these the variant reads no data, so none is prepared.
NEEDS_NO_DATA = ("--plan", "--help", "-h")
NEEDS_NO_DATA += ("--tyro-print-completion", "--tyro-write-completion")
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE")


def find_variants(root: Path) -> list[str]:
    """Names of the variants under `root`: directories that hold a launch.py."""
    return sorted(path.parent.name for path in root.glob(f"{VARIANTS}/*/launch.py"))


def choose(arguments: list[str], variants: list[str]) -> tuple[str, list[str]]:
    """(variant, its flags). Raises ValueError, naming the nearest names, if there is none such."""
    if not arguments or arguments[0].startswith("-"):
        return "base", arguments
    name = arguments[0].rstrip("/").removeprefix(f"{VARIANTS}/")
    if name not in variants:
        near = difflib.get_close_matches(name, variants) or variants
        raise ValueError(f"no variant {name!r} in {VARIANTS}/; nearest: {', '.join(near)}")
    return name, arguments[1:]


def needs_data(flags: list[str]) -> bool:
    """Whether these flags start a run that reads data and name none."""
    named = any(flag == "--data" or flag.startswith("--data=") for flag in flags)
    return not named and not any(flag in NEEDS_NO_DATA for flag in flags)


def planned_topology(flags: list[str]) -> str:
    """The value of --topology where --plan asks for it."""
    given = ""
    for flag, value in zip(flags, [*flags[1:], ""], strict=True):
        name, _, after = flag.partition("=")
        given = after or value if name == "--topology" else given
    return given if "--plan" in flags else ""


def main(arguments: list[str]) -> int:
    """Returns only if no variant runs here: 0, 2 for an unknown one, 1 when there is no corpus.

    With --on, what tools.launch.remote returns.
    """
    root = Path(__file__).parents[2]
    leave_pants(Path(__file__).with_name("__main__.py"), arguments, root, default_cache_dir())
    variants = find_variants(root)
    if arguments[:1] in (["--help"], ["-h"]):
        print(USAGE)
        return 0
    if arguments[:1] == ["--list"]:
        print("\n".join(variants))
        return 0
    try:
        if arguments[:1] == ["--version"]:
            print(version(Path.cwd()))  # `root` is a copy of the sources, without git and locks
            return 0
        variant, flags = choose(arguments, variants)
        if any(flag.partition("=")[0] == "--on" for flag in flags):
            return remote.main(variant, flags)
        if needs_data(flags):
            flags = [*flags, "--data", str(prepare_default())]
        # The compilers of other hardware are in locks of their own.
        topology = planned_topology(flags)
        python = Path(sys.executable)
        if topology:
            python = python_for(topology, Path.cwd())
            check_imports(python, root, f"{VARIANTS}/{variant}", topology)
    except ValueError as error:
        print(f"launch: {error}", file=sys.stderr)
        return 2
    except ToolError as error:
        print(f"launch: {error}", file=sys.stderr)
        return 1
    become(f"{VARIANTS.replace('/', '.')}.{variant}.launch", flags, python, root)


def become(module: str, flags: list[str], python: Path, root: Path) -> NoReturn:
    """Replaces this process by the variant's, so that signals and its exit code are its own."""
    # What the user sets for other Pythons would outrank the locked packages.
    own = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment = {
        # Fewer page faults of XLA's buffers on a CPU: a huge page is one fault for 512. Must be set
        # before a process starts.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        **({"PYTHON_TYRO_ANSI_CODES": "False"} if os.environ.get("NO_COLOR") else {}),
        # The second start compiles nothing that the first did.
        "JAX_COMPILATION_CACHE_DIR": str(default_cache_dir() / "xla"),
        **own,
        # The variant's sources are the launcher's, a copy of the workspace's.
        "PYTHONPATH": str(root),
    }
    sys.stdout.flush()
    # -P: not from the working directory, which under Pants is the workspace and not the sandbox.
    os.execve(python, [str(python), "-sP", "-m", module, *flags], environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
