"""python -m tools.speedrun.record ENTRY RUN_DIR... --author NAME --root DIR

Writes experiments/speedrun/ENTRY/record.json from the runs of ENTRY/run.py, one per seed; or writes
nothing and says why. The same runs give the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.common import files
from tools.common.errors import ToolError, exit_with
from tools.common.jsonio import parse_json
from tools.common.paths import local_path, location
from tools.runs import fetched
from tools.runs.record import (
    OLD_PLACES,
    listing,
    portable,
    read_metrics,
    read_record,
    rounded,
    seconds,
)
from tools.runs.stats import thin
from tools.speedrun import entry
from tools.speedrun.tracks import AREA, load_tracks

_ALIKE = ("track", "data_digest", "sources", "config", "hardware", "software")


def read_run(directory: Path) -> dict[str, Any]:
    """The parts of a record from one run; "run" holds its numbers.

    Raises:
        ToolError: the directory holds no finished run of a speedrun.
    """
    run, name = read_record(directory / "run.json", f"{directory}/run.json")
    speedrun = run.get("speedrun")
    if not isinstance(speedrun, dict) or set(speedrun) != {"track", "hardware", "cpu_seconds"}:
        raise ToolError(f"{name}:1: speedrun: is missing: give the directory of a speedrun")
    if run.get("ancestors"):
        raise ToolError(f"{name}:1: is a branch: a speedrun begins at step 0")
    metrics = read_metrics(directory / "metrics.jsonl", f"{directory}/metrics.jsonl")
    last, planned = metrics.step[-1], run["config"]["steps"]
    if last != planned:
        raise ToolError(f"{directory}: ended at step {last} of {planned}: run it again")
    evaluated = {"eval/loss", "eval/bpb", "eval/targets", "eval/bytes"}
    last_evaluation = metrics.evaluations[-1] if metrics.evaluations else (-1, {})
    if last_evaluation[0] != len(metrics.step) - 1 or not evaluated <= last_evaluation[1].keys():
        needed = ", ".join(sorted(evaluated))
        raise ToolError(f"{directory}: its last line of metrics lacks {needed}: run it again")
    # Everything was compiled before the clock started, so no step is an outlier.
    times = seconds(metrics, ())
    points = zip(metrics.step, metrics.tokens, times, metrics.loss, strict=True)
    curve = thin(list(points), entry.MAX_POINTS)
    attempt = run["attempts"][-1]
    return {
        "variant": run["variant"],
        "track": speedrun["track"],
        "data_digest": run["data"].get("digest"),
        "sources": dict(listing(run, attempt["sources_digest"])),
        "config": {k: v for k, v in portable(run["config"], OLD_PLACES).items() if k != "seed"},
        "hardware": speedrun["hardware"],
        "software": {
            **{key: attempt["versions"].get(key) for key in ("python", "jax", "jaxlib")},
            "lock": run["lock"],
        },
        "run": {
            "seed": run["config"]["seed"],
            "heldout_bpb": rounded(last_evaluation[1]["eval/bpb"], 7),
            "heldout_loss": rounded(last_evaluation[1]["eval/loss"], 7),
            "heldout_targets": int(last_evaluation[1]["eval/targets"]),
            "heldout_bytes": int(last_evaluation[1]["eval/bytes"]),
            "seconds": rounded(times[-1], 6),
            "cpu_seconds": rounded(float(speedrun["cpu_seconds"]), 6),
            "steps": last,
            "tokens": int(metrics.tokens[-1]),
            "curve": [[round(s, 1), int(n), rounded(t), rounded(y)] for s, n, t, y in curve],
        },
    }


def record(root: Path, name: str, directories: Sequence[Path], author: str) -> str:
    """Writes the entry's record and returns its path.

    Args:
        root: the workspace.
        name: the entry's directory in experiments/speedrun/.
        directories: the directories of its runs, one per seed.
        author: who made the entry.

    Raises:
        ToolError: the runs make no valid record; nothing is written.
    """
    shown = f"{AREA}/{name}"
    if not entry.NAME.fullmatch(name) or not (root / shown).is_dir():
        names = ", ".join(entry.entries(root)) or "nothing"
        raise ToolError(f"{shown}: is no entry <YYYY-MM-DD>_<slug>; there is {names}")
    runs = [read_run(directory) for directory in directories]
    for directory, run in zip(directories, runs, strict=True):
        if run["variant"] != name:
            raise ToolError(f"{directory}: is a run of {run['variant']!r}, not of {name!r}")
        if unlike := [key for key in _ALIKE if run[key] != runs[0][key]]:
            remedy = "run all seeds alike"
            differ = f"differs from {directories[0]} in {', '.join(unlike)}"
            raise ToolError(f"{directory}: {differ}: {remedy}")
    first = runs[0]
    sources = entry.sources(root / shown, shown)
    values = {
        "schema_version": entry.SCHEMA_VERSION,
        "entry": name,
        "author": author,
        "date": name[:10],
        **{key: first[key] for key in _ALIKE},
        "sources_digest": entry.sources_digest(first["sources"] or {}),
        "runs": sorted((run["run"] for run in runs), key=lambda run: run["seed"]),
    }
    path = f"{shown}/{entry.RECORD}"
    if faults := list(entry.faults(values, name, sources, load_tracks(root))):
        raise ToolError("\n".join(f"{path}: {field}: {message}" for field, message in faults))
    data = entry.encode(values)
    parse_json(data.decode(), path)
    files.write_all({root / path: data})
    return path


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="record", description="Write a speedrun's record.")
    parser.add_argument(
        "entry", metavar="ENTRY", help="name of the entry's directory, <YYYY-MM-DD>_<slug>"
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=location,
        metavar="RUN_DIR",
        help="run directories or their URLs (s3://, gs://), one per seed",
    )
    parser.add_argument("--author", required=True, help="name of the person who made the entry")
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    options = parser.parse_args(arguments)
    name = options.entry.rstrip("/").removeprefix(f"{AREA}/")
    with fetched.on_this_machine(options.runs) as directories:
        print(record(options.root, name, directories, options.author))
    return 0


if __name__ == "__main__":
    exit_with(main)
