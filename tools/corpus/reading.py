"""Reads and verifies a token store: its manifest, a document, or all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from tokenizers import Tokenizer

from tools.common.buckets import Bucket, context, explain, spec
from tools.common.errors import ToolError
from tools.corpus.documents import SPLITS
from tools.corpus.store import (
    MANIFEST,
    SCHEMA_VERSION,
    TOKENIZER,
    combine_digests,
    manifest_digest,
)
from tools.corpus.tokenizer import token_spelling

_KEYS = {"bos_id", "digest", "dtype", "exact_token_bytes", "skipped", "sources", "splits"}
_KEYS |= {"tokenizer", "vocab_size"}
Location = str | Path
"""A path, or a URL as `tools.common.paths.location` takes them."""


def read_manifest(store: Location) -> dict[str, Any]:
    """The manifest of a complete store. Raises ToolError if there is none of this schema."""
    content = Bucket(store).read(MANIFEST)
    if content is None:
        raise ToolError(
            f"{store}: no {MANIFEST}, so no complete token store; build one, or correct the path"
        )
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise ToolError(
            f"{store}/{MANIFEST}: is no JSON ({error}); copy the store again, or build it anew"
        ) from None
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise ToolError(
            f"{store}: schema version {version}, this tool reads {SCHEMA_VERSION}; build it anew"
        )
    if missing := sorted(_KEYS - manifest.keys()):
        raise ToolError(
            f"{store}/{MANIFEST}: lacks {missing[0]}; copy the store again, or build it anew"
        )
    return manifest


def read_tokenizer_of(store: Location) -> Tokenizer:
    """The tokenizer of a store. Raises ToolError if it is missing or damaged."""
    content = Bucket(store).read(TOKENIZER)
    if content is None:
        raise ToolError(f"{store}: its {TOKENIZER} is gone; copy the store again, or build it anew")
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises no narrower one
        raise ToolError(
            f"{store}/{TOKENIZER}: is damaged ({error}); copy the store again, or build it anew"
        ) from None


def open_array(place: Location) -> Any:
    """The array at a path or URL. Raises ToolError if it can't be opened."""
    try:
        return ts.open(
            {"driver": "zarr3", "kvstore": spec(place)}, read=True, context=context()
        ).result()
    except ValueError as error:
        raise ToolError(f"{explain(error, place)}; is it a complete token store?") from None


def read_document(store: Location, split: str, index: int) -> np.ndarray:
    """Tokens of document `index` of a split, uint16 or uint32 [tokens], BOS first."""
    offsets = open_array(f"{store}/{split}/offsets")
    documents = offsets.shape[0] - 1
    if not 0 <= index < documents:
        raise ToolError(f"{store}: {split} holds {documents} documents, counted from 0")
    try:
        start, stop = offsets[index : index + 2].read().result()
        return open_array(f"{store}/{split}/tokens")[int(start) : int(stop)].read().result()
    except ValueError as error:
        raise ToolError(f"{explain(error, store)}; is {split} damaged? --verify tells") from None


def read_shards(path: Location) -> Iterator[np.ndarray]:
    """The values of an array, one shard at a time."""
    array = open_array(path)
    shard = array.chunk_layout.write_chunk.shape[0]
    for start in range(0, array.shape[0], shard):
        stop = min(start + shard, array.shape[0])
        try:
            yield array[start:stop].read().result()
        except ValueError as error:
            raise ToolError(
                f"{explain(error, path)}: values from {start} on cannot be read; build the store "
                "anew if they are damaged"
            ) from None


def verify(store: Location) -> dict[str, Any]:
    """Reads the whole store, checks it against its manifest, and returns the manifest.

    Raises:
        ToolError: digests, lengths, offsets, document starts, or the bytes of the text do not
            agree with the manifest.
    """
    manifest = read_manifest(store)
    _check(store, manifest_digest(manifest) == manifest["digest"], "the manifest's own digest")
    tokenizer = Bucket(store).read(TOKENIZER) or b""
    digest = hashlib.sha256(tokenizer).hexdigest()
    _check(store, digest == manifest["tokenizer"]["sha256"], "the tokenizer's digest")
    sizes = open_array(f"{store}/token_bytes").read().result()
    _check(store, len(sizes) == manifest["vocab_size"], "the length of token_bytes")
    spelling = token_spelling(Tokenizer.from_buffer(tokenizer))
    agrees = sizes.tolist() == [len(spelled) for spelled in spelling]
    _check(store, agrees, "token_bytes")
    for name in SPLITS:
        _verify_split(store, name, manifest, sizes)
    return manifest


def _verify_split(store: Location, name: str, manifest: dict[str, Any], sizes: np.ndarray) -> None:
    recorded = manifest["splits"][name]
    digests, tokens, size, documents = [], 0, 0, 0
    for values in read_shards(f"{store}/{name}/tokens"):
        digests.append(_digest(values))
        tokens += len(values)
        _check(store, int(values.max()) < len(sizes), f"{name}: a token's range")
        size += int(sizes[values].sum(dtype=np.uint64))
        documents += int((values == manifest["bos_id"]).sum())
    _check(store, tokens == recorded["tokens"], f"{name}: the number of tokens")
    _check(store, combine_digests(digests) == recorded["tokens_sha256"], f"{name}: tokens")
    _check(store, documents == recorded["documents"], f"{name}: the number of document tokens")
    if manifest["exact_token_bytes"] and size != recorded["bytes"]:
        # Tokens and sizes are those that were written, so the promise was wrong.
        raise ToolError(
            f"{store}: {name}: its tokens stand for {size:,} bytes, its text has "
            f"{recorded['bytes']:,}; the store is of a version that only guessed "
            "exact_token_bytes, build it anew"
        )
    if "text_bytes_sha256" in recorded:
        _verify_text_bytes(store, name, recorded)
    digests, starts, previous = [], 0, -1
    for values in read_shards(f"{store}/{name}/offsets"):
        digests.append(_digest(values))
        starts += len(values)
        steps = np.diff(values.astype(np.int64), prepend=previous)
        _check(store, bool((steps > 0).all()), f"{name}: the order of offsets")
        previous = int(values[-1])
    _check(store, starts == recorded["documents"] + 1, f"{name}: the number of offsets")
    _check(store, previous == tokens, f"{name}: the last offset")
    _check(store, combine_digests(digests) == recorded["offsets_sha256"], f"{name}: offsets")


def _verify_text_bytes(store: Location, name: str, recorded: dict[str, Any]) -> None:
    digests, documents, size = [], 0, 0
    for values in read_shards(f"{store}/{name}/text_bytes"):
        digests.append(_digest(values))
        documents += len(values)
        size += int(values.sum())
    agrees = combine_digests(digests) == recorded["text_bytes_sha256"]
    _check(store, agrees, f"{name}: text_bytes")
    _check(store, documents == recorded["documents"], f"{name}: the number of text_bytes")
    _check(store, size == recorded["bytes"], f"{name}: the sum of text_bytes")


def _digest(values: np.ndarray) -> str:
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(little.tobytes()).hexdigest()


def _check(store: Location, agrees: bool, part: str) -> None:
    if not agrees:
        raise ToolError(
            f"{store}: {part} doesn't agree with {MANIFEST}; the store is damaged, build it anew"
        )
