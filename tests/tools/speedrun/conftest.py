"""A small workspace with a track, an entry and the run directories that its run.py left."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tools.speedrun.record import record

DIGEST, LOCK = "a" * 64, "b" * 64
NAME = "2026-11-22_first"
TARGETS, BYTES = 1000, 3000


class Workspace:
    def __init__(self, root: Path):
        self.root = root
        self.area = root / "experiments/speedrun"
        track = {
            "title": "Tiny",
            "data_digest": DIGEST,
            "heldout_targets": TARGETS,
            "heldout_bytes": BYTES,
            "target_bpb": 2.5,
            "metric": "seconds",
            "seeds": 3,
            "p": 0.01,
        }
        self.area.mkdir(parents=True)
        self.write_tracks(track)

    def write_tracks(self, track: dict[str, Any]) -> None:
        tracks = {"schema_version": 1, "tracks": {"tiny": track}}
        (self.area / "tracks.json").write_text(json.dumps(tracks))

    def add(self, name: str = NAME) -> Path:
        directory = self.area / name
        directory.mkdir()
        (directory / "run.py").write_text(f"print({name!r})\n")
        (directory / "README.md").write_text(f"# {name}\n\nSee [the code](run.py).\n")
        return directory

    def run(self, name: str, seed: int, *, bpb: float, seconds: float, **changes: Any) -> Path:
        """A run directory of two steps, as an entry's run.py writes it."""
        sources = {"run.py": sha256(self.area / name / "run.py")}
        attempt = {
            "from_step": 0,
            "sources_digest": DIGEST,
            "git": {"commit": None, "dirty": None},
            "devices": {"kind": "cpu", "platform": "cpu", "count": 1, "processes": 1},
            "versions": {"python": "3.11.2", "jax": "0.10.2", "jaxlib": "0.10.2", "six": "1"},
        }
        hardware: dict[str, Any] = {"cpu": "CPU", "cores": 2, "memory_bytes": 2**34}
        hardware |= {"accelerator": None, "accelerators": 0}
        about = {"track": "tiny", "hardware": hardware, "cpu_seconds": seconds * 1.5}
        run = {
            "schema_version": 1,
            "variant": name,
            "config": {"seed": seed, "steps": 2, "learning_rate": 0.01},
            "data": {"digest": DIGEST},
            "lock": LOCK,
            "sources": sources,
            "attempts": [attempt],
            "speedrun": about,
        }
        for key, value in changes.items():
            (run if key in run else about)[key] = value
        rows = [
            {
                "step": step,
                "train/loss": 5.0 - step + seed / 100,
                "throughput/step_time": seconds / 2,
                "throughput/tokens_per_second": 10.0,
                "throughput/total_tokens": 500 * step,
            }
            for step in (1, 2)
        ]
        loss = bpb * BYTES * math.log(2) / TARGETS
        at_end = {"eval/loss": loss, "eval/bpb": bpb, "eval/targets": TARGETS, "eval/bytes": BYTES}
        rows[-1] |= at_end
        directory = self.root / "runs" / f"{name}-{seed}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "run.json").write_text(json.dumps(run))
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return directory

    def runs(self, name: str, seconds: float = 100.0, bpb: float = 2.4) -> list[Path]:
        """Three seeds a little apart."""
        return [self.run(name, i, bpb=bpb + i / 500, seconds=seconds + i) for i in range(3)]

    def recorded(self, name: str = NAME, seconds: float = 100.0) -> Path:
        """An entry with its record; gives the record's path."""
        self.add(name)
        return self.root / record(self.root, name, self.runs(name, seconds), "A. Author")

    def edit(self, path: Path, **values: Any) -> None:
        """Changes keys of a record; None removes one."""
        held = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in held.items() if v is not None}, indent=0))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)
