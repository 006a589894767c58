"""Evidence that is not there: each planted fault is refused, with its file, line and field."""

import json
import subprocess
from typing import Any

import pytest

from tests.tools.runs.conftest import GIT, entry
from tools.runs import check_ledger
from tools.runs.kept_sources import digest_of, sha256
from tools.runs.run_summary import KEYS

RUNS = "docs/reports/runs"
MODEL = b"WIDTH = 8\n"
LOCK = b"{}\n"
SOURCES = digest_of({"model.py": sha256(MODEL)})


@pytest.fixture
def archive(workspace):
    """Three seeds of base and of moe, whose sources and lock a commit has."""
    for name in ("base", "moe"):
        directory = workspace.root / "experiments/grug" / name
        directory.mkdir(parents=True)
        (directory / "BUILD").write_text("grug_variant()\n")
        (directory / "model.py").write_bytes(MODEL)
    (workspace.root / "tools/locks").mkdir(parents=True)
    (workspace.root / "tools/locks/cpu.lock").write_bytes(LOCK)
    commit(workspace)
    workspace.commit = git(workspace, "rev-parse", "HEAD")
    workspace.write_ledger(entry("base"), entry("moe", forked_at=workspace.commit[:12]))
    for variant in ("base", "moe"):
        for seed in range(3):
            write(workspace, variant, seed)
    assert faults(workspace) == []
    return workspace


