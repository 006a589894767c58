"""Evidence that is not there: each planted fault is refused, with its file, line and field."""

import json
import subprocess
from typing import Any

import pytest

from tests.tools.runs.conftest import GIT, entry
from tools.ledger.ledger import load_ledger
from tools.runs import check_ledger, results, run_summary
from tools.runs.kept_sources import digest_of, sha256
from tools.runs.run_summary import KEYS

RUNS = "docs/reports/runs"
MODEL = b"""
class Config:
    learning_rate: float = 0.01
    seed: int = role("replicate", 0)
    mesh: tuple[int, int] = role(
        "cadence", (1, -1)
    )
"""
LOCK = b"""// {
//   "valid_for_interpreter_constraints": [
//     "CPython<3.15,>=3.12"
//   ]
// }
{"locked_requirements": [
  {"project_name": "jax", "requires_dists": ["a>=1; extra == \\"b\\""], "version": "0.12.0.1"},
  {"project_name": "jaxlib", "requires_python": ">=3.12", "version": "0.12.0.1"}
]}
"""
DOCS = LOCK.replace(b'"jax"', b'"mkdocs"')
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
    (workspace.root / "tools/locks/docs.lock").write_bytes(DOCS)
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
        "roles": {"seed": "replicate", "mesh": "cadence"},
        "versions": {"python": "3.13.0", "jax": "0.12.0.1"},
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


