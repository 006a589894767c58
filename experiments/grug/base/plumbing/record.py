"""What a run leaves behind: its record (run.json, sources/) and its metrics."""

import contextlib
import importlib.metadata
import json
import os
import platform
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .sources import DIRECTORY, ROOT, Sources, file_digest, find_sources, git_state
from .storage import Folder

RUN_SCHEMA = 5
VARIANT = DIRECTORY.name
LOCK = ROOT / "tools/locks/cpu.lock"
# Recorded because they change a run's numbers: these variables with all of JAX's own, and
# settings that may be set otherwise than by a variable.
NUMERIC = (
    "CUBLAS_WORKSPACE_CONFIG",
    "LIBTPU_INIT_ARGS",
    "NCCL_ALGO",
    "NCCL_PROTO",
    "NVIDIA_TF32_OVERRIDE",
    "XLA_FLAGS",
)
JAX_SETTINGS = (
    "default_matmul_precision",
    "default_prng_impl",
    "enable_x64",
    "threefry_partitionable",
)

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
    """Peak FLOP/s of all devices together; None where no data sheet states it (a CPU)."""
    peak = peak_flops_of(jax.devices()[0].device_kind)
    return peak * jax.device_count() if peak else None


def peak_flops_of(kind: str) -> float | None:
    """Peak FLOP/s of one device of a kind, as JAX names it; None where no data sheet states it."""
    peaks = (peak for prefix, peak in PEAK_FLOPS.items() if kind.startswith(prefix))
    return next(peaks, None)


def code_state(sources: Sources) -> dict[str, Any]:
    """Commit of this code, whether its files differ from it, and the sha256 of its lock.

    A launch bundle knows what it was packed from; otherwise the repository of the sources tells.
    """
    if bundle := os.environ.get("GRUG_BUNDLE"):
        packed = json.loads(Path(bundle, "bundle.json").read_text())
        return {"git": packed["git"], "lock": packed["lock"]}
    lock = file_digest(LOCK, "sha256") if LOCK.exists() else None
    return {"git": git_state(sources), "lock": lock}


def numerics() -> dict[str, Any]:
    """What changes a run's numbers besides its sources, config, data, packages and devices."""
    names = [name for name in os.environ if name in NUMERIC or name.startswith("JAX_")]
    return {
        "environment": {name: os.environ[name] for name in sorted(names)},
        "jax": {name: getattr(jax.config, f"jax_{name}") for name in JAX_SETTINGS},
    }


def host() -> dict[str, Any]:
    """The processor's model, and the logical cores that this process may use.

    Times of runs compare only where both are equal.
    """
    linux = sys.platform == "linux"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if linux else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    return {
        "processor": processor or "unknown",
        "cores": len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1,
    }


def write_record(
    run_dir: str | Path,
    config: dict[str, Any],
    roles: dict[str, str],
    data: dict[str, Any],
    step: int,
    ancestors: Sequence[dict[str, Any]] = (),
) -> None:
    """Writes run.json and a copy of the variant's sources, before the first step, on process 0.

    `ancestors` says from which checkpoints a branch comes (plumbing/branch.py).

    A resumed run adds an entry to `attempts`: the step it starts from, the digest of its sources,
    and more. Earlier attempts stay as far as steps of theirs do: none stays of a start that failed
    before its first step, or whose steps all come after `step`, and are made again. Each set of
    sources is kept under sources/<digest>/.

    Raises:
        SourceError: the variant's files cannot be recorded.
        StorageError: run_dir cannot be written.
    """
    if jax.process_index() > 0:
        return
    folder = Folder(run_dir)
    sources = find_sources()
    for name, content in sources.copies().items():
        folder.write(f"sources/{sources.digest[:16]}/{name}", content)
    code = code_state(sources)
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    attempt = {
        "from_step": step,
        "sources_digest": sources.digest,
        "git": code["git"],
        "numerics": numerics(),
        "command": sys.argv[1:],
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "host": host(),
        "versions": {"python": platform.python_version(), **dict(sorted(installed.items()))},
    }
    earlier = json.loads(folder.read("run.json") or b"{}")
    attempts = [a for a in earlier.get("attempts", []) if a["from_step"] < step]
    record = {
        "attempts": [*attempts, attempt],
        "schema_version": RUN_SCHEMA,
        "variant": VARIANT,
        "config": config,
        "ancestors": list(ancestors),
        "roles": roles,
        "data": data,
        "sources": {**listings(earlier, attempts), sources.digest: sources.digests},
        "lock": code["lock"],
        "wandb_id": earlier.get("wandb_id"),
        "starts": earlier.get("starts"),
    }
    folder.write("run.json", encode(record))


def wandb_id(folder: Folder) -> str:
    """The id by which W&B knows the run, kept in its run.json: a resumed run is the same one."""
    record = json.loads(folder.read("run.json") or b"{}")
    if not record.get("wandb_id"):
        record["wandb_id"] = secrets.token_hex(8)
        folder.write("run.json", encode(record))
    return record["wandb_id"]


def encode(record: dict[str, Any]) -> bytes:
    """A record as run.json holds it."""
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def listings(record: dict[str, Any], attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """The digests of the files that these attempts ran, by the digest of the set of files."""
    known = record.get("sources", {})
    if record.get("schema_version", RUN_SCHEMA) < 3 and record["attempts"]:
        known = {record["attempts"][-1]["sources_digest"]: known}  # of the last attempt alone
    digests = {attempt["sources_digest"] for attempt in attempts}
    return {digest: known[digest] for digest in digests if digest in known}


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Rows of a metrics.jsonl, without lines that a killed run or a lost disk left broken."""
    folder, _, name = str(path).rpartition("/")
    rows = []
    for line in (Folder(folder).read(name) or b"").splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and "step" in row:
                rows.append(row)
    return rows


def loss_curve(history: list[dict[str, float]], *, width: int = 60, height: int = 10) -> str:
    """The training loss over steps, drawn in text; each column is the mean of its steps."""
    losses = np.array([row["train/loss"] for row in history if "train/loss" in row])
    columns = [part.mean() for part in np.array_split(losses, min(width, len(losses)))]
    low, high = min(columns), max(columns)
    levels = [round((x - low) / max(high - low, 1e-9) * (height - 1)) for x in columns]
    lines = []
    for level in reversed(range(height)):
        label = low + (high - low) * level / (height - 1)
        lines.append(f"{label:7.3f} |" + "".join("*" if x == level else " " for x in levels))
    first, last = (int(history[i]["step"]) for i in (0, -1))
    return "\n".join([*lines, "        +" + "-" * len(columns), f"         step {first} to {last}"])
