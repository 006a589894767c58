"""Launch files: read back by what reads them, with values that would break careless quoting."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as tries
from hypothesis import strategies as st

from tools.bundle.__main__ import main
from tools.bundle.settings import Settings, job_name
from tools.bundle.specs import fill, render
from tools.bundle.topology import Topology
from tools.bundle.yaml_text import change, merged, yaml_text
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
    assert tuple(map(expanded, container["command"][4:])) == HOSTILE
    names = {variable["name"] for variable in container["env"]}
    assert ("JOBSET_COORDINATOR" in names) == (accelerator != "tpu")
    assert container["env"][0] == {"name": "RUN_DIR", "value": "gs://b/it's"}


def expanded(text: str) -> str:
    """As a container gets it, with RUN_DIR=x: kubernetes/third_party/forked/golang/expansion."""

    def known(match: re.Match) -> str:
        return "$" if match[0] == "$$" else "x" if match[1] == "RUN_DIR" else match[0]

    return re.sub(r"\$\$|\$\(([^)]*)\)", known, text)


# What a careless writer of YAML, of a shell's words or of Python breaks: line ends of all kinds,
# what looks like another type, expansions, and letters that JSON writes as two.
WORDS = (
    *("\U0001f600", "\u2028", "\x85", "\x0b", "\ufeff", "\x7f", ""),
    *("a\r\nb", "\r", "\n", " x", "x\n", "\n x\n", "it's", 'a"b', "\\", "\\n", "`id`"),
    *("1e3", "0o7", "0x1f", "1:30", "no", "~", "---", "# x", "a: b", "{a", "*x", "!x", "%x"),
    *("$(RUN_DIR)", "$$(RUN_DIR)", "$RUN_DIR", "@NODES@", "{wanted}"),
)
texts = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"])))
lists = st.lists(texts.map(lambda text: text.replace("\0", "")), max_size=6)
PRINT = """
import json, os, sys
print(json.dumps([sys.argv[1:], {name: os.environ[name] for name in ("GIVEN", "TOKEN")}]))
"""


def asked(words: list[str]) -> Settings:
    topology, given = Topology.parse("gpu", "1xh100"), {"GIVEN": "".join(words)}
    return Settings("moe", topology, args=tuple(words), env=given, secrets=("TOKEN",))


@tries(deadline=None)
@given(lists)
@example(list(WORDS))
def test_engines_that_read_yaml_get_every_word_whole(words):
    files = render(asked(words))
    assert files["jobset.yaml"].isascii() and files["sky.yaml"].isascii()
    jobset = yaml.safe_load(files["jobset.yaml"])
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert [expanded(word) for word in container["command"][4:]] == words
    variable = container["env"][0]
    assert (variable["name"], expanded(variable["value"])) == ("GIVEN", "".join(words))
    task = yaml.safe_load(files["sky.yaml"])
    assert task["envs"]["GIVEN"] == "".join(words) and task["secrets"] == {"TOKEN": None}
    line = task["run"].partition("exec ")[2]
    assert shlex.split(line)[2:-3] == words


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")
@tries(deadline=None, max_examples=20)
@given(lists)
@example(list(WORDS))
def test_kubectl_reads_what_pyyaml_reads(words):
    """Its own parser, which needs no cluster for this."""
    data = render(asked(words))["jobset.yaml"]
    command = ("kubectl", "annotate", "--local", "--output=json", "--filename=-", "a=b")
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    expected = yaml.safe_load(data)
    expected["metadata"]["annotations"] = {"a": "b"}
    assert json.loads(done.stdout) == expected


@tries(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lists)
@example(list(WORDS))
def test_shells_and_python_get_every_word_whole(tmp_path_factory, words):
    tmp_path = tmp_path_factory.mktemp("words")
    env = {"TOKEN": "it's\na secret"}
    for name, first in (("job.sbatch", []), ("local.sh", ["1"]), ("ssh.sh", ["a", "--"])):
        path, given = script(tmp_path / name, name, asked(words), PRINT)
        fake = fake_slurm(tmp_path / name / "bin", "0") if name == "job.sbatch" else {}
        if fake:
            (tmp_path / name / "bin/srun").write_text('#!/bin/bash\nexec "${@:3}"\n')
            fake |= {"BUNDLE": str(path.parents[1]), "RUN_DIR": "r"}
        assert b"\r" not in path.read_bytes() or name != "job.sbatch"  # sbatch takes none
        command = ["bash", path, *first]
        environment = {**given, **fake, **env, "PYTHON": sys.executable}
        done = subprocess.run(command, env=environment, capture_output=True, cwd=tmp_path / name)
        assert done.returncode == 0, done.stderr
        line = next(line for line in done.stdout.decode().splitlines() if "[[" in line)
        told, variables = json.loads(line[line.index("[[") :])
        end = ["--run-dir", "r", "--resume"] if fake else []
        assert told == [*words, *end] and variables == {"GIVEN": "".join(words), **env}
    tree = ast.parse(render(asked(words))["ray_driver.py"])
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert (values["ARGS"], values["ENV"]) == (words, {"GIVEN": "".join(words)})


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
    run = gpu["run"].partition("exec ")[2]
    assert tuple(shlex.split(run)[2:-3]) == HOSTILE
    # A plan reckons with 80 GB; what SkyPilot calls A100 has 40.
    gpu = yaml.safe_load(render(settings(topology="8xa100"))["sky.yaml"])
    assert gpu["resources"]["accelerators"] == "A100-80GB:8"


def test_what_sbatch_reads():
    text = render(settings(args=HOSTILE, time_limit="2-00:00:00"))["job.sbatch"].decode()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.M))
    assert len(options) == text.count("#SBATCH")
    assert {name: options[name] for name in ("nodes", "ntasks-per-node", "gpus-per-node")} == {
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "h100:8",
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
# What ssh does as far as the script sees it, without a server: a login shell in another directory.
# Debian's dash is one that knows no $'...'.
SSH = """#!/bin/bash
shift
cd "$(dirname "$0")/home" && exec dash -c "$1"
"""


def script(tmp_path: Path, name: str, asked: Settings, program: str) -> tuple[Path, dict[str, str]]:
    bundle = tmp_path / "it's here"
    (bundle / "launch").mkdir(parents=True)
    (bundle / "run.py").write_text(program)
    (bundle / "bundle.json").write_text("{}")
    (bundle / f"launch/{name}").write_bytes(render(asked)[name])
    (tmp_path / "home").mkdir()
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    env = {**os.environ, "SSH": str(tmp_path / "ssh"), "PYTHON": sys.executable}
    return bundle / f"launch/{name}", env


@pytest.mark.parametrize(
    ("name", "hosts"), [("local.sh", ["3"]), ("ssh.sh", ["a", "b", "u@c", "--"])]
)
def test_a_process_a_host_the_flags_whole_the_worst_exit_code(tmp_path, name, hosts):
    path, env = script(tmp_path, name, settings(args=HOSTILE), RUN)
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
    path, env = script(tmp_path, name, settings(args=HOSTILE), RUN)
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
    assert "b: |\n" in yaml_text(value)  # a script stays one to read


def test_a_change_has_a_place():
    value = {"a": {"b": [{"c": 1}]}, "x": {"y": 1}}
    change(value, "a.b.0.d", "[1, two]")
    change(value, "x", "{z: 2}")
    change(value, r"l.k\.io/n.m", '"1"')
    assert value == {
        "a": {"b": [{"c": 1, "d": [1, "two"]}]},
        "x": {"y": 1, "z": 2},
        "l": {"k.io/n": {"m": "1"}},
    }
    for path, said in [("a.b.1.c", "1 is no item of a list of 1"), ("x.y.z", "before 'z'")]:
        with pytest.raises(ToolError, match=said):
            change(value, path, "1")
    with pytest.raises(ToolError, match="a={: not YAML"):
        change(value, "a", "{")
    assert merged({"a": {"b": 1}, "c": [1]}, {"a": {"d": 2}, "c": [2]}) == {
        "a": {"b": 1, "d": 2},
        "c": [2],
    }


def test_a_jobset_takes_what_clusters_ask_for():
    changes = (
        ("queue", "team"),
        ("pod.serviceAccountName", "trainer"),
        ("pod.imagePullSecrets", "[{name: registry}]"),
        ("pod.tolerations", "[{key: gpu, operator: Exists}]"),
        (r"pod.nodeSelector.example\.com/pool", '"7"'),
        ("pod.priorityClassName", "high"),
        ("container.resources.requests.memory", "64Gi"),
        ("spec.failurePolicy.maxRestarts", "9"),
    )
    template = {"metadata": {"name": "theirs", "labels": {"team": "a"}}, "spec": {"suspend": True}}
    asked = settings(changes=changes, secrets=("TOKEN",), spot=True, template=template)
    jobset = yaml.safe_load(render(asked)["jobset.yaml"])
    jsonschema.validate(jobset, SCHEMA, jsonschema.Draft202012Validator)
    labels = {"team": "a", "kueue.x-k8s.io/queue-name": "team"}
    assert jobset["metadata"] == {"name": "moe-gpu", "labels": labels}
    assert jobset["spec"]["suspend"] and jobset["spec"]["failurePolicy"]["maxRestarts"] == 9
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("trainer", "high")
    assert pod["nodeSelector"] == {"cloud.google.com/gke-spot": "true", "example.com/pool": "7"}
    (container,) = pod["containers"]
    secret = {"secretKeyRef": {"name": "moe-gpu", "key": "TOKEN"}}
    assert {"name": "TOKEN", "valueFrom": secret} in container["env"]


def test_a_task_takes_what_clouds_ask_for():
    changes = (("resources.infra", "aws/us-east-1"), ("resources.disk_size", "500"))
    asked = settings(changes=changes, spot=False, template={"file_mounts": {"/x": "s3://b"}})
    task = yaml.safe_load(render(asked)["sky.yaml"])
    resources = task["resources"]
    assert (resources["infra"], resources["disk_size"]) == ("aws/us-east-1", 500)
    assert resources["use_spot"] is False and task["file_mounts"] == {"/x": "s3://b"}
    assert yaml.safe_load(render(settings())["sky.yaml"])["resources"]["use_spot"] is True


def test_a_batch_script_has_a_persons_head_and_our_fields():
    prologue = "#!/bin/zsh\n#SBATCH --account=lab\n#SBATCH --nodes=9\nmodule load python\n"
    text = render(settings(prologue=prologue))["job.sbatch"].decode()
    options = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.M)
    # Of two, sbatch takes the last.
    assert dict(options)["account"] == "lab" and dict(options)["nodes"] == "2"
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash" and "#!/bin/zsh" not in lines
    commands = [line for line in lines if line and line[0] != "#"]
    assert commands[:2] == ["module load python", "set -u"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"env": {"A-B": "1"}}, "no variable can be called 'A-B'"),
        ({"secrets": ("1A",)}, "no variable can be called '1A'"),
        ({"env": {"A": "1"}, "secrets": ("A",)}, "A is given by --env and by --secret"),
        ({"args": ("a\udcff",)}, r"'a\\udcff' is not UTF-8"),
    ],
)
def test_what_no_engine_can_be_told_is_one_line(fields, said):
    with pytest.raises(ToolError, match=said):
        settings(**fields)


def test_a_word_that_no_one_set_is_an_error():
    with pytest.raises(KeyError):
        fill("job.sbatch", {})


def test_names_are_fit_for_every_engine():
    topology = Topology.parse("cpu", "1")
    assert Settings("2026-11-22_muon", topology).name == "run-2026-11-22-muon-cpu"
    assert Settings("--", topology).name == "run-cpu"
    assert len(Settings("x" * 80, topology).name) <= 40
    assert Settings("x" * 50, topology).name != Settings("x" * 51, topology).name


def test_a_sending_has_a_name_of_its_own():
    assert job_name("moe", "gpu", "", "8f1c02") == "moe-gpu-8f1c02"
    name = job_name("2026-11-22_muon_long_name", "gpu", "gs://b/runs/LR_3e-4_and_more/", "8f1c02")
    assert name == "run-2026-11-22-gpu-lr-3e-4-and-mo-8f1c02"
    assert len(name) <= 40 and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)


def test_specs_can_be_written_anew(make, tmp_path):
    bundle = make()
    flags = ["--topology", "3", "--run-dir", "s3://b/r", "--", "--steps", "9"]
    assert main(["specs", str(bundle.path), "--out", str(tmp_path / "x"), *flags]) == 0
    text = (tmp_path / "x/job.sbatch").read_text()
    assert "#SBATCH --nodes=3\n" in text and "set -- --steps 9 " in text and "s3://b/r" in text
