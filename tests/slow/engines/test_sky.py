"""launch/sky.yaml as SkyPilot itself reads it, and its command as a shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.slow.engines.bundles import PYTHON, program
from tools.bundle.settings import Settings
from tools.bundle.specs import render
from tools.bundle.topology import Topology

HOSTILE = (
    "--name",
    'it\'s "$HOME" `id` $(id)',
    "a: b # c",
    "--x=\\",
    "\U0001f600",
    "\u2028",
    "a\r\nb",
)
TOPOLOGIES = {
    "cpu": ("cpu", "3"),
    "gpu": ("gpu", "2x8xh100"),
    "tpu": ("tpu", "v6e:4x4"),
    "host": ("tpu", "v5e:2x4"),
    "slices": ("tpu", "2xv5p:2x2x2"),
}
READ = """
import json, sys
import sky, yaml

def told(path):
    try:
        with open(path) as file:
            config = yaml.safe_load(file)
        task = sky.Task.from_yaml_config(config, secrets_overrides=[("TOKEN", "s3cret")])
    except Exception as error:
        return {"error": str(error)}
    (resources,) = task.resources
    fields = "accelerators accelerator_args cpus job_recovery network_tier use_spot"
    read = {name: getattr(resources, name) for name in fields.split()}
    read["network_tier"] = read["network_tier"] and read["network_tier"].value
    read["cloud"] = resources.cloud and str(resources.cloud).lower()
    own = ["name", "num_nodes", "envs", "run", "setup", "workdir"]
    return {**{name: getattr(task, name) for name in own}, **read}

print("TOLD " + json.dumps([told(path) for path in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> dict[str, dict]:
    """What SkyPilot understands, by topology; and of a file with a field that there is not."""
    directory = tmp_path_factory.mktemp("sky")
    for name, topology in TOPOLOGIES.items():
        asked = Settings(
            "moe",
            Topology.parse(*topology),
            HOSTILE,
            run_dir="gs://b/it's",
            cpus=6,
            env={"GIVEN": "$HOME \U0001f600"},
            secrets=("TOKEN",),
            spot=False if name == "host" else None,
        )
        (directory / f"{name}.yaml").write_bytes(render(asked)["sky.yaml"])
    text = (directory / "cpu.yaml").read_text()
    (directory / "wrong.yaml").write_text(text.replace("use_spot", "use_spots"))
    names = [*TOPOLOGIES, "wrong"]
    python = program("engines.pex", "GRUG_ENGINES_PYTHON")
    done = subprocess.run(
        [python, "-c", READ, *(f"{name}.yaml" for name in names)],
        cwd=directory,
        env={**os.environ, "HOME": str(directory), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    return dict(zip(names, json.loads(told.removeprefix("TOLD ")), strict=True))


@pytest.mark.parametrize(
    ("name", "nodes", "accelerators", "more"),
    [
        ("cpu", 3, None, {"cpus": "6+", "cloud": None}),
        ("gpu", 2, {"H100": 8}, {"network_tier": "best", "cloud": None}),
        ("tpu", 1, {"tpu-v6e-16": 1}, {"cloud": "gcp"}),
        ("host", 1, {"tpu-v5litepod-8": 1}, {"cloud": "gcp"}),
        ("slices", 2, {"tpu-v5p-16": 1}, {"cloud": "gcp"}),
    ],
)
def test_the_task_is_what_we_meant(tasks, name, nodes, accelerators, more):
    task = tasks[name]
    accelerator = TOPOLOGIES[name][0]
    expected = {
        "name": f"moe-{accelerator}",
        "num_nodes": nodes,
        "accelerators": accelerators,
        "use_spot": name != "host",
        "envs": {"GIVEN": "$HOME \U0001f600", "RUN_DIR": "gs://b/it's"},
        "workdir": ".",
        **more,
    }
    assert {key: task[key] for key in expected} == expected
    recovery = task["job_recovery"]
    assert (recovery["max_restarts_on_errors"], recovery["recover_on_exit_codes"]) == (3, [143])
    assert recovery["strategy"] == "EAGER_NEXT_REGION"
    if accelerator == "tpu":
        assert task["accelerator_args"]["tpu_vm"] is True
        assert task["accelerator_args"]["runtime_version"].startswith("v2-alpha-tpuv")


def test_the_parser_refuses_what_is_no_field(tasks):
    assert "use_spots" in tasks["wrong"]["error"]


# As uv, which finds a Python if one is there.
UV = """#!/bin/sh
[ "$1 $2" = "python find" ] && [ "$3" = ">=3.12,<3.15" ] && [ -z "$NONE" ] && command -v python3
"""
PROGRAM = """#!/usr/bin/env python3
import json, os, sys
own = {name: value for name, value in os.environ.items() if name.startswith("MEGASCALE_")}
print(json.dumps([sys.argv[1:], own]))
"""


def run(task: dict, directory: Path, **variables: str) -> subprocess.CompletedProcess:
    """The task's command on one node, with a python3 that tells how it was called."""
    (directory / "bin").mkdir(exist_ok=True)
    (directory / "bin/python3").write_text(PROGRAM.replace("/usr/bin/env python3", PYTHON))
    (directory / "bin/uv").write_text(UV)
    for name in ("python3", "uv"):
        (directory / "bin" / name).chmod(0o755)
    path = {"PATH": f"{directory}/bin:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", task["run"]],
        env={**path, **variables},
        cwd=directory,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_command_gets_its_flags_whole(tasks, tmp_path, name):
    node = {"SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5", "SKYPILOT_NODE_RANK": "0"}
    done = run(tasks[name], tmp_path, **node, **tasks[name]["envs"])
    argv, _ = json.loads(done.stdout)
    assert argv == ["run.py", *HOSTILE, "--run-dir", "gs://b/it's", "--resume"]
    done = run(tasks[name], tmp_path, **node)
    assert done.returncode != 0 and "RUN_DIR: set it to a URL" in done.stderr
    done = run(tasks[name], tmp_path, NONE="1", **node, **tasks[name]["envs"])
    assert done.returncode == 78
    assert (
        done.stderr
        == "no Python >=3.12,<3.15 here: name an image that has it, resources.image_id\n"
    )


def test_slices_are_told_of_each_other(tasks, tmp_path):
    """SkyPilot numbers hosts over all slices, two hosts each here; libtpu wants the slice."""
    seen = []
    for rank in range(4):
        ips = "\n".join(f"10.0.0.{i}" for i in range(4, 8))
        node = {"SKYPILOT_NODE_IPS": ips, "SKYPILOT_NODE_RANK": str(rank), "RUN_DIR": "gs://b/r"}
        _, megascale = json.loads(run(tasks["slices"], tmp_path, **node).stdout)
        assert megascale["MEGASCALE_NUM_SLICES"] == "2"
        assert megascale["MEGASCALE_COORDINATOR_ADDRESS"] == "10.0.0.4"
        seen.append(megascale["MEGASCALE_SLICE_ID"])
    assert seen == ["0", "0", "1", "1"]
    _, alone = json.loads(run(tasks["tpu"], tmp_path, **node).stdout)
    assert alone == {}
