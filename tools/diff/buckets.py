"""Assigns definitions to change buckets.

The map is written by hand: experiments/grug/buckets.json names the definitions of the template's
files. The bucket of any other definition is guessed, and reported as a guess.
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
# For what belongs to no bucket: tests, documents, files that the map does not name.
OTHER = "other"

Decided = Literal["map", "guess", "file"]

# Words in the name of a definition that the map lacks; the first pattern that matches decides.
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
    """The buckets of one file's definitions by name, and of all others."""

    default: str
    names: Mapping[str, str]


Map = Mapping[str, Files]


def parse(text: str, path: str) -> dict[str, Files]:
    """The map in a JSON text; `path` is the file's name in messages.

    Raises:
        ToolError: the text is malformed; the message says where.
    """
    data = parse_json(text, path)
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise ToolError(f"{path}: schema_version must be {SCHEMA_VERSION}")
    files = data.get("files")
    if not isinstance(files, dict):
        raise ToolError(f'{path}: "files" must map file names to {{"default", "names"}}')
    files_by_name = {}
    for name, entry in files.items():
        names = entry.get("names", {}) if isinstance(entry, dict) else None
        default = entry.get("default", OTHER) if isinstance(entry, dict) else None
        if not isinstance(names, dict) or not isinstance(default, str):
            raise ToolError(f'{path}: {name}: write {{"default": BUCKET, "names": {{...}}}}')
        for bucket in (default, *names.values()):
            if bucket not in (*BUCKETS, OTHER):
                choices = ", ".join((*BUCKETS, OTHER))
                raise ToolError(f"{path}: {name}: unknown bucket {bucket!r}; known: {choices}")
        files_by_name[name] = Files(default, names)
    return files_by_name


def declared(bucket_map: Map, path: str, name: str) -> str | None:
    """The bucket that the map gives a definition or the nearest one around it."""
    names = bucket_map[path].names if path in bucket_map else {}
    while name:
        if name in names:
            return names[name]
        name = name.rpartition(".")[0]
    return None


def guess(name: str) -> str | None:
    """The bucket that a name suggests; its innermost part that matches decides."""
    for part in reversed(name.split(".")):
        for bucket, pattern in _PATTERNS:
            if pattern.search(part):
                return bucket
    return None


def default(bucket_map: Map, path: str) -> str:
    """The bucket of a file's definitions if nothing else is known."""
    return bucket_map[path].default if path in bucket_map else OTHER


def majority(buckets: Iterable[str]) -> str | None:
    """The most frequent bucket, the first by name among equals; None without any."""
    counts = Counter(buckets)
    return min(counts, key=lambda bucket: (-counts[bucket], bucket)) if counts else None
