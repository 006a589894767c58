"""What is known of a job before it waits in a queue: its flags, its mesh, and whether it fits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.bundle.topology import Topology
from tools.common.errors import ToolError

GIB = 2**30
# A batch system runs what its nodes have; TPUs are lent as machines or as pods.
WITHOUT_TPUS = ("slurm",)
SPOT = ("k8s", "sky")  # engines that know machines which may be taken away
SPECS = ("k8s", "sky", "slurm")  # engines with a spec that a person's own can be merged with

Plan = Callable[[Sequence[str], Mapping[str, str]], "subprocess.CompletedProcess[str]"]


def check_engine(engine: str, topology: Topology, spot: bool | None, spec: str) -> None:
    """Raises ToolError for what this engine has no word for."""
    if topology.accelerator == "tpu" and engine in WITHOUT_TPUS:
        raise ToolError(f"{topology}: {engine} has no TPUs: use --on k8s or sky, or GPUs")
    if spot is not None and engine not in SPOT:
        name = "--spot" if spot else "--no-spot"
        raise ToolError(f"{name} is for {' and '.join(SPOT)}: with {engine}, use --engine-arg")
    if spec and engine not in SPECS:
        raise ToolError(f"--spec is for {', '.join(SPECS)}: with {engine}, use --engine-arg")


def check_plan(flags: Sequence[str], topology: Topology, plan: Plan) -> None:
    """Has the variant plan the job, on as many imagined devices as it will have.

    It reads the flags, lays the mesh over the devices and estimates the memory, in some seconds.

    Raises:
        ToolError: the job would end at its start, or does not fit.
    """
    devices = f"--xla_force_host_platform_device_count={topology.devices}"
    done = plan(["--plan", "--json", *flags], {"XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"})
    values = _values(done, f"these flags start no run on {topology}")
    replicas = values["mesh"].get("replica", 1)
    if topology.slices > 1 and replicas % topology.slices:
        raise ToolError(
            f"{topology} has {topology.slices} slices, and the mesh {values['mesh']}: its first "
            f"number counts slices, as in --mesh {topology.slices} -1 1"
        )
    needed, limit = sum(values["memory"].values()), topology.memory
    if limit and needed > limit:
        raise ToolError(
            f"does not fit on {topology}: about {needed / GIB:.1f} of {limit / GIB:.1f} GiB per "
            "device: more --microbatches, --model.remat-layers or devices, or --check none"
        )


def check_compiled(flags: Sequence[str], topology: Topology, plan: Plan) -> None:
    """Compiles the job's programs for its hardware, in minutes. Raises as `check_plan` does."""
    done = plan(["--plan", "--json", "--topology", str(topology), *flags], {})
    compiled = _values(done, f"no plan for {topology}")["compiled"]
    if not compiled["fits"]:
        reason = " ".join(compiled["error"].split())
        raise ToolError(f"does not fit on {topology}: {reason}")


def _values(done: subprocess.CompletedProcess[str], what: str) -> dict[str, Any]:
    if done.stdout.startswith("{"):
        return json.loads(done.stdout)
    if done.returncode == 2:  # tyro's box says it best
        sys.stderr.write(done.stderr)
        raise ToolError(f"{what}: see above")
    said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    raise ToolError(f"{what}: {said[-1]}")
