"""`--on ENGINE` up to the engines' own programs, which write down here what they are told."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.tools.launch.conftest import LOCK, VARIANT, how_to
from tools.bundle.topology import Topology
from tools.launch import bundles, engines
from tools.launch.engines import ENGINES, REMEDIES, Job, check_place
from tools.launch.main import main
from tools.launch.options import parse
from tools.launch.remote import find_topology, own_environment

PACK = "./pants package experiments/grug/base::"
URL, DATA = "gs://bucket/run", "s3://bucket/text"
NEEDS = {  # what each engine cannot do without
    "slurm": [],
    "k8s": ["--run-dir", URL],
    "sky": ["--run-dir", URL],
    "ray": ["--run-dir", URL],
    "ssh": ["--run-dir", URL, "--host", "one", "--host", "two"],
}
RECORDER = """#!/bin/sh
case $* in *--test-only*|*--dry-run=server*) exit "${ASKED:-0}" ;; esac
{
  pwd
  printf '%s\\n' "$(basename "$0")" "$@"
  cat launch/* 2>/dev/null
  [ -t 0 ] || [ "$1" != create ] || [ "$3" != - ] || cat
  echo "$BUNDLE,$RUN_DIR"
} >>"$RECORD"
[ "$1" != --parsable ] || echo 17
[ "$1" != get ] || echo Completed
exit "${CODE:-0}"
"""
pytestmark = pytest.mark.usefixtures("planned")
every_engine = pytest.mark.parametrize("engine", sorted(ENGINES))


@pytest.fixture
def record(tmp_path, monkeypatch) -> Path:
    """What the engines' programs were told; they are all there."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in (*REMEDIES, "scontrol"):
        (programs / name).write_text(RECORDER)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setattr(engines, "PAUSE", 0)
    return tmp_path / "record"


PATHS = os.pathsep.join(map(os.path.abspath, sys.path))  # tests change the directory


def start(*flags: str) -> subprocess.CompletedProcess[str]:
    """The launcher as a process: some engines take its place."""
    env = {**os.environ, "PYTHONPATH": PATHS}
    command = [sys.executable, "-m", "tools.launch.main", "base", *flags, "--check", "none"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def refusal(capsys, *flags: str) -> str:
    """The one line of a command that sends nothing."""
    assert main(["base", *flags]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("launch: ") and not list(Path().glob("runs/bundles/[!.]*"))
    return line


def test_what_is_not_the_launchers_is_the_programs_in_its_order():
    line = "--steps 3 --on slurm --mesh 1 -1 1 --cpus 2 --model.d-model=8 --time 1 --no-tensorboard"
    options = parse("base", line.split(), Path("nowhere"))
    assert (options.on, options.cpus) == ("slurm", 2)
    theirs = "--steps 3 --mesh 1 -1 1 --model.d-model=8 --time 1 --no-tensorboard"
    assert options.flags == tuple(theirs.split())


@pytest.mark.parametrize(
    "text, accelerator, expected",
    [("2", None, "cpu"), ("4x8xh100", None, "gpu"), ("2xv6e:4x4", None, "tpu"), ("", "tpu", None)],
)
def test_the_topology_tells_the_accelerator(text, accelerator, expected):
    found = find_topology(text, accelerator)
    assert (found and found.accelerator) == expected


@pytest.mark.parametrize("text, said", [("many", "write NODES"), ("v5e:3x3x3", "has 2 dimensions")])
def test_a_topology_that_is_none_is_refused(workspace, capsys, text, said):
    assert said in refusal(capsys, "--on", "slurm", "--topology", text)


def test_gpu_is_meant_where_nothing_tells(workspace, capsys):
    assert main(["base", "--on", "slurm", "--dry-run"]) == 0
    assert "#SBATCH --gpus-per-node=h100:8\n" in capsys.readouterr().out


def test_no_bundle_names_the_command_that_packs_one(workspace, capsys):
    (workspace / "dist").rename(workspace / "gone")
    line = refusal(capsys, "--on", "slurm")
    assert line == f"launch: no bundle in dist/bundles/base-gpu/: {PACK}"


PART = "tools/start/settings.py"


@pytest.mark.parametrize(
    "changed",
    [f"{VARIANT}/model.py", f"{VARIANT}/table.json", LOCK, "dist/bundles/base-gpu/run.py", PART],
)
def test_a_stale_bundle_names_what_changed_and_the_command(workspace, capsys, changed):
    place = Path("dist/bundles/base-gpu/parts", PART) if changed == PART else Path(changed)
    place.write_bytes(place.read_bytes() + b"\n")
    line = refusal(capsys, "--on", "slurm", "--dry-run")
    assert line.endswith(f"changed: {PACK}")
    named = {LOCK: "its lock", "dist/bundles/base-gpu/run.py": "tools/bundle/run.py"}
    assert named.get(changed, changed) in line


def test_a_bundle_of_before_run_py_had_parts_is_stale(workspace, capsys):
    shutil.rmtree("dist/bundles/base-gpu/parts")
    manifest = Path("dist/bundles/base-gpu/bundle.json")
    manifest.write_text(manifest.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    line = refusal(capsys, "--on", "slurm", "--dry-run")
    assert "was packed before tools/bundle/worker/check.py changed" in line


def test_a_source_that_is_gone_is_a_change(workspace, capsys):
    Path(VARIANT, "model.py").unlink()
    assert f"before {VARIANT}/model.py changed" in refusal(capsys, "--on", "slurm")


@pytest.mark.parametrize(
    "name, counts",
    [
        ("new.json", True),
        ("kernels/caf\u00e9.py", True),
        ("test_new.py", False),
        ("BUILD", False),
        (".new", False),
        ("scratch/notes.txt", False),  # git ignores it, and so Pants
    ],
)
def test_a_source_that_was_added_is_a_change(workspace, capsys, name, counts):
    subprocess.run(["git", "init", "-q"], check=True)
    Path(".gitignore").write_text("scratch/\n")
    Path(VARIANT, name).parent.mkdir(exist_ok=True)
    Path(VARIANT, name).write_text("new")
    if counts:
        assert f"before {VARIANT}/{name} changed" in refusal(capsys, "--on", "slurm", "--dry-run")
    else:
        assert main(["base", "--on", "slurm", "--dry-run"]) == 0


@pytest.mark.parametrize(
    "engine, place, good",
    [
        ("slurm", "runs/mine", True),
        ("slurm", "ftp://x/y", False),
        ("k8s", "s3://bucket/x", True),
        ("k8s", "/shared/x", False),
        ("sky", "runs/mine", False),
        ("ray", "/shared/x", True),
        ("ssh", "runs/mine", False),
        ("ssh", "", False),
    ],
)
def test_workers_must_reach_the_places_of_a_run(engine, place, good):
    if good:
        check_place(engine, "--data", place)
    else:
        with pytest.raises(bundles.ToolError, match="--data.* name a URL"):
            check_place(engine, "--data", place)


def test_workers_must_reach_what_a_branch_begins_with(workspace, capsys):
    flags = ["--on", "k8s", *NEEDS["k8s"], "--data", DATA, "--branch-from"]
    told = refusal(capsys, *flags, "runs/base-1@800")
    assert "--branch-from runs/base-1@800: name a URL" in told
    assert main(["base", *flags, "gs://bucket/run@800", "--dry-run"]) == 0
    assert "gs://bucket/run@800" in capsys.readouterr().out


def test_data_that_is_not_there_never_waits_in_a_queue(workspace, record, capsys):
    flags = ["--on", "slurm", "--no-follow", "--data", "text"]
    assert "--data text: there is nothing here" in refusal(capsys, *flags)
    assert main(["base", *flags, "--check", "none"]) == 0
    Path("text").mkdir()
    assert main(["base", *flags]) == 0


@pytest.mark.parametrize("engine", ["k8s", "sky", "ray"])
def test_a_run_must_be_kept_somewhere(workspace, capsys, engine):
    assert "--run-dir is missing" in refusal(capsys, "--on", engine)


def test_hosts_are_sshs(workspace, capsys):
    assert "--host" in refusal(capsys, "--on", "ssh", "--run-dir", URL)
    assert "--host" in refusal(capsys, "--on", "slurm", "--host", "one")


@every_engine
def test_a_missing_program_is_one_line_with_the_remedy(workspace, capsys, monkeypatch, engine):
    monkeypatch.setenv("PATH", str(workspace))
    line = refusal(capsys, "--on", engine, *NEEDS[engine], "--data", URL)
    program = ENGINES[engine].program
    assert line == f"launch: no {program} on PATH: {REMEDIES[program]}"


@every_engine
def test_what_a_dry_run_prints_is_what_is_sent(workspace, record, engine):
    flags = ["--on", engine, *NEEDS[engine], "--steps", "3", "--data", DATA, "--name", "mine"]
    dry = start(*flags, "--dry-run")
    assert dry.returncode == 0 and not dry.stderr, dry.stderr
    assert not Path("runs").exists() and not record.exists()
    wet = start(*flags, "--no-follow") if engine in ("slurm", "k8s") else start(*flags)
    assert wet.returncode == 0, wet.stderr
    sent = record.read_text()
    record.unlink()

    text, _, commands = dry.stdout.partition("# Sent by:\n")
    spec = text.split(":\n\n", 1)[1].rstrip("\n")
    kept = Path("runs/bundles/mine")
    assert (kept / "launch" / ENGINES[engine].spec).read_text().rstrip("\n") == spec
    assert all(word in spec for word in ("--steps", DATA, "--resume"))
    assert URL in spec or engine == "slurm"
    pasted = subprocess.run(["sh", "-ec", commands], capture_output=True, text=True)
    assert pasted.returncode == 0, pasted.stderr
    # ssh.sh names each of its processes anew.
    assert record.read_text() == sent or engine == "ssh"


def test_the_bundle_that_is_sent_is_whole(workspace, record):
    wheels = workspace / "dist/bundles/base-cpu/wheels"
    wheels.mkdir()
    (wheels / "one.whl").write_bytes(b"1")
    assert main(["base", "--on", "slurm", "--topology", "2", "--no-follow", "--steps", "3"]) == 0
    (kept,) = Path("runs/bundles").glob("base-cpu-*/")
    assert (kept / "wheels/one.whl").samefile(wheels / "one.whl")
    worker = runpy.run_path(str(kept / "run.py"))
    manifest, _ = worker["read_manifest"]()  # which checks the digest of every file
    assert manifest["topology"]["nodes"] == 2
    # A second job has what the first has on the disk once, and its own of what it was told.
    assert main(["base", "--on", "slurm", "--topology", "2", "--no-follow", "--steps", "4"]) == 0
    (other,) = set(Path("runs/bundles").glob("base-cpu-*/")) - {kept}
    assert (other / "app.pex").samefile(kept / "app.pex")
    assert not (other / "launch/job.sbatch").samefile(kept / "launch/job.sbatch")
    assert os.access(other / "run.py", os.X_OK) and not list(Path("runs/bundles").glob("*.tar.gz"))
    (kept / "launch/job.sbatch").unlink()
    (kept / "launch/job.sbatch").write_text("")
    with pytest.raises(worker["NotAsPacked"], match="launch/job.sbatch is not what was packed"):
        worker["read_manifest"]()


def test_slurms_log_and_run_are_the_workspaces(workspace, record, capsys, monkeypatch):
    monkeypatch.setenv("RUN_DIR", "another")
    assert main(["base", "--on", "slurm", "--no-follow"]) == 0
    assert capsys.readouterr().out == "17\n"
    (kept,) = Path("runs/bundles").glob("base-gpu-*/")
    where, *words, told = record.read_text().splitlines()
    assert (where, told) == (str(workspace), f"{workspace / kept},")
    assert words[:3] == ["sbatch", "--parsable", "--output=runs/%x-%j.log"]


def test_a_job_has_the_users_environment_and_not_the_launchers(monkeypatch):
    monkeypatch.setenv("PATH", "/cache/venv/bin:/usr/bin:/bin")
    monkeypatch.setenv("VIRTUAL_ENV", "/cache/venv")
    monkeypatch.delenv("PEX", raising=False)
    assert own_environment()["PATH"] == "/cache/venv/bin:/usr/bin:/bin"
    monkeypatch.setenv("PEX", "/cache/launch.pex")
    env = own_environment()
    assert env["PATH"] == "/usr/bin:/bin" and not {"PEX", "VIRTUAL_ENV"} & env.keys()


def test_a_refusal_of_the_engine_stops_and_shows_its_command(
    workspace, record, capsys, monkeypatch
):
    monkeypatch.setenv("CODE", "3")
    assert main(["base", "--on", "k8s", "--run-dir", URL, "--data", URL]) == 1
    assert "it was not sent: " in capsys.readouterr().err
    assert record.read_text().count("kubectl\n") == 1
    assert not list(Path().glob("runs/bundles/[!.]*"))  # the next try has nothing in its way


KUBECTL = """#!/bin/sh
case $1 in
get) [ "$(cat "$RECORD")" != xx ] || echo "$ENDED" ;;
logs) printf x >>"$RECORD"; echo "a line of the log $*" ;;
esac
"""


@pytest.mark.parametrize("ended, code", [("Completed", 0), ("Failed", 1)])
def test_a_jobset_is_followed_over_restarts(workspace, record, capfd, monkeypatch, ended, code):
    program = workspace / "programs/kubectl"
    program.write_text(KUBECTL)
    record.touch()
    monkeypatch.setenv("ENDED", ended)
    options = ["--run-dir", URL, "--data", URL, "--topology", "3x8xh100"]
    assert main(["base", "--on", "k8s", *options]) == code
    lines = [line for line in capfd.readouterr().out.splitlines() if "a line" in line]
    assert len(lines) == 2 and all("--max-log-requests=3" in line for line in lines)
    assert "1970" in lines[0] and "1970" not in lines[1]


@pytest.mark.parametrize(
    "states, code",
    [
        (["PENDING 0:0", "RUNNING 0:0", "COMPLETED 0:0"], 0),
        (["RUNNING 0:0", "COMPLETING 0:0", "PENDING 0:0", "FAILED 78:0"], 78),
        (["CANCELLED 0:15"], 143),
        (["TIMEOUT 0:0"], 1),
    ],
)
def test_a_slurm_job_ends_with_its_own_code(workspace, capsys, monkeypatch, states, code):
    answers = iter(states)

    def answer(*_: str) -> subprocess.CompletedProcess[str]:
        state, exit_code = next(answers).split()
        return subprocess.CompletedProcess([], 0, f"JobState={state} ExitCode={exit_code}", "")

    monkeypatch.setattr(engines, "run", answer)
    monkeypatch.setattr(engines, "PAUSE", 0)
    job = Job(workspace, workspace, bundles.Settings("base", Topology.parse("cpu", "1")))
    assert engines.follow_slurm(job, "17;cluster\n") == code
    told = capsys.readouterr().err
    assert all(f"job 17 is {state.split()[0]}\n" in told for state in states)


def test_each_sending_has_a_name_of_its_own(workspace, record, capsys):
    sent = ["base", "--on", "k8s", "--run-dir", "gs://b/runs/LR_3e-4", "--data", URL, "--no-follow"]
    assert main(sent) == main(sent) == 0
    told = record.read_text().splitlines()
    names = [word for word, before in zip(told[1:], told, strict=False) if before == "configmap"]
    assert len(set(names)) == 2 and all(name.startswith("base-gpu-lr-3e-4-") for name in names)
    specs = sorted(Path("runs/bundles").glob("*/launch/jobset.yaml"))
    assert sorted(yaml.safe_load(spec.read_text())["metadata"]["name"] for spec in specs) == sorted(
        names
    )
    flags = ["--on", "slurm", "--no-follow", "--name", "mine", "--run-dir", "runs/{name}"]
    assert main(["base", *flags]) == 0
    assert "runs/mine" in Path("runs/bundles/mine/launch/job.sbatch").read_text()
    capsys.readouterr()
    assert main(["base", *flags]) == 1
    assert "runs/bundles/mine/ is an earlier job's" in capsys.readouterr().err
    assert main(["base", *flags, "--name", "Not-a-label"]) == 1
    assert "no job can be called 'Not-a-label'" in capsys.readouterr().err


def test_what_was_made_is_undone_where_the_jobset_is_refused(workspace, record, capsys):
    program = workspace / "programs/kubectl"
    program.write_text(
        program.read_text().replace('exit "${CODE:-0}"', '[ "$3" != launch/jobset.yaml ]')
    )
    assert main(["base", "--on", "k8s", "--run-dir", URL, "--data", URL]) == 1
    told = record.read_text().splitlines()
    assert "delete" in told and told[told.index("delete") + 1] == "configmap"
    assert not list(Path().glob("runs/bundles/[!.]*"))


@pytest.mark.parametrize("engine", ["slurm", "k8s"])
def test_engines_are_asked_before_a_job_waits_in_their_queue(
    workspace, record, capsys, monkeypatch, engine
):
    monkeypatch.setenv("ASKED", "1")
    line = refusal(capsys, "--on", engine, *NEEDS[engine], "--data", URL)
    assert "it was not sent: " in line and not record.exists()


def test_a_job_is_planned_on_as_many_devices(workspace, record, planned):
    flags = ["--on", "slurm", "--topology", "2x8xh100", "--steps", "3", "--no-follow"]
    assert main(["base", *flags]) == 0
    (asked,) = planned
    assert asked[:2] == ["--plan", "--json"] and asked[-1].endswith("=16")
    assert asked[2:-1] == ["--steps", "3"]
    assert main(["base", *flags, "--check", "none", "--dry-run"]) == 0
    assert len(planned) == 1


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--on slurm --topology v5e:4x4", "v5e:4x4: slurm has no TPUs: use --on k8s"),
        ("--on slurm --spot", "--spot is for k8s and sky"),
        ("--on slurm --no-spot", "--no-spot is for k8s and sky"),
        ("--on ray --run-dir /x --spec mine", "--spec is for k8s, sky, slurm"),
        ("--on slurm --env NOT_HERE", "this shell has no such variable; write NOT_HERE=VALUE"),
        ("--on slurm --secret NOT_HERE", "--secret NOT_HERE: this shell has no such"),
        (f"--on k8s --run-dir {URL} --engine-arg queue", "--engine-arg queue: write KEY=VALUE"),
        (f"--on k8s --run-dir {URL} --engine-arg spec.x.y.0=1 --engine-arg spec.x=[", "not YAML"),
    ],
)
def test_what_an_engine_has_no_word_for_is_refused(workspace, record, capsys, flags, said):
    Path("mine").write_text("")
    assert said in refusal(capsys, *flags.split(), "--data", URL)


