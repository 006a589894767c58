"""Tests of ./pants with a stand-in for CPython 3.9 that notes what is asked of it: no network."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# All that the script may call besides an interpreter: on this PATH there is no Python 3.9.
TOOLS = "bash basename cat cut dirname env grep mkdir rm sed touch tr uname wc".split()
SHA256 = ("sha256sum", "shasum")

# Does what ./pants asks of CPython 3.9, pip and Pex, and writes a line into $CALLS for each.
STAND_IN = """#!{python}
import os, shutil, sys, time
from pathlib import Path

args = sys.argv[1:]
note = lambda line: print(line, file=open(os.environ["CALLS"], "a"))
after = lambda flag: Path(args[args.index(flag) + 1])
if args[0].endswith("bin/pants"):
    note("pants")
    print("cwd", os.getcwd())
    print("args", args[1:])
    for name in sorted(os.environ):
        if name.startswith("PANTS_"):
            print(name, os.environ[name])
    sys.exit(int(os.environ.get("PANTS_EXIT", 0)))
elif args[0] == "-c" and "fcntl" in args[1]:
    os.execv({python!r}, [{python!r}, *args])
elif args[0] == "-c" and "realpath" in args[1]:
    print(os.path.realpath(sys.argv[0]))
elif args[0] == "-c":
    note("probe")
elif args[:2] == ["-m", "venv"]:
    note("venv")
    (Path(args[2]) / "bin").mkdir(parents=True)
    (Path(args[2]) / "bin" / "python").symlink_to(os.path.abspath(sys.argv[0]))
elif args[:2] == ["-m", "pip"]:
    note("pip")
    time.sleep(float(os.environ.get("PIP_SECONDS", 0)))
    print(os.environ.get("PIP_SAYS", "chatter"), file=sys.stderr)
    if os.environ.get("PIP_SAYS"):
        sys.exit(1)
    if "download" in args:
        after("-d").mkdir()
        (after("-d") / "pex-0-py3-none-any.whl").touch()
elif args[:2] == ["-m", "pex"]:
    note("pex")
    after("-o").write_text("the pex")
else:
    sys.exit(f"stand-in: unexpected {{args}}")
