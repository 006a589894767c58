"""A small workspace in git: a template `base`, and a ledger."""

import os
import subprocess
from pathlib import Path

import pytest

from tools.ledger.ledger import LEDGER, Entry, load_ledger, read_ledger
from tools.lifecycle import __main__ as command
from tools.runs import check_ledger

BASE = "experiments/grug/base"
LEDGER = LEDGER
HEAD = """\
# Archive

Words of people.

## base

- path: experiments/grug/base
- origin: none
- introduced: pending
- status: active
- bucket: template
- purpose: to be copied
- verdict: pending

### Notes

A note, with  two spaces.
"""
LINES = [f"V{i} = {i}\n" for i in range(60)]
MODEL = (
    b'"""Run experiments/grug/base/model.py."""\n\n'
    b"from experiments.grug.base import data\n\n"
    b"# a comment on experiments.grug.base\n"
    b"W = data.WIDTH\n" + "".join(LINES).encode()
)
FILES = {
    "BUILD": b"grug_variant()\n",
    "model.py": MODEL,
    "data.py": b"WIDTH = 1\r\n# experiments/grug/base\r\nNAME = 'experiments/grug/base'\r\n",
    "run": b"#!/bin/sh\nexit 0\n",
    "sub/words.txt": b"experiments.grug.base \xff\xfe\n",
}


class Workspace:
    def __init__(self, root: Path):
        self.root = root
        self.git("init", "-q", "-b", "main", ".")
        self.git("config", "user.name", "n")
        self.git("config", "user.email", "e@localhost")
        self.git("config", "commit.gpgsign", "false")

    def at(self, root: Path) -> "Workspace":
        """The same for a clone, which is a repository already."""
        self.root = root
        for name, value in (("user.name", "n"), ("user.email", "e@localhost")):
            self.git("config", name, value)
        self.git("config", "commit.gpgsign", "false")
        return self

    def git_fails(self, *arguments: str) -> bool:
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True)
        return done.returncode != 0

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, path: str, content: bytes | str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def edit(self, path: str, old: str, new: str) -> None:
        data = (self.root / path).read_bytes()
        assert data.count(old.encode()) == 1, (path, old, data.count(old.encode()))
        self.write(path, data.replace(old.encode(), new.encode()))

    def read(self, path: str) -> str:
        return (self.root / path).read_bytes().decode()

    def ledger(self) -> str:
        return read_ledger(self.root)

    def entry(self, name: str = "relu") -> Entry:
        return next(entry for entry in load_ledger(self.root) if entry.name == name)

    def commit(self, message: str = "a state") -> str:
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def state(self) -> dict[str, tuple[str, bytes]]:
        """All of the working tree: kinds, run bits and bytes; and git's index."""
        found = {"index": ("", self.git("ls-files", "-s").encode())}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if name.split("/")[0] == ".git":
                continue
            if path.is_symlink():
                found[name] = ("link", os.readlink(path).encode())
            elif path.is_file():
                kind = "executable" if path.stat().st_mode & 0o100 else "file"
                found[name] = (kind, path.read_bytes())
            else:
                found[name] = ("directory", b"")
        return found

    def run(self, *arguments: str) -> int:
        return command.main([*arguments, "--root", str(self.root)])

    def fork(self, name: str = "relu", origin: str = BASE, **options: str) -> int:
        given = {"bucket": "MLP/activation", "purpose": f"whether {name} pays"} | options
        flags = [word for key, value in given.items() for word in (f"--{key}", value)]
        return self.run("fork", origin, f"--name={name}", *flags)

    def faults(self) -> list[str]:
        return check_ledger.check(self.root)


def fill(workspace: Workspace) -> Workspace:
    for path, content in FILES.items():
        workspace.write(f"{BASE}/{path}", content)
    (workspace.root / BASE / "run").chmod(0o755)
    workspace.write(LEDGER, HEAD)
    workspace.write(".gitignore", "__pycache__/\n/dist/\n")
    workspace.commit("the template")
    return workspace


@pytest.fixture
def workspace(tmp_path):
    return fill(Workspace(tmp_path))


@pytest.fixture
def copied(workspace):
    """The same with `relu`, a committed copy of base."""
    assert workspace.fork() == 0
    workspace.commit("fork relu")
    return workspace