SECRET = 'hf_it\'s "secret"\nin two lines'


@every_engine
def test_variables_reach_the_job_and_secrets_no_file(workspace, record, monkeypatch, engine):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")
    flags = ["--on", engine, *NEEDS[engine], "--data", DATA, "--secret", "HF_TOKEN"]
    flags += ["--env", "WANDB_MODE", "--env", "NCCL_DEBUG=a=b", "--name", "mine"]
    dry = start(*flags, "--dry-run")
    wet = start(*flags, "--no-follow") if engine in ("slurm", "k8s") else start(*flags)
    assert wet.returncode == 0, wet.stderr
    spec = Path("runs/bundles/mine/launch", ENGINES[engine].spec).read_text()
    assert "WANDB_MODE" in spec and "offline" in spec and "a=b" in spec
    for text in (dry.stdout, dry.stderr, wet.stdout, wet.stderr):
        assert "hf_it" not in text
    files = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert not any(b"hf_it" in path.read_bytes() for path in files)
    told = record.read_text()
    if engine == "k8s":
        text = told[told.index("apiVersion: v1\nkind: Secret") :].partition("\n,")[0]
        secret = yaml.safe_load(text)
        assert secret["stringData"] == {"HF_TOKEN": SECRET}
        assert secret["metadata"]["name"] == "mine"
    elif engine == "sky":
        assert "--secret\nHF_TOKEN\n" in told
    elif engine == "ray":
        assert "--runtime-env=/dev/stdin\n" in told
    elif engine == "ssh":
        assert 'names="HF_TOKEN"' in spec


