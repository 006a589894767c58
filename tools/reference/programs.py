"""Finds the workspace's command lines in its tree, and asks each for its `--help`.

A program is a Python file below tools/ that has `if __name__ == "__main__":`, or that a BUILD file
names as the entry point of a `pex_binary`. The template's launch.py is one, too.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.common.errors import ToolError
from tools.reference.help_text import Help, parse

TEMPLATE = "experiments/grug/base/launch.py"
# What people don't start: the one runs in launch bundles alone, where its --help is the packed
# program's; the other is started by a tool, which talks to it.
INTERNAL = {"tools/bundle/run.py", "tools/diff/plan_worker.py"}
TIMEOUT = 120  # seconds that a program may take to print its help

_RUNS = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """A program; `ways` are the beginnings of its command lines, the most usual first."""

    path: str
    ways: tuple[str, ...]

    @property
    def module(self) -> str:
        """The name by which `python -m` starts it."""
        return self.path.removesuffix(".py").replace("/", ".").removesuffix(".__main__")


@dataclass(frozen=True)
class ProgramHelp:
    """The help of a program, or with `words` of one of its commands.

    `summary` is the line on the command in its parent's help.
    """

    program: Program
    words: tuple[str, ...]
    summary: str
    help: Help


def find(root: Path) -> list[Program]:
    """Every program: the template's, then those for `./pants run`, then the others."""
    runs = dict(_runnable(root))
    paths = {path.relative_to(root).as_posix(): path for path in root.glob("tools/**/*.py")}
    names = {name for name, path in paths.items() if _RUNS.search(path.read_text("utf-8"))}
    names |= {path for path, (kind, _) in runs.items() if kind == "pex_binary"}
    names -= INTERNAL
    programs = []
    for path in sorted(names):
        ways = [f"./pants run {runs[path][1]} --"] if path in runs else []
        module = Program(path, ()).module
        programs.append(Program(path, (*ways, f"python -m {module}")))
    template = Program(TEMPLATE, ("./pants run launch -- base",))
    return [template, *sorted(programs, key=lambda p: (len(p.ways) == 1, p.path))]


def _runnable(root: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """(file, (target type, its address or alias)) of each target that `./pants run` takes."""
    aliases = tomllib.loads((root / "pants.toml").read_text("utf-8"))["cli"]["alias"]
    short = {address: alias for alias, address in aliases.items()}
    for build in (root / "BUILD", *sorted(root.glob("tools/*/BUILD"))):
        directory = build.parent.relative_to(root).as_posix().removeprefix(".")
        for node in ast.walk(ast.parse(build.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            constants = {
                k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
            }
            entry = constants.get(
                {"pex_binary": "entry_point", "python_source": "source"}.get(node.func.id)
            )
            # A module's name instead of a file's is another name of a program that has its own.
            if isinstance(entry, str) and ".py" in entry and constants.get("name"):
                address = f"//{directory}:{constants['name']}"
                target = short.get(address, address.removeprefix("//") if directory else address)
                file = f"{directory}/{entry}".removeprefix("/").partition(":")[0]
                yield file, (node.func.id, target)


def ask(root: Path, program: Program, words: tuple[str, ...] = ()) -> str:
    """The output of `python -m PROGRAM WORDS --help`, in a fixed environment.

    Raises:
        ToolError: it fails, prints nothing or takes too long.
    """
    command = [sys.executable, "-m", program.module, *words, "--help"]
    environment = {
        # 100: tyro puts boxes side by side in a wider terminal.
        "COLUMNS": "100",
        "HOME": "/nonexistent",
        "JAX_PLATFORMS": "cpu",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    shown = " ".join(["python -m", program.module, *words, "--help"])
    try:
        run = subprocess.run(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"{program.path}: `{shown}` takes more than {TIMEOUT} seconds; a program says at once "
            "how it is used"
        ) from error
    if run.returncode or not run.stdout.strip():
        errors = run.stderr.strip().splitlines() or ["it prints nothing"]
        raise ToolError(
            f"{program.path}: `{shown}` ends with {run.returncode}: {errors[-1]}; a program says "
            "with --help how it is used"
        )
    return run.stdout


def say(
    root: Path, program: Program, words: tuple[str, ...] = (), summary: str = ""
) -> list[ProgramHelp]:
    """The help of a program, followed by that of its commands."""
    help_ = parse(ask(root, program, words))
    commands = (say(root, program, (*words, c.name), c.text) for c in help_.commands)
    return [
        ProgramHelp(program, words, summary, help_),
        *(page for pages in commands for page in pages),
    ]


def say_all(root: Path) -> list[ProgramHelp]:
    """The help of every program, in the order of `find`."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [page for pages in pool.map(lambda p: say(root, p), find(root)) for page in pages]
