"""python -m tools.runs.record RUN_DIR... --root DIR

Writes a summary of each run directory (docs/reference/run.md in the workspace) to
docs/reports/runs/, sources that the main branch lacks to docs/reports/sources/, and the results to
the ledger: all of it, or nothing. Sources that were kept and that the main branch has by now are
removed. The same runs give the same bytes. Prints each path that it wrote or removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.common import files
from tools.common.errors import ToolError, exit_with
from tools.common.files import MIB
from tools.common.git import Git
from tools.common.jsonio import parse_json, read_json
from tools.common.paths import local_path, location
from tools.ledger.files import ENTRIES, entry_file, file_of, split
from tools.ledger.ledger import LEDGER, Entry, load_ledger, parse, read_ledger
from tools.runs import (
    check_runs,
    fetched,
    kept_sources,
    numerics,
    origins,
    results,
    run_summary,
)
from tools.runs.copies import copies
from tools.runs.numerics import is_elsewhere
from tools.runs.origins import Origin
from tools.runs.run_summary import (
    MAX_BYTES,
    MAX_POINTS,
    OLD_ROLES,
    RUN_SCHEMAS,
    SCHEMA_VERSION,
    encode,
    experiment_key,
    is_name,
)
from tools.runs.stats import thin

MAX_RECORD = 4 * MIB
MAX_METRICS = 512 * MIB
MAX_LINE = 64 * 1024
MAX_CONFIG = 4096
MAX_HELDOUT = 60
# The places of a run of the first schema: where it read, wrote and logged, which is no part of its
# result.
OLD_PLACES = dict.fromkeys(("data", "run_dir", "resume", "tensorboard", "wandb"), "place")
PACKAGES = ("python", "jax", "jaxlib")

Row = dict[str, float]


@dataclass
class Metrics:
    """The columns of a metrics.jsonl that a summary needs; one value per line."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    speed: list[float] = field(default_factory=list)
    step_time: list[float] = field(default_factory=list)
    flops: set[float | None] = field(default_factory=set)
    evaluations: list[tuple[int, Row]] = field(default_factory=list)
    """(index of the line, its eval/ values)."""


def read_metrics(path: Path, name: str) -> Metrics:
    """Reads metrics.jsonl; `name` is its name in messages.

    A last line that a killed run wrote in part is left out. A skipped update whose loss was not
    finite has none, and counts with the loss before it.

    Raises:
        ToolError: a line is not one that a run writes, or a number is not finite.
    """
    metrics = Metrics()
    for number, row in _rows(path, name):
        place = f"{name}:{number}"
        if metrics.loss and row.get("train/skipped"):
            row.setdefault("train/loss", metrics.loss[-1])
        try:
            step = int(row["step"])
            columns = (
                row["train/loss"],
                row["throughput/total_tokens"],
                row["throughput/tokens_per_second"],
                row["throughput/step_time"],
            )
        except KeyError as error:
            raise ToolError(f"{place}: lacks {error}: is it a line of a run?") from error
        if step != row["step"] or step <= (metrics.step[-1] if metrics.step else 0):
            raise ToolError(f"{place}: step {row['step']:g} does not follow the one before")
        metrics.step.append(step)
        lists = (metrics.loss, metrics.tokens, metrics.speed, metrics.step_time)
        for column, value in zip(lists, columns, strict=True):
            column.append(value)
        metrics.flops.add(row.get("throughput/flops_per_token"))
        if {"eval/loss", "eval/bpb"} <= row.keys():
            values = {key: value for key, value in row.items() if key.startswith("eval/")}
            metrics.evaluations.append((len(metrics.step) - 1, values))
    if not metrics.step:
        raise ToolError(f"{name}: has no line: the run has not made a step")
    return metrics


