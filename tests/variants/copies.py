"""Copies of base with edits, as a researcher would make them, held to the contract."""

import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BASE = Path("experiments/grug/base")
SHARED = ("tools/locks/cpu.lock",)  # what a run's record digests


@dataclass(frozen=True)
class Edit:
    """One replacement in one of a copy's files; `old` must be there exactly once."""

    old: str
    new: str
    file: str = "model.py"


@dataclass(frozen=True)
class Fault:
    """An edit made wrongly, and how the contract says so."""

    edits: tuple[Edit, ...]
    """What is done to the copy, after its own edits."""
    test: str
    """The test that must fail, as `FILE::NAME` in tests/contract."""
    message: str
    """What its message must match, a regular expression."""


@dataclass(frozen=True)
class Change:
    """What a researcher changes in a copy of base: one bucket."""

    bucket: str
    edits: tuple[Edit, ...]
    lines: tuple[int, int]
    """Lines added and removed, so that a change of base that makes the edit longer is seen."""
    tests: tuple[str, ...]
    """The part of the contract that is about this bucket, as files of tests/contract or
    `FILE::NAME`."""
    red: frozenset[str]
    """Tests of the copy's own files that the change is meant to break."""
    faults: dict[str, Fault]


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

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs tests of the workspace."""
        return self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)

    def own_tests(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the tests of the copy's own files, whose names begin at its root."""
        start = ("-c", os.path.abspath("pytest.ini"), f"--rootdir={self.root}")
        return self.pytest(*start, str(self.directory), *arguments)

    def check_contract(self, *tests: str) -> None:
        """Fails with the suite's own words unless these checks pass; without names, all do."""
        suite = Path("tests/contract")
        names = [str(suite / test) for test in tests] or sorted(map(str, suite.glob("test_*.py")))
        result = self.pytest(*names)
        assert result.returncode == 0, result.stdout[-10_000:] + result.stderr[-2_000:]
        assert " passed" in result.stdout

    def changed_lines(self) -> tuple[int, int]:
        """Lines that the copy has added to base's files, and removed from them."""
        added = removed = 0
        for path in sorted(self.directory.rglob("*.py")):
            ours = path.read_text().splitlines()
            theirs = (BASE / path.relative_to(self.directory)).read_text().splitlines()
            for line in list(difflib.unified_diff(theirs, ours, n=0))[2:]:
                added += line.startswith("+")
                removed += line.startswith("-")
        return added, removed


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
