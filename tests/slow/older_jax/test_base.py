"""The template's own tests, on the oldest JAX that it supports: see tools/locks/jax-0-11.in."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jax
import pytest

PEX = "tests/slow/older_jax/jax.pex"  # where Pants puts it
BASE = Path("experiments/grug/base")


def test_the_template_passes_on_an_older_jax(tmp_path):
    report = tmp_path / "report.xml"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "PYTHON"))}
    environment |= {"PEX_ROOT": str(tmp_path / "pex_root"), "PYTHONPATH": os.getcwd()}

    def run(*arguments: str) -> str:
        command = [sys.executable, PEX, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            said = done.stdout + done.stderr
            pytest.fail(f"{' '.join(arguments)} ended with {done.returncode}:\n{said}")
        return done.stdout

    version = run("-c", "import jax; print(jax.__version__)").strip()
    assert version.startswith("0.11.") and version != jax.__version__
    run("-m", "pytest", "-q", f"--junitxml={report}", str(BASE))
    cases = list(ET.parse(report).iter("testcase"))
    modules = {case.get("classname", "").rpartition(".")[2] for case in cases}
    assert modules == {file.stem for file in BASE.glob("test_*.py")}
    assert not [case.get("name") for case in cases if case.find("skipped") is not None]
