"""Token stores, read through TensorStore. Plumbing: rarely edited, the same in every copy.

The format: docs/reference/token-store.md.
"""

import dataclasses
import json
import os
from typing import NamedTuple

import tensorstore as ts
from jaxtyping import Array, Float, Int

STORE_SCHEMA = 1
CONTEXT = ts.Context({"cache_pool": {"total_bytes_limit": 1 << 28}})


class DataError(Exception):
    """The token store is missing, unreadable or does not fit."""


class Batch(NamedTuple):
    """Packed rows. A row holds whole documents, or pieces of one longer than a row."""

    tokens: Int[Array, "B S"]
    targets: Int[Array, "B S"]
    segment_ids: Int[Array, "B S"]  # 1, 2, ... for the pieces of a row, 0 for padding
    positions: Int[Array, "B S"]  # index within the piece
    loss_weights: Float[Array, "B S"]  # 1 where the target is real, 0 on padding


def store_url(path: str) -> str:
    """A TensorStore key-value URL, ending in a slash, of a local path or a file:, gs:, s3: URL."""
    url = path if "://" in path else f"file://{os.path.abspath(os.path.expanduser(path))}"
    return url.rstrip("/") + "/"


def brief(error: Exception) -> str:
    """TensorStore's message without its dump of the spec."""
    return str(error).partition(" [")[0]


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """An opened token store."""

    url: str
    manifest: dict

    @staticmethod
    def open(path: str) -> "TokenStore":
        """Raises DataError when there is no complete store of a known schema at `path`."""
        url = store_url(path)
        build = "./pants run corpus -- build TEXT --out STORE"
        try:
            raw = bytes(ts.KvStore.open(url).result().read("manifest.json").result().value)
            manifest = json.loads(raw or "null")
        except ValueError as error:  # what TensorStore raises, and what is not JSON
            raise DataError(f"{path}: cannot be read: {brief(error)}") from error
        if not manifest:
            raise DataError(f"{path}: no token store here (no manifest.json); {build} makes one")
        if manifest.get("schema_version") != STORE_SCHEMA:
            found = manifest.get("schema_version")
            raise DataError(f"{path}: schema {found}, this reads {STORE_SCHEMA}; {build} again")
        return TokenStore(url, manifest)

    def array(self, name: str) -> ts.TensorStore:
        """`train/tokens`, `train/offsets`, `heldout/...` or `token_bytes`, read lazily."""
        spec = {"driver": "zarr3", "kvstore": f"{self.url}{name}/", "recheck_cached_data": False}
        try:
            return ts.open(spec, read=True, context=CONTEXT).result()
        except ValueError as error:
            raise DataError(f"{self.url}{name}: cannot be read: {brief(error)}") from error

    def tokenizer(self):
        """The store's Hugging Face tokenizer."""
        from tokenizers import Tokenizer

        raw = ts.KvStore.open(self.url).result().read(self.manifest["tokenizer"]["file"]).result()
        return Tokenizer.from_buffer(bytes(raw.value))
