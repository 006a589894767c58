"""A small workspace of three resolves, and locks for it from an index in memory."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tools.lifecycle.conftest import Workspace
from tests.tools.runs.conftest import Workspace as Archive
from tools.bundle.lock import Lock
from tools.bundle.pack import JAX
from tools.common.repository import Repository
from tools.requirements import __main__ as command
from tools.requirements.workspace import Resolve

PYTHONS = "CPython<3.14,>=3.12"
ANY = "py3-none-any"
CONFIG = """
[GLOBAL]
pants_version = "2.17.1"
backend_packages = ["pants.backend.python"]

[python]
enable_resolves = true
default_resolve = "cpu"
interpreter_constraints = ["CPython>=3.12,<3.14"]

[python.resolves]
cpu = "tools/locks/cpu.lock"
docs = "tools/locks/docs.lock"
gpu = "tools/locks/gpu.lock"
tpu = "tools/locks/tpu.lock"

[python-bootstrap]
search_path = ["<PATH>", "<PYENV>"]
"""
BUILD = """\
# Requirements.

python_requirements(
    name="cpu",
    source="cpu.in",
    resolve="cpu",
    module_mapping={
        "Big-Name": ["big"],
    },
)
python_requirements(name="docs", source="docs.in", resolve="docs")
python_requirements(name="gpu", source="gpu.in", resolve="gpu")

# What a TPU needs.
python_requirements(
    name="tpu",
    source="tpu.in",
    resolve="tpu",
    module_mapping={"Big-Name": ["big"]},
)
"""
PINNED = "# One JAX for all.\n{jax}==1.0\n\n"
CPU = PINNED + "# Ours.\nBig-Name\n# Slow, and why.\nmiddle\npytest\n"
OTHERS = PINNED + "Big-Name\nmiddle\n"


def artifact(name: str, version: str, tag: str, content: str = "") -> dict:
    file = f"{name.replace('-', '_')}-{version}-{tag}.whl"
    digest = hashlib.sha256(f"{file}{content}".encode()).hexdigest()
    url = f"https://files.example.org/{file}"
    return {"algorithm": "sha256", "hash": digest, "url": url}


def entry(
    name: str,
    version: str,
    needs: Sequence[str] = (),
    tags: Sequence[str] = (ANY,),
    content: str = "",
) -> dict:
    """A distribution as a Pex lock has it; `content` is that of its files."""
    return {
        "project_name": name,
        "version": version,
        "requires_dists": list(needs),
        "artifacts": [artifact(name, version, tag, content) for tag in tags],
    }


def lock_text(asked: Sequence[str], entries: Sequence[dict], pythons: str = PYTHONS) -> str:
    content = {
        "locked_resolves": [{"locked_requirements": list(entries)}],
        "requirements": list(asked),
        "requires_python": [pythons],
    }
    return f"// A header of Pants.\n\n{json.dumps(content, indent=2)}\n"


def make_lock(
    *entries: dict, asked: Sequence[str] = (), name: str = "tools/locks/cpu.lock"
) -> Lock:
    return Lock.parse(lock_text(asked, entries), name)


class Index:
    """Distributions by name, and locks of all that a listing asks for: the newest of each."""

    def __init__(self) -> None:
        self.entries: dict[str, dict] = {}
        self.made: list[tuple[str, ...]] = []
        for name in ("jax", "Big-Name", "middle", "pytest", "mkdocs"):
            self.put(name, "1.0")

    def put(self, name: str, version: str, **rest) -> None:
        self.entries[canonicalize_name(name)] = entry(name, version, **rest)

    def lock(self, text: str) -> str:
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        found: dict[str, dict] = {}
        queue = list(lines)
        while queue:
            name = canonicalize_name(Requirement(queue.pop()).name)
            if name not in found:
                found[name] = self.entries[name]
                queue += found[name]["requires_dists"]
        return lock_text(lines, [found[name] for name in sorted(found)])

    def make(
        self, repo: Repository, resolves: Sequence[Resolve], edits: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """In the place of ./pants generate-lockfiles, which test_locks.py runs."""
        self.made.append(tuple(resolve.name for resolve in resolves))
        return {
            r.lock: self.lock(
                (edits.get(r.listing) or (repo.root / r.listing).read_bytes()).decode()
            ).encode()
            for r in resolves
        }


class Lab(Workspace):
    """A committed workspace whose locks fit its requirements."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.index = Index()
        self.write("pants.toml", CONFIG)
        self.write("tools/locks/BUILD", BUILD)
        self.write("tools/locks/docs.in", "mkdocs\n")
        self.write("tools/locks/cpu.in", CPU.format(jax=JAX["cpu"]))
        for name in ("gpu", "tpu"):
            self.write(f"tools/locks/{name}.in", OTHERS.format(jax=JAX[name]))
        for name in ("cpu", "docs", "gpu", "tpu"):
            self.write(f"tools/locks/{name}.lock", self.index.lock(self.listing(name)))
        self.write(".gitignore", "__pycache__/\n")
        self.commit()
        self.archive = Archive(root)
        self.archive.ledger.unlink()

    @property
    def repo(self) -> Repository:
        return Repository(self.root)

    def listing(self, name: str) -> str:
        return self.read(f"tools/locks/{name}.in")

    def lock(self, name: str) -> Lock:
        path = f"tools/locks/{name}.lock"
        return Lock.parse(self.read(path), path)

    def run(self, *arguments: str) -> int:
        return command.main([*arguments, "--root", str(self.root)])


@pytest.fixture
def lab(tmp_path) -> Lab:
    root = tmp_path / "workspace"
    root.mkdir()
    return Lab(root)
