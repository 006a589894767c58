"""A speedrun's directory and its record.json: reads them and finds every fault.

experiments/speedrun/<YYYY-MM-DD>_<slug>/ holds run.py, README.md and record.json. A record has one
key per line and one run per line, so that two records compare line by line. Uses the standard
library alone, because lint runs it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import read_text, require_directory
from tools.common.jsonio import json_line, line_of, parse_json
from tools.runs import recompute
from tools.runs.copies import Seen, copies
from tools.runs.recompute import is_zero
from tools.speedrun.significance import below
from tools.speedrun.tracks import AREA, TRACKS, Track

SCHEMA_VERSION = 1
RECORD = "record.json"
MAX_RECORD = 128 * 1024
MAX_POINTS = 40
# Files that do not affect a run: text for people and for the build, and the result.
NO_SOURCES = ("README.md", "BUILD", RECORD)
AGAIN = "write it with ./pants run tools/speedrun:record"

NAME = re.compile(r"(\d{4}-\d{2}-\d{2})_[a-z0-9][a-z0-9_-]{0,59}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")

Fault = tuple[str, str]
"""A field, and a message with the remedy."""


@dataclass(frozen=True)
class Run:
    """One seed's run. `seconds`: by the rules' clock; `cpu_seconds`: of all threads meanwhile."""

    seed: int
    heldout_bpb: float
    heldout_loss: float
    heldout_targets: int
    heldout_bytes: int
    seconds: float
    cpu_seconds: float
    steps: int
    tokens: int
    curve: tuple[tuple[float, ...], ...]
    """At most MAX_POINTS rows of (step, tokens, seconds, training loss)."""


@dataclass(frozen=True)
class Record:
    """A checked record. docs/speedrun/rules.md says what each key means."""

    schema_version: int
    entry: str
    track: str
    author: str
    date: str
    data_digest: str
    sources: dict[str, str]
    sources_digest: str
    config: dict[str, Any]
    hardware: dict[str, Any]
    software: dict[str, str | None]
    runs: tuple[Run, ...]

    @property
    def path(self) -> str:
        """The entry's directory, from the workspace's root."""
        return f"{AREA}/{self.entry}"

    def column(self, key: str) -> tuple[float, ...]:
        """One number per seed: `seconds`, `heldout_bpb`, ..."""
        return tuple(float(getattr(run, key)) for run in self.runs)


KEYS = tuple(Record.__dataclass_fields__)
RUN_KEYS = tuple(Run.__dataclass_fields__)
HARDWARE = ("cpu", "cores", "memory_bytes", "accelerator", "accelerators")
SOFTWARE = ("python", "jax", "jaxlib", "lock")


def encode(values: Mapping[str, Any]) -> bytes:
    """The bytes of a record; `values` has each of KEYS."""
    lines = [f'"{key}": {json_line(values[key])}' for key in KEYS[:-1]]
    runs = ",\n".join(json_line({key: run[key] for key in RUN_KEYS}) for run in values["runs"])
    return ("{\n" + ",\n".join(lines) + f',\n"runs": [\n{runs}\n]\n}}\n').encode()


def sources(directory: Path, name: str) -> dict[str, str]:
    """sha256 of each file that an entry's runs depend on, by path within its directory.

    Raises:
        ToolError: there is a symbolic link, whose content is elsewhere. The message calls the
            directory `name`.
    """
    digests = {}
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if any(part == "__pycache__" or part.startswith(".") for part in inside.parts):
            continue
        if path.is_symlink():
            raise ToolError(f"{name}/{inside.as_posix()}:1: is a symbolic link: copy the file")
        if path.is_file() and inside.as_posix() not in NO_SOURCES:
            digests[inside.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def sources_digest(files: Mapping[str, str]) -> str:
    """The digest that names a set of sources."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def entries(root: Path) -> list[str]:
    """Names of the directories of speedruns in the workspace `root`, oldest first.

    Raises:
        ToolError: `root` is no directory.
    """
    require_directory(root)
    area = root / AREA
    names = [p.name for p in area.iterdir() if p.is_dir()] if area.is_dir() else []
    return sorted(name for name in names if not name.startswith((".", "__")))


