"""`--on ENGINE` up to the engines' own programs, which write down here what they are told."""

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bundle.lock import Lock
from tools.bundle.manifest import Pythons
from tools.bundle.pack import Contents, bundle, write
from tools.bundle.topology import DEFAULTS, Topology
from tools.launch import bundles, engines
from tools.launch.engines import ENGINES, REMEDIES, Job, check_place
from tools.launch.main import main
from tools.launch.remote import find_topology, own_environment, parse

VARIANT = "experiments/grug/base"
LOCK = "tools/locks/small.lock"
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
{
  pwd
  printf '%s\\n' "$(basename "$0")" "$@"
  cat launch/* 2>/dev/null
  echo "$BUNDLE,$RUN_DIR"
} >>"$RECORD"
[ "$1" != --parsable ] || echo 17
[ "$1" != get ] || echo Completed
exit "${CODE:-0}"
"""
every_engine = pytest.mark.parametrize("engine", sorted(ENGINES))


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A variant, its lock and its packed bundles; the working directory."""
    sources = {f"{VARIANT}/launch.py": b"print('launch')\n", f"{VARIANT}/model.py": b"WIDTH = 8\n"}
    sources |= {f"{VARIANT}/plumbing/record.py": b"", f"{VARIANT}/table.json": b"[1]"}
    digest = hashlib.sha256(b"").hexdigest()
    names = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin")
    entries = [
        {
            "project_name": name,
            "version": "0.12.0.1",
            "requires_dists": [],
            "artifacts": [
                {
                    "algorithm": "sha256",
                    "hash": digest,
                    "url": f"https://example.org/{wheel}-0.12.0.1-py3-none-any.whl",
                }
            ],
        }
        for name, wheel in ((name, name.replace("-", "_")) for name in names)
    ]
    text = json.dumps({"locked_resolves": [{"locked_requirements": entries}]})
    for name, data in {**sources, LOCK: text.encode()}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for accelerator, topology in DEFAULTS.items():
        contents = Contents(
            variant="base",
            accelerator=accelerator,
            entry="experiments.grug.base.launch",
            sources=sources,
            lock=Lock.parse(text, LOCK),
            requirements=("jax",),
            pythons=Pythons("3.12", "3.15"),
            topology=Topology.parse(accelerator, topology),
            env={},
        )
        write(bundle(contents), tmp_path / f"dist/bundles/base-{accelerator}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    command = [sys.executable, "-m", "tools.launch.main", "base", *flags]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def refusal(capsys, *flags: str) -> str:
    """The one line of a command that sends nothing."""
    assert main(["base", *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("launch: ") and not Path("runs").exists()
    return line


def test_what_is_not_the_launchers_is_the_programs_in_its_order():
    line = "--steps 3 --on slurm --mesh 1 -1 1 --cpus 2 --model.d-model=8 --time 1 --no-tensorboard"
    options = parse("base", line.split())
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
    assert "#SBATCH --gpus-per-node=8\n" in capsys.readouterr().out


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
    flags = ["--on", engine, *NEEDS[engine], "--steps", "3", "--data", DATA]
    dry = start(*flags, "--dry-run")
    assert dry.returncode == 0 and not dry.stderr, dry.stderr
    assert not Path("runs").exists() and not record.exists()
    wet = start(*flags, "--no-follow") if engine in ("slurm", "k8s") else start(*flags)
    assert wet.returncode == 0, wet.stderr
    sent = record.read_text()
    record.unlink()

    text, _, commands = dry.stdout.partition("# Sent by:\n")
    spec = text.split(":\n\n", 1)[1].rstrip("\n")
    (kept,) = Path("runs/bundles").glob("base-gpu-*/")
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
    assert manifest["id"].startswith(kept.name.rpartition("-")[2])
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
    assert "it was not sent: cd " in capsys.readouterr().err
    assert record.read_text().count("kubectl\n") == 1


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