def points(scale: float = 1.0, last: float = 4.0, count: int = 10, late: float = 0.0):
    """The curve of a true summary of moe; every other step may take so much longer."""
    part = 100 // count
    times = [part * (i + late * (i // 2)) / (1 + late / 2) for i in range(1, count + 1)]
    return [
        [part * i, int(100 * part * i * scale), time, 5 - (5 - last) * i / count]
        for i, time in enumerate(times, 1)
    ]


ANCESTOR = {"run": "moe-1", "step": 5, "digest": "a" * 64, "horizon": {"steps": 100}}
SIZES = {"steps": 100, "batch_size": 10, "sequence_length": 10}
DEEP: dict[str, Any] = {}
for _ in range(900):
    DEEP = {"a": DEEP}


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
    "an evaluation before the first step": (
        {"heldout": [[0, 0, 0.0, 9.0, 3.6], [100, 10_000, 100.0, 5.0, 2.0]]},
        "heldout: is malformed",
    ),
    "an evaluation at other tokens": (
        {"heldout": [[50, 5001, 50.0, 7.5, 3.0], [100, 10_000, 100.0, 5.0, 2.0]]},
        "heldout: has 5,001 tokens at step 50 of 100 tokens each",
    ),
    "a held-out loss far below the curve": (
        {"heldout": [[50, 5000, 50.0, 2.0, 0.8], [100, 10_000, 100.0, 5.0, 2.0]]},
        "heldout: has the loss 2 at step 50, not half of the curve's ",
    ),
    "an evaluation at another time": (
        {"heldout": [[50, 5000, 10.0, 7.5, 3.0], [100, 10_000, 100.0, 5.0, 2.0]]},
        "heldout: has 10 seconds at step 50, but the curve has ",
    ),
    "evaluations over another text than others": (
        {"heldout": [[50, 5000, 50.0, 7.5, 3.75], [100, 10_000, 100.0, 5.0, 2.5]],
         "final": FINAL | {"heldout_bpb": 2.5}},
        "heldout: has 2.00000 times as much loss as bits per byte, docs/reports/runs/base/base-0",
    ),
    "more targets than the config allows": (
        {"config": SIZES | {"eval_tokens": 999}},
        "heldout_targets: is 1,000, of 999 that the config allows",
    ),
    "targets of no evaluation": (
        {"heldout": [], "heldout_targets": 9}, "heldout_targets: is 9, and heldout has no eval"
    ),
    "a running average over another text": (
        {"final": FINAL | {"ema_loss": 4.0, "ema_bpb": 1.0}},
        "final: has ema_loss and ema_bpb in another ratio than heldout's values",
    ),
    "half of a running average": ({"final": FINAL | {"ema_loss": 4.0}}, "final: has one of ema_"),
    "a running average that the config has not": (
        {"final": FINAL | {"ema_loss": 5.0, "ema_bpb": 2.0}, "config": SIZES | {"ema_decay": 0.0}},
        "final: has ema_loss, and the config no running average",
    ),
    "a speed": (
        {"curve": points(count=20), "tokens_per_second": 1000.0},
        "tokens_per_second: is 1000, but the median of the curve is 100: write it again",
    ),
    "even steps": (
        {"curve": points(count=100, late=0.3), "step_time_spread": 0.05},
        "step_time_spread: is 0.05 of a median of 1 s, but 50 of the curve's 99 parts took a step",
    ),
    "a loss below zero": ({"curve": points(last=-0.1)}, "curve: is malformed"),
    "parts of tokens": (
        {"curve": [[a, b + 0.5, c, d] for a, b, c, d in points()]}, "curve: is malformed"
    ),
    "time that goes back": (
        {"curve": [[a, b, c if a != 50 else 1.0, d] for a, b, c, d in points()]},
        "curve: is malformed",
    ),
    "a mesh": (
        {"config": SIZES | {"mesh": [2, -1]}},
        "devices: has 1, which do not fill the mesh [2, -1] of the config",
    ),
    "a mesh of fewer devices": (
        {"config": SIZES | {"mesh": [1, 1]},
         "devices": {"count": 2, "kind": "cpu", "platform": "cpu", "processes": 1}},
        "devices: has 2, which do not fill the mesh [1, 1] of the config",
    ),
    "a mesh that is none": ({"config": SIZES | {"mesh": [-1, -1]}}, "config: has the mesh [-1, -"),
    "more processes than devices": (
        {"devices": {"count": 1, "kind": "cpu", "platform": "cpu", "processes": 2}},
        "devices: is malformed",
    ),
    "a processor as a GPU": (
        {"devices": {"count": 1, "kind": "NVIDIA H100", "platform": "cpu", "processes": 1}},
        "devices: is malformed",
    ),
    "ancestors of an older run": (
        {"ancestors": [ANCESTOR]}, "ancestors: a run.json of schema 4 has none"
    ),
    "an ancestor with a path": (
        {"run_schema": 5, "ancestors": [ANCESTOR | {"run": "/home/me"}]}, "ancestors: is malformed"
    ),
    "an ancestor without a digest": (
        {"run_schema": 5, "ancestors": [ANCESTOR | {"digest": "0" * 64}, ANCESTOR | {"step": 6}]},
        "ancestors: have a digest of zeros",
    ),
    "an ancestor beyond the curve": (
        {"run_schema": 5, "ancestors": [ANCESTOR | {"step": 10}]},
        "ancestors: end at step 10, but the curve begins at step 10",
    ),
    "ancestors in another order": (
        {"run_schema": 5, "ancestors": [ANCESTOR, ANCESTOR | {"step": 3}]},
        "ancestors: have the steps [5, 3], which do not come one after another",
    ),
    "a schema of run.json that there is not": ({"run_schema": 9}, "run_schema: is malformed"),
    "a schema that is a truth": ({"schema_version": True}, "schema_version: is True, this tool"),
    "a host of an older run": ({"run_schema": 3}, "host: a run.json of schema 3 has none"),
    "no flags of a newer run": (
        {"numerics": None, "run_schema": 3}, "numerics: a run.json of schema 3 always has them"
    ),
    "roles of the first runs": (
        {"run_schema": 1, "numerics": None, "host": None, "roles": {"learning_rate": "cadence"}},
        "roles: a run.json of schema 1 has none, and others stand for them",
    ),
    "an unknown role": ({"roles": {"seed": "place"}}, "roles: is malformed"),
    "a role that the sources do not give": (
        {"roles": {"learning_rate": "cadence", "seed": "replicate"}},
        "roles: has 'learning_rate' as cadence, and its sources do not",
    ),
    "sources of no commit": ({"git": {"commit": None, "dirty": False}}, "git: is malformed"),
    "a seed that is a truth": (
        {"config": SIZES | {"seed": False}}, "seed: is 0, but the config has False"
    ),
    "a size that is none": ({"config": SIZES | {"batch_size": 10**400}}, "config: is malformed"),
    "a size of nothing": ({"config": SIZES | {"batch_size": 0}}, "config: is malformed"),
    "settings without end": ({"config": SIZES | {"a": DEEP}}, "config: is malformed"),
    "text that no file can hold": ({"config": SIZES | {"a": "\ud800"}}, "config: is malformed"),
    "JAX of another version": (
        {"versions": {"jax": "0.10.2", "python": "3.13.0"}},
        "lock: has jax 0.12.0.1, but the run had 0.10.2: record it again",
    ),
    "Python of another version": (
        {"versions": {"jax": "0.12.0.1", "python": "3.11.7"}},
        "lock: is for Python CPython<3.15,>=3.12, but the run had 3.11.7: record it again",
    ),
    "a lock of other tools": (
        {"lock": sha256(DOCS)}, "lock: is that of a lock without jax, which no run is under"
    ),
    "a GPU without its packages": (
        {"devices": {"count": 1, "kind": "NVIDIA H100", "platform": "gpu", "processes": 1}},
        "lock: has no package for the platform 'gpu' of the run: record it again",
    ),
    "an origin and one more": (
        {"origin": {"name": "base", "at": "", "by": "forked at", "digests": [SOURCES, "d" * 64]}},
        "origin: experiments/grug/base had other sources in ",
    ),
    "an origin that nothing has": (
        {"origin": {"name": "base", "at": "tree deadbeef", "by": "named", "digests": ["d" * 64]}},
        "origin: nothing has base as of tree deadbeef: record the run again",
    ),
    "another origin than the ledger's": (
        {"origin": {"name": "moe", "at": "", "by": "forked at", "digests": [SOURCES]}},
        "origin: is moe, forked at ",
    ),
    "a run by the ledger": (
        {"origin": {"name": "base", "at": "run base-0", "by": "synced", "digests": [SOURCES]}},
        "origin: is run base-0, by 'synced', which a ledger does not say",
    ),
    "an origin of no run": (
        {"origin": {"name": "base", "at": "run base-9", "by": "named", "digests": [SOURCES]}},
        "origin: no run of base is called base-9: name another with ./pants run tools/runs:record",
    ),
    "an origin of a run of other sources": (
        {"origin": {"name": "base", "at": "run base-0", "by": "named", "digests": ["d" * 64]}},
        "origin: base-0 of base is of other sources: name another with ",
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
        at = values["origin"]["at"]
        values = {
            "origin": values["origin"] | {"at": at.replace("HEAD", "") or archive.commit[:12]}
        }
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
    message = f"27: curve: {told}: remove the copy, or run it itself"
    assert faults(archive) == [f"moe/moe-{seed}.json:{message}" for seed in (1, 2)]


@pytest.mark.parametrize(
    "wrong, told",
    [
        (
            (" bits per byte", "9 bits per byte"),
            "its runs give other results: write [rec",
        ),
        (("seeds 0, 1, 2", "seeds 0, 1, 2, 3"), "its runs give other results: write "),
        (("[rec", "[recorded: p = 0.001] [rec"), "has recorded results twice: remove those "),
    ],
)
def test_results_that_are_not_those_of_the_runs(archive, wrong, told):
    runs, _ = run_summary.load_all(archive.root)
    entries = load_ledger(archive.root)
    moe = next(entry for entry in entries if entry.name == "moe")
    true = f"Slow. [recorded: {results.measured(moe, runs)}] See the note."
    fork = {"forked_at": archive.commit[:12]}
    archive.write_ledger(entry("base"), entry("moe", **fork, results=true))
    assert faults(archive) == []
    archive.write_ledger(entry("base"), entry("moe", **fork, results=true.replace(*wrong)))
    (found,) = faults(archive)
    assert f"moe: results: {told}" in found
    # Whose runs are gone has no results.
    recorded = entry("moe", **fork, results="[recorded: p = 0.001]")
    archive.write_ledger(entry("base"), recorded)
    for path in (archive.root / RUNS / "moe").iterdir():
        path.unlink()
    (found,) = faults(archive)
    assert "moe: results: has recorded results, and no run of moe is recorded: remove" in found


def test_results_may_say_the_name_that_an_experiment_had(archive):
    runs, _ = run_summary.load_all(archive.root)
    moe = next(entry for entry in load_ledger(archive.root) if entry.name == "moe")
    said = f"[recorded: {results.measured(moe, runs)}]".replace("moe", "experts")
    fields = {"forked_at": archive.commit[:12], "results": said}
    archive.write_ledger(entry("base"), entry("moe", **fields))
    assert "its runs give other results" in faults(archive)[0]
    archive.write_ledger(entry("base"), entry("moe", renamed_from="experts", **fields))
    assert faults(archive) == []


def test_a_pin_that_the_ledger_never_said(archive):
    """Whoever may choose the state of the origin may choose the one that is worst."""
    (archive.root / "experiments/grug/base/model.py").write_bytes(b"WIDTH = 1\n")
    git(archive, "commit", "-qam", "a worse base")
    worse = git(archive, "rev-parse", "HEAD")[:12]
    digests = [digest_of({"model.py": sha256(b"WIDTH = 1\n")})]
    pin = {"name": "base", "at": worse, "by": "synced", "digests": digests}
    write(archive, "moe", 0, origin=pin)
    (found,) = faults(archive)
    assert found.startswith(f"moe/moe-0.json:13: origin: is base, synced {worse}, but the ledger ")
    # Once it says so, it holds, whatever the ledger says later.
    fields = {"forked_at": archive.commit[:12], "synced": f"{worse} tree {tree(archive, worse)}"}
    archive.write_ledger(entry("base"), entry("moe", **fields))
    write(archive, "moe", 0, origin=pin | {"at": fields["synced"]})
    assert faults(archive) == []
    git(archive, "add", "--all")
    git(archive, "commit", "-qm", "synced")
    (archive.root / "experiments/grug/base/model.py").write_bytes(b"WIDTH = 2\n")
    git(archive, "commit", "-qam", "a newer base")
    newer = git(archive, "rev-parse", "HEAD")[:12]
    fields["synced"] = f"{newer} tree {tree(archive, newer)}"
    archive.write_ledger(entry("base"), entry("moe", **fields))
    assert faults(archive) == []


def tree(workspace, commit: str) -> str:
    return git(workspace, "rev-parse", f"{commit}:experiments/grug/base")[:12]


def test_targets_follow_from_the_text_and_one_setting(archive):
    config = SIZES | {"eval_tokens": 5000}
    write(archive, "base", 0, config=config)
    write(archive, "moe", 0, config=config, heldout_targets=900)
    (found,) = faults(archive)
    assert found == (
        f"moe/moe-0.json:29: heldout_targets: is 900, but {RUNS}/base/base-0.json has 1,000 of the "
        "same text: record it again"
    )


def test_ends_follow_from_the_text_and_one_setting(archive):
    """A run from before they were targets has none, which is no fault."""
    config = SIZES | {"eval_tokens": 5000}
    write(archive, "base", 0, config=config, heldout_ends=40)
    write(archive, "moe", 0, config=config)
    assert faults(archive) == []
    write(archive, "moe", 0, config=config, heldout_ends=41)
    (found,) = faults(archive)
    assert "heldout_ends: is 41, but " in found and "has 40 of the same text" in found
    write(archive, "moe", 0, config=config, heldout_ends=1001)
    assert any("heldout_ends: is malformed" in fault for fault in faults(archive))


def test_roles_of_a_variant_that_declares_them_otherwise(archive):
    """Its sources tell nothing."""
    sources = digest_of({"model.py": sha256(MODEL)})
    write(archive, "moe", 0, sources_digest=sources, roles={"window": "cadence"})
    assert faults(archive) == []


def test_a_key_that_stands_twice(archive):
    path = archive.root / RUNS / "moe/moe-0.json"
    path.write_text(path.read_text().replace('"steps": 100,', '"steps": 100,\n"steps": 90,'))
    (found,) = faults(archive)
    assert found.startswith("moe/moe-0.json:21: the key 'steps' stands twice; correct it")


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
    early = [[1, 100, 0.9, 7.5, 3.0], [100, 10_000, 100.0, 5.0, 2.0]]
    write(archive, "base", 1, heldout=early)
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