def _rows(path: Path, name: str) -> Iterator[tuple[int, Row]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ToolError(f"{name}: cannot be read: {error.strerror}") from error
    total = 0
    with file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
            total += len(line)
            if total > MAX_METRICS or (len(line) == MAX_LINE and not line.endswith(b"\n")):
                raise ToolError(f"{name}:{number}: more than a run writes")
            if not line.endswith(b"\n"):
                return  # cut short by a kill
            text = line.decode(errors="replace").strip()
            row = parse_json(text, name, number, remedy="put the run's own file back")
            if not isinstance(row, dict):
                raise ToolError(f"{name}:{number}: is no object of metrics")
            for key, value in row.items():
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    raise ToolError(f"{name}:{number}: {key[:60]!r} is no number")
                if abs(value) >= 1e18:
                    raise ToolError(f"{name}:{number}: {key[:60]!r} is beyond any measure")
            yield number, {key: float(value) for key, value in row.items()}


def pick(points: Sequence[Any], limit: int) -> list[Any]:
    """At most `most` of the points, evenly spread, with the first and the last."""
    if len(points) <= limit:
        return list(points)
    return [points[i * (len(points) - 1) // (limit - 1)] for i in range(limit)]


def seconds(metrics: Metrics, starts: Sequence[int]) -> list[float]:
    """Training time in seconds at the end of each step; `starts` are the steps resumed from.

    The first step after a start includes compilation and counts as the median step. Evaluations and
    saves do not count.
    """
    median = statistics.median(metrics.step_time)
    total, times = 0.0, []
    for step, took in zip(metrics.step, metrics.step_time, strict=True):
        total += min(took, median) if step - 1 in starts else took
        times.append(total)
    return times


def step_time_spread(metrics: Metrics, starts: Sequence[int]) -> float | None:
    """How unequal a run's steps were: (90th - 10th percentile) / median of their times.

    Steps right after a start, which compile, do not count. None of a run of fewer than ten others.
    """
    times = sorted(
        took
        for step, took in zip(metrics.step, metrics.step_time, strict=True)
        if step - 1 not in starts
    )
    if len(times) < 10 or not (median := statistics.median(times)):
        return None
    deciles = statistics.quantiles(times, n=10, method="inclusive")
    return rounded((deciles[8] - deciles[0]) / median, 3)


def portable(value: Any, roles: Mapping[str, str]) -> Any:
    """A config without what depends on a machine: settings with role `place`, paths, addresses."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if roles.get(k) != "place" and not is_elsewhere(v)}
        return {key: portable(item, roles) for key, item in kept.items()}
    if isinstance(value, list):
        return [portable(item, roles) for item in value if not is_elsewhere(item)]
    return value


def rounded(value: float, digits: int = 6) -> float:
    """A number rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def recorded_as(variant: str, entries: Sequence[Entry], name: str) -> Entry:
    """The ledger's entry for `variant`, which in a run is the name of the variant's directory.

    Raises:
        ToolError: the ledger has none, or several. The message calls the run `name`.
    """
    living = [
        entry for entry in entries if entry.status != "deleted" and _last(entry.path) == variant
    ]
    matches = living or [e for e in entries if variant in (e.name, *e.earlier_names)]
    if len(matches) != 1:
        names = " and ".join(entry.name for entry in matches)
        remedy = f"{names} are in {ENTRIES}" if matches else f"add {entry_file(variant)}"
        raise ToolError(f"{name}: is a run of {variant!r}: {remedy}")
    return matches[0]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def summarize(
    run_dir: Path, root: Path, entries: Sequence[Entry], *, unfinished: bool, mixed_sources: bool
) -> tuple[str, bytes, dict[str, bytes]]:
    """(path from the workspace's root, bytes of the summary, sources to keep by path) of a run.

    Args:
        run_dir: the run's directory.
        root: the workspace.
        entries: the ledger.
        unfinished: whether to accept a run that stopped early; otherwise ToolError.
        mixed_sources: whether to accept a run resumed with other sources; otherwise ToolError.
    """
    run, shown = run_dir.resolve().name, str(run_dir)
    if not is_name(run):
        raise ToolError(f"{shown}: {run!r} cannot name a summary: letters, digits, '.', '_', -")
    record, record_name = read_record(run_dir / "run.json", f"{shown}/run.json")
    attempts = record["attempts"]
    metrics = read_metrics(run_dir / "metrics.jsonl", f"{shown}/metrics.jsonl")
    if not unfinished:
        refuse_unfinished(metrics, record["config"]["steps"], shown)
    attempts = with_steps(attempts, metrics.step[-1], record_name)
    before = [attempt for ancestor in _ancestors(record) for attempt in ancestor["attempts"]]
    mixture = _mixture([*before, *attempts])
    if mixture and not mixed_sources:
        remedy = "run it again from the start, or record it as it is with --mixed-sources"
        raise ToolError(f"{record_name}: {mixture}: {remedy}")
    entry = recorded_as(record["variant"], entries, shown)
    final = attempts[-1]
    version, digest = record["schema_version"], final["sources_digest"]
    ran = kept_sources.of_run(run_dir, digest, listing(record, digest), version)
    git, kept = trace(run_dir, root, entry.directories, ran, final["git"]["commit"])
    values = {
        "variant": entry.name,
        "run": run,
        "mixed_sources": bool(mixture),
        "git": git,
        "host": _host(attempts),
        **_as_it_says(record, final),
    }
    starts = [attempt["from_step"] for attempt in attempts]
    return (
        f"{run_summary.RUNS}/{entry.name}/{run}.json",
        _fitted(values, metrics, starts, shown),
        kept,
    )


def _as_it_says(record: Mapping[str, Any], final: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a summary that a run's record has, the last of its attempts among them."""
    config = record["config"]
    roles = record.get("roles") or {**OLD_PLACES, **OLD_ROLES}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_schema": record["schema_version"],
        "seed": config["seed"],
        "config": portable(config, roles),
        "roles": {name: role for name, role in sorted(roles.items()) if role != "place"},
        "data_digest": record["data"].get("digest"),
        "sources_digest": final["sources_digest"],
        "ancestors": [
            {
                **{key: ancestor[key] for key in ("run", "step", "digest")},
                "horizon": portable(ancestor["horizon"], roles),
            }
            for ancestor in _ancestors(record)
        ],
        "origin": None,
        "lock": record["lock"],
        "numerics": numerics.of_attempt(final.get("numerics")),
        "devices": final["devices"],
        "versions": {k: final["versions"][k] for k in PACKAGES if k in final["versions"]},
    }


def _ancestors(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs that a branch comes from, the oldest first; none of a run of an older schema."""
    return record.get("ancestors") or []


def _fitted(values: Mapping[str, Any], metrics: Metrics, starts: Sequence[int], name: str) -> bytes:
    """The bytes of a summary, with as long a curve as fits. Raises ToolError if none does."""
    data = b""
    for limit in (MAX_POINTS, 150, 100, 50):
        data = encode({**values, **measured(metrics, starts, limit)})
        if len(data) <= MAX_BYTES - run_summary.MAX_ORIGIN:
            return data
    raise ToolError(f"{name}: its summary would hold {len(data):,} bytes, not {MAX_BYTES:,}")


def _mixture(attempts: Sequence[Mapping[str, Any]]) -> str:
    """In what a run's attempts differ that may change its numbers; empty if in nothing."""
    digests = {attempt["sources_digest"] for attempt in attempts}
    if len(digests) > 1:
        return f"ran {len(digests)} different sources"
    settings = [numerics.of_attempt(attempt.get("numerics")) for attempt in attempts]
    changes = [c for earlier in settings for c in numerics.differences(settings[-1], earlier)]
    return f"its steps differ in {changes[0]}" if changes else ""


def _host(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The machine that made all of a run's steps; None if several did, or if none is recorded."""
    hosts = [attempt.get("host") for attempt in attempts]
    return hosts[0] if all(host == hosts[0] for host in hosts) else None


def refuse_unfinished(metrics: Metrics, planned: int, name: str) -> None:
    """Raises ToolError if a run ended before the `planned` steps."""
    last = metrics.step[-1]
    if last < planned:
        remedy = "go on with --resume, or record it as it is with --unfinished"
        raise ToolError(f"{name}: ended at step {last} of {planned}: {remedy}")


def with_steps(
    attempts: Sequence[dict[str, Any]], last_step: int, name: str
) -> list[dict[str, Any]]:
    """The attempts that made steps which the run still has, in order.

    An attempt's steps end where a later one began: those beyond were made again. One that crashed
    before its first step, or looked at a finished run, made none.

    Raises:
        ToolError: none of them made any.
    """
    kept: list[dict[str, Any]] = []
    end = last_step
    for attempt in reversed(attempts):
        if attempt["from_step"] < end:
            kept.insert(0, attempt)
            end = attempt["from_step"]
    if not kept:
        raise ToolError(f"{name}: no attempt made the steps of metrics.jsonl: run it again")
    return kept


def listing(record: Mapping[str, Any], digest: str) -> Mapping[str, str]:
    """The sha256 of each file in the sources of that digest, as run.json lists them."""
    sources = record.get("sources") or {}
    return sources if record["schema_version"] < 3 else sources.get(digest, {})


def trace(
    run_dir: Path, root: Path, paths: Sequence[str], ran: kept_sources.Ran, started_at: str | None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(the summary's `git`, the sources to keep by path) of what a run ran.

    Sources of a commit that the main branch lacks are kept as well: a squash merge drops it.

    Raises:
        ToolError: the sources match no commit, and cannot be kept.
    """
    commit, is_on_main = kept_sources.find_commit(root, paths, ran, started_at)
    git = {"commit": commit or started_at, "dirty": commit is None}
    if is_on_main:
        return git, {}
    remedy = ""
    if not ran.copies:
        remedy = f"put {run_dir}/sources/{ran.digest[:16]} back, or commit what ran"
    elif absent := sorted(ran.files.keys() - ran.copies.keys()):
        remedy = f"commit {kept_sources.printable(absent[0])}, which was too large to be copied"
    elif sum(map(len, ran.copies.values())) > kept_sources.MAX_KEPT:
        remedy = f"commit what ran: more than {kept_sources.MAX_KEPT:,} bytes are not kept"
    if remedy and commit is None:
        raise ToolError(f"{run_dir}: no commit of {paths[0]} has the sources that ran: {remedy}")
    if remedy:
        return git, {}
    directory = kept_sources.place(ran.digest)
    return git, {f"{directory}/{name}": data for name, data in ran.copies.items()}


def measured(metrics: Metrics, starts: Sequence[int], limit: int) -> dict[str, Any]:
    """The keys of a summary that follow from the metrics; its curve has at most `limit` points."""
    times = seconds(metrics, starts)
    points = list(zip(metrics.step, metrics.tokens, times, metrics.loss, strict=True))
    warm_speeds = [
        speed
        for step, speed in zip(metrics.step, metrics.speed, strict=True)
        if step - 1 not in starts
    ]
    tail = metrics.loss[-max(1, len(metrics.loss) // 50) :]
    last_values = metrics.evaluations[-1][1] if metrics.evaluations else {}
    targets, ends = (last_values.get(f"eval/{name}") for name in ("targets", "ends"))
    # A resumed run may have changed what its evaluations read.
    evaluations = [e for e in metrics.evaluations if e[1].get("eval/targets") == targets]
    if metrics.evaluations and metrics.evaluations[-1][0] != len(points) - 1:
        last_values = {}  # the last step was not evaluated
    names = ("eval/loss", "eval/bpb", "eval/ema/loss", "eval/ema/bpb")
    final_values = (rounded(last_values[name]) if name in last_values else None for name in names)
    keys = ("heldout_loss", "heldout_bpb", "ema_loss", "ema_bpb")
    flops = metrics.flops.pop() if len(metrics.flops) == 1 else None
    return {
        "steps": metrics.step[-1],
        "tokens": int(metrics.tokens[-1]),
        "seconds": rounded(times[-1], 7),
        "flops_per_token": flops,
        "tokens_per_second": rounded(statistics.median(warm_speeds or metrics.speed)),
        "step_time_spread": step_time_spread(metrics, starts),
        "final": {
            "train_loss": rounded(statistics.fmean(tail)),
            **dict(zip(keys, final_values, strict=True)),
        },
        "curve": [
            [round(step, 1), int(tokens), rounded(time, 7), rounded(loss)]
            for step, tokens, time, loss in thin(points, limit)
        ],
        "heldout": [
            [
                metrics.step[i],
                int(metrics.tokens[i]),
                rounded(times[i], 7),
                rounded(values["eval/loss"]),
                rounded(values["eval/bpb"]),
            ]
            for i, values in pick(evaluations, MAX_HELDOUT * limit // MAX_POINTS)
        ],
        "heldout_targets": None if targets is None else int(targets),
        "heldout_ends": None if ends is None else int(ends),
    }


def read_record(path: Path, name: str) -> tuple[dict[str, Any], str]:
    """A run's run.json, checked as far as a summary uses it, and its name in messages.

    Raises:
        ToolError: there is none, its schema is unknown, or it is not what a run writes.
    """
    if not path.exists():
        raise ToolError(f"{name}: is not there: give the directory of a run")
    remedy = "put the run's own file back, or run it again"
    record = read_json(path, MAX_RECORD, name=name, remedy=remedy)
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version not in RUN_SCHEMAS:
        versions = ", ".join(map(str, RUN_SCHEMAS))
        raise ToolError(f"{name}:1: schema_version is {version!r}, this tool knows {versions}")
    for part, is_good in _record_checks(record):
        if not is_good:
            raise ToolError(f"{name}:1: {part} is not what a run writes: {remedy}")
    return record, name


def _record_checks(record: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(part, whether it is what a run writes); each check relies on the ones before it."""
    config, attempts = record.get("config") or {}, record.get("attempts") or []
    yield "variant", isinstance(record.get("variant"), str) and is_name(record["variant"])
    yield "config", isinstance(config, dict) and len(str(config)) <= MAX_CONFIG
    for key in ("seed", "steps"):
        value = config.get(key)
        yield f"config.{key}", isinstance(value, int) and not isinstance(value, bool)
    roles = record.get("roles") or {}
    yield "roles", isinstance(roles, dict) and all(isinstance(x, str) for x in roles.values())
    yield "lock", record.get("lock") is None or isinstance(record["lock"], str)
    yield "data", isinstance(record.get("data"), dict)
    version, listed = record["schema_version"], record.get("sources") or {}
    sets = [listed] if version < 3 or not isinstance(listed, dict) else list(listed.values())
    yield "sources", all(map(_is_listing, sets))
    yield from _attempt_checks(attempts, "attempts", version)
    ancestors = record.get("ancestors") or []
    yield "ancestors", isinstance(ancestors, list) and len(ancestors) <= run_summary.MAX_ANCESTORS
    for i, ancestor in enumerate(ancestors):
        yield f"ancestors[{i}]", isinstance(ancestor, dict)
        for key, kind in _ANCESTOR.items():
            yield f"ancestors[{i}].{key}", isinstance(ancestor.get(key), kind)
        yield f"ancestors[{i}].variant", ancestor["variant"] == record["variant"]
        # Those of a run that is older than this one's code; what they lack is unknown.
        yield from _attempt_checks(ancestor["attempts"], f"ancestors[{i}].attempts", None)


def _attempt_checks(attempts: Any, name: str, version: int | None) -> Iterator[tuple[str, bool]]:
    """Of the attempts of a run of that schema; with None, of any."""
    yield name, isinstance(attempts, list) and 0 < len(attempts) <= 10_000
    for i, attempt in enumerate(attempts):
        yield f"{name}[{i}]", isinstance(attempt, dict)
        for key, kind in _ATTEMPT.items():
            yield f"{name}[{i}].{key}", isinstance(attempt.get(key), kind)
        has = attempt.get("numerics") is not None if version is None else version >= 3
        yield f"{name}[{i}].numerics", not has or _is_numerics(attempt.get("numerics"))
        host = attempt.get("host")
        has = host is not None if version is None else version >= 4
        yield f"{name}[{i}].host", run_summary.is_host(host) if has else host is None
        for key, parts in (("git", _GIT), ("devices", _DEVICES)):
            is_good = all(isinstance(attempt[key].get(k), v) for k, v in parts.items())
            yield f"{name}[{i}].{key}", is_good and set(attempt[key]) == set(parts)


def _is_numerics(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"environment", "jax"}
        and _is_listing(value["environment"])
        and isinstance(value["jax"], dict)
        and all(isinstance(x, str | int | float | None) for x in value["jax"].values())
        and len(str(value)) <= MAX_CONFIG
    )


def _is_listing(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


_ANCESTOR = {
    **{"variant": str, "run": str, "step": int, "digest": str},
    **{"horizon": dict, "attempts": list},
}
_ATTEMPT = {"from_step": int, "sources_digest": str, "git": dict, "devices": dict, "versions": dict}
_GIT: Mapping[str, Any] = {"commit": str | None, "dirty": bool | None}
_DEVICES: Mapping[str, Any] = {"count": int, "kind": str, "platform": str, "processes": int}


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="record", description="Write summaries of runs, and their numbers into the ledger."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=location,
        metavar="RUN_DIR",
        help="directories of finished runs, or their URLs (s3://, gs://)",
    )
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    parser.add_argument(
        "--unfinished", action="store_true", help="record runs that stopped early, too"
    )
    parser.add_argument(
        "--mixed-sources",
        action="store_true",
        help="record runs that were resumed with other sources or flags, too",
    )
    parser.add_argument(
        "--replace", action="store_true", help="overwrite another run's summary of the same name"
    )
    parser.add_argument(
        "--stage", action="store_true", help="add to git's index just what was written or removed"
    )
    parser.add_argument(
        "--against",
        metavar="ORIGIN",
        help="state of another experiment to compare these runs with from now on: ORIGIN@RUN or "
        "ORIGIN@COMMIT (default: its origin as it was copied or synced last)",
    )
    options = parser.parse_args(arguments)
    with fetched.on_this_machine(options.runs) as directories:
        changed = record(
            directories,
            options.root,
            unfinished=options.unfinished,
            mixed_sources=options.mixed_sources,
            replace=options.replace,
            against=origins.asked(options.against),
        )
    if options.stage:
        Git(options.root).stage(changed)
    for path in changed:
        is_there = (options.root / path).exists()
        print(path if is_there else f"{path}: removed, the main branch has these sources")
    return 0


def record(
    run_dirs: Sequence[Path],
    root: Path,
    *,
    unfinished: bool = False,
    mixed_sources: bool = False,
    replace: bool = False,
    against: str = "",
) -> list[str]:
    """Records all runs, or none, and returns the paths written or removed.

    Each is compared with the state of its origin that `against` names; else with that which a
    recorded run of the same experiment is compared with; else with that which the ledger says.

    These are the summaries in the order of the runs, the directories of kept sources, other
    summaries whose sources the main branch has by now, the ledger's entries, and the directories
    removed.

    Raises:
        ToolError: a run cannot be recorded; nothing is written.
    """
    entries = load_ledger(root)
    before = {run.path: run for run in run_summary.load_all(root)[0]}
    flags = {"unfinished": unfinished, "mixed_sources": mixed_sources, "replace": replace}
    summaries, kept = _summaries(run_dirs, root, entries, **flags)
    runs = dict(before)
    for path, data in summaries.items():
        runs[path] = run_summary.parse(data.decode(), path)
    _refuse_copies(runs, list(summaries))
    named = origins.named(root, against, list(before.values()), entries) if against else None
    pinned = _pin(root, entries, runs, before, summaries, named)
    for path, data in pinned.items():
        runs[path] = run_summary.parse(data.decode(), path)
    summaries |= {path: data for path, data in pinned.items() if path in summaries}
    replaced = [before[path] for path in summaries if path in before]
    again = {path: data for path, data in pinned.items() if path not in summaries}
    settled, found = _settle(root, entries, runs, summaries, again)
    removed = kept_sources.removable(root, list(runs.values()), found, replaced)
    ledger = _ledger(root, entries, runs, summaries)
    written = {**summaries, **kept, **settled, **ledger}
    files.write_all({root / path: data for path, data in written.items()})
    for directory in removed:
        shutil.rmtree(root / directory)
    directories = sorted({"/".join(path.split("/")[:4]) for path in kept})
    return [*summaries, *directories, *settled, *ledger, *removed]


def _summaries(
    run_dirs: Sequence[Path],
    root: Path,
    entries: Sequence[Entry],
    *,
    unfinished: bool,
    mixed_sources: bool,
    replace: bool,
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """(summaries, sources to keep) of all runs, by path. Raises ToolError with every fault."""
    summaries: dict[str, bytes] = {}
    kept: dict[str, bytes] = {}
    faults: list[str] = []
    for run_dir in run_dirs:
        try:
            path, data, own = summarize(
                run_dir, root, entries, unfinished=unfinished, mixed_sources=mixed_sources
            )
            if path in summaries:
                raise ToolError(f"{run_dir}: {path} is also another's: rename the directory")
            if not replace and _is_another(root / path, data):
                remedy = "rename the run's directory, or overwrite it with --replace"
                raise ToolError(f"{run_dir}: {path} holds another run: {remedy}")
            run_summary.parse(data.decode(), path)
            summaries[path] = data
            kept |= own
        except ToolError as error:
            faults += str(error).splitlines()
    if faults:
        raise ToolError("\n".join(faults))
    return summaries, kept


def _refuse_copies(runs: Mapping[str, run_summary.Run], fresh: Sequence[str]) -> None:
    """Raises ToolError if a fresh summary is that of another run, of which there are older ones."""
    others = [run for path, run in runs.items() if path not in fresh]
    found = copies(map(check_runs.seen, [*others, *(runs[path] for path in fresh)]))
    if faults := [f"{path}: {found[path].words}: {_INSTEAD}" for path in fresh if path in found]:
        raise ToolError("\n".join(faults))


_INSTEAD = "run it itself; or record it under the name that it has, with --replace"


def _ledger(
    root: Path,
    entries: Sequence[Entry],
    runs: Mapping[str, run_summary.Run],
    fresh: Iterable[str],
) -> dict[str, bytes]:
    """The ledger's files that have other results now, by path."""
    text = old = read_ledger(root)
    places: set[str] = set()
    for name in _concerned(entries, runs, fresh):
        entry = next(entry for entry in parse(text, LEDGER) if entry.name == name)
        places.add(file_of(text, entry.line))
        text = results.with_results(text, entry, runs.values())
    contents, old_contents = split(text), split(old)
    changed = (path for path in sorted(places) if contents[path] != old_contents.get(path))
    return {path: contents[path].encode() for path in changed}


def _concerned(
    entries: Iterable[Entry], runs: Mapping[str, run_summary.Run], fresh: Iterable[str]
) -> list[str]:
    """The experiments whose results are written anew: those recorded, and those compared with them.

    Of the latter, those alone whose entry has recorded results.
    """
    recorded = {runs[path].variant for path in fresh}
    compared = {r.variant for r in runs.values() if r.origin and r.origin["name"] in recorded}
    had = {entry.name for entry in entries if results.are_recorded(entry)}
    return sorted(recorded | (compared & had))


def _is_another(path: Path, data: bytes) -> bool:
    """Whether a summary is of another run than the one that is there: a commit is no part of that.

    The summary may be of an older schema, without all keys.
    """
    if not path.exists():
        return False
    try:
        old, new = json.loads(path.read_bytes()), json.loads(data)
    except ValueError:
        return True
    if not isinstance(old, dict):
        return True
    compared = old.keys() - {"git", "schema_version", "origin"}
    return any(old[key] != new.get(key) for key in compared)


def _settle(
    root: Path,
    entries: Sequence[Entry],
    runs: Mapping[str, run_summary.Run],
    fresh: Mapping[str, bytes],
    again: Mapping[str, bytes],
) -> tuple[dict[str, bytes], dict[str, str]]:
    """(summaries to write again, commits by summary) of the runs whose kept sources main now has.

    Args:
        root: the workspace.
        entries: the ledger.
        runs: all runs by their summaries' paths, those in `fresh` as they will be.
        fresh: the summaries that are about to be written.
        again: older summaries that are about to be written again.
    """
    paths = {entry.name: entry.directories for entry in entries}
    found = kept_sources.settled(root, runs.values(), paths)
    settled = dict(again)
    for path, commit in found.items():
        if path not in fresh:
            text = settled[path].decode() if path in settled else (root / path).read_text()
            git = {"commit": commit, "dirty": False}
            settled[path] = run_summary.rewritten(text, path, git=git)
    return settled, found


def _pin(
    root: Path,
    entries: Sequence[Entry],
    runs: Mapping[str, run_summary.Run],
    before: Mapping[str, run_summary.Run],
    fresh: Mapping[str, bytes],
    named: Origin | None,
) -> dict[str, bytes]:
    """The fresh summaries, and older ones of the same variants, with the origin that they pin.

    Those that already pin one keep it, and so do others of the same experiment.

    Args:
        root: the workspace.
        entries: the ledger.
        runs: all runs by their summaries' paths, as they will be.
        before: as they were.
        fresh: the summaries that are about to be written.
        named: the origin that a person names for the fresh ones.
    """
    git = Git(root, fetches=False)
    by_name = {entry.name: entry for entry in entries}
    variants = {runs[path].variant for path in fresh}
    kept = {(r.variant, experiment_key(r)): r.origin for r in before.values() if r.origin}
    pinned: dict[str, bytes] = {}
    for path, run in runs.items():
        if run.variant not in variants or (run.origin and path not in fresh):
            continue
        origin = named if path in fresh else None
        origin = origin or kept.get((run.variant, experiment_key(run)))
        if origin is None:
            commit = None if run.git["dirty"] else run.git["commit"]
            origin = origins.pinned(git, by_name[run.variant], entries, commit)
        text = fresh[path].decode() if path in fresh else (root / path).read_text()
        if origin:
            pinned[path] = run_summary.rewritten(text, path, origin=origin)
    return pinned


if __name__ == "__main__":
    exit_with(main)