def load(root: Path, name: str, tracks: Mapping[str, Track]) -> Record:
    """The record of one entry. Raises ToolError with every fault: `path:line: field: message`."""
    directory, shown = root / AREA / name, f"{AREA}/{name}"
    if directory_faults := list(_directory_faults(directory, name)):
        raise ToolError("\n".join(f"{shown}{file}:1: {fault}" for file, fault in directory_faults))
    text = read_text(directory / RECORD, MAX_RECORD, name=f"{shown}/{RECORD}")
    values = parse_json(text, f"{shown}/{RECORD}")
    if record_faults := list(faults(values, name, sources(directory, shown), tracks)):
        lines = text.splitlines()
        raise ToolError(
            "\n".join(
                f"{shown}/{RECORD}:{_line(lines, field)}: {field}: {fault}"
                for field, fault in record_faults
            )
        )
    for run in values["runs"]:
        run["curve"] = tuple(map(tuple, run["curve"]))
    values["runs"] = tuple(Run(**run) for run in values["runs"])
    return Record(**values)


def _line(lines: list[str], field: str) -> int:
    """The line of a field; each run has its own below that of `runs`."""
    name, _, rest = field.partition("[")
    start = line_of(lines, name.partition(".")[0])
    own = start + 1 + int(rest.partition("]")[0]) if rest else start
    return own if own <= len(lines) and lines[own - 1].startswith('{"') else start


def _directory_faults(directory: Path, name: str) -> Iterator[tuple[str, str]]:
    if not NAME.fullmatch(name):
        yield "", f"{name!r} is no <YYYY-MM-DD>_<slug>: rename the directory"
        return
    try:
        datetime.date.fromisoformat(name[:10])
    except ValueError:
        yield "", f"{name[:10]} is no day: rename the directory"
        return
    for file, remedy in (
        ("run.py", "add the program that was run"),
        ("README.md", "say in it what the entry changes and how it was measured"),
        (RECORD, AGAIN),
    ):
        if not (directory / file).is_file():
            yield f"/{file}", f"is missing: {remedy}"


def faults(
    values: Any, name: str, files: Mapping[str, str], tracks: Mapping[str, Track]
) -> Iterator[Fault]:
    """Faults of a record; `files` are the digests of the sources now in the directory."""
    if not isinstance(values, dict):
        yield "schema_version", f"is missing: {AGAIN}"
        return
    if values.get("schema_version") != SCHEMA_VERSION:
        version = values.get("schema_version")
        yield "schema_version", f"is {version!r}, this tool knows {SCHEMA_VERSION}: {AGAIN}"
        return
    missing = [key for key in KEYS if values.get(key) in (None, "", [], {})]
    yield from ((key, f"is missing: {AGAIN}") for key in missing)
    yield from ((key, f"is unknown: {AGAIN}") for key in sorted(set(values) - set(KEYS)))
    if missing:
        return
    yield from _identity(values, name)
    yield from _sources(values, files)
    yield from _parts(values, "hardware", HARDWARE, _HARDWARE)
    yield from _parts(values, "software", SOFTWARE, _SOFTWARE)
    if values["track"] not in tracks:
        names = ", ".join(sorted(tracks))
        yield "track", f"{values['track']!r} is not in {TRACKS}, which has {names}"
        return
    track = tracks[values["track"]]
    if values["data_digest"] != track.data_digest:
        yield "data_digest", f"is of other text than {track.name} is run on: run it on that store"
    run_faults = list(_runs(values["runs"], track)) or list(_recomputed(values))
    yield from run_faults or _target(values["runs"], track)


def _identity(values: Mapping[str, Any], name: str) -> Iterator[Fault]:
    for key, own in (("entry", name), ("date", name[:10])):
        if values[key] != own:
            yield key, f"is {values[key]!r}, its directory says {own!r}: {AGAIN}"
    author = values["author"]
    if not isinstance(author, str) or not author.strip() or len(author) > 100:
        yield "author", "is no name of at most 100 characters: give --author NAME"
    if not isinstance(values["config"], dict):
        yield "config", f"is no object of settings: {AGAIN}"


