"""What --jobs says of the jobs that were sent, by programs that answer as the engines' do."""

import json
from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.launch.jobs import Record, read, table
from tools.launch.main import main

ANSWERS = {
    "scontrol": '[ "$4" = 7 ] && echo "JobId=7 JobState=RUNNING Reason=None"',
    "sacct": "echo ' COMPLETED '",
    "kubectl": """case $* in
*gone*) ;;
*done*) echo '{"status": {"conditions": [{"type": "Completed", "status": "True"}]}}' ;;
*) echo '{"status": {"conditions": [{"type": "Suspended", "status": "False"}]}}' ;;
esac""",
    "ray": "echo \"Status for job '$4': RUNNING\"",
    "sky": "printf '1 - other 1x FAILED\\n2 - sky-job 1x[H100:8] RECOVERING 0\\n'",
}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, answer in ANSWERS.items():
        (programs / name).write_text(f"#!/bin/sh\n{answer}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_engine_tells_its_jobs_state(root, capsys):
    for record in (
        Record("a-job", "slurm", "base", "", "7"),
        Record("b-job", "slurm", "base", "runs/b", "8"),
        Record("done-job", "k8s", "base", "gs://b/x"),
        Record("gone-job", "k8s", "base", "/x"),
        Record("k8s-job", "k8s", "base", "/x", options=("--namespace=team",)),
        Record("ray-job", "ray", "base", "/x", options=("--address=http://h:1", "--other=1")),
        Record("sky-job", "sky", "base", "/x"),
        Record("ssh-job", "ssh", "base", "/x"),
    ):
        record.write(root)
    (root / "runs/b").mkdir()
    (root / "runs/b/metrics.jsonl").write_text(
        '{"step": 3}\n{"step": 4, "x": 1}\n{"eval": 2}\n{"st'
    )
    assert main(["--jobs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = [tuple(line.split()) for line in lines]
    assert words[:9] == [
        ("job", "engine", "state", "step", "run", "directory"),
        ("a-job", "slurm", "RUNNING", "-", "runs/a-job-7"),
        ("b-job", "slurm", "COMPLETED", "4", "runs/b"),
        ("done-job", "k8s", "Completed", "-", "gs://b/x"),
        ("gone-job", "k8s", "deleted", "-", "/x"),
        ("k8s-job", "k8s", "Running", "-", "/x"),
        ("ray-job", "ray", "RUNNING", "-", "/x"),
        ("sky-job", "sky", "RECOVERING", "-", "/x"),
        ("ssh-job", "ssh", "-", "-", "/x"),
    ]
    # How to go on, of what is not over.
    more = "\n".join(lines[9:])
    assert "stop a-job: scancel 7" in more and "b-job" not in more and "done-job" not in more
    assert "follow k8s-job: kubectl --namespace=team logs --follow" in more
    assert "see ray-job: ray job status --address=http://h:1 ray-job" in more


def test_no_job_is_said(root, capsys):
    assert main(["--jobs"]) == 0
    assert capsys.readouterr().out == "no job was sent from this workspace\n"


@pytest.mark.parametrize(
    "text, said",
    [
        ("[1]", "is no job's record"),
        ('{"name": "x"}', "is no job's record"),
        ("{", "x.json:1"),
        (
            '{"schema_version": 9, "name": "x", "engine": "ssh", "variant": "b", "run_dir": "", '
            '"number": "", "options": []}',
            "schema version 9, and this reads 1",
        ),
    ],
)
def test_what_is_no_record_is_one_line(root, text, said):
    (root / "x.json").write_text(text)
    with pytest.raises(ToolError, match=said):
        read(root / "x.json")


def test_a_record_is_read_as_it_was_written(root):
    record = Record("k8s-job", "k8s", "base", "gs://b/x", "", ("--namespace=team",))
    record.write(root)
    assert read(root / "runs/jobs/k8s-job.json") == record
    assert json.loads((root / "runs/jobs/k8s-job.json").read_text())["schema_version"] == 1
    assert "k8s-job" in table(root)
