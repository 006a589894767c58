"""Runs tests/plugin/cases under the CPython and the pytest that Pants itself needs."""

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ARCHIVE = "suite.tar"


def interpreters() -> str:
    """Where the suite looks for CPython 3.9: PATH alone may hold nothing but a shim of it."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    named = os.environ.get("PANTS_PYTHON39")
    result = [named] if named else sorted(map(str, pyenv.glob("versions/3.9.*/bin/python3.9")))
    return os.pathsep.join([*result, os.environ["PATH"]])


def test_cases(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    run = subprocess.run(
        [sys.executable, tmp_path / "suite.pex", f"--junitxml={report}"],
        env={
            **os.environ,
            "PEX_PYTHON_PATH": interpreters(),
            "PEX_ROOT": str(tmp_path / "pex_root"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if run.returncode:
        pytest.fail(f"the plugin's cases failed (exit {run.returncode}):\n{run.stdout}")
    ran = ET.parse(report).getroot().findall(".//testcase")
    assert len(ran) >= 6, f"only {len(ran)} cases were found: is one of their files left out?"
