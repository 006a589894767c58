"""A workspace with a packed variant, for tests of what is sent and of what engines say."""

import hashlib
import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tools.bundle.lock import Lock
from tools.bundle.manifest import Pythons
from tools.bundle.pack import Contents, bundle, write
from tools.bundle.topology import DEFAULTS, Topology
from tools.launch import main as launcher

VARIANT = "experiments/grug/base"
LOCK = "tools/locks/small.lock"
HOW_TO = (Path(__file__).parents[3] / "docs/how-to/send-a-run.md").absolute()
TITLES = {
    "slurm": "Slurm",
    "k8s": "Kubernetes",
    "sky": "SkyPilot",
    "ray": "Ray",
    "ssh": "Hosts by ssh",
}


def how_to(engine: str) -> list[str]:
    """The words behind `launch -- base` of the command that the how-to has for an engine."""
    text = HOW_TO.read_text().replace("\\\n", " ")
    section = text.partition(f"\n## {TITLES[engine]}\n")[2].partition("\n## ")[0]
    (line,) = [line for line in section.splitlines() if "launch -- base" in line]
    return shlex.split(line.partition("launch -- base ")[2])


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A variant, its lock and its packed bundles; the working directory."""
    sources = {f"{VARIANT}/launch.py": b"print('launch')\n", f"{VARIANT}/model.py": b"WIDTH = 8\n"}
    sources |= {f"{VARIANT}/plumbing/record.py": b"", f"{VARIANT}/table.json": b"[1]"}
    digest = hashlib.sha256(b"").hexdigest()
    names = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin")
    entries = [
        {
            "project_name": name,
            "version": "0.12.0.1",
            "requires_dists": [],
            "artifacts": [
                {
                    "algorithm": "sha256",
                    "hash": digest,
                    "url": f"https://example.org/{wheel}-0.12.0.1-py3-none-any.whl",
                }
            ],
        }
        for name, wheel in ((name, name.replace("-", "_")) for name in names)
    ]
    text = json.dumps({"locked_resolves": [{"locked_requirements": entries}]})
    for name, data in {**sources, LOCK: text.encode()}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for accelerator, topology in DEFAULTS.items():
        contents = Contents(
            variant="base",
            accelerator=accelerator,
            entry="experiments.grug.base.launch",
            sources=sources,
            lock=Lock.parse(text, LOCK),
            requirements=("jax",),
            pythons=Pythons("3.12", "3.15"),
            topology=Topology.parse(accelerator, topology),
            env={},
        )
        write(bundle(contents), tmp_path / f"dist/bundles/base-{accelerator}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def planned(monkeypatch) -> list[list[str]]:
    """What variants were asked to plan. The sources here are no variant; test_checks plans one."""
    asked = []

    def plan(flags, variables):
        asked.append([*flags, variables.get("XLA_FLAGS", "")])
        values = {"mesh": {"replica": 1}, "memory": {"weights": 1.0}}
        return subprocess.CompletedProcess([], 0, json.dumps(values), "")

    monkeypatch.setattr(launcher, "planner", lambda *_: plan)
    return asked
