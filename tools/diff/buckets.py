"""Assigns definitions to change buckets.

The map is written by hand: experiments/grug/buckets.json names the definitions of the template's
files, and a file OWN beside a variant's own files those that it adds; its copies inherit it. The
bucket of any other definition is guessed, and reported as a guess.
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
# The map of a variant's own definitions, in its directory.
OWN = "buckets.json"
# For what belongs to no bucket: tests, documents, files that the map does not name.
OTHER = "other"

Decided = Literal["map", "guess", "file"]

# The words in a name that suggest a bucket; the first bucket with any of them decides. Two or three
# words in a row count as one, too: `kv_cache` and `KVCache` have the word "kvcache".
_GUESSES = (
    (
        "attention/masking",
        "attn attention attend attends mask masks masked masking rope rotary rotate rotated qk qkv "
        "kvcache flash window windows sdpa gqa mqa alibi",
    ),
    (
        "MLP/activation",
        "mlp mlps ffn feedforward expert experts moe route routes router routing routed gate gates "
        "gated gating swiglu geglu gelu relu silu swish activation activations",
    ),
    (
        "loss kernel",
        "loss losses crossentropy xent logsumexp logprob logprobs softcap",
    ),
    (
        "block wiring/norm ordering",
        "norm norms rmsnorm layernorm prenorm postnorm residual residuals",
    ),
    (
        "optimizer/training loop",
        "optim optimizer optimizers adam adamw muon lion sgd schedule schedules scheduler warmup "
        "cooldown decay train trainer training step steps update updates grad grads gradient "
        "gradients ema eval evals evaluate evaluator evaluation",
    ),
    ("launch/config", "config configs launch launcher preset presets command commands mesh"),
)
_WORDS: dict[str, str] = {
    word: bucket for bucket, words in reversed(_GUESSES) for word in words.split()
}
_ORDER: dict[str, int] = {bucket: n for n, (bucket, _) in enumerate(_GUESSES)}
# `Block` is a layer; `block` is mostly one of memory.
_CLASSES = {"Block": "block wiring/norm ordering", "Blocks": "block wiring/norm ordering"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True)
class Files:
    """The buckets of one file's definitions by name, and of all others; None: not said."""

    default: str | None
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
        default = entry.get("default") if isinstance(entry, dict) else None
        if not isinstance(names, dict) or not isinstance(default, str | None):
            raise ToolError(f'{path}: {name}: write {{"default": BUCKET, "names": {{...}}}}')
        for bucket in (default or OTHER, *names.values()):
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


def words(name: str) -> list[str]:
    """The words of one name, in lower case, and each two or three in a row as one."""
    parts = [part.lower() for part in _WORD.findall(name)]
    runs = [parts[n : n + size] for size in (1, 2, 3) for n in range(len(parts) - size + 1)]
    return ["".join(run) for run in runs]


def guess(name: str) -> str | None:
    """The bucket that a name suggests; its innermost part with a known word decides."""
    for part in reversed(name.split(".")):
        found = {_WORDS[word] for word in words(part) if word in _WORDS}
        found |= {_CLASSES[word] for word in _WORD.findall(part) if word in _CLASSES}
        if found:
            return min(found, key=_ORDER.__getitem__)
    return None


def default(bucket_map: Map, path: str) -> str:
    """The bucket of a file's definitions if nothing else is known."""
    return (bucket_map[path].default if path in bucket_map else None) or OTHER


def names_definitions(bucket_map: Map, path: str) -> bool:
    """Whether the map names a file's definitions, so that what it lacks can only be guessed."""
    return path in bucket_map and bool(bucket_map[path].names)


def declares_whole(bucket_map: Map, path: str) -> bool:
    """Whether the map gives a file one bucket, whatever it defines."""
    entry = bucket_map.get(path)
    return entry is not None and entry.default is not None and not entry.names


def joined(*maps: Map) -> dict[str, Files]:
    """One map of several; what a later one says of a file or a name holds."""
    files: dict[str, Files] = {}
    for bucket_map in maps:
        for path, entry in bucket_map.items():
            known = files.get(path, Files(None, {}))
            files[path] = Files(entry.default or known.default, {**known.names, **entry.names})
    return files


def majority(buckets: Iterable[str]) -> str | None:
    """The most frequent bucket, the first by name among equals; None without any."""
    counts = Counter(buckets)
    return min(counts, key=lambda bucket: (-counts[bucket], bucket)) if counts else None
