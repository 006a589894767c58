"""pex_cli with the real Pex: from mirrors, without pip, and with a reference for a whole lock."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bootstrap.checkout import base_python
from tests.bootstrap.home import Home, make_home
from tests.bootstrap.servers import ABSENT, Index
from tests.bootstrap.wheels import pex_lock
from tools.start import install
from tools.start.machine import Machine


@pytest.fixture(scope="session")
def installed(grug_cache: Path) -> Path:
    """Where ./pants installed the Pex that is locked, and the interpreter beside it."""
    (pin, *_) = Path("tools/locks/pex.txt").read_text().split()
    version = f'__version__ = "{pin.partition("==")[2]}"'
    for ready in sorted(grug_cache.glob("pants-*/ready"), key=lambda path: -path.stat().st_mtime):
        source = ready.parent / "pexlib/pex/version.py"
        if source.exists() and version in source.read_text():
            return ready.parent
    pytest.skip(f"{pin} is not installed: run ./pants once")


@dataclass
class Pex:
    """The file that Pants runs as Pex, on locks that name a host that does not exist."""

    home: Home
    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "pex root"

    @property
    def lock(self) -> Path:
        return self.directory / "tools/locks/mine.lock"

    def run(self, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """As Pants does, which hands on no more of the environment than PATH and the like."""
        return subprocess.run(
            [self.home.python.resolve(), self.home.place / "pex", *arguments],
            cwd=self.directory,
            env={**self.home.env, "PEX_ROOT": str(self.root), **env},
            capture_output=True,
            text=True,
        )

    def build(
        self, *requirements: str, layout: str = "packed", **env: str
    ) -> subprocess.CompletedProcess[str]:
        flags = ["--no-emit-warnings", "--no-pypi", "--index=https://localhost:1/simple"]
        flags += ["--output-file", "out.pex", "--layout", layout]
        lock = ["--python", base_python(), "--lock", "tools/locks/mine.lock"]
        return self.run(*flags, *lock, *requirements, **env)

    @property
    def contents(self) -> list[str]:
        """The distributions in what was built."""
        return sorted(path.name for path in (self.directory / "out.pex/.deps").iterdir())

    def use(self) -> str:
        program = "import alpha, beta; print(alpha.VALUE, beta.VALUE)"
        done = subprocess.run(
            [base_python(), self.directory / "out.pex", "-c", program],
            env={**self.home.env, "PEX_ROOT": str(self.root)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


WHOLE = ["grug_environment-1-py3-none-any.whl"]
WHEELS = ["Alpha_One-1.0-py3-none-any.whl", "beta-2.0+local-py3-none-any.whl"]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory, uv: Path, installed: Path) -> Path:
    """What Pex keeps of itself and of interpreters, which takes it seconds each time."""
    made = make_pex(tmp_path_factory.mktemp("warm"), uv, installed)
    assert made.build("alpha-one").returncode == 0
    return made.root


@pytest.fixture
def pex(tmp_path: Path, uv: Path, installed: Path, warm: Path) -> Pex:
    made = make_pex(tmp_path, uv, installed)
    made.root.mkdir()
    for name in ("isolated", "interpreters"):
        (made.root / name).symlink_to(warm / name)
    return made


def make_pex(tmp_path: Path, uv: Path, installed: Path) -> Pex:
    home = make_home(tmp_path, installed / "venv", uv)
    (home.place / "pexlib").symlink_to(installed / "pexlib")
    install.write_pex(home.place, Path("tools/locks"), str(home.python))
    directory = tmp_path / "a sandböx"
    (directory / "tools/locks").mkdir(parents=True)
    made = Pex(home, directory)
    urls = [f"{ABSENT}/ab/cd/{wheel.path.name}".replace("+", "%2B") for wheel in home.wheels]
    text = pex_lock(list(zip(home.wheels, urls, strict=True)))
    made.lock.write_text(text.partition("\n")[2])  # as Pants hands it on: without its header
    return made


def check_without_pip(pex: Pex, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert not (pex.root / "pip").exists(), "pip was set up"


def test_whole_lock_becomes_a_reference(pex: Pex) -> None:
    done = pex.build()
    check_without_pip(pex, done)
    assert done.stderr == "pants: installing 2 packages of tools/locks/mine.lock\n"
    assert pex.contents == WHOLE
    assert pex.use() == "alpha beta\n"
    (place,) = (path for path in pex.home.environments.iterdir() if path.is_dir())
    assert place.name.startswith("mine-")
    assert (place / "alpha.py").exists()
    again = pex.build()
    assert (again.returncode, again.stderr) == (0, "")


def test_reference_is_the_same_in_every_sandbox(pex: Pex) -> None:
    """So that what Pants built with one serves the next."""
    packed = []
    for _ in range(2):
        assert pex.build().returncode == 0
        (path,) = (pex.directory / "out.pex/.deps").iterdir()
        packed.append(
            path.read_bytes() if path.is_file() else sorted(p.name for p in path.iterdir())
        )
        pex.directory.rename(pex.directory.with_name(f"sandbox {len(packed)}"))
        pex.directory = pex.directory.with_name(f"sandbox {len(packed)}")
    assert packed[0] == packed[1]


def test_subset_holds_its_wheels(pex: Pex) -> None:
    done = pex.build("alpha-one")
    check_without_pip(pex, done)
    assert pex.contents == WHEELS[:1]
    assert not pex.home.environments.exists()


def test_package_holds_its_wheels(pex: Pex) -> None:
    """What is deployed elsewhere, where no directory of this machine is."""
    done = pex.build(layout="zipapp")
    check_without_pip(pex, done)
    with zipfile.ZipFile(pex.directory / "out.pex") as archive:
        packed = {name.split("/")[1] for name in archive.namelist() if name.startswith(".deps/")}
    assert sorted(packed - {""}) == WHEELS
    assert not pex.home.environments.exists()


def test_files_come_from_a_mirror(pex: Pex, serve: Callable[..., Index]) -> None:
    server = serve(pex.home.index, login="me:s3cret")
    pex.home.tell(Machine(index=f"{server.url_with_login}/simple"))
    done = pex.build("alpha-one", "beta")
    check_without_pip(pex, done)
    assert pex.contents == WHEELS
    assert {path for path in server.asked if path.endswith(".whl")} == {
        f"/files/{wheel.path.name}" for wheel in pex.home.wheels
    }
    assert pex.use() == "alpha beta\n"


def test_without_a_mirror_it_says_where_it_looked(pex: Pex) -> None:
    pex.home.tell(Machine())
    done = pex.build("alpha-one")
    assert done.returncode != 0
    assert ABSENT in done.stderr
    assert "Traceback" not in done.stderr


def test_where_the_directory_cannot_be_made_pex_goes_on_alone(pex: Pex) -> None:
    """uv wants a page of the index; this mirror is a directory of files."""
    (pex.directory.parent / "bin/uv").unlink()
    done = pex.build()
    check_without_pip(pex, done)
    assert "building it by Pex alone" in done.stderr
    assert pex.contents == WHEELS
    assert pex.use() == "alpha beta\n"


def test_settings_of_pip_and_python_do_not_reach_it(pex: Pex, tmp_path: Path) -> None:
    """Nor what it starts: here a program in an environment of its own, else pip."""
    poison = {
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PIP_NO_BINARY": ":all:",
        "PIP_TARGET": str(tmp_path / "target"),
        "PEX_PYTHON": "/no/such/python",
        "UV_OFFLINE": "1",
        "PYTHONWARNINGS": "error",
    }
    program = "import json, os, sys; json.dump(dict(os.environ), sys.stdout)"
    lock = ["--python", base_python(), "--lock", "tools/locks/mine.lock"]
    done = pex.run(*lock, "alpha-one", "--", "-c", program, **poison)
    check_without_pip(pex, done)
    told = json.loads(done.stdout)
    assert told["PIP_CONFIG_FILE"] == os.devnull
    assert not {name for name in poison if name in told} - {"PIP_CONFIG_FILE"}
    check_without_pip(pex, pex.build(**poison))
    assert pex.contents == WHOLE


def test_pex3_is_there_too(pex: Pex) -> None:
    done = pex.run("--version", PEX_SCRIPT="pex3")
    assert done.returncode == 0, done.stderr
    flags = ["lock", "export", "--format", "pip", "--python", base_python()]
    done = pex.run(*flags, pex.lock, PEX_SCRIPT="pex3")
    assert "alpha-one==1.0" in done.stdout, done.stderr


# As uv reads them, whatever the interpreter's own library makes of TOML.
TOML = {
    'index = [\n  { url = "https://a.example", default = true },  # "]"\n]\n': "https://a.example",
    'pip.index-url = "https://a.example"\n': "https://a.example",
    'find-links = ["a", # one\n  "b",\n]\nindex-url = "https://a.example"\n': "https://a.example",
    '[extra-build-dependencies]\na = ["b", {requirement = "c", match-runtime = true}]\n': "",
    "exclude-newer = 2001-01-01T00:00:00Z\n": "",
    "index = [ {url = }\n": "are left out",
    "index-url = https://a.example\n": "are left out",
    'index-url = "\n': "are left out",
    "[[index]\n": "are left out",
}
READ = """
import sys
from tools.start import machine
print(machine.read({"HOME": "/no/such", "UV_CONFIG_FILE": sys.argv[1]}, print).index)
"""


@pytest.mark.parametrize("text", TOML)
def test_uvs_file_is_read_on_pants_own_interpreter(text: str, pex: Pex, tmp_path: Path) -> None:
    """CPython 3.9 brings no reader of TOML."""
    (tmp_path / "uv.toml").write_text(text)
    done = pex.home.run(tmp_path / "uv.toml", program=READ)
    assert done.stderr == ""
    assert TOML[text] in done.stdout
    assert ("are left out" in done.stdout) == (TOML[text] == "are left out")
    assert os.linesep in done.stdout
