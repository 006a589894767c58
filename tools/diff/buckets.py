"""Which change bucket a definition belongs to.

The map is declared by hand: experiments/grug/buckets.json names the definitions of the template's
files. What it does not name is guessed, and said to be.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tools.common.errors import ToolError
from tools.common.jsonio import parse_json
from tools.ledger.ledger import CHANGE_BUCKETS as BUCKETS

SCHEMA_VERSION = 1
# Of what belongs to none: tests, documents, files that no map names.
OTHER = "other"

Decided = Literal["map", "guess", "file"]

# By words of a definition's name, where the map does not know it; the first that fits.
_GUESSES = (
    (
        "attention/masking",
        r"attn|attention|attend|mask|rope|rotary|rotate|qk|kv_?cache|flash|window",
    ),
    ("MLP/activation", r"mlp|ffn|feed_?forward|expert|moe|rout|gate|swiglu|geglu|gelu|relu|silu"),
    ("loss kernel", r"loss|cross_?entropy|logsumexp|z_?loss|softcap"),
    ("block wiring/norm ordering", r"norm|residual|(?-i:Block)"),
    ("optimizer/training loop", r"optim|adam|muon|lion|sched|train|step|update|grad|ema|eval"),
    ("launch/config", r"config|launch|preset|command|mesh"),
)
_PATTERNS = [(bucket, re.compile(pattern, re.IGNORECASE)) for bucket, pattern in _GUESSES]


@dataclass(frozen=True)
class Files:
    """What the map says of one file."""

    default: str
    names: Mapping[str, str]


Map = Mapping[str, Files]


def parse(text: str, path: str) -> dict[str, Files]:
    """The declared map.

    Raises:
        ToolError: it is not one; the message says where.
    """
    data = parse_json(text, path)
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise ToolError(f"{path}: schema_version must be {SCHEMA_VERSION}")
    files = data.get("files")
    if not isinstance(files, dict):
        raise ToolError(f'{path}: "files" must map file names to {{"default", "names"}}')
    found = {}
    for name, entry in files.items():
        names = entry.get("names", {}) if isinstance(entry, dict) else None
        default = entry.get("default", OTHER) if isinstance(entry, dict) else None
        if not isinstance(names, dict) or not isinstance(default, str):
            raise ToolError(f'{path}: {name}: write {{"default": BUCKET, "names": {{...}}}}')
        for bucket in (default, *names.values()):
            if bucket not in (*BUCKETS, OTHER):
                known = ", ".join((*BUCKETS, OTHER))
                raise ToolError(f"{path}: {name}: unknown bucket {bucket!r}; known: {known}")
        found[name] = Files(default, names)
    return found


def declared(known: Map, path: str, name: str) -> str | None:
    """The bucket that the map gives a definition or the nearest one around it."""
    names = known[path].names if path in known else {}
    while name:
        if name in names:
            return names[name]
        name = name.rpartition(".")[0]
    return None


def guess(name: str) -> str | None:
    """By what the name says; the innermost part that says something decides."""
    for part in reversed(name.split(".")):
        for bucket, pattern in _PATTERNS:
            if pattern.search(part):
                return bucket
    return None


def default(known: Map, path: str) -> str:
    """What a file's definitions are taken for when nothing else is known."""
    return known[path].default if path in known else OTHER


def majority(buckets: Iterable[str]) -> str | None:
    """The most frequent bucket, the first by name among equals; None of none."""
    counts = Counter(buckets)
    return min(counts, key=lambda bucket: (-counts[bucket], bucket)) if counts else None
