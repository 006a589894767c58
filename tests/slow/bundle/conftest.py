"""The small bundle of tests/tools/bundle, and the real uv that real bundles pin."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.bundle.conftest import (
    PYTHON,
    authority,
    contents,
    index,
    machine,
    make,
    thin,
    wheels,
)
from tools.bundle.lock import Lock, Target, requirements_text

__all__ = ["authority", "contents", "index", "machine", "make", "thin", "wheels"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def tools_lock() -> Lock:
    return Lock.parse((ROOT / "tools/locks/tools.lock").read_text(), "tools.lock")


@pytest.fixture(scope="session")
def wheels_and_uv(tmp_path_factory, wheels, tools_lock) -> Path:
    """The wheels of the small bundle and that of the real uv."""
    place = tmp_path_factory.mktemp("uv")
    here = [Target("{}.{}".format(*sys.version_info), platform.machine())]
    pins = place / "installer.txt"
    pins.write_text(requirements_text(tools_lock.needed(["uv"], here), here))
    strict = ("--require-hashes", "--only-binary", ":all:", "--no-deps", "-q")
    command = (PYTHON, "-m", "pip", "download", *strict, "-r", str(pins), "-d", str(place))
    subprocess.run(command, check=True)
    for wheel in wheels[0].iterdir():
        shutil.copy(wheel, place)
    return place


@pytest.fixture(scope="session")
def real_uv(wheels_and_uv) -> str:
    target = wheels_and_uv / "installed"
    command = (PYTHON, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target))
    subprocess.run((*command, *map(str, wheels_and_uv.glob("uv-*.whl"))), check=True)
    return str(target / "bin/uv")
