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
from pathlib import Path
from typing import Any

from tools.bundle.jobset import jobset
from tools.bundle.settings import Settings
from tools.bundle.skypilot import sky
from tools.bundle.yaml_text import yaml_text
from tools.common.errors import ToolError

TEMPLATES = Path(__file__).with_name("templates")
PORT = 8476  # of process 0, the coordinator: JAX's own default on TPU pods


def render(settings: Settings) -> dict[str, bytes]:
    """The files of launch/ by name. Every value is quoted for the language it stands in."""
    topology = settings.topology
    head = [line for line in settings.prologue.splitlines() if not line.startswith("#!")]
    # sbatch reads options up to the first command, and of two the last.
    options = [line for line in head if line.startswith("#SBATCH")]
    prologue = [line for line in head if not line.startswith("#SBATCH")]
    words = {
        "NAME": settings.name,
        "NODES": topology.nodes,
        "TIME": _slurm_time(settings.time_limit),
        "DEVICES": _slurm_devices(settings),
        "OPTIONS": "\n".join(options),
        "PROLOGUE": "\n".join(prologue),
        "ARGS": " ".join(map(quoted, settings.args)),
        "EXPORTS": "\n".join(f"export {k}={quoted(v)}" for k, v in settings.env.items()),
        "EXPORTS_WORD": shlex.quote(_in_sh(settings.env)),
        "SECRETS": " ".join(settings.secrets),
        "RUN_DIR": quoted(settings.run_dir),
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
        "ENV": repr(dict(settings.env)),
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


def _in_sh(variables: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)};" for name, value in variables.items())


def quoted(text: str) -> str:
    """The text as a word of bash, on lines that end with no CR, which sbatch refuses."""
    return shlex.quote(text).replace("\r", "'$'\\r''")


def fill(template: str, words: Mapping[str, Any]) -> str:
    """The template with each @WORD@ replaced, once: a value that holds @WORD@ stays as it is."""
    text = (TEMPLATES / template).read_text()
    return re.sub(r"@([A-Z_]+)@", lambda match: str(words[match[1]]), text)


def _commented(template: str, words: Mapping[str, Any]) -> str:
    lines = fill(template, words).splitlines()
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _slurm_time(text: str) -> str:
    if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", text):
        raise ToolError(f"time limit {text!r}: write minutes, HH:MM:SS or DAYS-HH:MM:SS")
    return text


def _slurm_devices(settings: Settings) -> str:
    topology = settings.topology
    if topology.accelerator == "gpu":
        gpus = f"{topology.kind}:{topology.devices_per_node}"
        return f"#SBATCH --gpus-per-node={gpus}\n#SBATCH --exclusive"
    return f"#SBATCH --cpus-per-task={settings.cpus}"
