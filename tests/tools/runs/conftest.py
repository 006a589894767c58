"""A small workspace to archive: its ledger, run directories and summaries."""

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tools.runs.claim import claims
from tools.runs.compare_runs import Comparison, Reading, Refusal
from tools.runs.kept_sources import digest_of, sha256
from tools.runs.run_summary import OLD_ROLES, encode

SOURCES = {"model.py": "WIDTH = 8\n", "train.py": "STEPS = 9\n"}
DIGEST, OTHER = "a" * 64, "b" * 64
COMMIT = "c" * 40
ORIGIN = {"name": "base", "at": COMMIT[:12], "by": "forked at", "digests": [DIGEST]}
HOST = {"processor": "A Processor", "cores": 2}
GIT = ("git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")


def entry(name: str, **fields: str) -> str:
    """An entry of the ledger; `forked_at` stands for `forked at`."""
    known = {
        "path": f"experiments/grug/{name}",
        "origin": "base" if name != "base" else "none",
        "status": "active",
        "bucket": "MLP/activation",
        "purpose": f"whether {name} pays",
        "verdict": "pending",
    } | fields
    names = {key: key.replace("_", " ").replace("known good", "known-good") for key in known}
    lines = (f"- {names[key]}: {value}\n" for key, value in known.items())
    return f"\n## {name}\n\n{''.join(lines)}"


def reading(found: Comparison | Refusal, axis: str = "tokens") -> Reading:
    """Both sides at one point, where there is such a reading."""
    assert isinstance(found, Comparison), found
    value = found.readings[axis]
    assert isinstance(value, Reading), value
    return value


def compared(root: Path, name: str, against: str = "") -> Comparison:
    """The only comparison of an experiment's runs."""
    (found,) = claims(root, name, against)
    assert isinstance(found, Comparison), found
    return found


