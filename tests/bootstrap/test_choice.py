"""Which interpreters ./pants runs on and pins, and what it does where there is none."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bootstrap.checkout import UNSET, Checkout, Told, base_python, set_range
from tests.bootstrap.servers import Index
from tools.start import interpreters

MINOR = sys.version_info.minor


def searched(told: Told) -> list[str]:
    """Pants' own interpreter, and the one for the code."""
    return ast.literal_eval(told.environment["PANTS_PYTHON_BOOTSTRAP_SEARCH_PATH"])


@pytest.fixture
def unnamed(checkout: Checkout, python39: str) -> Checkout:
    """A machine that has the interpreters on PATH, and names none."""
    checkout.env.update(PANTS_PYTHON39=UNSET, PANTS_PYTHON=UNSET)
    (checkout.bin / "python3").unlink()
    checkout.link("python3.9", python39)
    checkout.link(f"python3.{MINOR}", base_python())
    return checkout


@pytest.fixture
def free(unnamed: Checkout, installation: Path) -> Checkout:
    """Likewise, and Pants is installed: only the interpreter for the code is looked for."""
    unnamed.env["GRUG_CACHE"] = str(installation)
    return unnamed


def stand_in(checkout: Checkout, minor: int) -> Path:
    """An interpreter that no machine has, as far as its answer goes."""
    path = checkout.bin / f"python3.{minor}"
    return checkout.program(path.name, f"#!/bin/sh\nprintf '%s\\n' CPython {minor} 1 '{path}'\n")


def test_both_are_found_on_the_path(unnamed: Checkout, python39: str) -> None:
    told = unnamed.run().check()
    assert searched(told) == [python39, base_python()]
    assert told.environment["PANTS_PYTHON39"] == python39


def test_plain_python3_that_is_3_9(unnamed: Checkout, python39: str) -> None:
    (unnamed.bin / "python3.9").unlink()
    unnamed.link("python3", python39)
    assert searched(unnamed.run().check())[0] == python39


def test_pyenvs_shims_without_its_variable(unnamed: Checkout, python39: str) -> None:
    """As after `env -i HOME=... PATH=...`: the shims run nothing, what they stand for is beside."""
    shims = unnamed.home.parent / "pyenv/shims"
    shims.mkdir(parents=True)
    for name in ("python3.9", f"python3.{MINOR}"):
        (unnamed.bin / name).unlink()
        unnamed.program(name, f"#!/bin/sh\necho 'pyenv: {name}: command not found' >&2\nexit 127\n")
        (unnamed.bin / name).rename(shims / name)
    for name, python in (("3.9", python39), (f"3.{MINOR}", base_python())):
        place = shims.parent / f"versions/{name}.1/bin"
        place.mkdir(parents=True)
        (place / f"python{name}").symlink_to(python)
        (place / "python").symlink_to(python)
    told = unnamed.run(PATH=f"{shims}:{unnamed.bin}").check()
    assert searched(told) == [python39, base_python()]
    assert "command not found" not in told.errors


def test_newest_in_range_is_pinned(free: Checkout) -> None:
    set_range(free.root, MINOR, 63)
    wanted = stand_in(free, 62)
    for minor in (61, 63):
        stand_in(free, minor)
    assert searched(free.run().check())[1] == str(wanted)
    # One that comes later changes nothing: all is built already for the other.
    wanted.unlink()
    stand_in(free, 62)
    assert searched(free.run().check())[1] == str(wanted)


def test_pinned_one_stays_until_it_is_gone(free: Checkout) -> None:
    set_range(free.root, MINOR, 63)
    old = stand_in(free, 61)
    assert searched(free.run().check())[1] == str(old)
    new = stand_in(free, 62)
    assert searched(free.run().check())[1] == str(old)
    old.unlink()
    assert searched(free.run().check())[1] == str(new)
    set_range(free.root, MINOR, MINOR + 1)
    assert searched(free.run().check())[1] == base_python()