def test_an_engines_own_settings_go_where_it_reads_them(workspace, record):
    def told(engine: str, *own: str, **kwargs: str) -> tuple[str, list[str]]:
        record.unlink(missing_ok=True)
        name = f"{engine}-job"
        words = [word for text in own for word in ("--engine-arg", text)]
        flags = ["--on", engine, *NEEDS[engine], "--data", DATA, "--name", name, *words]
        wait = ["--no-follow"] if engine in ("slurm", "k8s") else []
        done = start(*flags, *wait)
        assert done.returncode == 0, done.stderr
        spec = Path("runs/bundles", name, "launch", ENGINES[engine].spec).read_text()
        return spec, record.read_text().splitlines()

    _, words = told("slurm", "account=lab", "qos=high", "exclusive=user", "mail-type=END")
    assert {"--account=lab", "--qos=high", "--exclusive=user", "--mail-type=END"} <= set(words)
    spec, words = told("k8s", "namespace=team", "queue=gpus", "pod.priorityClassName=high")
    assert words.count("--namespace=team") == 2 and "priorityClassName: high" in spec
    assert "kueue.x-k8s.io/queue-name: gpus" in spec
    spec, _ = told("sky", "resources.infra=aws/us-east-1")
    assert "infra: aws/us-east-1" in spec
    _, words = told("ray", "address=http://head:8265", "entrypoint-num-cpus=1")
    assert "--address=http://head:8265" in words and "--entrypoint-num-cpus=1" in words
    _, words = told("ssh", "Port=2222", "User=me")
    assert words[words.index("ssh") + 3 :][:4] == ["-o", "Port=2222", "-o", "User=me"]


