"""What hardware a run is meant for, from one line: `8xh100`, `2x8xh100`, `v5e:4x4`, `2xv6e:4x4`."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from tools.common.errors import ToolError


@dataclass(frozen=True)
class TpuKind:
    """Names of one TPU generation, and the chips of a host in a slice of several hosts.

    Source: cloud.google.com/tpu/docs, /kubernetes-engine/docs/concepts/plan-tpus and SkyPilot's
    catalogue. v4 and v5p slices are named after TensorCores, two a chip.
    """

    gke: str
    cloud: str
    runtime: str
    cores: int
    dimensions: int
    memory: float  # GiB of a chip that a program may use, as libtpu's compiler says
    chips_per_host: int = 4
    single_host: int = 4  # the largest slice that one host holds


TPUS = {
    "v4": TpuKind("tpu-v4-podslice", "v4", "tpu-ubuntu2204-base", 2, 3, 30.75),
    "v5e": TpuKind("tpu-v5-lite-podslice", "v5litepod", "v2-alpha-tpuv5-lite", 1, 2, 15.75, 4, 8),
    "v5p": TpuKind("tpu-v5p-slice", "v5p", "v2-alpha-tpuv5", 2, 3, 95.74),
    "v6e": TpuKind("tpu-v6e-slice", "v6e", "v2-alpha-tpuv6e", 1, 2, 31.25, 4, 8),
}
# Bytes of a GPU, from NVIDIA's data sheets and deviceQuery, and the share that JAX takes of them.
GPU_MEMORY = {"a100": 85_100_068_864, "h100": 84_942_979_072, "h200": 151_397_597_184}
GPU_SHARE = 0.75
# What SkyPilot calls a GPU of that size: its A100 has 40 GB.
GPU_NAMES = {"a100": "A100-80GB"}
FORMS = "NODESxGPUSxKIND (2x8xh100), [SLICESx]KIND:SHAPE (v5e:4x4, 2xv6e:4x4) or NODES (cpu)"
DEFAULTS = {"cpu": "1", "gpu": "8xh100", "tpu": "v6e:4x4"}


@dataclass(frozen=True)
class Topology:
    """One process a node; `kind` is empty for a CPU, `shape` for all but a TPU."""

    accelerator: str
    kind: str
    nodes: int
    devices_per_node: int
    shape: str = ""
    slices: int = 1

    @property
    def devices(self) -> int:
        """The devices of all nodes. A node without accelerators is one."""
        return self.nodes * self.devices_per_node

    @property
    def memory(self) -> float | None:
        """Bytes of a device that a program may use; None if it is not known."""
        if self.accelerator == "tpu":
            return TPUS[self.kind].memory * 2**30
        whole = GPU_MEMORY.get(self.kind) if self.accelerator == "gpu" else None
        return whole and whole * GPU_SHARE

    def __str__(self) -> str:
        """The line that names it."""
        if self.accelerator == "tpu":
            slices = f"{self.slices}x" if self.slices > 1 else ""
            return f"{slices}{self.kind}:{self.shape}"
        nodes = f"{self.nodes}x" if self.nodes > 1 else ""
        return f"{nodes}{self.devices_per_node}x{self.kind}" if self.kind else str(self.nodes)

    def as_dict(self) -> dict[str, Any]:
        """The topology as the manifest holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def parse(cls, accelerator: str, text: str) -> Topology:
        """Raises ToolError where the line does not fit the accelerator."""
        if accelerator == "cpu" and re.fullmatch(r"[1-9]\d*", text):
            return cls("cpu", "", int(text), 1)
        gpu = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)x([a-z][a-z0-9-]*)", text)
        if accelerator == "gpu" and gpu:
            return cls("gpu", gpu[3], int(gpu[1] or 1), int(gpu[2]))
        tpu = re.fullmatch(r"(?:([1-9]\d*)x)?(v\w+):([1-9]\d*(?:x[1-9]\d*){1,2})", text)
        if accelerator == "tpu" and tpu:
            return cls._tpu(tpu[2], tpu[3], int(tpu[1] or 1))
        raise ToolError(f"topology {text!r} for {accelerator}: write {FORMS}")

    @classmethod
    def _tpu(cls, name: str, shape: str, slices: int) -> Topology:
        if name not in TPUS:
            raise ToolError(f"no TPU {name!r}: there are {', '.join(TPUS)}")
        kind = TPUS[name]
        sides = [int(side) for side in shape.split("x")]
        chips = math.prod(sides)
        if len(sides) != kind.dimensions:
            raise ToolError(f"{name}:{shape}: a {name} slice has {kind.dimensions} dimensions")
        if chips <= kind.single_host:
            return cls("tpu", name, slices, chips, shape, slices)
        if chips % kind.chips_per_host:
            raise ToolError(f"{name}:{shape}: {chips} chips fill no hosts of 4: change a side")
        return cls(
            "tpu", name, slices * chips // kind.chips_per_host, kind.chips_per_host, shape, slices
        )
