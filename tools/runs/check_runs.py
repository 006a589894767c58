"""Checks the summaries against each other and against git: what one file cannot tell by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from tools.common.errors import ToolError
from tools.common.git import Git
from tools.common.jsonio import json_line, line_of
from tools.ledger import pins
from tools.ledger.files import ENTRIES
from tools.ledger.ledger import LEDGER, Entry
from tools.ledger.pins import Pin
from tools.runs import kept_sources, locked, recompute
from tools.runs.copies import Seen
from tools.runs.copies import copies as copied
from tools.runs.kept_sources import sha256
from tools.runs.origins import Origin, pinned
from tools.runs.run_summary import FREE, Run, is_run

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
    faults = [*copies(runs), *alike(runs), *digests(git, by_name, runs), *locks(git, runs)]
    faults += origins(git, by_name, runs)
    return sorted(
        f"{run.path}:{_line(git, run, key)}: {key}: {words}" for run, key, words in faults
    )


def _line(git: Git, run: Run, key: str) -> int:
    return line_of((git.root / run.path).read_text(encoding="utf-8").splitlines(), key)


def copies(runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs that are another: one run, recorded several times."""
    found = copied(map(seen, runs))
    for run in runs:
        if copy := found.get(run.path):
            yield run, copy.key, f"{copy.words}: remove the copy, or run it itself"


def seen(run: Run) -> Seen:
    """What a summary shows of a run, to be told from others."""
    shape = [run.config.get(name) for name in ("batch_size", "sequence_length")]
    model, rate = run.config.get("model"), run.config.get("learning_rate")
    return Seen(
        name=run.path,
        seed=run.seed,
        curve=run.curve,
        heldout=run.heldout,
        data=json_line([run.data_digest, *shape]) if run.data_digest and all(shape) else "",
        model=(json_line(model), str(run.flops_per_token)) if model else None,
        rate=rate if isinstance(rate, (int, float)) else None,
        experiment=json_line([run.sources_digest, run.experiment(), run.data_digest])
        if run.data_digest
        else "",
    )


