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

from tests.tools.bundle.machine import (
    Authority,
    Machine,
    make_authority,
    make_index,
    settings_files,
)
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


# What of uv run.py uses, by pip; the real one is fetched where there is a network (tests/slow). It
# refuses settings that run.py has no business to hand on, since the real one would heed them.
STAND_IN = f"""#!{PYTHON}
import os, sys
_, *words = sys.argv
known = "CACHE_DIR DEFAULT_INDEX FIND_LINKS HTTP_CONNECT_TIMEOUT HTTP_RETRIES HTTP_TIMEOUT INDEX "
known += "INDEX_STRATEGY INSECURE_HOST NO_CONFIG"
env = {{n: v for n, v in os.environ.items() if not n.startswith(("PIP_", "PYTHON"))}}
strange = {{n for n in env if n.startswith("UV_")}} - {{"UV_" + n for n in known.split()}}
strange |= {{n for n in os.environ if n.startswith("PYTHON")}} - {{"PYTHONNOUSERSITE"}}
if strange or "--no-config" not in words:
    sys.exit(f"error: the stand-in is told of {{sorted(strange)}}")
words.remove("--no-config")
*words, last = words
if words[0] == "venv":
    os.execve({PYTHON!r}, [{PYTHON!r}, "-I", "-m", "venv", "--without-pip", last], env)
assert words.pop() == "--python"
index, more = env.get("UV_DEFAULT_INDEX"), env.get("UV_INDEX", "").split()
words += [f"--index-url={{index}}"] * bool(index) + [f"--extra-index-url={{u}}" for u in more]
words += [f"--find-links={{u}}" for u in env.get("UV_FIND_LINKS", "").split(",") if u]
words += [f"--trusted-host={{h}}" for h in env.get("UV_INSECURE_HOST", "").split()]
words += ["--cert=" + env[name] for name in ["SSL_CERT_FILE"] if name in env]
env |= {{"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}}
os.execve({PYTHON!r}, [{PYTHON!r}, "-I", "-m", "pip", "--python", last, *words[1:]], env)
"""


def make_wheel(
    directory: Path, name: str, needs: str = "", script: str = "", code: str = "WHERE = __file__\n"
) -> dict:
    """A wheel of one module, and its entry in a lock; `script` is a command of its name."""
    file = directory / f"{name}-{VERSION}-py3-none-any.whl"
    info = f"{name}-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    contents = {
        f"{name}.py": code,
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


@pytest.fixture
def machine(tmp_path) -> Machine:
    place = tmp_path / "machine"
    place.mkdir()
    settings_files(place)
    return Machine(place)


@pytest.fixture
def index(tmp_path, wheels) -> Path:
    """A directory that is an index of the bundle's wheels."""
    return make_index(tmp_path / "mirror", wheels[0])


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def thin(make) -> Bundle:
    """A bundle without its wheels: it needs an index."""
    bundle = make()
    (bundle.path / "wheels").unlink()
    return bundle


@pytest.fixture
def stand_in(tmp_path) -> str:
    """A uv to name in GRUG_UV."""
    path = tmp_path / "bin/uv"
    path.parent.mkdir()
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def warm(make, home, tmp_path) -> Path:
    """A home of the test's own in which everything is made already."""
    done = make().run(home)
    assert done.returncode == 0, done.stderr
    shutil.copytree(home, tmp_path / "fresh", symlinks=True)
    return tmp_path / "fresh"


@pytest.fixture(params=["pip", "uv"])
def installer(request) -> dict[str, str]:
    """The variables that have run.py install with each, or with the one that a test names."""
    return {"GRUG_UV": request.getfixturevalue("stand_in")} if request.param == "uv" else {}


def starts(machine: Machine, bundle: Bundle, **env: str) -> subprocess.CompletedProcess:
    """A start that installs what is locked, in its place, by the first installer that it tries."""
    done = machine.run(bundle.command(), **env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jax"].startswith(str(machine.venvs)), done.stdout
    assert "not with uv" not in done.stderr, done.stderr
    assert not (machine.root / "elsewhere").exists()
    assert not machine.left_over()
    return done
