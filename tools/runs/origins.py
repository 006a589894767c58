"""Which state of its origin a run is compared with: pinned by the digest of that state's sources.

It is the one that the variant was copied from, or last synced with, as the ledger says it of the
sources that ran; or another, which a person names: NAME@RUN or NAME@COMMIT. A summary keeps it, so
that a verdict keeps its comparator, whatever is synced, recorded or merged later.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.git import Git
from tools.common.repository import Repository
from tools.ledger import files, pins, synced
from tools.ledger.files import ENTRIES
from tools.ledger.ledger import LEDGER, Entry, read
from tools.ledger.pins import Pin
from tools.runs.kept_sources import digests_of
from tools.runs.run_summary import Run

Origin = dict[str, Any]
"""As a summary keeps it: `name`; `at`, a place in history or a run; `by`, how it was found (one of
PINNED_BY); `digests`, those by which runs of any schema name these sources."""


def pinned(git: Git, entry: Entry, entries: Iterable[Entry], commit: str | None) -> Origin | None:
    """The origin that a variant's sources were copied from, or last synced with.

    Args:
        git: the workspace's repository.
        entry: the variant's entry in the ledger.
        entries: the ledger.
        commit: the commit that has the variant's sources. What the ledger said in it counts, since
            the variant may have been synced since then; None for what the ledger says now.

    Returns:
        None if the ledger does not say it, or nothing here has the origin's sources.
    """
    origin = next((other for other in entries if other.name == entry.origin), None)
    if origin is None:
        return None
    then = _entry_at(git, commit, entry) if commit else None
    for said in (then, entry) if then else (entry,):
        for key, pin in _pins(said):
            if digests := _digests(git, pin, origin.directories):
                return {"name": origin.name, "at": str(pin), "by": key, "digests": digests}
    return None


def _entry_at(git: Git, commit: str, entry: Entry) -> Entry | None:
    """The entry as it was in a commit, maybe under an earlier name; None if it was not there."""
    page, folder = (git.tree(commit, git.prefix + path) or {} for path in (LEDGER, ENTRIES))
    texts = {name: file.content.decode(errors="replace") for name, file in folder.items()}
    own = {f"{ENTRIES}/{name}": text for name, text in texts.items() if name.endswith(".md")}
    first = "".join(file.content.decode(errors="replace") for file in page.values())
    then, _ = read(files.join(first, own))
    names = (entry.name, *entry.earlier_names)
    return next((other for name in names for other in then if other.name == name), None)


def _pins(entry: Entry) -> Iterable[tuple[str, Pin]]:
    """The places of its origin that an entry names, the latest first, with their fields."""
    if (value := synced.parse(entry.synced)) and entry.synced:
        yield "synced", value.pin
    if pin := pins.parse(entry.forked_at):
        yield "forked at", pin


def _digests(git: Git, pin: Pin, paths: Sequence[str]) -> list[str]:
    """The digests of the sources that one of the directories had there; none if nothing has it."""
    for path in paths:
        try:
            return digests_of(pins.files(git, pin, path))
        except ToolError:
            continue
    return []


def named(root: Path, text: str, runs: Iterable[Run], entries: Sequence[Entry]) -> Origin:
    """The state of an experiment that a person names: NAME@RUN, NAME@COMMIT, or NAME alone.

    NAME alone will do where all recorded runs of it are of the same sources.

    Raises:
        ToolError: nothing is called so, or the name alone leaves a choice.
    """
    name, at, place = text.partition("@")
    if at and not place:
        raise ToolError(f"{text}: names no run or commit after @; leave @ out, or give one")
    entry = known(name, entries)
    own = [run for run in runs if run.variant == name]
    digests = list(dict.fromkeys(run.sources_digest for run in own))
    if not place:
        if len(digests) == 1:
            return _as_recorded(own[0])
        if not own:
            raise ToolError(f"{name}: no run of it is recorded; record one, or name a commit, "
                            f"{name}@COMMIT")  # fmt: skip
        which = f"{name}@{own[-1].run}"
        raise ToolError(
            f"{name}: its recorded runs are of {len(digests)} different sources: name one of them, "
            f"such as --against {which}, or a commit"
        )
    if matching := [run for run in own if run.run == place]:
        return _as_recorded(matching[0])
    git = Repository(root)
    pin = pins.parse(place) or Pin(place, "")
    found = git.commit(pin.commit)
    pin = pins.at(git, found, entry.path) if found else pin
    if not (digests := _digests(git, pin, entry.directories)):
        raise ToolError(
            f"{text}: {place!r} is no recorded run of {name}, and no commit that has it: name one "
            f"of {', '.join(run.run for run in own) or 'its commits'}"
        )
    return {"name": name, "at": str(pin), "by": "named", "digests": digests}


def _as_recorded(run: Run) -> Origin:
    digests = [run.sources_digest]
    return {"name": run.variant, "at": f"run {run.run}", "by": "named", "digests": digests}


def asked(text: str | None) -> str:
    """What follows `--against`; empty if it was not given.

    Raises:
        ToolError: it was given, and names nothing, as `--against "$ORIGIN"` does if that is unset.
    """
    if text is not None and not text.strip():
        raise ToolError("--against: names no experiment; give ORIGIN, ORIGIN@RUN or ORIGIN@COMMIT")
    return text or ""


def known(name: str, entries: Iterable[Entry]) -> Entry:
    """The entry of that name. Raises ToolError with the name that may be meant."""
    by_name = {entry.name: entry for entry in entries}
    if name in by_name:
        return by_name[name]
    close = difflib.get_close_matches(name, by_name, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(by_name)}"
    raise ToolError(f"{LEDGER}: no experiment is called {name!r}; {remedy}")


def label(origin: Origin) -> str:
    """What messages and pages call it: `base as of 588692ca12c0`, `base as recorded in base-0`."""
    if origin["at"].startswith("run "):
        return f"{origin['name']} as recorded in {origin['at'].removeprefix('run ')}"
    words = origin["at"].split(" ")
    place = " ".join(words) if words[0] == "tree" else words[0][: pins.SHORT]
    return f"{origin['name']} as of {place}"


def short(digest: str) -> str:
    """A digest of sources as messages and pages show it."""
    return digest[: pins.SHORT]
