"""The Python that compiles for hardware not here: an environment of that resolve's lock."""

from __future__ import annotations

import hashlib
import platform
import sys
import tempfile
from pathlib import Path

from tools.bundle import run as bundle
from tools.bundle.errors import BundleError
from tools.bundle.lock import Lock, Target, requirements_text

SIZES = {"tpu": "some 400 MB", "gpu": "some 3.5 GB"}  # to download


def python_for(topology: str, root: Path) -> Path:
    """The Python to run a variant's module in, so that it can compile for `topology`.

    It is made once for each lock, where launch bundles keep theirs; `root` holds tools/locks/. The
    variant itself reads the topology, and says what is wrong with it.

    Raises:
        BundleError: it cannot be made; one line with the remedy.
    """
    accelerator = "tpu" if ":" in topology else "gpu"
    text = requirements(root / f"tools/locks/{accelerator}.lock")
    python = f"{platform.python_version()} {Path(sys.executable).resolve()}"
    key = hashlib.sha256(f"{text} {python}".encode()).hexdigest()
    home = bundle.home_of_venvs()
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
            bundle.make_venv(path, str(listed), installer="", wheels="")

    try:
        made = bundle.made_once(home, name, make)
    except OSError as error:
        raise BundleError(
            f"{home}: {error.strerror}: name a directory with room that can be written in "
            "GRUG_VENVS"
        ) from error
    except bundle.BundleError as error:  # run.py, which travels alone, has its own
        raise BundleError(str(error)) from error
    return Path(made, "bin", "python")


def requirements(lock: Path) -> str:
    """All of a lock that this machine's Python needs, as pinned and hashed requirements."""
    try:
        locked = Lock.parse(lock.read_text(), lock.name)
    except OSError as error:
        raise BundleError(f"{lock} cannot be read: {error.strerror}") from error
    here = [Target(".".join(platform.python_version_tuple()[:2]), platform.machine())]
    return requirements_text(locked.needed(locked.requirements, here), here)
