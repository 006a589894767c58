"""A copy of this workspace to run ./pants in."""

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

COPIED = (
    ".ci",
    ".gitattributes",
    ".gitignore",
    "BUILD",
    "README.md",
    "mkdocs.yml",
    "pants",
    "pants.toml",
    "pytest.ini",
    "experiments/grug/buckets.json",
    "experiments/grug/base",
    "tests/contract",
    "tools",
)
LEDGER = """# Archive

## base

- path: experiments/grug/base
- origin: none
- introduced: pending
- status: active
- bucket: template
- purpose: the template
- verdict: pending
"""
CACHES = shutil.ignore_patterns("__pycache__")


class Workspace:
    """A git repository of its own with the workspace's tools, its base, and copies of base."""

    def __init__(self, source: Path, root: Path):
        """Copies `source`, the workspace, to `root`, an empty directory."""
        self.root = root
        for name in COPIED:
            if (source / name).is_dir():
                shutil.copytree(source / name, root / name, ignore=CACHES)
            else:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, root / name)
        # The workspace's own ledger changes with each experiment, and these tests do not.
        ledger = root / "docs/reports/grug-archive.md"
        ledger.parent.mkdir(parents=True, exist_ok=True)
        ledger.write_text(LEDGER)
        self.git("init", "--quiet", "--initial-branch=main")

    def fork(self, name: str) -> Path:
        """A variant that is base under another name: imports within a variant are relative."""
        copy = self.root / "experiments/grug" / name
        shutil.copytree(self.root / "experiments/grug/base", copy)
        return copy

    def edit(self, variant: str) -> None:
        """Changes the variant as no cache has seen before: Pants' own serves all copies."""
        file = self.root / "experiments/grug" / variant / "model.py"
        file.write_text(f"{file.read_text().rstrip()}\n# edit {secrets.token_hex(8)}\n")

    def git(self, *args: str) -> None:
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        subprocess.run(["git", *identity, *args], cwd=self.root, check=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=a state")

    def pants(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["./pants", "--no-dynamic-ui", *args],
            cwd=self.root,
            capture_output=True,
            text=True,
        )

    def stop(self) -> None:
        for pid in self.root.glob(".pids/*/pantsd/pid"):
            os.kill(int(pid.read_text()), signal.SIGTERM)
