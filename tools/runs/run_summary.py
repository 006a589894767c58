"""A run's summary, docs/reports/runs/VARIANT/RUN.json, small enough to keep in git forever.

One key per line, in the order of KEYS, so that two summaries compare line by line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import read_text
from tools.common.jsonio import json_line, line_of, parse_json
from tools.runs import recompute

SCHEMA_VERSION = 6
# Roles for summaries of the first schema, which do not hold them.
OLD_ROLES = {
    "checkpoint_every": "cadence",
    "eval_batches": "measure",
    "eval_every": "cadence",
    "keep_checkpoints": "cadence",
    "mesh": "cadence",
    "seed": "replicate",
}
RUN_SCHEMAS = (1, 2, 3, 4, 5)
"""Schemas of run.json. The first has no roles of settings; up to the second, `sources` lists those
of the last attempt, and nothing tells `numerics`; up to the third, no attempt tells its host; up to
the fourth, no run is a branch."""
ROLES = {"cadence", "measure", "replicate", "horizon"}
# Roles of settings in which the runs of one experiment may differ.
FREE = ("cadence", "place", "replicate")
RUNS = "docs/reports/runs"
MAX_BYTES = 16 * 1024
MAX_ORIGIN = 512
"""Bytes of a summary that are left free, for the origin that it comes to pin."""
MAX_POINTS = 200
MAX_ANCESTORS = 20

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,39}")
_ID = "[0-9a-f]{7,64}"
_AT = re.compile(rf"{_ID}(?: tree {_ID})?|tree {_ID}|run {NAME.pattern}")
# How the origin that a run is compared with was found: fields of the ledger, or a person's word.
PINNED_BY = ("forked at", "synced", "named")
LONGEST_NAME = 100

Point = tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """A checked summary. docs/reference/archive.md says what each key means."""

    schema_version: int
    variant: str
    run: str
    run_schema: int
    seed: int
    config: dict[str, Any]
    roles: dict[str, str]
    data_digest: str | None
    sources_digest: str
    mixed_sources: bool
    ancestors: list[dict[str, Any]]
    """Of a branch: the runs whose steps come before its own, the oldest first."""
    origin: dict[str, Any] | None
    """Which state of which experiment it is compared with; None if that was not recorded."""
    lock: str | None
    numerics: dict[str, Any] | None
    git: dict[str, Any]
    devices: dict[str, Any]
    host: dict[str, Any] | None
    versions: dict[str, str]
    steps: int
    tokens: int
    seconds: float
    flops_per_token: float | None
    tokens_per_second: float
    step_time_spread: float | None
    final: dict[str, float | None]
    curve: tuple[Point, ...]
    heldout: tuple[Point, ...]
    heldout_targets: int | None
    heldout_ends: int | None
    """How many of the targets are ends of documents; None if they were no targets yet."""

    @property
    def path(self) -> str:
        """The path of the summary, from the workspace's root."""
        return f"{RUNS}/{self.variant}/{self.run}.json"

    @property
    def measured_over(self) -> str:
        """What the held-out values are a mean over: two runs compare only where it is the same.

        Runs before schema 4 did not count their targets, which followed from these settings.
        """
        if self.heldout_targets is not None:
            ends = f" ({self.heldout_ends:,} ends of documents)" if self.heldout_ends else ""
            return f"{self.heldout_targets:,} targets{ends}"
        settings = [self.config.get(k) for k in ("eval_batches", "batch_size", "sequence_length")]
        return " x ".join(map(str, settings)) + " positions"

    def experiment(self) -> dict[str, Any]:
        """The settings that runs of one experiment share: those whose role is not in FREE.

        Of a branch, also those that its ancestors had otherwise, as `until step 800`. An ancestor
        that had none otherwise is part of the run: a branch with the same horizon is the run.
        """
        settings = {k: v for k, v in self.config.items() if self.roles.get(k) not in FREE}
        after = self.config
        for ancestor in reversed(self.ancestors):
            had = ancestor["horizon"]
            changed = [
                f"{name} {had[name]}" for name in sorted(had) if had[name] != after.get(name)
            ]
            if changed:
                settings[f"until step {ancestor['step']}"] = ", ".join(changed)
            after = had
        return settings

    @property
    def branch_step(self) -> int:
        """The step after which its own ones begin: 0 if it is no branch."""
        return self.ancestors[-1]["step"] if self.ancestors else 0


