"""Writes the reference of goals, options, target types, tools and packages from the code itself.

    ./pants run tools/reference:write [-- --check]

With --check it writes nothing; it exits with 1 and prints a line for each stale page.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tools.common import files
from tools.common.errors import ToolError, exit_with
from tools.common.files import MIB
from tools.common.paths import local_path
from tools.reference import packages, pages, pants_help, programs

MAX_HELP = 64 * MIB


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="reference", description="Write docs/reference/ from the help of goals and tools."
    )
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    parser.add_argument(
        "--pants", type=local_path, help="file with the output of ./pants help-all; default: run it"
    )
    parser.add_argument(
        "--check", action="store_true", help="list the stale pages and write nothing"
    )
    return parser.parse_args(arguments)


def ask_pants(root: Path) -> str:
    """The output of `./pants help-all`, without the daemon, which a `./pants run` of this holds."""
    # Variables of Pex and Python for this process are not meant for another Pants.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PEX_", "PYTHON"))}
    run = subprocess.run(
        ["./pants", "--no-pantsd", "help-all"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise ToolError(f"./pants help-all ends with {run.returncode}:\n{run.stderr.strip()}")
    return run.stdout


def write(root: Path, help_all: Path | None) -> dict[str, str]:
    """The pages by their path from the root; without `help_all`, Pants is run for it."""
    text = files.read_text(help_all, MAX_HELP) if help_all else ask_pants(root)
    pants = pants_help.parse(text, str(help_all or "./pants help-all"))
    imports = packages.find_imports(root)
    return {
        packages.PAGE: packages.page(imports),
        packages.PICTURE: packages.picture(imports),
        pages.GOALS: pages.goals_page(pants),
        pages.TARGETS: pages.targets_page(pants),
        pages.TOOLS: pages.tools_page(programs.say_all(root)),
    }


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    options = parse(arguments)
    root = options.root
    if not (root / "pants.toml").is_file():
        raise ToolError(f"{root}: holds no pants.toml; name the workspace with --root")
    texts = write(root, options.pants)
    stale = [name for name, text in texts.items() if pages.is_stale(root / name, text)]
    if options.check:
        print("".join(f"{pages.remedy(name)}\n" for name in stale), end="", file=sys.stderr)
        return 1 if stale else 0
    files.write_all({root / name: texts[name].encode() for name in stale})
    print("\n".join(f"wrote {name}" for name in stale) or "every page is up to date")
    return 0


if __name__ == "__main__":
    exit_with(main)
