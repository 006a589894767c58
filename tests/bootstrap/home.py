"""What an installation of Pants has besides Pants: tools/start, settings, an interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.bootstrap.wheels import Wheel, make_wheel, pex_lock, write_index
from tools.start.machine import Machine

# As the module that stands for a directory calls it.
MAKE = "import sys; from tools.start import environment as e; sys.exit(e.main(sys.argv[1:]))"


@dataclass
class Home:
    """A start home below a directory that others would share with it."""

    place: Path
    index: Path
    wheels: list[Wheel]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return self.place / "venv/bin/python"

    @property
    def requirements(self) -> str:
        return "".join(wheel.pin for wheel in self.wheels)

    @property
    def environments(self) -> Path:
        return self.place.parent / "environments"

    def tell(self, machine: Machine) -> None:
        (self.place / "machine.json").write_text(machine.dumps())

    def start(self, *arguments: str | Path, program: str = MAKE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, "-Esc", program, *arguments],
            cwd=self.place,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str | Path, program: str = MAKE) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, program=program)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def make_home(directory: Path, venv: Path, uv: Path | None) -> Home:
    """With two packages in an index of its own, the main index of its machine."""
    place, bin = directory / "a cäche/pants", directory / "bin"
    shutil.copytree("tools/start", place / "tools/start")
    bin.mkdir()
    if uv:
        (bin / "uv").symlink_to(uv)
    (place / "venv").symlink_to(venv)
    index = directory / "index"
    wheels = [
        make_wheel(index / "files", "Alpha.One", "1.0", {"alpha.py": "VALUE = 'alpha'\n"}),
        make_wheel(index / "files", "beta", "2.0+local", {"beta/__init__.py": "VALUE = 'beta'\n"}),
    ]
    write_index(index, *wheels)
    (place / "tools.lock").write_text(pex_lock([]))
    home = Home(place, index, wheels)
    temporary = directory / "tmp"
    temporary.mkdir()
    home.env = {
        "PATH": f"{bin}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": str(directory),
        "TMPDIR": str(temporary),
    }
    home.tell(Machine(index=(index / "simple").as_uri()))
    return home