KEYS = tuple(Run.__dataclass_fields__)
FINAL = ("train_loss", "heldout_loss", "heldout_bpb", "ema_loss", "ema_bpb")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by flat names such as `model.d_model`."""
    settings: dict[str, Any] = {}
    for key, value in sorted(config.items()):
        if isinstance(value, dict):
            settings |= flat(value, f"{prefix}{key}.")
        else:
            settings[f"{prefix}{key}"] = value
    return settings


def experiment_key(run: Run) -> str:
    """What the runs of one experiment have in common, as text; the origin is no part of it."""
    return json_line(
        [run.experiment(), run.data_digest, run.sources_digest, run.lock, run.numerics]
    )


def is_name(text: str) -> bool:
    """Whether a text may name a run: a file name on any system, never a path out of a directory."""
    return bool(NAME.fullmatch(text)) and len(text) <= LONGEST_NAME


def is_commit(text: str) -> bool:
    """Whether a text is a full commit digest."""
    return bool(_COMMIT.fullmatch(text))


def is_run(origin: Mapping[str, Any]) -> bool:
    """Whether an origin is the state that a recorded run had, rather than that of a commit."""
    return origin["at"].startswith("run ")


def encode(values: Mapping[str, Any]) -> bytes:
    """The bytes of a summary; `values` has each of KEYS."""
    lines = (f'"{key}": {json_line(values[key])}' for key in KEYS)
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def load(path: Path, name: str) -> Run:
    """Reads RUNS/VARIANT/RUN.json; `name` is its path from the workspace's root.

    Raises:
        ToolError: the file cannot be read, or has faults.
    """
    return parse(read_text(path, MAX_BYTES, name=name), name)


def parse(text: str, name: str) -> Run:
    """The summary in a file of that name. Raises ToolError with every fault and its line."""
    values = _updated(parse_json(text, name))
    if not isinstance(values, dict) or set(values) != set(KEYS):
        keys = set(values) if isinstance(values, dict) else set()
        wrong = ", ".join(sorted(keys ^ set(KEYS))[:4])
        raise ToolError(f"{name}:1: lacks or adds keys ({wrong}): {_AGAIN}")
    place = (Path(name).parent.name, Path(name).stem)
    if problems := faults(values, place):
        lines = text.splitlines()
        raise ToolError(
            "\n".join(
                f"{name}:{line_of(lines, key)}: {key}: {message}" for key, message in problems
            )
        )
    for key in ("curve", "heldout"):
        values[key] = tuple(tuple(map(float, point)) for point in values[key])
    return Run(**values)


def _updated(values: Any) -> Any:
    """A summary's values with those keys that its schema lacks."""
    if isinstance(values, dict):
        if values.get("schema_version") == 1:
            values.setdefault("roles", OLD_ROLES)
        if values.get("schema_version") in (1, 2, 3, 4):
            for key in ("origin", "host", "step_time_spread"):
                values.setdefault(key, None)
        if values.get("schema_version") in (1, 2, 3, 4, 5):
            values.setdefault("ancestors", [])
            values.setdefault("heldout_ends", None)
        if values.get("schema_version") in (1, 2, 3):
            values.setdefault("heldout_targets", None)
        if values.get("schema_version") in (1, 2):
            values.setdefault("run_schema", values["schema_version"])
            values.setdefault("numerics", None)
    return values


def rewritten(text: str, name: str, **values: Any) -> bytes:
    """A summary in the newest schema, with other values of some keys; else it is as it was."""
    before = _updated(parse_json(text, name))
    return encode({**before, "schema_version": SCHEMA_VERSION, **values})


_AGAIN = "write it again with ./pants run tools/runs:record"


