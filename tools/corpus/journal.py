"""The journal of an unfinished build: one JSON line per commit; the last complete one counts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.corpus.documents import Position

# Raise it when a commit holds other fields than before: no build resumes another version's work.
_VERSION = 2
# Reasons that are no fault of a record, so that they need no --skip-bad.
_HARMLESS = ("empty",)


@dataclass
class SplitState:
    """Totals of one split; `bytes` count UTF-8 text, `documents_written` the offsets written.

    `inexact` counts the documents whose tokens do not spell their text. `open_bytes` and
    `open_exact` are of a document whose first slices are written and the others not yet.
    """

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    documents_written: int = 0
    inexact: int = 0
    open_bytes: int = 0
    open_exact: bool = True


@dataclass
class State:
    """The totals of what has been encoded, up to `position`."""

    position: Position = field(default_factory=Position)
    splits: tuple[SplitState, SplitState] = field(
        default_factory=lambda: (SplitState(), SplitState())
    )
    source_documents: dict[int, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    shards: dict[str, list[str]] = field(default_factory=dict)
    finished: bool = False

    @property
    def started(self) -> bool:
        """Whether there is work to lose, if only part of a document."""
        return any(split.tokens for split in self.splits)

    @property
    def bad(self) -> int:
        """The number of skipped records that were at fault."""
        return sum(count for reason, count in self.skipped.items() if reason not in _HARMLESS)

    def count_document(self, source: int) -> None:
        """Counts a document of the source with that number."""
        self.source_documents[source] = self.source_documents.get(source, 0) + 1

    def count_skip(self, reason: str) -> None:
        """Counts a record that was skipped for a reason."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


class Journal:
    """Appends commits to `path`; a line cut short by a kill is ignored and overwritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._committed: dict[str, Any] = {}

    def begin(self, identity: dict[str, Any]) -> None:
        """Starts an empty journal of a build with that identity."""
        self._path.write_bytes(b"")
        self._append({"identity": identity, "version": _VERSION})

    def load(self) -> tuple[dict[str, Any], State] | None:
        """The identity and last committed state, or None if nothing was committed.

        Raises:
            ToolError: another version of this tool wrote it, or it is damaged.
        """
        if not self._path.exists():
            return None
        identity, state, size = None, State(), 0
        with self._path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                try:
                    entry = json.loads(line)
                except ValueError:
                    raise ToolError(
                        f"{self._path}: is damaged; pass --restart to discard the unfinished work"
                    ) from None
                if identity is None:
                    identity = entry["identity"]
                    if entry.get("version") != _VERSION:
                        raise ToolError(
                            f"{self._path.parent}: holds unfinished work of another version of "
                            "this tool; pass --restart to discard it"
                        )
                else:
                    _apply(state, entry)
        if identity is None:
            return None
        os.truncate(self._path, size)
        self._committed = _flatten(state)
        return identity, state

    def commit(self, state: State) -> None:
        """Appends the changes since the last commit, durably."""
        flat = _flatten(state)
        entry = {
            "position": list(state.position),
            "splits": [asdict(split) for split in state.splits],
            "skipped": state.skipped,
            "finished": state.finished,
            # Only what is new, so that a journal of many sources or shards stays small.
            "source_documents": [
                [source, count]
                for source, count in state.source_documents.items()
                if self._committed.get("sources", {}).get(source) != count
            ],
            "shards": {
                name: digests[self._committed.get("shards", {}).get(name, 0) :]
                for name, digests in state.shards.items()
            },
        }
        self._append(entry)
        self._committed = flat

    def _append(self, entry: dict[str, Any]) -> None:
        with self._path.open("ab") as stream:
            stream.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


def _flatten(state: State) -> dict[str, Any]:
    return {
        "sources": dict(state.source_documents),
        "shards": {name: len(digests) for name, digests in state.shards.items()},
    }


def _apply(state: State, entry: dict[str, Any]) -> None:
    state.position = Position(*entry["position"])
    first, second = (SplitState(**split) for split in entry["splits"])
    state.splits = (first, second)
    state.skipped = entry["skipped"]
    state.finished = entry["finished"]
    state.source_documents.update(dict(entry["source_documents"]))
    for name, digests in entry["shards"].items():
        state.shards.setdefault(name, []).extend(digests)