def _sources(values: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[Fault]:
    recorded = values["sources"]
    if not isinstance(recorded, dict) or not all(_is_digest(v) for v in recorded.values()):
        yield "sources", f"is no object of file and sha256: {AGAIN}"
        return
    for file in sorted(set(recorded) | set(files)):
        if recorded.get(file) != files.get(file):
            how = "added" if file not in recorded else "removed" if file not in files else "changed"
            yield "sources", f"{file} was {how} since the runs: undo that, or run again and record"
    if values["sources_digest"] != sources_digest(recorded):
        yield "sources_digest", f"is not that of the sources: {AGAIN}"


def _is_digest(value: Any) -> bool:
    """Whether a value is a sha256, and not of zeros alone, which is that of nothing."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value)) and not is_zero(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e18


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= 200


Checks = Mapping[str, Callable[[Any], bool]]
_HARDWARE: Checks = {
    "cpu": _is_text,
    "cores": lambda value: _is_whole(value) and value > 0,
    "memory_bytes": lambda value: _is_whole(value) and value > 0,
    "accelerator": lambda value: value is None or _is_text(value),
    "accelerators": _is_whole,
}
_SOFTWARE: Checks = {key: _is_text for key in SOFTWARE} | {
    "lock": lambda value: value is None or _is_digest(value)
}
_RUN: Checks = {
    "seed": _is_whole,
    **{key: _is_number for key in ("heldout_bpb", "heldout_loss", "seconds", "cpu_seconds")},
    **{key: lambda value: _is_whole(value) and value > 0 for key in ("steps", "tokens")},
    **{key: _is_whole for key in ("heldout_targets", "heldout_bytes")},
    "curve": lambda value: _is_curve(value),
}


def _is_curve(points: Any) -> bool:
    """Whether these are rows of step, tokens, seconds and loss; the first three only grow."""
    return (
        isinstance(points, list)
        and 0 < len(points) <= MAX_POINTS
        and all(isinstance(p, list) and len(p) == 4 and all(map(_is_number, p)) for p in points)
        and all(all(x < y for x, y in zip(a[:3], b[:3], strict=True)) for a, b in pairwise(points))
    )


def _parts(values: Any, field: str, keys: tuple[str, ...], checks: Checks) -> Iterator[Fault]:
    """Faults of an object, all of whose keys are required and have a check."""
    part = values[field]
    if not isinstance(part, dict):
        yield field, f"is no object: {AGAIN}"
        return
    for key in keys:
        if key not in part:
            yield f"{field}.{key}", f"is missing: {AGAIN}"
        elif not checks[key](part[key]):
            yield f"{field}.{key}", f"is {str(part[key])[:60]!r}: {AGAIN}"
    yield from ((f"{field}.{k}", f"is unknown: {AGAIN}") for k in sorted(set(part) - set(keys)))


def _runs(runs: Any, track: Track) -> Iterator[Fault]:
    if not isinstance(runs, list):
        yield "runs", f"is no list: {AGAIN}"
        return
    by_field = {f"runs[{i}]": run for i, run in enumerate(runs)}
    malformed = [fault for field in by_field for fault in _parts(by_field, field, RUN_KEYS, _RUN)]
    yield from malformed
    if malformed:
        return
    seeds = {run["seed"] for run in runs}
    if len(seeds) < len(runs):
        yield "runs", "have a seed twice: record each seed once"
    if len(seeds) < track.seeds:
        yield "runs", f"have {len(seeds)} seeds, {track.name} needs {track.seeds}: run more of them"
    for field, run in by_field.items():
        for key in ("heldout_targets", "heldout_bytes"):
            if run[key] != (expected := getattr(track, key)):
                message = f"is {run[key]:,}, {track.name} has {expected:,}: evaluate on all of it"
                yield f"{field}.{key}", message
        bits = run["heldout_loss"] * run["heldout_targets"] / math.log(2)
        if not math.isclose(bits, run["heldout_bpb"] * run["heldout_bytes"], rel_tol=1e-5):
            yield f"{field}.heldout_bpb", f"does not follow from heldout_loss: {AGAIN}"


def _recomputed(values: Mapping[str, Any]) -> Iterator[Fault]:
    """What does not follow from other parts of a record whose parts are well formed."""
    config, runs = values["config"], values["runs"]
    for i, run in enumerate(runs):
        curve = run["curve"]
        counted = recompute.counted(run["steps"], run["tokens"], config, curve, config.get("steps"))
        for key, message in (*counted, *recompute.timed(run["seconds"], curve)):
            yield f"runs[{i}].{key}", f"{message}: {AGAIN}"
    found = copies(Seen(f"runs[{i}]", run["seed"], run["curve"]) for i, run in enumerate(runs))
    for run, copy in found.items():
        yield f"{run}.{copy.key}", f"{copy.words}: run that seed itself"


def _target(runs: list[dict[str, Any]], track: Track) -> Iterator[Fault]:
    losses = [run["heldout_bpb"] for run in runs]
    p, mean = below(losses, track.target_bpb), statistics.fmean(losses)
    if p is None:
        yield "runs", "ended with the same loss: the seed has to change weights and order"
    elif p > track.p:
        yield (
            "runs",
            f"mean of {mean:.4f} bits per byte is not below {track.target_bpb:g} with "
            f"p <= {track.p:g} (p = {p:.2g}): train longer, or run more seeds",
        )
