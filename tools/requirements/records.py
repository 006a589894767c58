"""Which recorded runs a lock's replacement concerns, and the commands that record them again."""

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
    """The sha256 of a resolve's lock, before and now."""

    old: str
    new: str


@dataclass(frozen=True)
class Group:
    """Runs of a variant or of a speedrun that runs under the new lock are not counted with."""

    name: str
    runs: tuple[str, ...]
    commands: tuple[str, ...]
    """What makes and records them again; none where nothing is there to run."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Concerned:
    """The recorded runs that a change of locks concerns."""

    groups: tuple[Group, ...]
    unreadable: tuple[str, ...]
    """Malformed records, one line each."""


def replaced(changes: Mapping[str, LockChange]) -> dict[str, Replaced]:
    """Which locks that runs are made under became others, by resolve."""
    return {
        name: Replaced(change.old_sha256, change.new_sha256)
        for name, change in changes.items()
        if name in ACCELERATORS and change.old_sha256 and change.new_sha256 and not change.same
    }


def concerned(root: Path, replaced: Mapping[str, Replaced]) -> Concerned:
    """What a replacement of locks, by resolve, means for the records of the workspace `root`.

    Of a variant these are its runs under a replaced lock; where it has none, those under locks
    that were replaced before.
    """
    runs, faults = run_summary.load_all(root)
    by_variant: dict[str, list[tuple[Run, Replaced]]] = {}
    for run in runs:
        if (own := _replaced(run, replaced)) and run.lock != own.new:
            by_variant.setdefault(run.variant, []).append((run, own))
    groups = []
    for name, own in sorted(by_variant.items()):
        newest = [(run, locks) for run, locks in own if run.lock == locks.old]
        groups.append(_variant(root, name, newest or own))
    for name in entry.entries(root):
        try:
            groups += _speedrun(root, name, replaced)
        except ToolError as error:
            faults += str(error).splitlines()
    return Concerned(tuple(groups), tuple(faults))


def _replaced(run: Run, replaced: Mapping[str, Replaced]) -> Replaced | None:
    """The replacement of the lock that a run would be repeated under."""
    by_digest = (locks for locks in replaced.values() if run.lock in (locks.old, locks.new))
    return next(by_digest, replaced.get(run.devices["platform"]))


def _variant(root: Path, name: str, runs: Iterable[tuple[Run, Replaced]]) -> Group:
    runs = sorted(runs, key=lambda pair: (pair[0].seed, pair[0].run))
    notes = [] if any(r.lock == locks.old for r, locks in runs) else ["under older locks still"]
    names = tuple(run.run for run, _ in runs)
    directory = root / VARIANTS / name
    if not (directory / "launch.py").is_file():
        return Group(name, names, (), (*notes, f"{VARIANTS}/{name} is no more: nothing to run"))
    known = presets(directory)
    alike: dict[tuple[str, ...], list[tuple[Run, Replaced]]] = {}
    for run, locks in runs:
        words, gone = flags(run.config, known)
        alike.setdefault(tuple(words), []).append((run, locks))
        if gone:
            notes.append(f"{run.run}: the variant has no setting {', '.join(gone)} any more")
        if run.devices["platform"] != "cpu":
            notes.append(f"{run.run} ran on {run.devices['count']} {run.devices['kind']}")
    commands, made = [], []
    for number, (words, own) in enumerate(alike.items(), 1):
        stem = f"{name}-{number}" if number > 1 else name
        seeds = sorted({run.seed for run, _ in own})
        program = ["./pants", "run", "launch", "--", name, *words]
        commands.append(_for_seeds(program, seeds, "--run-dir", stem, own[0][1]))
        made += _directories(seeds, stem, own[0][1])
    record = ["./pants", "run", "tools/runs:record", "--", *made]
    return Group(name, names, (*commands, shlex.join(record)), tuple(notes))


def _for_seeds(
    program: Sequence[str], seeds: Sequence[int], out: str, stem: str, locks: Replaced
) -> str:
    """A line for a shell that runs a program once for each seed."""
    where = f"{shlex.quote(f'runs/{stem}')}-seed$seed-{locks.new[:SHORT]}"
    command = f"{shlex.join(program)} --seed $seed {out} {where}"
    return f"for seed in {' '.join(map(str, seeds))}; do {command}; done"


def _directories(seeds: Iterable[int], stem: str, locks: Replaced) -> Iterator[str]:
    return (f"runs/{stem}-seed{seed}-{locks.new[:SHORT]}" for seed in seeds)


def _speedrun(root: Path, name: str, replaced: Mapping[str, Replaced]) -> Iterator[Group]:
    """The runs of one entry, if they were made under a replaced lock. Raises ToolError."""
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
            made = _directories(seeds, name, locks)
            again = ["./pants", "run", "tools/speedrun:record", "--", name, *made]
            yield Group(
                name,
                tuple(f"seed {seed}" for seed in seeds),
                (
                    _for_seeds(program, seeds, "--out", name, locks),
                    shlex.join([*again, "--author", author]),
                ),
                (f"{STORE} is the token store of the entry's track",),
            )