SITE = """
[engines]
secret = ["HF_TOKEN"]
max-restarts = 7

[engines.slurm]
time-limit = "12:00:00"
follow = false
engine-arg = ["account=lab", "partition=h100"]

[engines.k8s]
run-dir = "gs://bucket/runs/{name}"
"""


def test_a_site_has_its_defaults(workspace, record, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "x")
    Path("grug.toml").write_text(SITE)
    Path("config/grug").mkdir(parents=True)
    Path("config/grug/grug.toml").write_text('[engines.slurm]\nengine-arg = ["account=mine"]\n')
    options = parse("base", ["--on", "slurm", "--steps", "3", "--time-limit", "30"], workspace)
    assert (options.time_limit, options.max_restarts, options.follow) == ("30", 7, False)
    # Of two, sbatch takes the last.
    assert options.engine_arg == ["account=lab", "partition=h100", "account=mine"]
    assert options.flags == ("--steps", "3")
    options = parse("base", ["--on", "k8s"], workspace)
    assert options.run_dir == "gs://bucket/runs/{name}" and options.time_limit == "24:00:00"
    assert main(["base", "--on", "slurm", "--name", "mine"]) == 0
    assert "--partition=h100" in record.read_text()


@pytest.mark.parametrize(
    "text, said",
    [
        ("[engines]\ntime-limits = 1", r"\[engines\] time-limits: no such option: time-limit"),
        ("[engines.slrum]\ncpus = 1", r"\[engines.slrum\]: no such engine: k8s, ray"),
        ("[engines.k8s]\nspot = 1", r"\[engines.k8s\] spot: write true or false"),
        ("[engines.slurm]\nenv = 'A=1'", r"\[engines.slurm\] env: write a list of strings"),
        ("[engines.slurm]\nimage = ['a']", r"\[engines.slurm\] image: write a string or a number"),
        ("[engines", "not TOML"),
        ("engines = 1", r"engines: write a table"),
    ],
)
def test_a_sites_mistakes_are_one_line(workspace, capsys, text, said):
    Path("grug.toml").write_text(text)
    line = refusal(capsys, "--on", "k8s" if "k8s" in text else "slurm")
    assert re.search(said, line) and "grug.toml: " in line


