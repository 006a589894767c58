"""What each engine is given to run a bundle: launch/job.sbatch, jobset.yaml, sky.yaml, ...

Exit codes that the specs go by: 143 is a preempted run, saved and to be started again, always;
128 and above otherwise is a killed process, or a store that did not answer (175), started again
`max_restarts` times; all else is final. A run that is preempted again and again before it trains
ends with 1 by itself (docs/reference/run.md), so that "always" has an end.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bundle.topology import TPUS, Topology
from tools.common.errors import ToolError

TEMPLATES = Path(__file__).with_name("templates")
PREEMPTED = 143
PORT = 8476  # of process 0, the coordinator: JAX's own default on TPU pods


@dataclass(frozen=True)
class Settings:
    """What a person may want otherwise; the defaults are what lies in a bundle."""

    variant: str
    topology: Topology
    args: tuple[str, ...] = ()  # flags of the program, on every start
    run_dir: str = ""  # where the run is kept, for engines whose disks go with the job: a URL
    image: str = "python:3.12-slim"
    time_limit: str = "24:00:00"  # of a Slurm job
    max_restarts: int = 3
    cpus: int = 4  # of a node without accelerators

    @property
    def name(self) -> str:
        """`moe-gpu`; of a speedrun `run-2026-11-22-muon-gpu`.

        A DNS label, and short enough for what JobSet adds to it in a host name.
        """
        text = re.sub(r"[^a-z0-9]+", "-", self.variant.lower()).strip("-")
        text = text if text[:1].isalpha() else f"run-{text}"
        return f"{text[:34].rstrip('-')}-{self.topology.accelerator}"


def render(settings: Settings) -> dict[str, bytes]:
    """The files of launch/ by name. Every value is quoted for the language it stands in."""
    topology = settings.topology
    words = {
        "NAME": settings.name,
        "NODES": topology.nodes,
        "TIME": _slurm_time(settings.time_limit),
        "DEVICES": _slurm_devices(settings),
        "ARGS": shlex.join(settings.args),
        "RUN_DIR": shlex.quote(settings.run_dir),
        "MAX_RESTARTS": settings.max_restarts,
        "PORT": PORT,
    }
    resource = {"cpu": {"CPU": settings.cpus}, "gpu": {"GPU": topology.devices_per_node}}
    python = {
        "NODES": topology.nodes,
        "RESOURCES": json.dumps(
            resource.get(topology.accelerator, {"TPU": topology.devices_per_node})
        ),
        "ARGS": repr(list(settings.args)),
        "MAX_RESTARTS": settings.max_restarts,
    }
    files = {
        "job.sbatch": fill("job.sbatch", words),
        "local.sh": fill("local.sh", words),
        "ssh.sh": fill("ssh.sh", words),
        "ray_driver.py": fill("ray_driver.txt", python),
        "jobset.yaml": _commented("jobset.txt", words) + yaml_text(jobset(settings)),
        "sky.yaml": _commented("sky.txt", words) + yaml_text(sky(settings)),
    }
    return {name: text.encode() for name, text in files.items()}


def fill(template: str, words: Mapping[str, Any]) -> str:
    """The template with each @WORD@ replaced, once: a value that holds @WORD@ stays as it is."""
    text = (TEMPLATES / template).read_text()
    return re.sub(r"@([A-Z_]+)@", lambda match: str(words[match[1]]), text)


def _commented(template: str, words: Mapping[str, Any]) -> str:
    lines = fill(template, words).splitlines()
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def yaml_text(value: Any, indent: str = "") -> str:
    """Mappings and lists as YAML blocks; keys and scalars as JSON, which YAML holds, or plain."""
    if isinstance(value, Mapping) and value:
        items = [(f"{indent}{_scalar(key)}:", item) for key, item in value.items()]
        deeper = indent + "  "
    elif isinstance(value, list | tuple) and value:
        items = [(f"{indent}-", item) for item in value]
        deeper = indent + "  "
    else:
        raise TypeError(f"{value!r} is no block")
    lines = []
    for head, item in items:
        if isinstance(item, Mapping | list | tuple) and item:
            block = yaml_text(item, deeper)
            # The first key of a mapping stands beside the dash.
            lines.append(f"{head} {block.lstrip()}" if head.endswith("-") else f"{head}\n{block}")
        elif isinstance(item, str) and item.endswith("\n"):
            body = "".join(f"{deeper}{line}\n" for line in item.splitlines())
            lines.append(f"{head} |\n{body}")
        else:
            lines.append(f"{head} {_scalar(item)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./]*", value)
    reserved = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
    return value if plain and value.lower() not in reserved else json.dumps(value)


def _slurm_time(text: str) -> str:
    if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", text):
        raise ToolError(f"time limit {text!r}: write minutes, HH:MM:SS or DAYS-HH:MM:SS")
    return text


def _slurm_devices(settings: Settings) -> str:
    topology = settings.topology
    if topology.accelerator == "gpu":
        return f"#SBATCH --gpus-per-node={topology.devices_per_node}\n#SBATCH --exclusive"
    return f"#SBATCH --cpus-per-task={settings.cpus}"


START = """\
set -e
mkdir -p /tmp/bundle
tar -xzf /config/bundle.tar.gz -C /tmp/bundle --strip-components=1
: "${RUN_DIR:?set RUN_DIR in jobset.yaml to a URL such as gs://BUCKET/runs/NAME: a pod's disk goes}"
exec python3 /tmp/bundle/run.py "$@" --run-dir "$RUN_DIR" --resume
"""


def jobset(settings: Settings) -> dict[str, Any]:
    """A JobSet: one job per slice, one pod per node. It needs no rights on the cluster's API."""
    topology = settings.topology
    ignore = "RestartJobSetAndIgnoreMaxRestarts"
    rules = [{"name": "preempted", "action": ignore, "onJobFailureReasons": ["PodFailurePolicy"]}]
    job = {"spec": _job(settings)}
    spec = {
        "coordinator": {"replicatedJob": "worker", "jobIndex": 0, "podIndex": 0},
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": {"maxRestarts": settings.max_restarts, "rules": rules},
        "replicatedJobs": [{"name": "worker", "replicas": topology.slices, "template": job}],
    }
    metadata: dict[str, Any] = {"name": settings.name}
    if topology.accelerator == "tpu":
        key = "alpha.jobset.sigs.k8s.io/exclusive-topology"
        metadata["annotations"] = {key: "cloud.google.com/gke-nodepool"}
    api = "jobset.x-k8s.io/v1alpha2"
    return {"apiVersion": api, "kind": "JobSet", "metadata": metadata, "spec": spec}