@pytest.mark.parametrize("text", ["", "rubble", "/bin/sh\nnot a number\n", "\xff"])
def test_broken_pin_heals(text: str, free: Checkout) -> None:
    pin = free.root / ".pants.d/python"
    pin.parent.mkdir()
    pin.write_text(text, encoding="latin-1")
    assert searched(free.run().check())[1] == base_python()


def test_named_one_overrides_the_pin(free: Checkout, tmp_path: Path) -> None:
    set_range(free.root, MINOR, 63)
    pinned, named = stand_in(free, 62), stand_in(free, 61)
    assert searched(free.run().check())[1] == str(pinned)
    for name in ("python3.61", str(named)):
        assert searched(free.run(PANTS_PYTHON=name).check())[1] == str(named)
    told = free.run(PANTS_PYTHON="./python3.61", cwd=free.bin).check()
    assert searched(told)[1] == str(named)
    assert searched(free.run().check())[1] == str(pinned)
    # Of a virtual environment it is the base.
    venv.create(tmp_path / "venv", symlinks=True)
    told = free.run(PANTS_PYTHON=str(tmp_path / "venv/bin/python")).check()
    assert searched(told)[1] == base_python()


@pytest.mark.parametrize("name", ["/no/such/python", "no-such-python", "python3.9", "cat"])
def test_wrong_one_is_named(name: str, free: Checkout) -> None:
    told = free.run(PANTS_PYTHON=name)
    told.check_failed(f"PANTS_PYTHON={name}", f"at least 3.{MINOR}", "correct or unset it")


@pytest.mark.parametrize("name", ["/no/such/python", "no-such-python", f"python3.{MINOR}", "cat"])
def test_wrong_one_for_pants_is_named(name: str, unnamed: Checkout) -> None:
    told = unnamed.run(PANTS_PYTHON39=name)
    told.check_failed(f"PANTS_PYTHON39={name}", "CPython 3.9", "correct or unset it")
    assert unnamed.leftovers == []


def test_none_in_range_and_none_to_fetch(free: Checkout) -> None:
    set_range(free.root, 60, 61)
    told = free.run()
    told.check_failed("at least 3.60 and below 3.61", "none was found", "PANTS_PYTHON")
    assert "pants: fetching CPython 3.60 with uv\n" in told.errors
    assert not (free.root / ".pants.d/python").exists()


@pytest.mark.parametrize("text", ["", "[python]\ninterpreter_constraints = ['CPython==3.12.*']\n"])
def test_range_that_is_not_read_is_told(text: str, free: Checkout) -> None:
    (free.root / "pants.toml").write_text(text)
    free.run().check_failed("pants.toml", "interpreter_constraints")


@pytest.fixture
def without39(bare: Checkout, tmp_path: Path) -> Checkout:
    """No 3.9 and no uv; a Python to look for others."""
    nothing = {"HOME": str(tmp_path), "PATH": ""}
    if interpreters.find(range(9, 10), nothing):
        pytest.skip("this machine has a CPython 3.9 where every search looks")
    bare.link("python3", base_python())
    bare.env["PANTS_PYTHON"] = base_python()
    return bare


def test_uv_is_fetched_by_its_digest_and_its_error_is_shown(without39: Checkout) -> None:
    empty = without39.home / "no archives"
    empty.mkdir()
    told = without39.run(UV_PYTHON_INSTALL_MIRROR=empty.as_uri())
    words = ("Pants 2.17 runs on CPython 3.9", "UV_PYTHON_INSTALL_MIRROR", "PANTS_PYTHON39")
    told.check_failed(*words)
    lines = told.errors.splitlines()
    assert lines[1] == "pants: fetching CPython 3.9 with uv"
    assert lines[2] == f"pants: fetching {without39.packages.uv.path.name}"
    assert any("no archives" in line for line in lines[3:-1]), told.errors
    # uv itself is kept for the next start.
    assert without39.caches == []
    assert without39.leftovers == []
    again = without39.run(UV_PYTHON_INSTALL_MIRROR=empty.as_uri())
    assert "fetching uv" not in again.errors