def load_all(root: Path) -> tuple[list[Run], list[str]]:
    """Every summary below the workspace `root`, by path, and every fault found."""
    runs: list[Run] = []
    faults: list[str] = []
    base = root / RUNS
    for path in sorted(base.rglob("*")) if base.exists() else []:
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            faults.append(f"{name}:1: is a symbolic link: replace it by the file")
        elif path.is_dir():
            continue
        elif len(path.relative_to(base).parts) != 2 or path.suffix != ".json":
            faults.append(f"{name}:1: is no {RUNS}/VARIANT/RUN.json: remove it")
        else:
            try:
                runs.append(load(path, name))
            except ToolError as error:
                faults += str(error).splitlines()
    return runs, faults


def faults(values: dict[str, Any], place: tuple[str, str]) -> list[tuple[str, str]]:
    """Faults of a summary, as (key, message); `place` is (variant, run) from its path."""
    if not _whole(values["schema_version"]) or not 1 <= values["schema_version"] <= SCHEMA_VERSION:
        version = values["schema_version"]
        return [("schema_version", f"is {version!r}, this tool knows {SCHEMA_VERSION}: {_AGAIN}")]
    result = [
        (key, f"is {values[key]!r}, its file says {own!r}")
        for key, own in zip(("variant", "run"), place, strict=True)
        if values[key] != own or not is_name(own)
    ]
    checks = {
        "run_schema": _whole(values["run_schema"]) and values["run_schema"] in RUN_SCHEMAS,
        "seed": _whole(values["seed"]),
        "config": _is_config(values["config"]),
        "roles": _is_strings(values["roles"]) and set(values["roles"].values()) <= ROLES,
        "data_digest": values["data_digest"] is None or _matches(_DIGEST, values["data_digest"]),
        "sources_digest": _matches(_DIGEST, values["sources_digest"]),
        "mixed_sources": isinstance(values["mixed_sources"], bool),
        "ancestors": _are_ancestors(values["ancestors"]),
        "origin": values["origin"] is None or _is_origin(values["origin"]),
        "lock": values["lock"] is None or _matches(_DIGEST, values["lock"]),
        "numerics": values["numerics"] is None or _is_numerics(values["numerics"]),
        "git": _is_git(values["git"]),
        "devices": _is_devices(values["devices"]),
        "host": values["host"] is None or is_host(values["host"]),
        "versions": _is_strings(values["versions"])
        and all(_VERSION.fullmatch(text) for text in values["versions"].values()),
        "steps": _whole(values["steps"]) and values["steps"] > 0,
        "tokens": _whole(values["tokens"]) and values["tokens"] > 0,
        "seconds": _positive(values["seconds"]),
        "flops_per_token": values["flops_per_token"] is None
        or _positive(values["flops_per_token"]),
        "tokens_per_second": _positive(values["tokens_per_second"]),
        "step_time_spread": values["step_time_spread"] is None
        or (_number(values["step_time_spread"]) and values["step_time_spread"] >= 0),
        "final": _is_final(values["final"]),
        "curve": _is_points(values["curve"], 4) and len(values["curve"]) > 0,
        "heldout": _is_points(values["heldout"], 5)
        and all(isinstance(row[0], int) and row[4] > 0 for row in values["heldout"]),
        "heldout_targets": values["heldout_targets"] is None
        or (_whole(values["heldout_targets"]) and values["heldout_targets"] > 0),
        "heldout_ends": values["heldout_ends"] is None
        or (
            _whole(values["heldout_ends"])
            and 0 <= values["heldout_ends"] <= (values["heldout_targets"] or 0)
        ),
    }
    result += [(key, f"is malformed: {_AGAIN}") for key, is_good in checks.items() if not is_good]
    return result or [(key, f"{message}: {_AGAIN}") for key, message in _recomputed(values)]