def _job(settings: Settings) -> dict[str, Any]:
    """The job of one slice, which fails as a whole where one of its pods is preempted."""
    exits = {"containerName": "worker", "operator": "In", "values": [PREEMPTED]}
    preempted = [
        {"action": "FailJob", "onExitCodes": exits},
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    pods = settings.topology.nodes // settings.topology.slices
    return {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": preempted},
        "template": {"spec": _pod(settings, pods)},
    }


def _pod(settings: Settings, pods: int) -> dict[str, Any]:
    """A node of a slice that has `pods` of them."""
    topology = settings.topology
    # Where the program sees a TPU pod, it takes these from the TPU's own environment.
    cluster = [] if topology.accelerator == "tpu" else _downward(topology.slices, pods)
    container = {
        "name": "worker",
        "image": settings.image,
        "command": ["/bin/sh", "-c", START, "run.py", *settings.args],
        "env": [{"name": "RUN_DIR", "value": settings.run_dir}, *cluster],
        "resources": _resources(settings),
        "volumeMounts": [
            {"name": "bundle", "mountPath": "/config"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": [
            {"name": "bundle", "configMap": {"name": settings.name}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if topology.accelerator == "tpu":
        pod["nodeSelector"] = {
            "cloud.google.com/gke-tpu-accelerator": TPUS[topology.kind].gke,
            "cloud.google.com/gke-tpu-topology": topology.shape,
        }
    return pod


def _downward(jobs: int, pods: int) -> list[dict[str, Any]]:
    """What a variant's cluster.py reads; Kubernetes itself sets JOB_COMPLETION_INDEX."""

    def annotation(name: str) -> dict[str, Any]:
        return {"fieldRef": {"fieldPath": f"metadata.annotations['{name}']"}}

    return [
        {"name": "JOBSET_COORDINATOR", "valueFrom": annotation("jobset.sigs.k8s.io/coordinator")},
        {"name": "JOBSET_JOB_INDEX", "valueFrom": annotation("jobset.sigs.k8s.io/job-index")},
        {"name": "JOBSET_JOBS", "value": str(jobs)},
        {"name": "JOBSET_PODS_PER_JOB", "value": str(pods)},
    ]


def _resources(settings: Settings) -> dict[str, Any]:
    topology = settings.topology
    if topology.accelerator == "cpu":
        return {"requests": {"cpu": str(settings.cpus)}}
    name = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}[topology.accelerator]
    return {"limits": {name: str(topology.devices_per_node)}}


def sky(settings: Settings) -> dict[str, Any]:
    """A SkyPilot task. Its nodes are machines; for a TPU slice SkyPilot counts slices."""
    topology = settings.topology
    recovery = {
        "strategy": "EAGER_NEXT_REGION",
        "max_restarts_on_errors": settings.max_restarts,
        "recover_on_exit_codes": [PREEMPTED],
    }
    resources: dict[str, Any] = {"use_spot": True, "job_recovery": recovery}
    if topology.accelerator == "cpu":
        resources |= {"cpus": f"{settings.cpus}+"}
    elif topology.accelerator == "gpu":
        kind = topology.kind.upper()
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
        f"{_megascale(topology)}"
        f'exec python3 run.py {shlex.join(settings.args)} --run-dir "$RUN_DIR" --resume\n'
    )
    return {
        "name": settings.name,
        "num_nodes": topology.slices if topology.accelerator == "tpu" else topology.nodes,
        "workdir": ".",
        "resources": resources,
        "envs": {"RUN_DIR": settings.run_dir},
        "setup": "command -v uv >/dev/null || python3 -m pip install -q uv || true\n",
        "run": run.replace("run.py  ", "run.py "),
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
