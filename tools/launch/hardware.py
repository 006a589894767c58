"""The Python that compiles for hardware not here: an environment of that resolve's lock."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.bundle.imports import first_import, loaded
from tools.bundle.lock import Lock, Target, requirements_text
from tools.bundle.worker.errors import WorkerError
from tools.bundle.worker.home import advice, home_of_venvs
from tools.bundle.worker.locks import made_once
from tools.bundle.worker.venv import make_venv
from tools.common.errors import ToolError

NOT_LOADED = ("test_", "conftest")  # the variant's files that no plan imports
FINDS = "import importlib.util as u, sys; print(*(n for n in sys.argv[1:] if not u.find_spec(n)))"
SIZES = {"tpu": "some 400 MB", "gpu": "some 3.5 GB"}  # to download


def python_for(topology: str, root: Path) -> Path:
    """The Python to run a variant's module in, so that it can compile for `topology`.

    It is made once for each lock, where launch bundles keep theirs; `root` holds tools/locks/. The
    variant itself reads the topology, and says what is wrong with it.

    Raises:
        ToolError: it cannot be made; one line with the remedy.
    """
    text = requirements(root / f"tools/locks/{_resolve(topology)}.lock")
    try:
        return Path(_environment(topology, text), "bin", "python")
    except WorkerError as error:  # what travels in bundles has an error of its own
        raise ToolError(str(error)) from error


def _environment(topology: str, text: str) -> str:
    """The directory of an environment of the pins in `text`. Raises WorkerError."""
    accelerator, home = _resolve(topology), home_of_venvs()
    python = f"{platform.python_version()} {Path(sys.executable).resolve()}"
    key = hashlib.sha256(f"{text} {python}".encode()).hexdigest()
    name = f"plan-{accelerator}-{key[:16]}"
    if not Path(home, name).is_dir():
        print(
            f"launch: {topology} needs the compiler of tools/locks/{accelerator}.lock: making an "
            f"environment of it, once ({SIZES[accelerator]})",
            file=sys.stderr,
            flush=True,
        )

    def make(path: str) -> None:
        with tempfile.TemporaryDirectory() as directory:
            listed = Path(directory, "requirements.txt")
            listed.write_text(text)
            make_venv(path, str(listed), installer="", wheels="")

    try:
        return made_once(home, name, make)
    except OSError as error:
        raise WorkerError(advice(home, error)) from error


def _resolve(topology: str) -> str:
    return "tpu" if ":" in topology else "gpu"


def check_imports(python: Path, root: Path, variant: str, topology: str) -> None:
    """Whether a variant, a directory below `root`, finds its packages in an environment.

    Raises:
        ToolError: it lacks one, which tests and runs on the CPU have; file, line and remedy.
    """
    found = sorted((root / variant).rglob("*.py"))
    files = [path for path in found if not path.name.startswith(NOT_LOADED)]
    texts = {path: path.read_text("utf-8") for path in files}
    own = {"experiments", *sys.stdlib_module_names}
    names = sorted({name for text in texts.values() for name in loaded(text)} - own)
    command = [str(python), "-P", "-c", FINDS, *names]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    for name in asked.stdout.split():
        for path, text in texts.items():
            if name in loaded(text) and (place := first_import(text, {name})):
                where = f"{path.relative_to(root).as_posix()}:{place[0]}: {place[1]}"
                raise ToolError(
                    f"{where}: {topology} needs it in "
                    f"tools/locks/{_resolve(topology)}.in too: ./pants run locks -- add {name}"
                )


def requirements(lock: Path) -> str:
    """All of a lock that this machine's Python needs, as pinned and hashed requirements."""
    try:
        locked = Lock.parse(lock.read_text(), lock.name)
    except OSError as error:
        raise ToolError(f"{lock} cannot be read: {error.strerror}") from error
    here = [Target(".".join(platform.python_version_tuple()[:2]), platform.machine())]
    return requirements_text(locked.needed(locked.requirements, here), here)
