"""The template's own tests, on the oldest JAX that it supports: see tools/locks/jax-0-11.in."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jax
import pytest

from tests.tools.diff.histories import of_packages, prove

PEX = "tests/slow/older_jax/jax.pex"  # where Pants puts it
BASE = Path("experiments/grug/base")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(*ARGUMENTS)`: what a Python with the older JAX prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "PYTHON"))}
    environment |= {
        "PEX_ROOT": str(tmp_path_factory.mktemp("pex_root")),
        "PYTHONPATH": os.getcwd(),
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, PEX, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            said = done.stdout + done.stderr
            pytest.fail(f"{' '.join(arguments)} ended with {done.returncode}:\n{said}")
        return done.stdout

    return run


def test_the_template_passes_on_an_older_jax(run, tmp_path):
    report = tmp_path / "report.xml"
    version = run("-c", "import jax; print(jax.__version__)").strip()
    assert version.startswith("0.11.") and version != jax.__version__
    run("-m", "pytest", "-q", f"--junitxml={report}", str(BASE))
    cases = list(ET.parse(report).iter("testcase"))
    modules = {case.get("classname", "").rpartition(".")[2] for case in cases}
    assert modules == {file.stem for file in BASE.glob("test_*.py")}
    assert not [case.get("name") for case in cases if case.find("skipped") is not None]


def test_the_proof_of_diff_reports_holds_between_both_versions_of_jax(run):
    old = run("-c", "import jax; print(jax.__path__[0])").strip()
    assert prove(of_packages(Path(old), Path(jax.__path__[0])))["pairs"] > 100
