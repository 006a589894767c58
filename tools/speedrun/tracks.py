"""The tracks that speedruns compete on: experiments/speedrun/tracks.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.jsonio import read_json

SCHEMA_VERSION = 1
AREA = "experiments/speedrun"
TRACKS = f"{AREA}/tracks.json"
METRICS = ("seconds", "cpu_seconds", "tokens", "steps")


@dataclass(frozen=True)
class Track:
    """What has to be reached, on what text, and what counts."""

    name: str
    title: str
    data_digest: str
    """Of the token store."""
    heldout_targets: int
    """Tokens of its held-out split that are predicted: all but the first of each document."""
    heldout_bytes: int
    """UTF-8 bytes of the held-out split."""
    target_bpb: float
    """Held-out loss to reach, bits per byte."""
    metric: str
    """What ranks: the least of METRICS."""
    seeds: int
    """Fewest runs of an entry."""
    p: float
    """Largest p-value at which the mean held-out loss counts as below the target."""


_KINDS: dict[str, type | tuple[type, ...]] = {
    "title": str,
    "data_digest": str,
    "heldout_targets": int,
    "heldout_bytes": int,
    "target_bpb": (int, float),
    "metric": str,
    "seeds": int,
    "p": (int, float),
}


def load_tracks(root: Path) -> dict[str, Track]:
    """The tracks by name. Raises ToolError with the fault.

    Args:
        root: the workspace.
    """
    values = read_json(root / TRACKS, 64 * 1024, name=TRACKS)
    have = values.get("schema_version") if isinstance(values, dict) else None
    if have != SCHEMA_VERSION:
        raise ToolError(f"{TRACKS}:1: schema_version: is {have!r}, not {SCHEMA_VERSION}")
    tracks = values.get("tracks")
    if not isinstance(tracks, dict):
        raise ToolError(f"{TRACKS}:1: tracks: is no object: name each track in it")
    return {name: _track(name, value) for name, value in tracks.items()}


def _track(name: str, value: Any) -> Track:
    where = f"{TRACKS}:1: {name}"
    if not isinstance(value, dict) or set(value) != set(_KINDS):
        wrong = ", ".join(sorted(set(value) ^ set(_KINDS))) if isinstance(value, dict) else "all"
        raise ToolError(f"{where}: lacks or adds fields ({wrong}): see docs/speedrun/rules.md")
    for key, kind in _KINDS.items():
        if not isinstance(value[key], kind) or isinstance(value[key], bool):
            raise ToolError(f"{where}: {key}: {value[key]!r} is not what it has to be")
    track = Track(name, **value)
    if track.metric not in METRICS:
        raise ToolError(f"{where}: metric: {track.metric!r} is none of {', '.join(METRICS)}")
    if track.seeds < 2 or not 0 < track.p < 1 or min(track.heldout_targets, track.target_bpb) <= 0:
        raise ToolError(f"{where}: needs 2 or more seeds, 0 < p < 1, and sizes above 0")
    return track
