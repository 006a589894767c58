"""Launch files: read back by what reads them, with values that would break careless quoting."""

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from tools.bundle.__main__ import main
from tools.bundle.specs import Settings, fill, render, yaml_text
from tools.bundle.topology import Topology
from tools.common.errors import ToolError

SCHEMA = json.loads(Path(__file__).with_name("jobset_schema.json").read_text())
HOSTILE = ("--name", 'it\'s "$HOME" `id` $(id)', "@NODES@", "a: b # c", "--x=\\")
TOPOLOGIES = [("cpu", "2"), ("gpu", "2x8xh100"), ("tpu", "v5e:4x4"), ("tpu", "2xv5p:2x2x2")]


def settings(accelerator: str = "gpu", topology: str = "2x8xh100", **fields) -> Settings:
    return Settings("moe", Topology.parse(accelerator, topology), **fields)


@pytest.mark.parametrize(("accelerator", "topology"), TOPOLOGIES)
def test_jobset_keeps_to_the_published_schemas(accelerator, topology):
    asked = settings(accelerator, topology, args=HOSTILE, run_dir="gs://b/it's")
    jobset = yaml.safe_load(render(asked)["jobset.yaml"])
    jsonschema.validate(jobset, SCHEMA, jsonschema.Draft202012Validator)
    job = jobset["spec"]["replicatedJobs"][0]
    spec = job["template"]["spec"]
    assert job["replicas"] * spec["completions"] == asked.topology.nodes
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [143]
    container = spec["template"]["spec"]["containers"][0]
    assert tuple(container["command"][4:]) == HOSTILE
    names = {variable["name"] for variable in container["env"]}
    assert ("JOBSET_COORDINATOR" in names) == (accelerator != "tpu")
    assert container["env"][0] == {"name": "RUN_DIR", "value": "gs://b/it's"}


def test_the_schema_refuses_what_is_no_field():
    jobset = yaml.safe_load(render(settings())["jobset.yaml"])
    jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["backofLimit"] = 0
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        jsonschema.validate(jobset, SCHEMA)
    jobset = yaml.safe_load(render(settings())["jobset.yaml"])
    jobset["spec"]["failurePolicy"]["rules"][0]["action"] = "Restart"
    with pytest.raises(jsonschema.ValidationError, match="Restart"):
        jsonschema.validate(jobset, SCHEMA)


def test_sky_counts_slices_and_cores_as_skypilot_does():
    tpu = yaml.safe_load(render(settings("tpu", "2xv5p:2x2x2"))["sky.yaml"])
    assert (tpu["num_nodes"], tpu["resources"]["accelerators"]) == (2, "tpu-v5p-16:1")
    gpu = yaml.safe_load(render(settings(args=HOSTILE))["sky.yaml"])
    assert (gpu["num_nodes"], gpu["resources"]["accelerators"]) == (2, "H100:8")
    assert gpu["resources"]["job_recovery"]["recover_on_exit_codes"] == [143]
    run = gpu["run"].splitlines()[1]
    assert tuple(shlex.split(run)[3:-3]) == HOSTILE


def test_what_sbatch_reads():
    text = render(settings(args=HOSTILE, time_limit="2-00:00:00"))["job.sbatch"].decode()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.M))
    assert len(options) == text.count("#SBATCH")
    assert {name: options[name] for name in ("nodes", "ntasks-per-node", "gpus-per-node")} == {
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "8",
    }
    assert options["signal"] == "TERM@90" and options["open-mode"] == "append"
    assert "requeue" in options and options["time"] == "2-00:00:00"
    # sbatch reads no option after the first command.
    first = next(i for i, line in enumerate(text.splitlines()) if line and line[0] != "#")
    assert all("#SBATCH" not in line for line in text.splitlines()[first:])
    with pytest.raises(ToolError, match="time limit"):
        render(settings(time_limit="1\n#SBATCH --uid=0"))


