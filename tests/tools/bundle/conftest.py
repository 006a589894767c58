"""A small real bundle: two wheels of one file each, locked by digest, and a program that tells."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tools.bundle.lock import Lock
from tools.bundle.manifest import Pythons
from tools.bundle.pack import Contents, bundle, write
from tools.bundle.topology import Topology

PROGRAM = """
import json, os, signal, sys, time
import jax
names = ("XLA_FLAGS", "GLIBC_TUNABLES", "GRUG_BUNDLE")
env = {name: os.environ.get(name) for name in names}
told = {"pid": os.getpid(), "argv": sys.argv[1:], "jax": jax.WHERE, "file": __file__, "env": env}
if "--wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print(json.dumps(told), flush=True)
if "--wait" in sys.argv:
    time.sleep(60)
sys.exit(7 if "--fail" in sys.argv else 0)
"""
# A worker's: with pip, where the environment that the tests run in may have none.
PYTHON = str(Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info)))
VERSION = "0.12.0.1"  # of which tools/bundle/flags.json knows the flags


# What of uv run.py uses, by pip; the real one is fetched where there is a network (tests/slow).
STAND_IN = f"""#!{PYTHON}
import os, sys
_, command, *rest = sys.argv
*rest, last = rest
if command == "venv":
    os.execv({PYTHON!r}, ["python", "-m", "venv", "--without-pip", last])
os.makedirs(os.environ["UV_CACHE_DIR"])
assert rest.pop() == "--python"
os.execv({PYTHON!r}, ["python", "-m", "pip", "--python", last, *rest])
"""


def make_wheel(directory: Path, name: str, needs: str = "", script: str = "") -> dict:
    """A wheel of one module, and its entry in a lock; `script` is a command of its name."""
    file = directory / f"{name}-{VERSION}-py3-none-any.whl"
    info = f"{name}-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    contents = {
        f"{name}.py": "WHERE = __file__\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    if script:
        contents[f"{name}-{VERSION}.data/scripts/{name}"] = script
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in contents.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    url = f"https://files.example.org/{file.name}"
    return {
        "project_name": name,
        "version": VERSION,
        "requires_dists": [needs] if needs else [],
        "artifacts": [{"algorithm": "sha256", "hash": digest, "url": url}],
    }


@dataclass(frozen=True)
class Bundle:
    path: Path

    def command(self, *flags: str) -> list[str]:
        return [PYTHON, str(self.path / "run.py"), *flags]

    def run(self, home: Path, *flags: str, **env: str) -> subprocess.CompletedProcess:
        command, full = self.command(*flags), environment(home, **env)
        return subprocess.run(command, env=full, capture_output=True, text=True, timeout=120)


def environment(home: Path, **more: str) -> dict[str, str]:
    dropped = ("PYTHONPATH", "GRUG_UV", "XLA_FLAGS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    # Of this machine's own uv and its directory nothing: which installer runs is the test's matter.
    uv = shutil.which("uv")
    if uv:
        path = kept["PATH"].split(os.pathsep)
        kept["PATH"] = os.pathsep.join(p for p in path if not Path(p, "uv").exists())
    return {**kept, "GRUG_VENVS": str(home), **more}


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> tuple[Path, Lock]:
    directory = tmp_path_factory.mktemp("wheels")
    entries = [make_wheel(directory, "jax", f"jaxlib=={VERSION}"), make_wheel(directory, "jaxlib")]
    text = json.dumps({"locked_resolves": [{"locked_requirements": entries}]})
    return directory, Lock.parse(text, "small.lock")


@pytest.fixture
def uv(tmp_path, wheels) -> Callable[[str], tuple[Path, Lock]]:
    """uv(SCRIPT): a lock that pins a uv, and a directory of its wheel and those of the bundle."""

    def build(script: str) -> tuple[Path, Lock]:
        directory = tmp_path / "wheels-and-uv"
        shutil.copytree(wheels[0], directory)
        entry = make_wheel(directory, "uv", script=script)
        text = json.dumps({"locked_resolves": [{"locked_requirements": [entry]}]})
        return directory, Lock.parse(text, "tools.lock")

    return build


@pytest.fixture(scope="session")
def contents(wheels) -> Contents:
    return Contents(
        variant="small",
        accelerator="cpu",
        entry="experiments.small.launch",
        sources={"experiments/small/launch.py": PROGRAM.encode()},
        lock=wheels[1],
        requirements=("jax",),
        pythons=Pythons("3.12", "3.15"),
        topology=Topology.parse("cpu", "1"),
        env={"XLA_FLAGS": "--xla_gpu_autotune_level=4", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
        commit="0" * 40,
        dirty=False,
        sample={"manifest.json": b"{}"},
    )


@pytest.fixture
def make(tmp_path, wheels, contents) -> Callable[..., Bundle]:
    """make(**fields of Contents): a packed bundle that has its wheels with it, or those named."""

    def build(beside: Path = wheels[0], **changes) -> Bundle:
        directory = tmp_path / "small-cpu"
        write(bundle(replace(contents, **changes)), directory)
        (directory / "wheels").symlink_to(beside)
        return Bundle(directory)

    return build


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """Where environments are kept, for tests that need a warm one."""
    return tmp_path_factory.mktemp("home")
