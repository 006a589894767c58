"""What `./pants run launch` runs: chooses a variant, prepares its text, hands over to it."""

import difflib
import os
import sys
from pathlib import Path
from typing import NoReturn

from tools.corpus.default import default_cache_dir, prepare_default
from tools.corpus.errors import CorpusError

USAGE = """\
usage: ./pants run launch -- [VARIANT] [FLAGS OF THE VARIANT]

Trains a variant of the template (default: base), on the default corpus unless --data names a token
store. The corpus is prepared on the first launch and found again later.

  ./pants run launch                          base, preset tiny, on this machine
  ./pants run launch -- base --steps 50       with a field of its config changed
  ./pants run launch -- base --preset 1b --plan
  ./pants run launch -- --list                the variants
  ./pants run launch -- VARIANT --help        the variant's flags
"""

VARIANTS = "experiments/grug"
# With one of these the variant reads no data, so none is prepared.
NEEDS_NO_DATA = ("--plan", "--help", "-h")


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
    named = any(flag == "--data" or flag.startswith("--data=") for flag in flags)
    return not named and not any(flag in NEEDS_NO_DATA for flag in flags)


def main(arguments: list[str]) -> int:
    """Returns only if no variant runs: 0, 2 for an unknown one, 1 when there is no corpus."""
    root = Path(__file__).parents[2]
    variants = find_variants(root)
    if arguments[:1] in (["--help"], ["-h"]):
        print(USAGE)
        return 0
    if arguments[:1] == ["--list"]:
        print("\n".join(variants))
        return 0
    try:
        variant, flags = choose(arguments, variants)
        if needs_data(flags):
            flags = [*flags, "--data", str(prepare_default())]
    except ValueError as error:
        print(f"launch: {error}", file=sys.stderr)
        return 2
    except CorpusError as error:
        print(f"launch: {error}", file=sys.stderr)
        return 1
    become(f"{VARIANTS.replace('/', '.')}.{variant}.launch", flags)


def become(module: str, flags: list[str]) -> NoReturn:
    """Replaces this process by the variant's, so that signals and its exit code are its own."""
    environment = {
        # Fewer page faults of XLA's buffers on a CPU: a huge page is one fault for 512. Must be set
        # before a process starts.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        # The second start compiles nothing that the first did.
        "JAX_COMPILATION_CACHE_DIR": str(default_cache_dir() / "xla"),
        **os.environ,
    }
    sys.stdout.flush()
    # -P: not from the working directory, which under Pants is the workspace and not the sandbox.
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *flags], environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