@pytest.mark.parametrize("name", ["job.sbatch", "local.sh", "ssh.sh"])
def test_shells_and_python_read_the_scripts(name):
    files = render(settings(args=HOSTILE, run_dir="a b'c"))
    done = subprocess.run(["bash", "-n"], input=files[name], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    tree = ast.parse(files["ray_driver.py"])
    given = [n.value for n in tree.body if isinstance(n, ast.Assign) and "ARGS" in ast.dump(n)]
    assert tuple(ast.literal_eval(given[0])) == HOSTILE


# As srun does with --kill-on-bad-exit: it runs a process for each of $CODES, which ends so, and its
# own code is the highest of all.
SRUN = """#!/bin/bash
printf '%s\\0' "$1" "$2" >>calls
highest=0
for code in $CODES; do
  CODE=$code "${@:3}"
  status=$?
  ((status <= highest)) || highest=$status
done
exit $highest
"""
PYTHON = """#!/bin/bash
printf '%s\\0' "$@" >>calls
((CODE < 128 || CODE == 143 || CODE == 175)) || kill -$((CODE - 128)) $$
exit $CODE
"""


def fake_slurm(path: Path, codes: str) -> dict[str, str]:
    """Programs that write down how they were called: what the script does with them."""
    path.mkdir()
    scontrol = "#!/bin/bash\nprintf '%s\\0' scontrol >>calls\n"
    for name, script in (("srun", SRUN), ("scontrol", scontrol), ("python3", PYTHON)):
        (path / name).write_text(script)
        (path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "5", "SLURM_SUBMIT_DIR": "/b", "CODES": codes}
    return {**os.environ, **slurm, "PATH": f"{path}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("codes", "status", "restarts", "again"),
    [
        ("0", 0, 0, False),
        ("143 143", 143, 0, True),
        ("143", 143, 9, True),
        ("137 0", 137, 0, True),
        ("0 137", 137, 3, False),
        ("134 137", 137, 0, True),
        ("175", 175, 0, True),
        ("175", 175, 3, False),
        ("1", 1, 0, False),
        # What the kill made of the others does not hide that one was refused.
        ("137 2 137", 2, 0, False),
        ("1 143", 1, 0, False),
        ("78 137", 78, 0, False),
    ],
)
def test_the_batch_script_requeues_what_was_preempted(tmp_path, codes, status, restarts, again):
    env = {**fake_slurm(tmp_path / "bin", codes), "SLURM_RESTART_COUNT": str(restarts)}
    env.pop("PYTHON", None)
    script = tmp_path / "job"
    script.write_bytes(render(settings(args=HOSTILE))["job.sbatch"])
    command = ["bash", script, "--steps", "3"]
    done = subprocess.run(command, env=env, capture_output=True, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    calls = (tmp_path / "calls").read_text().split("\0")
    end = ["--steps", "3", "--run-dir", "runs/moe-gpu-5", "--resume"]
    program = ["/b/run.py", *HOSTILE, *end]
    assert calls[: len(program) + 2] == ["--kill-on-bad-exit=1", "--label", *program]
    assert ("scontrol" in calls) == again


RUN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
names = ("LAUNCH_COORDINATOR", "LAUNCH_NUM_PROCESSES", "LAUNCH_PROCESS_ID")
print(*(os.environ[name] for name in names), sys.argv[1:], flush=True)
if "--wait" in sys.argv:
    time.sleep(60)
sys.exit(int(os.environ["LAUNCH_PROCESS_ID"]) * 3)
"""
# What ssh does as far as the script sees it, without a server: a shell in another directory.
SSH = """#!/bin/bash
shift
cd "$(dirname "$0")/home" && exec bash -c "$1"
"""


def script(tmp_path: Path, name: str) -> tuple[Path, dict[str, str]]:
    bundle = tmp_path / "it's here"
    (bundle / "launch").mkdir(parents=True)
    (bundle / "run.py").write_text(RUN)
    (bundle / "bundle.json").write_text("{}")
    (bundle / f"launch/{name}").write_bytes(render(settings(args=HOSTILE))[name])
    (tmp_path / "home").mkdir()
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    env = {**os.environ, "SSH": str(tmp_path / "ssh"), "PYTHON": sys.executable}
    return bundle / f"launch/{name}", env


@pytest.mark.parametrize(
    ("name", "hosts"), [("local.sh", ["3"]), ("ssh.sh", ["a", "b", "u@c", "--"])]
)
def test_a_process_a_host_the_flags_whole_the_worst_exit_code(tmp_path, name, hosts):
    path, env = script(tmp_path, name)
    command = ["bash", path, *hosts, "--last"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 6, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert len(lines) == 3
    for index, line in enumerate(lines):
        head, _, flags = line.partition(" [")
        prefix, coordinator, count, number = head.split()
        assert (prefix, count, number) == (f"{index}:", "3", str(index))
        assert ast.literal_eval(f"[{flags}") == [*HOSTILE, "--last"]
        assert coordinator.startswith("a:8476" if name == "ssh.sh" else "127.0.0.1:")


@pytest.mark.parametrize(("name", "hosts"), [("local.sh", ["2"]), ("ssh.sh", ["a", "b", "--"])])
def test_a_stop_reaches_every_process(tmp_path, name, hosts):
    path, env = script(tmp_path, name)
    command = ["bash", path, *hosts, "--wait"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and all(process.stdout.readline() for _ in range(2))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert time.monotonic() - began < 20


def test_yaml_gives_back_what_it_was_given():
    value = {"a": [1, "no", "1", "", None, True, {"b": "x\ny\n", "c": [[1], []]}], "d e": {}}
    assert yaml.safe_load(yaml_text(value)) == value


def test_a_word_that_no_one_set_is_an_error():
    with pytest.raises(KeyError):
        fill("job.sbatch", {})


def test_names_are_fit_for_every_engine():
    topology = Topology.parse("cpu", "1")
    assert Settings("2026-11-22_muon", topology).name == "run-2026-11-22-muon-cpu"
    assert Settings("--", topology).name == "run-cpu"
    assert len(Settings("x" * 80, topology).name) <= 40


def test_specs_can_be_written_anew(make, tmp_path):
    bundle = make()
    flags = ["--topology", "3", "--run-dir", "s3://b/r", "--", "--steps", "9"]
    assert main(["specs", str(bundle.path), "--out", str(tmp_path / "x"), *flags]) == 0
    text = (tmp_path / "x/job.sbatch").read_text()
    assert "#SBATCH --nodes=3\n" in text and "set -- --steps 9 " in text and "s3://b/r" in text