"""


@dataclass
class Checkout:
    """A copy of the script in a directory of its own, with spaces in every path."""

    root: Path
    tools: Path
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> list[str]:
        log = self.home / "calls"
        return log.read_text().split() if log.exists() else []

    @property
    def caches(self) -> list[Path]:
        return [path for path in self.home.glob(".cache/grug/*") if path.is_dir()]

    def python39(self, directory: Path, text: str = STAND_IN) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "python3.9"
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
        return path

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "pants", *args],
            cwd=self.home,
            env={
                "PATH": str(self.tools),
                "HOME": str(self.home),
                "CALLS": str(self.home / "calls"),
                **self.env,
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*args, **env)
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)


@pytest.fixture
def bare(tmp_path: Path) -> Checkout:
    """A machine without CPython 3.9."""
    root, tools, home = (tmp_path / name for name in ("a checkout", "some tools", "a home"))
    for directory in (root / "tools" / "locks", tools, home):
        directory.mkdir(parents=True)
    for name in ("pants", "tools/locks/pants.txt", "tools/locks/pex.txt"):
        shutil.copy(name, root / name)
    found = {name: shutil.which(name) for name in (*TOOLS, *SHA256)}
    for name, path in found.items():
        if path:
            (tools / name).symlink_to(path)
    return Checkout(root, tools, home)


@pytest.fixture
def checkout(bare: Checkout) -> Iterator[Checkout]:
    """A machine with CPython 3.9 on PATH."""
    bare.python39(bare.tools)
    yield bare


INSTALL = ["venv", "pip", "pip", "pip", "pex"]


def installs(checkout: Checkout) -> int:
    return checkout.calls.count("venv")


def test_installs_then_hands_over(checkout: Checkout) -> None:
    run = checkout.run("test", "::", "--", "two words", "", PANTS_EXIT="3")
    assert run.returncode == 3, run.stderr
    assert [call for call in checkout.calls if call != "probe"] == [*INSTALL, "pants"]
    assert f"cwd {checkout.root}" in run.stdout
    assert "args ['test', '::', '--', 'two words', '']" in run.stdout
    assert "installing Pants" in run.stderr
    assert "chatter" not in run.stderr


def test_points_pants_at_the_pex_it_built(checkout: Checkout) -> None:
    told = dict(line.split(" ", 1) for line in checkout.run().stdout.splitlines())
    (cache,) = checkout.caches
    digest = hashlib.sha256((cache / "pex").read_bytes()).hexdigest()
    version = told["PANTS_PEX_CLI_VERSION"]
    assert told["PANTS_PEX_CLI_URL_TEMPLATE"] == f"file:{cache}/pex"
    assert f"'{version}|linux_x86_64|{digest}|7'" in told["PANTS_PEX_CLI_KNOWN_VERSIONS"]
    assert told["PANTS_PYTHON39"] == str(checkout.tools / "python3.9")


def test_second_start_only_hands_over(checkout: Checkout) -> None:
    checkout.run()
    before = len(checkout.calls)
    run = checkout.run("--version")
    assert checkout.calls[before:] == ["pants"]
    assert run.stderr == ""


def test_another_lock_is_another_install(checkout: Checkout) -> None:
    checkout.run()
    with (checkout.root / "tools/locks/pants.txt").open("a") as lock:
        lock.write("# changed\n")
    checkout.run()
    assert installs(checkout) == 2
    assert len(checkout.caches) == 2


def test_without_python39_says_how_to_get_it(bare: Checkout) -> None:
    run = bare.run()
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    for way in ("uv python install 3.9", "pyenv install 3.9", "PANTS_PYTHON39"):
        assert way in line
    assert bare.caches == []


def test_named_python39_must_work(checkout: Checkout) -> None:
    run = checkout.run(PANTS_PYTHON39="/no/such/python")
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        "pants: PANTS_PYTHON39=/no/such/python is not a working CPython 3.9; correct or unset it."
    ]


def test_shim_without_a_python_behind_it_is_passed_over(bare: Checkout) -> None:
    bare.python39(
        bare.tools, "#!/bin/sh\necho 'pyenv: python3.9: command not found' >&2\nexit 127\n"
    )
    versions = bare.home / "pyenv" / "versions" / "3.9.18" / "bin"
    bare.python39(versions).rename(versions / "python")
    run = bare.run(PYENV_ROOT=str(bare.home / "pyenv"))
    assert run.returncode == 0, run.stderr
    assert str(versions) in run.stdout


def test_python39_from_uv(bare: Checkout) -> None:
    hidden = bare.python39(bare.home / "uv")
    uv = bare.tools / "uv"
    # Finds nothing until asked to install.
    uv.write_text(
        '#!/bin/sh\nif [ "$2" = install ]; then touch "$HOME/got"; exit; fi\n'
        f'[ -f "$HOME/got" ] && echo "{hidden}"\n'
    )
    uv.chmod(0o755)
    run = bare.run()
    assert run.returncode == 0, run.stderr


def test_half_made_cache_heals(checkout: Checkout) -> None:
    checkout.run()
    (cache,) = checkout.caches
    (cache / "ready").unlink()
    (cache / "venv" / "rubble").touch()
    assert checkout.run().returncode == 0
    assert installs(checkout) == 2
    assert not (cache / "venv" / "rubble").exists()


def test_cache_whose_python_is_gone_heals(bare: Checkout) -> None:
    gone = bare.python39(bare.home / "gone")
    assert bare.run(PANTS_PYTHON39=str(gone)).returncode == 0
    gone.unlink()
    bare.python39(bare.tools)
    assert bare.run().returncode == 0
    assert installs(bare) == 2


def test_killed_install_heals(checkout: Checkout) -> None:
    process = checkout.start(PIP_SECONDS="30")
    while "pip" not in checkout.calls:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert checkout.run().returncode == 0
    assert [call for call in checkout.calls if call != "probe"][-6:] == [*INSTALL, "pants"]


def test_starts_at_once_install_once(checkout: Checkout) -> None:
    starts = [checkout.start(str(i), PIP_SECONDS="0.3") for i in range(3)]
    results = [start.communicate(timeout=60) for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], results
    assert installs(checkout) == 1
    assert [f"args ['{i}']" in stdout for i, (stdout, _) in enumerate(results)] == [True] * 3
    assert sum("waiting for another start" in stderr for _, stderr in results) == 2


def test_offline_says_so_and_leaves_nothing(checkout: Checkout) -> None:
    says = "WARNING: Retrying after connection broken by 'NewConnectionError(...)': /simple/x/"
    run = checkout.run(PIP_SAYS=says)
    assert run.returncode == 1
    assert run.stderr.splitlines()[1:] == [
        "pants: could not install Pants: the package index does not answer. The first run needs "
        "PyPI, or a mirror of it named in PIP_INDEX_URL; later runs need no network."
    ]
    assert checkout.caches == []


def test_other_failures_of_pip_are_shown(checkout: Checkout) -> None:
    run = checkout.run(PIP_SAYS="ERROR: THESE PACKAGES DO NOT MATCH THE HASHES")
    assert run.returncode == 1
    assert "DO NOT MATCH THE HASHES" in run.stderr
    assert "could not install Pants" in run.stderr.splitlines()[-1]
    assert checkout.caches == []
