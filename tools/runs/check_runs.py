"""Checks the summaries against each other and against git: what one file cannot tell by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tools.common.git import Git
from tools.common.jsonio import json_line, line_of
from tools.ledger import pins
from tools.ledger.ledger import Entry
from tools.runs import kept_sources, recompute
from tools.runs.kept_sources import sha256
from tools.runs.run_summary import Run

LOCKS = "tools/locks"

Fault = tuple[Run, str, str]
"""A summary, the key that is wrong, and a message with the remedy."""


def check(git: Git, entries: Iterable[Entry], runs: Sequence[Run]) -> list[str]:
    """Every fault, as `path:line: key: message`.

    Args:
        git: the workspace's repository.
        entries: the ledger.
        runs: the summaries, each without a fault by itself.
    """
    by_name = {entry.name: entry for entry in entries}
    faults = [*copies(runs), *flops(runs), *digests(git, by_name, runs), *locks(git, runs)]
    faults += origins(git, by_name, runs)
    return sorted(
        f"{run.path}:{_line(git, run, key)}: {key}: {words}" for run, key, words in faults
    )


def _line(git: Git, run: Run, key: str) -> int:
    return line_of((git.root / run.path).read_text(encoding="utf-8").splitlines(), key)


def copies(runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs whose losses are those of another seed: one run, recorded several times."""
    found = recompute.copies((run.path, run.seed, run.curve) for run in runs)
    for run in runs:
        if original := found.get(run.path):
            yield run, "curve", f"is that of {original}, whose seed is another: remove the copy"


def flops(runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs of one model, by sources and settings, that count its FLOPs differently."""
    first: dict[str, Run] = {}
    for run in runs:
        sizes = {key: run.config.get(key) for key in ("model", "sequence_length")}
        other = first.setdefault(json_line([run.sources_digest, sizes]), run)
        if other.flops_per_token != run.flops_per_token:
            message = f"{other.run} of the same model has {other.flops_per_token}: record it again"
            yield run, "flops_per_token", f"is {run.flops_per_token}, but {message}"


def digests(git: Git, entries: dict[str, Entry], runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs whose sources are not those of the commit that they name.

    Those whose commit git lacks, or whose variant has no entry, are others' to judge:
    kept_sources.py and check_ledger.py.
    """
    named = [r for r in runs if r.git["commit"] and not r.git["dirty"] and r.variant in entries]
    known = git.known_commits({run.git["commit"] for run in named})
    held: dict[tuple[str, str], set[str]] = {}
    for run in named:
        commit, place = known.get(run.git["commit"]), (run.git["commit"], run.variant)
        if commit is None or (git.root / kept_sources.place(run.sources_digest)).is_dir():
            continue
        paths = entries[run.variant].directories
        if place not in held:
            held[place] = set(kept_sources.sources_of(git, commit, paths))
        if run.sources_digest not in held[place]:
            where = f"{paths[0]} in {commit[: pins.SHORT]}"
            yield run, "sources_digest", f"is not that of {where}: record the run again"


def locks(git: Git, runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs under a lock that no commit has; a workspace that never had any tells nothing."""
    known = {sha256(path.read_bytes()) for path in (git.root / LOCKS).glob("*.lock")}
    if all(run.lock is None or run.lock in known for run in runs):
        return
    known |= _committed_locks(git)
    for run in runs:
        if known and run.lock is not None and run.lock not in known:
            yield run, "lock", f"no {LOCKS}/*.lock of any commit has this digest: record it again"


def _committed_locks(git: Git) -> set[str]:
    """The sha256 of each lock that a commit before the tips has or had."""
    command = ("rev-list", "--objects", *pins.tips(git), "--", LOCKS)
    lines = (git.answer(*command) or b"").decode(errors="replace").splitlines()
    blobs = [line.split(" ")[0] for line in lines if line.endswith(".lock")]
    return {sha256(content) for content in git.blobs(blobs).values()}


def origins(git: Git, entries: dict[str, Entry], runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs compared with an experiment that is not there, or with sources that it did not have."""
    judged: dict[str, str] = {}
    for run in runs:
        if run.origin is None:
            continue
        text = json_line(run.origin)
        if text not in judged:
            judged[text] = _wrong(git, entries, run)
        if judged[text]:
            yield run, "origin", judged[text]


def _wrong(git: Git, entries: dict[str, Entry], run: Run) -> str:
    """What is wrong with a summary's origin; empty if nothing is, or nothing here can tell."""
    origin = run.origin or {}
    entry, pin = entries.get(origin["name"]), pins.parse(origin["at"])
    if entry is None:
        return f"no experiment is called {origin['name']!r}: record the run again"
    commit = git.commit(pin.commit) if pin else None
    if commit is None:
        return ""
    trees = [git.tree(commit, git.prefix + path) for path in entry.directories]
    had = {digest for tree in trees if tree for digest in kept_sources.digests_of(tree)}
    if had & set(origin["digests"]):
        return ""
    return f"{entry.path} had other sources in {commit[: pins.SHORT]}: record the run again"
