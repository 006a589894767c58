"""What the benchmarked processes share: the job they are given and how they answer.

Imports the standard library and NumPy only, since one process runs in an environment of its own.
"""

import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Step = Callable[[int], tuple[Any, Any]]
"""Trains on batch number i; returns the loss and the gradient's norm, as scalars that `float` may
have to wait for."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A directory with all that the implementations must agree on."""

    directory: Path

    @property
    def config(self) -> dict[str, Any]:
        """The fields of the template's TrainConfig, those of its model under `model`.

        And `flops_per_token`, by the template's own count.
        """
        return json.loads((self.directory / "config.json").read_text())

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The template's initial weights by field, such as `blocks.attn.w_q`, layers stacked."""
        return load_arrays(self.directory / "weights.npz")

    @property
    def batches(self) -> list[dict[str, np.ndarray]]:
        """The batches by the template's field names; step i takes number i, round and round."""
        stacked = load_arrays(self.directory / "batches.npz")
        count = len(stacked["tokens"])
        return [{name: values[i] for name, values in stacked.items()} for i in range(count)]

    def write(self, config: dict[str, Any], **arrays: dict[str, Any]) -> None:
        """Stores the config, and NumPy arrays as `weights` and `batches`.

        The arrays of `batches` have a leading axis of batches.
        """
        (self.directory / "config.json").write_text(json.dumps(config))
        for name, named in arrays.items():
            np.savez(self.directory / f"{name}.npz", **named)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_bytes() -> int:
    """The most memory this process has held, compilation included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serve(
    build: Callable[[Job], Step],
    versions: dict[str, str],
    *,
    peak: Callable[[], int] = peak_bytes,
) -> None:
    """Answers the runner until it closes the pipe, one JSON line for each on standard input.

    {"first": i, "count": n} -> the seconds that the n steps from step i on took, by the wall and
    of all cores together, the losses, the gradients' norms before clipping and `peak()` of memory.
    First of all, {"versions": ...} says that the model is built.
    """
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    step = build(Job(Path(sys.argv[1])))
    print(json.dumps({"versions": versions}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        first = request["first"]
        wall, cpu = time.perf_counter(), time.process_time()
        pending = [step(i) for i in range(first, first + request["count"])]
        losses, grad_norms = ([float(x) for x in values] for values in zip(*pending, strict=True))
        answer = {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "losses": losses,
            "grad_norms": grad_norms,
            "peak_bytes": peak(),
        }
        print(json.dumps(answer), file=answers)
