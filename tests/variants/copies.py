"""Copies of base with edits, as a researcher would make them, held to the contract."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BASE = "experiments/grug/base"
SHARED = ("tools/locks/cpu.lock",)  # what a run's record digests


@dataclass(frozen=True)
class Edit:
    """One replacement in one of a copy's files; `old` must be there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Copy:
    """A variant of its own outside the workspace, importable below `root`."""

    root: Path
    name: str

    @property
    def package(self) -> str:
        return f"experiments.grug.{self.name}"

    @property
    def directory(self) -> Path:
        return self.root / "experiments/grug" / self.name

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python ARGUMENTS` in the workspace, to which the copy is added."""
        path = os.pathsep.join([str(self.root), os.getcwd(), *sys.path])
        env = {**os.environ, "GRUG_VARIANT": self.package, "PYTHONPATH": path}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True)

    def check_contract(self) -> None:
        """Fails with the suite's own words unless every check passes."""
        tests = sorted(str(path) for path in Path("tests/contract").glob("test_*.py"))
        done = self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
        assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
        assert " passed" in done.stdout


def make_copy(root: Path, name: str, edits: Iterable[Edit]) -> Copy:
    """Copies base to `root` and makes the edits."""
    copy = Copy(root, name)
    shutil.copytree(BASE, copy.directory, ignore=shutil.ignore_patterns("__pycache__", "BUILD"))
    for path in SHARED:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path)
    for edit in edits:
        file = copy.directory / edit.file
        text = file.read_text()
        assert text.count(edit.old) == 1, f"{edit.file}: {text.count(edit.old)} x {edit.old!r}"
        file.write_text(text.replace(edit.old, edit.new))
    return copy
