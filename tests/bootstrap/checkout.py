"""A copy of ./pants whose locks name small wheels of the test's own, and what it runs instead.

All that starts it is real: the script, tools/start, uv, CPython 3.9. The Pants that it installs and
runs tells what it was given.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bootstrap.servers import ABSENT
from tests.bootstrap.wheels import Wheel, make_wheel, pex_lock, write_index

# All that ./pants may call besides an interpreter: on this PATH there is no Python.
TOOLS = "bash cat cut dirname env sha256sum shasum sh".split()

LOADER = """
import json, os, subprocess, sys, time

from pants.bin.remote_pants_runner import RemotePantsRunner
from pants.pantsd.process_manager import ProcessManager

CHILD = "import json, sys; json.dump(sys.path, sys.stdout)"


def main():
    child = subprocess.run([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    told = {
        "arguments": sys.argv[1:],
        "program": sys.argv[0],
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "path": sys.path,
        "child": json.loads(child.stdout or "null"),
        "daemon seconds": ProcessManager().await_pid(60.0),
        "socket seconds": ProcessManager().await_socket(1000.0),
    }
    try:
        told["daemon"] = RemotePantsRunner().run(0.0)
    except RemotePantsRunner.Fallback:
        told["daemon"] = "fallback"
    print(json.dumps(told), flush=True)
    time.sleep(float(os.environ.get("TEST_SECONDS", 0)))
    code = os.environ.get("TEST_EXIT", "0")
    sys.exit(int(code) if code.isdecimal() else code)
"""
RUNNER = """
import os

from pants.pantsd.process_manager import ProcessManager


class RemotePantsRunner:
    class Fallback(Exception):
        pass

    def run(self, start_time):
        if os.environ.get("TEST_NO_DAEMON"):
            raise ProcessManager.Timeout("no daemon")
        return "daemon"
"""
MANAGER = """
class ProcessManager:
    class Timeout(Exception):
        pass

    def await_pid(self, timeout):
        return timeout

    def await_socket(self, timeout):
        return timeout
"""
PROGRAM = "#!python\nfrom pants.bin.pants_loader import main\n\nmain()\n"


def uv_tag() -> str:
    machine = platform.machine()
    if platform.system() == "Darwin":
        return f"py3-none-macosx_11_0_{machine}"
    return f"py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}"


@dataclass(frozen=True)
class Packages:
    """An index in a directory: a Pants, a Pex, and uv."""

    root: Path
    pants: Wheel
    pex: Wheel
    uv: Wheel

    @property
    def index(self) -> str:
        return (self.root / "simple").as_uri()


def make_packages(root: Path, uv: Path) -> Packages:
    modules: dict[str, str | bytes] = {
        "pants/bin/pants_loader.py": LOADER,
        "pants/bin/remote_pants_runner.py": RUNNER,
        "pants/pantsd/process_manager.py": MANAGER,
        "pantsbuild_pants-2.17.1.data/scripts/pants": PROGRAM,
    }
    modules |= {f"{name}/__init__.py": "" for name in ("pants", "pants/bin", "pants/pantsd")}
    files = root / "files"
    script: dict[str, str | bytes] = {"uv-0.0.1.data/scripts/uv": uv.read_bytes()}
    packages = Packages(
        root,
        make_wheel(files, "pantsbuild-pants", "2.17.1", modules),
        make_wheel(files, "pex", "2.73.1", {"pex/__init__.py": "", "pex/version.py": ""}),
        make_wheel(files, "uv", "0.0.1", script, tag=uv_tag()),
    )
    write_index(root, packages.pants, packages.pex, packages.uv)
    return packages


@dataclass
class Told:
    """How a start of ./pants ended, and what the Pants that it ran was given."""

    code: int
    output: str
    errors: str
    pants: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return self.pants["environment"]

    def check(self) -> Told:
        assert self.code == 0, self.errors
        assert self.pants, self.errors
        return self

    def check_failed(self, *words: str) -> Told:
        """Its last line has these words, and there is no traceback."""
        assert self.code == 1, self.errors
        assert "Traceback" not in self.errors, self.errors
        assert not self.pants
        last = self.errors.splitlines()[-1]
        assert last.startswith("pants: "), self.errors
        for word in words:
            assert word in last, self.errors
        return self


@dataclass
class Checkout:
    """A copy of what ./pants needs, and a machine around it that says nothing of its own."""

    root: Path
    home: Path
    bin: Path
    packages: Packages
    env: dict[str, str] = field(default_factory=dict)

    @property
    def caches(self) -> list[Path]:
        return sorted(path for path in self.home.glob(".cache/grug/pants-*") if path.is_dir())

    @property
    def leftovers(self) -> list[str]:
        """What lies in the cache besides locks, installations that are ready, and uv."""
        return [
            path.name
            for path in self.home.glob(".cache/grug/*")
            if not path.name.endswith(".lock")
            and not (path / "ready").exists()
            and not (path.name.startswith("uv-") and [p.name for p in path.iterdir()] == ["uv"])
        ]

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def link(self, name: str, target: str | Path) -> Path:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).symlink_to(target)
        return self.bin / name

    def start(
        self, *arguments: str, before: list[str] | None = None, cwd: Path | None = None, **env: str
    ) -> subprocess.Popen[str]:
        told = {"PATH": str(self.bin), "HOME": str(self.home), **self.env, **env}
        return subprocess.Popen(
            [*(before or []), str(self.root / "pants"), *arguments],
            cwd=cwd or self.home,
            env={name: value for name, value in told.items() if value != UNSET},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **options: Any) -> Told:
        return ended(self.start(*arguments, **options))


UNSET = "<unset>"


def ended(process: subprocess.Popen[str]) -> Told:
    output, errors = process.communicate(timeout=120)
    line = output.splitlines()[-1] if output else "{}"
    return Told(process.returncode, output, errors, json.loads(line))


def make_checkout(directory: Path, packages: Packages) -> Checkout:
    """With uv on PATH, its index in a file's URL, and the interpreters named."""
    root, home = directory / "a chéckout of mine", directory / "höme sweet home"
    bin, temporary = directory / "bin", directory / "tmp"
    for path in (root / "tools/locks", home, bin, temporary):
        path.mkdir(parents=True)
    shutil.copytree("tools/start", root / "tools/start", ignore=shutil.ignore_patterns("__pyc*"))
    shutil.copy("pants", root / "pants")
    minor = sys.version_info.minor
    set_range(root, minor, minor + 1)
    locks = root / "tools/locks"
    (locks / "pants.txt").write_text(packages.pants.pin)
    (locks / "pex.txt").write_text(packages.pex.pin)
    uv = f"{ABSENT}/{packages.uv.path.name}"
    (locks / "tools.lock").write_text(pex_lock([(packages.uv, uv)]))
    for name in TOOLS:
        found = shutil.which(name)
        if found:
            (bin / name).symlink_to(found)
    return Checkout(root, home, bin, packages, {"TMPDIR": str(temporary)})


def set_range(root: Path, low: int, end: int) -> None:
    constraint = f'"CPython>=3.{low},<3.{end}"'
    (root / "pants.toml").write_text(f"[python]\ninterpreter_constraints = [{constraint}]\n")


def base_python() -> str:
    """The interpreter of the tests, not of their virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
