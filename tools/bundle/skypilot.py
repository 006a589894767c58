"""A bundle as a task of SkyPilot: https://docs.skypilot.co."""

from __future__ import annotations

import shlex
from typing import Any

from tools.bundle import yaml_text
from tools.bundle.settings import PREEMPTED, Settings
from tools.bundle.topology import GPU_NAMES, TPUS, Topology

# SkyPilot's images have a Python that is older than any JAX takes. uv brings one that is not.
UV_PATH = 'export PATH="$PATH:$HOME/.local/bin"\n'
SETUP = """\
{uv_path}command -v uv >/dev/null || python3 -m pip install -q --user uv ||
  curl -LsSf https://astral.sh/uv/install.sh | sh
uv python find {wanted} >/dev/null 2>&1 || uv python install {wanted}
"""


def sky(settings: Settings) -> dict[str, Any]:
    """A SkyPilot task. Its nodes are machines; for a TPU slice SkyPilot counts slices.

    Raises:
        ToolError: a change has no place in it.
    """
    found = yaml_text.merged(settings.template, _task(settings))
    for path, text in settings.changes:
        yaml_text.change(found, path, text)
    return found


def _task(settings: Settings) -> dict[str, Any]:
    topology = settings.topology
    recovery = {
        "strategy": "EAGER_NEXT_REGION",
        "max_restarts_on_errors": settings.max_restarts,
        "recover_on_exit_codes": [PREEMPTED],
    }
    pythons = f">={settings.pythons.minimum},<{settings.pythons.below}"
    wanted = shlex.quote(pythons)
    flags = "".join(f" {shlex.quote(flag)}" for flag in settings.args)
    spot = settings.spot is not False  # a run goes on elsewhere, for a third of the price
    resources: dict[str, Any] = {"use_spot": spot, "job_recovery": recovery}
    if topology.accelerator == "cpu":
        resources |= {"cpus": f"{settings.cpus}+"}
    elif topology.accelerator == "gpu":
        kind = GPU_NAMES.get(topology.kind, topology.kind.upper())
        resources |= {"accelerators": f"{kind}:{topology.devices_per_node}", "network_tier": "best"}
    else:
        kind = TPUS[topology.kind]
        chips = topology.nodes // topology.slices * topology.devices_per_node
        resources |= {
            "infra": "gcp",
            "accelerators": f"tpu-{kind.cloud}-{chips * kind.cores}:1",
            "accelerator_args": {"runtime_version": kind.runtime, "tpu_vm": True},
        }
    run = (
        ': "${RUN_DIR:?set it to a URL, gs://BUCKET/runs/NAME: a disk goes with its machine}"\n'
        f"{UV_PATH}"
        f"python=$(uv python find {wanted}) || {{\n"
        f"  echo 'no Python {pythons} here: name an image that has it, resources.image_id' >&2\n"
        "  exit 78\n"
        "}\n"
        f"{_megascale(topology)}"
        f'exec "$python" run.py{flags} --run-dir "$RUN_DIR" --resume\n'
    )
    return {
        "name": settings.name,
        "num_nodes": topology.slices if topology.accelerator == "tpu" else topology.nodes,
        "workdir": ".",
        "resources": resources,
        "envs": {**settings.env, "RUN_DIR": settings.run_dir},
        **({"secrets": dict.fromkeys(settings.secrets)} if settings.secrets else {}),
        "setup": SETUP.format(uv_path=UV_PATH, wanted=wanted),
        "run": run,
    }


def _megascale(topology: Topology) -> str:
    """What makes one run of several TPU slices; SkyPilot, alone of the engines, leaves it out.

    It lists the hosts slice by slice, and a slice's hosts know each other by themselves.
    """
    if topology.accelerator != "tpu" or topology.slices == 1:
        return ""
    hosts = topology.nodes // topology.slices
    return (
        f"export MEGASCALE_NUM_SLICES={topology.slices}"
        f" MEGASCALE_SLICE_ID=$((SKYPILOT_NODE_RANK / {hosts}))\n"
        'export MEGASCALE_COORDINATOR_ADDRESS="${SKYPILOT_NODE_IPS%%[[:space:]]*}"\n'
    )
