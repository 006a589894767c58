"""From a checked bundle to its program: the machine, the environment, and exec."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from functools import partial
from typing import Any

from tools.bundle.worker.check import check_machine
from tools.bundle.worker.errors import WorkerError
from tools.bundle.worker.home import advice, home_of_venvs
from tools.bundle.worker.locks import made_once, seal, sweep
from tools.bundle.worker.say import say

# What only a first start needs is imported where it is used: a warm one takes a tenth of a second.

MERGED = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")  # the bundle's flags, then the user's, which win
NEEDS_NO_DATA = ("--data", "--help", "--plan", "-h")
# Variables by which Python finds code that is not locked.
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONSTARTUP", "PYTHONUSERBASE")


def unpack(bundle: str, path: str) -> None:
    """The sources as files: Python keeps their bytecode, and a run's record copies them."""
    import zipfile

    with zipfile.ZipFile(os.path.join(bundle, "app.pex")) as archive:
        archive.extractall(path)
        seal(path, archive.namelist())


def imported(bundle: str) -> list[str]:
    """The top-level modules that the program's own modules import as they are loaded."""
    import ast
    import zipfile

    found = set()
    with zipfile.ZipFile(os.path.join(bundle, "app.pex")) as archive:
        for name in archive.namelist():
            if not name.endswith(".py"):
                continue
            with contextlib.suppress(SyntaxError):  # the program will tell
                for node in ast.parse(archive.read(name)).body:
                    if isinstance(node, ast.Import):
                        found.update(alias.name.partition(".")[0] for alias in node.names)
                    elif isinstance(node, ast.ImportFrom) and not node.level:
                        found.add(str(node.module).partition(".")[0])
    return sorted(found)


def install(bundle: str, path: str) -> None:
    """The bundle's locked environment."""
    from tools.bundle.worker.venv import make_venv

    names = ("requirements.txt", "installer.txt", "wheels")
    make_venv(path, *(os.path.join(bundle, name) for name in names), modules=imported(bundle))


def environment(manifest: dict[str, Any]) -> dict[str, str]:
    """The program's: what the bundle sets, unless the user did; flags of both, the user's last.

    Nothing in it leads Python to code that is neither the bundle's nor locked.
    """
    result = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    if os.environ.get("PYTHONPATH"):
        say("PYTHONPATH is not handed on: the program imports what is locked, and nothing else")
    result["PYTHONNOUSERSITE"] = "1"
    for name, value in manifest["env"].items():
        if name in MERGED:
            result[name] = f"{value} {result.get(name, '')}".strip()
        else:
            result.setdefault(name, value)
    return result


def arguments(bundle: str, manifest: dict[str, Any], given: list[str]) -> list[str]:
    """The bundle's, then the user's; the sample of text where neither names any data."""
    every = [*manifest["args"], *given]
    if manifest["sample"] and not any(a.partition("=")[0] in NEEDS_NO_DATA for a in every):
        say("no --data: training on the small sample in the bundle, to try it out")
        every += ["--data", os.path.join(bundle, manifest["sample"])]
    return every


def main(bundle: str, manifest: dict[str, Any], given: list[str]) -> None:
    """Becomes the program. Raises WorkerError where it cannot be started."""
    check_machine(bundle, manifest)
    home = home_of_venvs()
    files = manifest["files"]
    # On a shared home the hosts may have different interpreters, each with its own environment.
    interpreter = f"{os.path.realpath(sys.executable)} {platform.python_version()}"
    # Environments without a seal, which older versions of run.py made, keep their name.
    key = f"sealed {files['requirements.txt']['sha256']} {platform.machine()} {interpreter}"
    python = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    venv_name = f"{python}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    try:
        sweep(home)
        app = made_once(home, f"app-{files['app.pex']['sha256'][:16]}", partial(unpack, bundle))
        venv = made_once(home, venv_name, partial(install, bundle))
    except OSError as error:
        raise WorkerError(advice(home, error)) from error
    program = os.path.join(venv, "bin", "python")
    if not os.access(program, os.X_OK):
        raise WorkerError(f"{venv} holds no Python that runs: delete it, and it is made again")
    env = environment(manifest)
    env["PYTHONPATH"] = app
    env["GRUG_BUNDLE"] = bundle
    flags = arguments(bundle, manifest, given)
    sys.stderr.flush()
    os.execve(program, [program, "-P", "-s", "-m", manifest["entry"], *flags], env)