def test_other_file_is_no_uv(without39: Checkout, serve: Callable[..., Index]) -> None:
    server = serve(without39.packages.root)
    other = f"{server.url}/files/{without39.packages.pex.path.name}"
    server.faults[f"/files/{without39.packages.uv.path.name}"] = [other] * 9
    told = without39.run(PIP_INDEX_URL=f"{server.url}/simple")
    told.check_failed("its sha256 is", without39.packages.uv.sha256[:16])
    assert without39.leftovers == []


def test_uv_that_does_not_work_is_replaced(checkout: Checkout) -> None:
    """An old one on PATH, say, which lacks an option."""
    checkout.program("uv", "#!/bin/sh\necho 'error: unexpected argument' >&2\nexit 2\n")
    told = checkout.run().check()
    assert "unexpected argument" not in told.errors
    assert f"pants: fetching {checkout.packages.uv.path.name}\n" in told.errors


def test_platform_that_the_lock_has_no_uv_for(without39: Checkout) -> None:
    lock = without39.root / "tools/locks/tools.lock"
    lock.write_text(lock.read_text().replace(f"_{platform.machine()}.whl", "_other.whl"))
    told = without39.run()
    told.check_failed("tools.lock has no uv for", platform.machine(), "install uv")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, python39: str) -> Path:
    """The CPython 3.9 at hand as uv downloads it; skips where it cannot be moved."""
    path = tmp_path_factory.mktemp("archive") / "cpython-3.9.tar.gz"
    prefix = Path(python39).parents[1]

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(member.name).parts
        useless = {"test", "__pycache__", "site-packages", "share", "include", "idlelib"}
        return None if useless.intersection(parts) or member.name.endswith(".a") else member

    if prefix in (Path("/"), Path("/usr"), Path("/usr/local")):
        pytest.skip("CPython 3.9 lies among other programs")
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for name in ("bin", "lib"):
            file.add(prefix / name, f"python/{name}", filter=wanted)
    moved = tmp_path_factory.mktemp("moved")
    subprocess.run(["tar", "-xzf", path, "-C", moved], check=True)
    done = subprocess.run(
        [moved / "python/bin/python3.9", "-Ic", "import ssl, sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
    )
    if done.stdout.strip() != str(moved / "python"):
        pytest.skip("this CPython 3.9 does not run where it was not installed")
    return path


@pytest.fixture
def mirror(without39: Checkout, archive: Path) -> None:
    """What uv downloads comes from a file here."""
    system = {"Linux": "linux", "Darwin": "darwin"}[platform.system()]
    libc = platform.libc_ver()[0] and "gnu" or ("none" if system == "darwin" else "musl")
    family = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    download = {
        "name": "cpython",
        "arch": {"family": family, "variant": None},
        "os": system,
        "libc": libc,
        "major": 3,
        "minor": 9,
        "patch": 99,
        "prerelease": "",
        "url": archive.as_uri(),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": "20260101",
    }
    listing = without39.home / "downloads.json"
    listing.write_text(json.dumps({f"cpython-3.9.99-{system}-{family}-{libc}": download}))
    without39.env["UV_PYTHON_DOWNLOADS_JSON_URL"] = str(listing)


def test_python_is_fetched_from_a_mirror(without39: Checkout, mirror: None) -> None:
    told = without39.run().check()
    place = without39.home / ".local/share/uv/python"
    assert Path(searched(told)[0]).is_relative_to(place.resolve())
    assert "pants: fetching CPython 3.9 with uv\n" in told.errors


def test_uv_alone_is_enough(without39: Checkout, mirror: None, uv: Path) -> None:
    """Where there is no Python at all, not even one to look for others."""
    (without39.bin / "python3").unlink()
    without39.link("uv", uv)
    told = without39.run().check()
    place = without39.home / ".local/share/uv/python"
    assert Path(searched(told)[0]).is_relative_to(place.resolve())
    assert "pants: fetching CPython 3.9 with uv, to look for others\n" in told.errors