def alike(runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs that do not say alike what follows from what they have in common."""
    first: dict[str, tuple[Run, float | None]] = {}
    for run in runs:
        model = {key: run.config.get(key) for key in ("model", "sequence_length")}
        other, flops = first.setdefault(
            json_line(["FLOPs", run.sources_digest, model]), (run, run.flops_per_token)
        )
        if flops != run.flops_per_token:
            message = f"{other.run} of the same model has {flops}: record it again"
            yield run, "flops_per_token", f"is {run.flops_per_token}, but {message}"
        if not run.heldout or not run.data_digest:
            continue
        for key in ("heldout_targets", "heldout_ends"):
            own, most = getattr(run, key), run.config.get("eval_tokens")
            if own is None or most is None:
                continue
            # Of one text, that setting alone decides which they are.
            asked = json_line([key, run.data_digest, most])
            other, theirs = first.setdefault(asked, (run, own))
            if theirs != own:
                message = f"{other.path} has {theirs:,} of the same text: record it again"
                yield run, key, f"is {own:,}, but {message}"
        # Nats a target and bits a byte of one text are in one ratio, whoever says them.
        ratio = run.heldout[-1][3] / run.heldout[-1][4]
        other, theirs = first.setdefault(
            json_line(["text", run.data_digest, run.measured_over]), (run, ratio)
        )
        if not recompute.close(ratio, theirs or 0, 1e-4):
            message = f"{other.path} has {theirs:.5f} over the same text: record it again"
            yield run, "heldout", f"has {ratio:.5f} times as much loss as bits per byte, {message}"


def digests(git: Git, entries: dict[str, Entry], runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs whose sources are not those of the commit that they name, or give other roles.

    Those whose commit git lacks, or whose variant has no entry, are others' to judge:
    kept_sources.py and check_ledger.py.
    """
    known = git.known_commits({r.git["commit"] for r in runs if r.git["commit"]})
    held: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
    judged: dict[str, list[str]] = {}

    def of_roles(run: Run, sources: Mapping[str, bytes]) -> Iterator[Fault]:
        text = json_line([run.sources_digest, run.roles])
        if text not in judged:
            judged[text] = [*roles(run, sources)]
        yield from ((run, "roles", message) for message in judged[text])

    for run in runs:
        commit, place = known.get(run.git["commit"]), (run.git["commit"], run.variant)
        if commit is None or run.git["dirty"] or run.variant not in entries:
            yield from of_roles(run, _kept(git, run))
            continue
        paths = entries[run.variant].directories
        if place not in held:
            held[place] = kept_sources.sources_of(git, commit, paths)
        if run.sources_digest not in held[place]:
            where = f"{paths[0]} in {commit[: pins.SHORT]}"
            yield run, "sources_digest", f"is not that of {where}: record the run again"
        else:
            yield from of_roles(run, held[place][run.sources_digest])


def _kept(git: Git, run: Run) -> Mapping[str, bytes]:
    """The kept sources of a run; none if they are not there or damaged: kept_sources.py says it."""
    place = kept_sources.place(run.sources_digest)
    if not (git.root / place).is_dir():
        return {}
    try:
        return kept_sources.read(git.root / place, place)
    except ToolError:
        return {}


# A field of a config, and its role if it has one: `seed: int = role("replicate", 0)`.
_FIELD = r"^[ \t]+{}[ \t]*:[^=\n]*=[ \t]*(?:role\([ \t\n]*[\"'](\w+)[\"'])?"


def roles(run: Run, sources: Mapping[str, bytes]) -> Iterator[str]:
    """Settings that a run calls no part of its experiment, and its sources do not.

    Sources that declare a setting in another way tell nothing.
    """
    texts = [text for name, text in sources.items() if name.endswith(".py") and b"role(" in text]
    for name, role in run.roles.items():
        pattern = re.compile(_FIELD.format(re.escape(name)).encode(), re.MULTILINE)
        declared = {match[1].decode() for text in texts for match in pattern.finditer(text)
                    if match[1]}  # fmt: skip
        is_plain = any(pattern.search(text) for text in texts)
        if role in FREE and is_plain and role not in declared:
            yield f"has {name!r} as {role}, and its sources do not: record it again"


def locks(git: Git, runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs under a lock that no commit has, or that has other packages than the run had.

    A workspace that never had any lock tells nothing.
    """
    paths = (git.root / LOCKS).glob("*.lock")
    known = {sha256(data): data for data in (path.read_bytes() for path in paths)}
    if not all(run.lock is None or run.lock in known for run in runs):
        known |= _committed_locks(git)
    faults: dict[str, str] = {}
    for run in runs:
        if not known or run.lock is None:
            continue
        if run.lock not in known:
            yield run, "lock", f"no {LOCKS}/*.lock of any commit has this digest: record it again"
            continue
        text = json_line([run.lock, run.versions, run.devices["platform"]])
        if text not in faults:
            packages = locked.packages(known[run.lock])
            faults[text] = locked.disagrees(packages, run.versions, run.devices["platform"])
        if faults[text]:
            yield run, "lock", f"{faults[text]}: record it again"


def _committed_locks(git: Git) -> dict[str, bytes]:
    """Each lock that a commit before the tips has or had, by its sha256."""
    command = ("rev-list", "--objects", *pins.tips(git), "--", LOCKS)
    lines = (git.answer(*command) or b"").decode(errors="replace").splitlines()
    blobs = [line.split(" ")[0] for line in lines if line.endswith(".lock")]
    return {sha256(content): content for content in git.blobs(blobs).values()}


def origins(git: Git, entries: dict[str, Entry], runs: Sequence[Run]) -> Iterator[Fault]:
    """Runs compared with an experiment that is not there, or with sources that it did not have."""
    judged: dict[str, str] = {}
    looked_up = _Origins(git, entries, runs)
    for run in runs:
        if run.origin is None or run.variant not in entries:
            continue
        text = json_line([run.variant, run.origin])
        if text not in judged:
            judged[text] = looked_up.wrong(run, run.origin)
        if judged[text]:
            yield run, "origin", judged[text]


_NAME_IT = "name another with ./pants run tools/runs:record -- RUN_DIR --against ORIGIN"


class _Origins:
    """What the ledger, its history and the recorded runs say of origins, each looked up once."""

    def __init__(self, git: Git, entries: dict[str, Entry], runs: Sequence[Run]) -> None:
        self.git, self.entries = git, entries
        self.recorded = {(run.variant, run.run): run.sources_digest for run in runs}
        self.digests: dict[tuple[str, str], set[str]] = {}

    def wrong(self, run: Run, origin: Origin) -> str:
        """What is wrong with a summary's origin; empty if nothing is."""
        name, digests = origin["name"], set(origin["digests"])
        if name not in self.entries:
            return f"no experiment is called {name!r}: record the run again"
        if origin["by"] != "named" and not self._is_said(run, origin):
            own = self.entries[run.variant]
            said = f"{own.origin}, {own.fields.get(origin['by'], 'none')}"
            pin = f"{origin['by']} {origin['at']}"
            return f"is {name}, {pin}, but the ledger says {said}: {_NAME_IT}"
        if is_run(origin):
            place = origin["at"].removeprefix("run ")
            if (name, place) not in self.recorded:
                return f"no run of {name} is called {place}: {_NAME_IT}"
            is_so = digests == {self.recorded[name, place]}
            return "" if is_so else f"{place} of {name} is of other sources: {_NAME_IT}"
        if had := self._had(name, origin["at"]):
            where = f"{self.entries[name].path} had other sources in {origin['at'][: pins.SHORT]}"
            return "" if digests <= had else f"{where}: record the run again"
        # A commit that a squash merge dropped.
        left = {digest for (variant, _), digest in self.recorded.items() if variant == name}
        is_left = digests & left
        return "" if is_left else f"nothing has {name} as of {origin['at']}: record the run again"

    def _is_said(self, run: Run, origin: Origin) -> bool:
        """Whether the ledger says what a summary pins by it: today, when it ran, or at any time."""
        entry = self.entries[run.variant]
        if origin["name"] != entry.origin:
            return False
        if entry.fields.get(origin["by"], "").startswith(origin["at"]):
            return True
        if (origin["by"], origin["at"]) in self.history:
            return True
        commit = None if run.git["dirty"] else run.git["commit"]
        then = pinned(self.git, entry, self.entries.values(), commit)
        return then is not None and set(origin["digests"]) <= set(then["digests"])

    @cached_property
    def history(self) -> set[tuple[str, str]]:
        """The fields `forked at` and `synced` that any entry of the ledger ever had."""
        command = ("log", "-p", "-m", "-U0", "--format=", "--no-renames", *pins.tips(self.git))
        text = (self.git.answer(*command, "--", LEDGER, ENTRIES) or b"").decode(errors="replace")
        return {(match[1], match[2]) for match in _PINNED.finditer(text)}

    def _had(self, name: str, at: str) -> set[str]:
        """The digests of an experiment's sources in a place of history; none if nothing has it."""
        if (name, at) not in self.digests:
            self.digests[name, at] = self._looked_up(self.entries[name], pins.parse(at))
        return self.digests[name, at]

    def _looked_up(self, entry: Entry, pin: Pin | None) -> set[str]:
        if pin is None:
            return set()
        had: set[str] = set()
        if commit := self.git.commit(pin.commit) if pin.commit else None:
            trees = [self.git.tree(commit, self.git.prefix + path) for path in entry.directories]
            had = {digest for tree in trees if tree for digest in kept_sources.digests_of(tree)}
        for path in entry.directories if not had else ():
            try:
                had |= set(kept_sources.digests_of(pins.files(self.git, pin, path)))
            except ToolError:
                continue
        return had


_PINNED = re.compile(r"^\+- (forked at|synced): ([^;\n]*[^;\s])", re.MULTILINE)