def _recomputed(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What does not follow from other parts of a summary whose parts are well formed."""
    config, curve, steps, tokens = (values[key] for key in ("config", "curve", "steps", "tokens"))
    yield from _zeros(values)
    if not _whole(config.get("seed")) or config["seed"] != values["seed"]:
        yield "seed", f"is {values['seed']}, but the config has {config.get('seed')}"
    yield from _by_schema(values)
    yield from _branched(values)
    yield from _meshed(values["devices"], config.get("mesh"))
    yield from recompute.counted(steps, tokens, config, curve, config.get("steps"))
    yield from recompute.timed(values["seconds"], curve)
    yield from recompute.trained(values["final"]["train_loss"], curve)
    speed, spread = values["tokens_per_second"], values["step_time_spread"]
    yield from recompute.sped(speed, spread, steps, tokens, curve)
    final, heldout, seconds = values["final"], values["heldout"], values["seconds"]
    if faults := list(recompute.held_out(final, heldout, steps, tokens, seconds)):
        yield from faults
        return
    yield from recompute.placed(heldout, curve, config)
    yield from recompute.learned(heldout, curve)
    yield from recompute.averaged(final, heldout, config)
    yield from recompute.evaluated(heldout, values["heldout_targets"], config)


def _zeros(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Digests of zeros."""
    digests = {key: values[key] for key in ("data_digest", "sources_digest", "lock")}
    digests["git"] = values["git"]["commit"]
    for key, digest in digests.items():
        if recompute.is_zero(digest):
            yield key, "is a digest of zeros, which is that of nothing"
    if any(recompute.is_zero(ancestor["digest"]) for ancestor in values["ancestors"]):
        yield "ancestors", "have a digest of zeros, which is that of nothing"
    if values["origin"] and any(map(recompute.is_zero, values["origin"]["digests"])):
        yield "origin", "has a digest of zeros, which is that of nothing"


def _by_schema(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What runs of that schema do not record, or record always."""
    version = values["run_schema"]
    if (values["numerics"] is None) != (version < 3):
        has = "has none" if version < 3 else "always has them"
        yield "numerics", f"a run.json of schema {version} {has}"
    if version == 1 and values["roles"] != OLD_ROLES:
        yield "roles", "a run.json of schema 1 has none, and others stand for them"
    if values["host"] is not None and version < 4:
        yield "host", f"a run.json of schema {version} has none"
    if values["ancestors"] and version < 5:
        yield "ancestors", f"a run.json of schema {version} has none"
    if values["origin"] and values["origin"]["by"] != "named" and is_run(values["origin"]):
        at, by = (values["origin"][key] for key in ("at", "by"))
        yield "origin", f"is {at}, by {by!r}, which a ledger does not say"


def _branched(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Ancestors whose steps do not come one after another, and then the run's own ones."""
    steps = [ancestor["step"] for ancestor in values["ancestors"]]
    if steps and steps[-1] >= values["curve"][0][0]:
        first = values["curve"][0][0]
        yield "ancestors", f"end at step {steps[-1]:,}, but the curve begins at step {first:g}"
    if any(old >= new for old, new in pairwise(steps)):
        yield "ancestors", f"have the steps {steps}, which do not come one after another"


def _meshed(devices: Mapping[str, Any], mesh: Any) -> Iterator[tuple[str, str]]:
    """Devices that do not fill the mesh of the config, of whose sizes one may be left open."""
    if mesh is None:
        return
    if (
        not isinstance(mesh, list)
        or not all(n == -1 or recompute.is_size(n) for n in mesh)
        or (mesh.count(-1) > 1)
    ):
        yield "config", f"has the mesh {str(mesh)[:40]}, which is no list of sizes, one left open"
        return
    fixed = math.prod(size for size in mesh if size != -1)
    count, is_open = devices["count"], -1 in mesh
    if count % fixed or (not is_open and count != fixed):
        yield "devices", f"has {count:,}, which do not fill the mesh {mesh} of the config"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18


def _whole(value: Any) -> bool:
    return isinstance(value, int) and _number(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))


def _is_git(git: Any) -> bool:
    return (
        isinstance(git, dict)
        and set(git) == {"commit", "dirty"}
        and (git["commit"] is None or _matches(_COMMIT, git["commit"]))
        and (git["dirty"] is None or isinstance(git["dirty"], bool))
        and (git["commit"] is not None or git["dirty"] is not False)
    )


def _is_devices(devices: Any) -> bool:
    return (
        isinstance(devices, dict)
        and set(devices) == {"count", "kind", "platform", "processes"}
        and all(_is_line(devices[key]) for key in ("kind", "platform"))
        and all(recompute.is_size(devices[key]) for key in ("count", "processes"))
        and devices["count"] >= devices["processes"]
        and (devices["platform"] == "cpu") == (devices["kind"] == "cpu")
    )


def _is_line(value: Any) -> bool:
    """Whether this is a short line that can be printed."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200


def _is_config(config: Any) -> bool:
    """Whether these are settings: shallow, and sizes that are sizes."""
    if not isinstance(config, dict) or not _is_shallow(config, 8):
        return False
    sizes = [config[key] for key in ("steps", "batch_size", "sequence_length") if key in config]
    return all(map(recompute.is_size, sizes))


def _is_shallow(value: Any, depth: int) -> bool:
    """Whether a value of JSON is nested at most so deep; its numbers are small, its text text."""
    if isinstance(value, dict):
        return all(map(_is_line, value)) and _is_shallow(list(value.values()), depth)
    if isinstance(value, list):
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in value)
    if isinstance(value, str):
        return not _SURROGATE.search(value)
    return value is None or isinstance(value, bool) or _number(value)


def _is_numerics(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_line(name) and not isinstance(item, (dict, list)) and _is_shallow(item, 1)
        for name, item in value.items()
    )


def is_host(host: Any) -> bool:
    """Whether this is what a run says of the machine that it ran on."""
    return (
        isinstance(host, dict)
        and set(host) == {"processor", "cores"}
        and _is_line(host["processor"])
        and _whole(host["cores"])
        and host["cores"] > 0
    )


def _are_ancestors(ancestors: Any) -> bool:
    return (
        isinstance(ancestors, list)
        and len(ancestors) <= MAX_ANCESTORS
        and all(map(_is_ancestor, ancestors))
    )


def _is_ancestor(ancestor: Any) -> bool:
    return (
        isinstance(ancestor, dict)
        and set(ancestor) == {"run", "step", "digest", "horizon"}
        and _is_line(ancestor["run"])
        and not re.search(r"[/\\]", ancestor["run"])
        and recompute.is_size(ancestor["step"])
        and _matches(_DIGEST, ancestor["digest"])
        and _is_config(ancestor["horizon"])
    )


def _is_origin(origin: Any) -> bool:
    return (
        isinstance(origin, dict)
        and set(origin) == {"name", "at", "by", "digests"}
        and isinstance(origin["name"], str)
        and is_name(origin["name"])
        and _matches(_AT, origin["at"])
        and origin["by"] in PINNED_BY
        and isinstance(origin["digests"], list)
        and 0 < len(origin["digests"]) <= 3
        and all(_matches(_DIGEST, digest) for digest in origin["digests"])
    )


def _is_strings(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_line, (*value, *value.values())))


def _is_final(final: Any) -> bool:
    return (
        isinstance(final, dict)
        and set(final) == set(FINAL)
        and all(value is None or (_number(value) and value >= 0) for value in final.values())
        and final["train_loss"] is not None
    )


_NUMBERS = {int, float}  # and no bool


def _is_points(points: Any, width: int) -> bool:
    """Rows of `width` numbers, none below zero; the first three, what was spent, only grow."""
    if not isinstance(points, list) or len(points) > MAX_POINTS:
        return False
    for point in points:
        if (
            not isinstance(point, list)
            or len(point) != width
            or not {*map(type, point)} <= _NUMBERS
        ):
            return False
        if min(point) < 0 or max(point) >= 1e18:
            return False
        if point[0] < 1 or not isinstance(point[1], int) or point[1] < 1:
            return False
    return all(
        old[0] < new[0] and old[1] < new[1] and old[2] <= new[2] for old, new in pairwise(points)
    )
