"""Finds the recorded runs that a lock's replacement concerns, and the commands to repeat them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.jsonio import read_json
from tools.ledger.ledger import AREA as VARIANTS
from tools.requirements.changes import LockChange
from tools.requirements.settings import flags, presets
from tools.requirements.workspace import ACCELERATORS
from tools.runs import run_summary
from tools.runs.run_summary import Run
from tools.speedrun import entry
from tools.speedrun.tracks import AREA as SPEEDRUNS

SHORT = 6
"""Digits of the new lock in the names of repeated runs."""
STORE = "STORE"


@dataclass(frozen=True)
class Replaced:
    """The sha256 of a resolve's lock before and after its replacement."""

    old: str
    new: str


@dataclass(frozen=True)
class Group:
    """Runs of a variant or a speedrun that do not count together with runs under the new lock."""

    name: str
    runs: tuple[str, ...]
    commands: tuple[str, ...]
    """Commands that make and record them again; none if there is nothing to run."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Concerned:
    """The recorded runs that a change of locks concerns."""

    groups: tuple[Group, ...]
    unreadable: tuple[str, ...]
    """Malformed records, one line each."""


def replaced(changes: Mapping[str, LockChange]) -> dict[str, Replaced]:
    """The replaced locks under which runs are made, by resolve."""
    return {
        name: Replaced(change.old_sha256, change.new_sha256)
        for name, change in changes.items()
        if name in ACCELERATORS
        and change.old_sha256
        and change.new_sha256
        and not change.is_unchanged
    }


def concerned(root: Path, replaced: Mapping[str, Replaced]) -> Concerned:
    """The records of the workspace `root` that a replacement of locks, by resolve, concerns.

    These are a variant's runs under a replaced lock, or if it has none, those under locks that were
    replaced earlier.
    """
    runs, faults = run_summary.load_all(root)
    by_variant: dict[str, list[tuple[Run, Replaced]]] = {}
    for run in runs:
        if (variant_runs := _replaced(run, replaced)) and run.lock != variant_runs.new:
            by_variant.setdefault(run.variant, []).append((run, variant_runs))
    groups = []
    for name, variant_runs in sorted(by_variant.items()):
        newest = [(run, locks) for run, locks in variant_runs if run.lock == locks.old]
        groups.append(_variant(root, name, newest or variant_runs))
    for name in entry.entries(root):
        try:
            groups += _speedrun(root, name, replaced)
        except ToolError as error:
            faults += str(error).splitlines()
    return Concerned(tuple(groups), tuple(faults))


def _replaced(run: Run, replaced: Mapping[str, Replaced]) -> Replaced | None:
    """The replacement of the lock under which a run would be repeated."""
    by_digest = (locks for locks in replaced.values() if run.lock in (locks.old, locks.new))
    return next(by_digest, replaced.get(run.devices["platform"]))


def _variant(root: Path, name: str, runs: Iterable[tuple[Run, Replaced]]) -> Group:
    runs = sorted(runs, key=lambda pair: (pair[0].seed, pair[0].run))
    notes = [] if any(r.lock == locks.old for r, locks in runs) else ["under older locks still"]
    names = tuple(run.run for run, _ in runs)
    directory = root / VARIANTS / name
    if not (directory / "launch.py").is_file():
        return Group(name, names, (), (*notes, f"{VARIANTS}/{name} is no more: nothing to run"))
    variant_presets = presets(directory)
    by_flags: dict[tuple[str, ...], list[tuple[Run, Replaced]]] = {}
    for run, locks in runs:
        words, lost = flags(run.config, variant_presets)
        by_flags.setdefault(tuple(words), []).append((run, locks))
        if lost:
            notes.append(f"{run.run}: the variant has no setting {', '.join(lost)} any more")
        if run.ancestors:
            parent = f"{run.ancestors[-1]['run']}@{run.branch_step}"
            notes.append(f"{run.run} is a branch of {parent}: repeat that, and add --branch-from")
        if run.devices["platform"] != "cpu":
            notes.append(f"{run.run} ran on {run.devices['count']} {run.devices['kind']}")
    commands, directories = [], []
    for number, (words, repeated) in enumerate(by_flags.items(), 1):
        stem = f"{name}-{number}" if number > 1 else name
        seeds = sorted({run.seed for run, _ in repeated})
        program = ["./pants", "run", "launch", "--", name, *words]
        commands.append(_for_seeds(program, seeds, "--run-dir", stem, repeated[0][1]))
        directories += _directories(seeds, stem, repeated[0][1])
    record = ["./pants", "run", "tools/runs:record", "--", *directories]
    return Group(name, names, (*commands, shlex.join(record)), tuple(notes))


def _for_seeds(
    program: Sequence[str], seeds: Sequence[int], out: str, stem: str, locks: Replaced
) -> str:
    """A shell line that runs a program once per seed."""
    directory = f"{shlex.quote(f'runs/{stem}')}-seed$seed-{locks.new[:SHORT]}"
    command = f"{shlex.join(program)} --seed $seed {out} {directory}"
    return f"for seed in {' '.join(map(str, seeds))}; do {command}; done"


def _directories(seeds: Iterable[int], stem: str, locks: Replaced) -> Iterator[str]:
    return (f"runs/{stem}-seed{seed}-{locks.new[:SHORT]}" for seed in seeds)


def _speedrun(root: Path, name: str, replaced: Mapping[str, Replaced]) -> Iterator[Group]:
    """The runs of one entry, if made under a replaced lock. Raises ToolError for a bad record."""
    path = f"{SPEEDRUNS}/{name}/{entry.RECORD}"
    if not (root / path).exists():
        return
    record: Any = read_json(root / path, entry.MAX_RECORD, name=path)
    try:
        lock, author = record["software"]["lock"], str(record["author"])
        seeds = sorted(int(run["seed"]) for run in record["runs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ToolError(f"{path}:1: is no record of a speedrun: {entry.AGAIN}") from error
    for locks in replaced.values():
        if lock == locks.old:
            program = ["./pants", "run", f"{SPEEDRUNS}/{name}/run.py", "--", "--data", STORE]
            directories = _directories(seeds, name, locks)
            record_command = ["./pants", "run", "tools/speedrun:record", "--", name, *directories]
            yield Group(
                name,
                tuple(f"seed {seed}" for seed in seeds),
                (
                    _for_seeds(program, seeds, "--out", name, locks),
                    shlex.join([*record_command, "--author", author]),
                ),
                (f"{STORE} is the token store of the entry's track",),
            )