class Workspace:
    def __init__(self, root: Path):
        self.root = root
        self.ledger = root / "docs/reports/grug-archive.md"
        self.write_ledger(entry("base"), entry("moe"))

    def write_ledger(self, *entries: str) -> None:
        self.ledger.parent.mkdir(parents=True, exist_ok=True)
        self.ledger.write_text("# Archive\n" + "".join(entries), encoding="utf-8")

    def write_run(
        self,
        name: str,
        rows: list[dict[str, Any]],
        *,
        record: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        earlier: tuple[str, ...] = (),
        starts: tuple[int, ...] = (0,),
        sources: Mapping[str, str | bytes] = SOURCES,
        commit: str | None = COMMIT,
        schema: int = 4,
        numerics: tuple[dict[str, Any], ...] = (),
        hosts: tuple[dict[str, Any], ...] = (),
    ) -> Path:
        """A run directory as record.py and runlog.py of experiments/grug/base/plumbing write it.

        Its attempts began at `starts`, with sources of the digests `earlier` and last `sources`,
        and each under its `numerics`, on its one of the `hosts`.
        """
        directory = self.root / "runs" / name
        contents = {f: c.encode() if isinstance(c, str) else c for f, c in sources.items()}
        digests = {file: sha256(content) for file, content in contents.items()}
        last = digest_of(digests)
        copy = directory / "sources" / last[:16]
        copy.mkdir(parents=True)
        for file, content in contents.items():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            (copy / file).write_bytes(content)
        attempts: list[dict[str, Any]] = [
            {
                "from_step": start,
                "sources_digest": digest,
                "git": {"commit": commit, "dirty": False},
                "command": ["--data", "/home/someone/store"],
                "devices": {"kind": "cpu", "platform": "cpu", "count": 1, "processes": 1},
                "versions": {"python": "3.11.7", "jax": "0.10.2", "scipy": "1"},
            }
            for start, digest in zip(starts, (*earlier, last), strict=True)
        ]
        if schema >= 3:
            seen = numerics or ({"environment": {}, "jax": {"enable_x64": False}},) * len(starts)
            for attempt, values in zip(attempts, seen, strict=True):
                attempt["numerics"] = values
        if schema >= 4:
            each = hosts or (HOST,) * len(starts)
            for attempt, host in zip(attempts, each, strict=True):
                attempt["host"] = host
        settings: dict[str, Any] = {
            "seed": 0,
            "steps": len(rows),
            "data": "/home/someone/store",
            "run_dir": f"/home/someone/{name}",
            "learning_rate": 0.01,
            "model": {"d_model": 128, "vocabulary": "gs://bucket/words"},
        }
        run = {
            "schema_version": schema,
            "variant": "base",
            "attempts": attempts,
            "config": settings | (config or {}),
            "roles": {"data": "place", "run_dir": "place", "seed": "replicate"},
            "data": {"digest": OTHER},
            "sources": digests if schema < 3 else {last: digests},
            "lock": DIGEST,
        }
        (directory / "run.json").write_text(json.dumps(run | (record or {})))
        lines = (json.dumps(row) + "\n" for row in real(rows, name, run["config"]["seed"]))
        (directory / "metrics.jsonl").write_text("".join(lines))
        return directory

    def write_summary(self, variant: str, run: str, /, **values: Any) -> dict[str, Any]:
        """A summary with a straight curve from 5 to `end` and one held-out value, `bpb`."""
        end, bpb = values.pop("end", 4.0), values.pop("bpb", 2.0)
        tokens, time = values.pop("tokens", 10_000), values.pop("seconds", 100.0)
        steps = values.pop("steps", 100)
        # As those of real runs do, seeds differ in the losses on the way, and runs in their times.
        seeded, timed = random.Random(values.get("seed", 0)), random.Random(f"{variant}/{run}")
        curve = [[steps * i / 10, tokens * i // 10, time * i / 10 - (i < 10) * timed.random(),
                  5 - (5 - end) * i / 10 + (i < 10) * seeded.gauss(0, 0.02)]
                 for i in range(1, 11)]  # fmt: skip
        way = {0: -0.01, 1: 0.0, 2: 0.01}  # of three seeds, the mean is that of the line
        half = bpb + 1 + way.get(values.get("seed", 0), seeded.gauss(0, 0.01))
        summary: dict[str, Any] = {
            "schema_version": 6,
            "variant": variant,
            "run": run,
            "run_schema": 4 if values.get("numerics", True) else 2,
            "seed": 0,
            "config": {"steps": steps, "learning_rate": 0.01},
            "roles": OLD_ROLES,
            "data_digest": DIGEST,
            "sources_digest": DIGEST,
            "mixed_sources": False,
            "ancestors": [],
            "origin": None if variant == "base" else ORIGIN,
            "lock": DIGEST,
            "numerics": {"jax.enable_x64": False},
            "git": {"commit": COMMIT, "dirty": False},
            "devices": {"count": 1, "kind": "cpu", "platform": "cpu", "processes": 1},
            "host": HOST if values.get("numerics", True) else None,
            "versions": {"python": "3.11.7"},
            "steps": steps,
            "tokens": tokens,
            "seconds": time,
            "flops_per_token": 100.0,
            "tokens_per_second": tokens / time,
            "step_time_spread": 0.05,
            "final": {
                "train_loss": end,
                "heldout_loss": 2.5 * bpb,
                "heldout_bpb": bpb,
                "ema_loss": None,
                "ema_bpb": None,
            },
            "curve": curve,
            "heldout": [
                [steps // 2, tokens // 2, time / 2, 2.5 * half, half],
                [steps, tokens, time, 2.5 * bpb, bpb],
            ],
            "heldout_targets": 1000,
            "heldout_ends": None,
        } | values
        if not summary["heldout"]:
            summary["final"] = {**summary["final"], "heldout_loss": None, "heldout_bpb": None}
            summary["heldout_targets"] = values.get("heldout_targets")
            summary["heldout_ends"] = values.get("heldout_ends")
        summary["config"] = {"seed": summary["seed"], **summary["config"]}
        path = self.root / f"docs/reports/runs/{variant}/{run}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(summary))
        return summary


def real(rows: list[dict[str, Any]], name: str, seed: Any) -> Iterator[dict[str, Any]]:
    """A run's lines with the noise of its seed's batches, and times that no other run has.

    Seed 0 has the losses that it is given. Times differ by so little that their median stays.
    """
    seeded, timed = random.Random(seed), random.Random(name)
    late = 0.0
    for row in rows:
        before, late = late, 0.0 if row in (rows[0], rows[-1]) else timed.uniform(0, 0.001)
        noisy = dict(row)
        if seed:
            noisy["train/loss"] += seeded.gauss(0, 0.02)
        if len(rows) > 3:
            noisy["throughput/step_time"] += late - before
        yield noisy


def row(step: int, **values: float) -> dict[str, float]:
    """A line of metrics.jsonl; the first step compiled for ten seconds."""
    return {
        "step": step,
        "train/loss": 5 - step / 1000,
        "throughput/tokens_per_second": 1000.0,
        "throughput/step_time": 10.0 if step == 1 else 0.5,
        "throughput/total_tokens": 500 * step,
        "throughput/flops_per_token": 7.0,
    } | values


def rows(count: int, every: int = 50) -> list[dict[str, float]]:
    """A run's lines, with an evaluation every so many steps and at the end."""
    result = []
    for step in range(1, count + 1):
        is_due = step % every == 0 or step == count
        observed = {"eval/loss": 4.5, "eval/bpb": 2.0, "eval/targets": 1000} if is_due else {}
        result.append(row(step, **observed))
    return result


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)
