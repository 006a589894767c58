"""Bundles and their environments, installed once for the tests of a file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.engines.cluster import cache_in
from tests.slow.engines.bundles import PYTHON, QUICK, packed


@pytest.fixture(scope="session")
def bundle() -> Path:
    return packed("base-cpu")


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of every process: where environments and what was compiled are kept."""
    home = {"GRUG_VENVS": str(tmp_path_factory.mktemp("venvs"))}
    return {**QUICK, **home, **cache_in(tmp_path_factory.mktemp("compiled"))}


@pytest.fixture(scope="session")
def venvs(bundle: Path, settings: dict[str, str]) -> Path:
    """GRUG_VENVS with the environment of the CPU bundle in it."""
    command = [PYTHON, str(bundle / "run.py"), "--help"]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return Path(settings["GRUG_VENVS"])
