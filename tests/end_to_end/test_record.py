"""Real runs of a copy of the template, in a repository, and what is recorded of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import experiments.grug.base.launch
import experiments.grug.moe.launch
from tools.common.errors import ToolError
from tools.corpus.default import prepare_default
from tools.runs import check_ledger, run_summary
from tools.runs.compare_runs import differences, groups
from tools.runs.record import record

TINY = (
    "--model.vocab-size 320 --model.d-model 32 --model.n-layers 1 --model.n-heads 2 "
    "--model.n-kv-heads 1 --model.head-dim 16 --model.d-ff 64 --model.loss-chunk 32 "
    "--sequence-length 64 --batch-size 4 --eval-tokens 512 --steps 3 --no-tensorboard"
).split()
LEDGER = """# Archive

## base

- path: experiments/grug/base
- origin: none
- status: active
- bucket: template
- purpose: what all others are copied from
- verdict: pending
"""
GIT = ("git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")


class Workspace:
    """A repository that holds the template, the ledger and nothing else."""

    def __init__(self, root: Path, store: str):
        self.root, self.store = root, store
        self.variant = root / "experiments/grug/base"
        shutil.copytree(Path(experiments.grug.base.launch.__file__).parent, self.variant)
        (self.variant / "table.json").write_text('{"scale": 1.0}')
        ledger = root / "docs/reports/grug-archive.md"
        ledger.parent.mkdir(parents=True)
        ledger.write_text(LEDGER)
        (root / ".gitignore").write_text("__pycache__\nruns/\n")
        self.git("init", "-q")
        self.commit()

    def git(self, *arguments: str) -> str:
        command = [*GIT, "-C", str(self.root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "-qm", "work")
        return self.git("rev-parse", "HEAD")

    def run(self, name: str, *flags: str, code: int = 0, **variables: str) -> Path:
        """Trains for three steps, started from somewhere else."""
        run_dir = self.root / "runs" / name
        arguments = [*TINY, "--data", self.store, "--run-dir", str(run_dir), *flags]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
        path = os.pathsep.join((str(self.root), *sys.path))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "experiments.grug.base.launch", *arguments],
            env={**kept, "PYTHONPATH": path, **variables},
            cwd=self.root.parent,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return run_dir

    def record(self, *run_dirs: Path) -> list[run_summary.Run]:
        record(run_dirs, self.root)
        summaries, faults = run_summary.load_all(self.root)
        assert faults == [] and check_ledger.check(self.root) == []
        return summaries


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    cache = tmp_path_factory.mktemp("cache")
    return str(prepare_default(cache, max_documents=40, vocab_size=320, heldout_fraction=0.2))


@pytest.fixture
def workspace(tmp_path, store) -> Workspace:
    return Workspace(tmp_path / "workspace", store)


def attempts(run_dir: Path) -> list[dict]:
    return json.loads((run_dir / "run.json").read_text())["attempts"]


def test_an_attempt_without_a_step_leaves_no_claim(workspace):
    """A start that crashed in its first step, and a look at the finished run, are no part of it."""
    path = workspace.variant / "train.py"
    code = path.read_text()
    path.write_text(code.replace("    hidden = model(batch", "    hidden = modle(batch", 1))
    run_dir = workspace.run("base-1", code=1)
    assert len(attempts(run_dir)) == 1 and not (run_dir / "metrics.jsonl").read_text()
    path.write_text(code)
    workspace.run("base-1", "--resume")
    (attempt,) = attempts(run_dir)
    path.write_text(f"{code}\n# prints nicer\n")
    workspace.run("base-1", "--resume")
    assert attempts(run_dir) == [attempt]
    path.write_text(code)
    (summary,) = workspace.record(run_dir)
    assert (summary.mixed_sources, summary.git["dirty"]) == (False, False)
    assert summary.git["commit"] == workspace.git("rev-parse", "HEAD") == attempt["git"]["commit"]


def test_a_branch_is_recorded_with_its_ancestors(workspace):
    """A decay from a stable run, and the run that goes on; after an edit it is of mixed sources."""
    stable = ["--schedule", "wsd", "--decay-fraction", "0"]
    trunk = workspace.run("trunk", *stable, "--checkpoint-every", "1", "--keep-checkpoints", "3")
    decay = ["--branch-from", f"{trunk}@1", "--schedule", "wsd", "--decay-fraction", "0.6"]
    decayed = workspace.run("decayed", *decay)
    same = workspace.run("same", *stable, "--branch-from", f"{trunk}@2")
    found = {run.run: run for run in workspace.record(trunk, decayed, same)}
    (parent,) = found["decayed"].ancestors
    assert (parent["run"], parent["step"], parent["horizon"]["decay_fraction"]) == ("trunk", 1, 0.0)
    assert str(workspace.root) not in (workspace.root / found["decayed"].path).read_text()
    assert found["decayed"].tokens == found["trunk"].tokens == 3 * 4 * 64
    assert [point[0] for point in found["decayed"].curve] == [2, 3]
    (same_as_trunk, alone) = groups(found.values())
    assert [run.run for run in alone.runs] == ["decayed"] and len(same_as_trunk.repeated) == 1
    assert differences(alone, same_as_trunk) == (
        "decay_fraction 0.0 → 0.6",
        "until step 1 decay_fraction 0.0, base has none",
    )
    path = workspace.variant / "train.py"
    path.write_text(f"{path.read_text()}\n# edited\n")
    with pytest.raises(ToolError, match="ran 2 different sources"):
        workspace.record(workspace.run("mixed", *decay))


def test_runs_that_read_other_data_or_compute_otherwise_are_not_one_experiment(workspace):
    first = workspace.run("base-1")
    second = workspace.run("base-2", "--seed", "1", JAX_DEFAULT_PRNG_IMPL="rbg")
    table = workspace.variant / "table.json"
    table.write_text('{"scale": 3.0}')
    third = workspace.run("base-3", "--seed", "2")
    assert [attempts(run)[0]["git"]["dirty"] for run in (first, second, third)] == [
        False,
        False,
        True,
    ]
    found = workspace.record(first, second, third)
    assert [run.git["dirty"] for run in found] == [False, False, True]
    one, other, last = (groups([run])[0] for run in found)
    assert len(groups(found)) == 3
    assert differences(other, one) == ("jax.default_prng_impl threefry2x32 → rbg",)
    assert last.runs[0].sources_digest != one.runs[0].sources_digest
    # The same run, after its sources were committed.
    commit = workspace.commit()
    assert workspace.record(third)[2].git == {"commit": commit, "dirty": False}
    assert not list((workspace.root / "docs/reports/sources").iterdir())


@pytest.mark.parametrize(
    "launch", [experiments.grug.base.launch, experiments.grug.moe.launch], ids=["base", "moe"]
)
def test_without_wandb_one_line_names_the_command_that_adds_it(
    launch, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run_dir = tmp_path / "run"
    assert launch.main(["--data", "unread", "--run-dir", str(run_dir), "--wandb"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "./pants run locks -- add wandb" in error
    assert not run_dir.exists()  # nothing that a second start would stumble on