def test_an_allocation_does_not_reach_into_a_job(monkeypatch):
    """`sbatch` within `salloc` would name the job, and so its log, after the allocation."""
    for name in ("SLURM_JOB_ID", "SLURM_CPU_BIND", "SBATCH_JOB_NAME", "SBATCH_TIMELIMIT"):
        monkeypatch.setenv(name, "x")
    for name in ("SLURM_CONF", "SBATCH_ACCOUNT", "SBATCH_PARTITION"):
        monkeypatch.setenv(name, "kept")
    env = own_environment()
    assert {name for name in env if name.startswith(("SLURM", "SBATCH"))} == {
        name for name in os.environ if os.environ[name] == "kept"
    }


def test_who_follows_no_longer_is_told_how_to_go_on(workspace, record, capsys, monkeypatch):
    def interrupted(job: Job, printed: str) -> int:
        raise KeyboardInterrupt

    followed = replace(ENGINES["slurm"], follow=interrupted)
    monkeypatch.setitem(ENGINES, "slurm", followed)
    assert main(["base", "--on", "slurm", "--name", "mine"]) == 130
    *_, said, see, follow, stop = capsys.readouterr().err.splitlines()
    assert said == "launch: no longer followed; the job goes on"
    assert see == "launch: see it: scontrol show job 17"
    assert follow == "launch: follow it: tail -F runs/mine-17.log"
    assert stop == "launch: stop it: scancel 17"


@every_engine
def test_the_how_to_can_be_followed(workspace, record, engine):
    """Word by word, with another place for what all hosts share."""
    (workspace / "shared/text").mkdir(parents=True)
    words = [word.replace("/shared", f"{workspace}/shared") for word in how_to(engine)]
    done = start(*words, *(["--no-follow"] if engine in ("slurm", "k8s") else []))
    assert done.returncode == 0, done.stderr
    told = record.read_text()
    assert ENGINES[engine].program in told
