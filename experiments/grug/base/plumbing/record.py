"""What a run leaves behind: its record and its metrics."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .storage import Folder

RUN_SCHEMA = 2
DIRECTORY = Path(__file__).parents[1]  # of the variant
VARIANT = DIRECTORY.name
LOCK = DIRECTORY.parents[2] / "tools/locks/cpu.lock"

# Dense bfloat16 FLOP/s of one device, from its vendor's data sheet, by prefix of JAX's device_kind:
# nvidia.com/en-us/data-center/{a100,h100,h200}, cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}.
PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


def peak_flops() -> float | None:
    """Peak FLOP/s of all devices together; None where no honest number is known (a CPU)."""
    kind = jax.devices()[0].device_kind
    known = [peak for prefix, peak in PEAK_FLOPS.items() if kind.startswith(prefix)]
    return known[0] * jax.device_count() if known else None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def code_state() -> dict[str, Any]:
    """Commit of this code, whether its files differ from it, and the sha256 of its lock.

    What a launch bundle was packed from, where that is what runs; else of the working directory.
    """
    if bundle := os.environ.get("GRUG_BUNDLE"):
        packed = json.loads(Path(bundle, "bundle.json").read_text())
        return {"git": packed["git"], "lock": packed["lock"]}
    lock = sha256(LOCK.read_bytes()) if LOCK.exists() else None
    return {"git": git_state(), "lock": lock}


def git_state() -> dict[str, Any]:
    def git(*args: str) -> str:
        command = ["git", *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", f"experiments/grug/{VARIANT}")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(dirty)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def write_record(
    run_dir: str | Path,
    config: dict[str, Any],
    roles: dict[str, str],
    data: dict[str, Any],
    step: int,
) -> None:
    """Writes run.json and a copy of the variant's sources, before the first step, on process 0.

    A resumed run keeps its record and adds an entry to `attempts`, which tells from which step
    which sources ran; each set of sources is kept under sources/<digest>/.
    """
    if jax.process_index() > 0:
        return
    folder = Folder(run_dir)
    paths = sorted(DIRECTORY.rglob("*.py"))
    files = {path.relative_to(DIRECTORY).as_posix(): path.read_bytes() for path in paths}
    sources = {name: sha256(content) for name, content in files.items()}
    digest = sha256(json.dumps(sources, sort_keys=True).encode())
    for name, content in files.items():
        folder.write(f"sources/{digest[:16]}/{name}", content)
    code = code_state()
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    attempt = {
        "from_step": step,
        "sources_digest": digest,
        "git": code["git"],
        "command": sys.argv[1:],
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "versions": {"python": platform.python_version(), **dict(sorted(installed.items()))},
    }
    earlier = folder.read("run.json")
    attempts = json.loads(earlier)["attempts"] if earlier else []
    record = {
        "attempts": [*attempts, attempt],
        "schema_version": RUN_SCHEMA,
        "variant": VARIANT,
        "config": config,
        "roles": roles,
        "data": data,
        "sources": sources,
        "lock": code["lock"],
    }
    folder.write("run.json", (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Rows of a metrics.jsonl; a last line cut short by a kill is left out."""
    folder, _, name = str(path).rpartition("/")
    rows = []
    for line in (Folder(folder).read(name) or b"").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def loss_curve(history: list[dict[str, float]], *, width: int = 60, height: int = 10) -> str:
    """The training loss over steps, drawn in text; a column is the mean of its steps."""
    losses = np.array([row["train/loss"] for row in history])
    columns = [part.mean() for part in np.array_split(losses, min(width, len(losses)))]
    low, high = min(columns), max(columns)
    levels = [round((x - low) / max(high - low, 1e-9) * (height - 1)) for x in columns]
    lines = []
    for level in reversed(range(height)):
        label = low + (high - low) * level / (height - 1)
        lines.append(f"{label:7.3f} |" + "".join("*" if x == level else " " for x in levels))
    last = int(history[-1]["step"])
    return "\n".join([*lines, "        +" + "-" * len(columns), f"         step 1 to {last}"])
