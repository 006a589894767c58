"""The template's own tests, on the oldest JAX that it supports: see tools/locks/jax-0-11.in."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jax
import pytest

# Where Pants puts it; its first line may name a Python that is on PATH as a shim that does not run.
PYTHON = [sys.executable, Path("tests/slow/older_jax/jax.pex").absolute()]


def test_the_template_passes_on_an_older_jax(tmp_path):
    report = tmp_path / "report.xml"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "PYTHON"))}
    environment |= {"PEX_ROOT": str(tmp_path / "pex_root"), "PYTHONPATH": os.getcwd()}
    version = subprocess.run(
        [*PYTHON, "-c", "import jax; print(jax.__version__)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert version.startswith("0.11.") and version != jax.__version__
    done = subprocess.run(
        [*PYTHON, "-m", "pytest", "-q", f"--junitxml={report}", "experiments/grug/base"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        pytest.fail(f"the template's tests failed on JAX {version}:\n{done.stdout}")
    ran = {case.get("classname") for case in ET.parse(report).getroot().iter("testcase")}
    files = {path.stem for path in Path("experiments/grug/base").glob("test_*.py")}
    assert {name.rpartition(".")[2] for name in ran if name} == files
