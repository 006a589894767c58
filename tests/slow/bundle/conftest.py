"""The small bundle of tests/tools/bundle, and the real uv that real bundles pin."""

import os
import platform
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
from tools.bundle import run as worker
from tools.bundle.lock import Lock, Target, requirements_text

__all__ = ["authority", "contents", "index", "machine", "make", "thin", "wheels"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def real_uv(tmp_path_factory) -> str:
    """The uv of tools/locks/tools.lock, fetched as run.py does it."""
    place = tmp_path_factory.mktemp("uv")
    here = [Target("{}.{}".format(*sys.version_info), platform.machine())]
    lock = Lock.parse((ROOT / "tools/locks/tools.lock").read_text(), "tools.lock")
    pins = place / "installer.txt"
    pins.write_text(requirements_text(lock.needed(["uv"], here), here))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", PYTHON)
        found = worker.fetched_uv(str(place), str(pins), worker.Mirrors(str(pins), str(place)))
    assert os.access(found, os.X_OK)
    return found