def git(workspace, *arguments: str) -> str:
    done = subprocess.run(
        [*GIT, *arguments], cwd=workspace.root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(workspace) -> None:
    git(workspace, "init", "-q", ".")
    git(workspace, "add", "--all")
    git(workspace, "commit", "-qm", "all")


def write(workspace, variant: str, seed: int, **values) -> dict:
    """A true summary of a run, but for `values`."""
    true = {
        "seed": seed,
        "end": 4.0 + (variant == "base") / 10,
        "sources_digest": SOURCES,
        "lock": sha256(LOCK),
        "git": {"commit": workspace.commit, "dirty": False},
        "config": {"steps": 100, "batch_size": 10, "sequence_length": 10},
    }
    if variant == "moe":
        at = workspace.commit[:12]
        true["origin"] = {"name": "base", "at": at, "by": "forked at", "digests": [SOURCES]}
    return workspace.write_summary(variant, f"{variant}-{seed}", **(true | values))


def faults(workspace) -> list[str]:
    return [fault.removeprefix(f"{RUNS}/") for fault in check_ledger.check(workspace.root)]


def line_of(key: str) -> int:
    """The line of a summary that a key stands in."""
    return KEYS.index(key) + 2


def points(scale: float = 1.0, last: float = 4.0):
    """The curve of a true summary of moe."""
    return [[10 * i, int(1000 * i * scale), 10 * i, 5 - (5 - last) * i / 10] for i in range(1, 11)]


FINAL = {"train_loss": 4.0, "heldout_loss": 5.0, "heldout_bpb": 2.0, "ema_loss": None,
         "ema_bpb": None}  # fmt: skip
PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "held-out under a curve that ends elsewhere": (
        {"final": FINAL | {"heldout_bpb": 0.5}},
        "final: heldout_bpb is 0.5, but heldout ends with 2.0: write it again",
    ),
    "held-out of another text": (
        {"heldout": [[50, 5000, 50.0, 7.5, 3.0], [100, 10_000, 100.0, 5.0, 0.5]],
         "final": FINAL | {"heldout_bpb": 0.5}},
        "heldout: has losses and bits per byte in a ratio that changes, over the same text",
    ),
    "held-out of no evaluation": (
        {"heldout": [[50, 5000, 50.0, 7.5, 3.0]]},
        "final: heldout_loss is 5.0, but heldout ends with None",
    ),
    "an evaluation after the end": (
        {"heldout": [[101, 10_000, 100.0, 5.0, 2.0]]},
        "heldout: ends at step 101, after 100 s; the run at step 100, after 100 s",
    ),
    "a training loss": (
        {"final": FINAL | {"train_loss": 2.0}},
        "final: train_loss is 2, but the curve ends at 4",
    ),
    "tokens": ({"tokens": 10, "curve": points()}, "tokens: is 10, but 100 steps of 100 tokens"),
    "tokens of a curve": (
        {"tokens": 20_000, "curve": points(2.0)},
        "curve: has other tokens at its steps than 100 per step, as the config says",
    ),
    "steps that nobody planned": (
        {"config": {"steps": 99, "batch_size": 10, "sequence_length": 10}},
        "steps: is 100, of 99 that the config plans",
    ),
    "steps beyond the curve": (
        {"steps": 200, "tokens": 20_000, "curve": points(),
         "config": {"steps": 200, "batch_size": 10, "sequence_length": 10}},
        "curve: ends at step 100, and the run at step 200",
    ),
    "seconds": ({"seconds": 50.0, "curve": points()}, "seconds: is 50, but the curve ends at"),
    "a seed": (
        {"config": {"seed": 7, "batch_size": 10, "sequence_length": 10}},
        "seed: is 0, but the config has 7",
    ),
    "no sources": ({"sources_digest": "0" * 64}, "sources_digest: is a digest of zeros, which"),
    "no data": ({"data_digest": "0" * 64}, "data_digest: is a digest of zeros, which is that"),
    "no lock": ({"lock": "0" * 64}, "lock: is a digest of zeros, which is that of nothing"),
    "an unknown lock": ({"lock": "d" * 64}, "lock: no tools/locks/*.lock of any commit has "),
    "other sources": (
        {"sources_digest": "d" * 64},
        "sources_digest: is not that of experiments/grug/moe in ",
    ),
    "a commit of zeros": (
        {"git": {"commit": "0" * 40, "dirty": False}},
        "git: is a digest of zeros, which is that of nothing",
    ),
    "an origin with other sources": (
        {"origin": {"name": "base", "at": "HEAD", "by": "forked at", "digests": ["d" * 64]}},
        "origin: experiments/grug/base had other sources in ",
    ),
    "an origin that nobody knows": (
        {"origin": {"name": "bass", "at": "HEAD", "by": "forked at", "digests": [SOURCES]}},
        "origin: no experiment is called 'bass': record the run again",
    ),
    "other FLOPs": (
        {"flops_per_token": 50.0},
        "flops_per_token: is 50.0, but base-0 of the same model has 100.0: record it again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_refused(archive, fault):
    values, message = PLANTED[fault]
    if values.get("origin"):
        values = {"origin": values["origin"] | {"at": archive.commit[:12]}}
    write(archive, "moe", 0, **values)
    found = faults(archive)
    start = f"moe/moe-0.json:{line_of(message.split(':')[0])}: {message}"
    assert [line for line in found if line.startswith(start)], found
    assert {line.split(":")[0] for line in found} <= {"moe/moe-0.json", "moe/moe-1.json"}


def test_one_run_recorded_as_several_seeds(archive):
    """Its p-value falls though nothing was measured."""
    path = archive.root / RUNS / "moe/moe-0.json"
    for seed in (1, 2):
        text = (
            path.read_text()
            .replace('"moe-0"', f'"moe-{seed}"')
            .replace('"seed":0', f'"seed":{seed}')
        )
        copied = text.replace('"seed": 0', f'"seed": {seed}')
        path.with_name(f"moe-{seed}.json").write_text(copied)
    told = f"has the losses of {RUNS}/moe/moe-0.json, whose seed is another"
    message = f"26: curve: {told}: remove the copy, or run it itself"
    assert faults(archive) == [f"moe/moe-{seed}.json:{message}" for seed in (1, 2)]


def test_a_key_that_stands_twice(archive):
    path = archive.root / RUNS / "moe/moe-0.json"
    path.write_text(path.read_text().replace('"steps": 100,', '"steps": 100,\n"steps": 90,'))
    (found,) = faults(archive)
    assert found.startswith("moe/moe-0.json:20: the key 'steps' stands twice; correct it")


def test_a_commit_that_git_does_not_know(archive):
    """If another commit has its content, a squash merge dropped it; else nothing is left of it."""
    gone = {"commit": "d" * 40, "dirty": False}
    write(archive, "moe", 0, git=gone)
    assert faults(archive) == []
    write(archive, "moe", 0, git=gone, sources_digest="e" * 64)
    (found,) = faults(archive)
    assert found.startswith(f"moe/moe-0.json:1: git: git knows no commit {'d' * 40}: correct it")


def test_what_a_run_may_be(archive):
    """A batch that grows, an early end, a run of few steps, a lock that was replaced since."""
    growing = [[10 * i, 100 * i * i, 10 * i, 5 - i / 10] for i in range(1, 11)]
    seen = [[50, 2500, 50.0, 7.55, 3.02], [100, 10_000, 100.0, 5.0, 2.0]]
    write(archive, "moe", 0, curve=growing, heldout=seen)
    write(archive, "moe", 1, config={"steps": 300, "batch_size": 10, "sequence_length": 10})
    write(archive, "moe", 2, config={"steps": 100, "model": {"width": 8}}, flops_per_token=7.0)
    (archive.root / "tools/locks/cpu.lock").write_bytes(b"{1: 1}\n")
    git(archive, "commit", "-qam", "another lock")
    assert faults(archive) == []


def test_numbers_that_are_not_finite(archive):
    path = archive.root / RUNS / "moe/moe-0.json"
    values = json.loads(path.read_text())
    for bad in (float("nan"), float("inf"), 1e300):
        values["seconds"] = bad
        path.write_text(
            "{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in values.items()) + "}"
        )
        (found,) = faults(archive)
        assert found.startswith("moe/moe-0.json:")
