"""Token stores, read through TensorStore.

The format: docs/reference/token-store.md.
"""

import dataclasses
import json
from typing import NamedTuple

import tensorstore as ts
from jaxtyping import Array, Float, Int

from .storage import Folder, StorageError, brief

STORE_SCHEMA = 1


class DataError(Exception):
    """The token store is missing, unreadable or does not fit."""


class Batch(NamedTuple):
    """Packed rows. A row holds whole documents, or pieces of one longer than a row."""

    tokens: Int[Array, "B S"]
    targets: Int[Array, "B S"]
    segment_ids: Int[Array, "B S"]  # 1, 2, ... for the pieces of a row, 0 for padding
    positions: Int[Array, "B S"]  # index within the piece
    loss_weights: Float[Array, "B S"]  # 1 where the target is real, 0 on padding


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """An opened token store."""

    folder: Folder
    manifest: dict

    @property
    def url(self) -> str:
        return self.folder.url

    @staticmethod
    def open(path: str) -> "TokenStore":
        """Raises DataError when there is no complete store of a known schema at `path`."""
        build = "./pants run corpus -- build TEXT --out STORE"
        try:
            folder = Folder(path)
            manifest = json.loads(folder.read("manifest.json") or "null")
            if not manifest:
                folder.empty()  # a bucket that does not exist reads like one without the file
        except StorageError as error:
            raise DataError(f"token store {error}") from error
        except ValueError as error:
            raise DataError(f"{path}: its manifest.json cannot be read: {error}") from error
        if not manifest:
            raise DataError(f"{path}: no token store here (no manifest.json); {build} makes one")
        if manifest.get("schema_version") != STORE_SCHEMA:
            found = manifest.get("schema_version")
            raise DataError(f"{path}: schema {found}, this reads {STORE_SCHEMA}; {build} again")
        return TokenStore(folder, manifest)

    def array(self, name: str) -> ts.TensorStore:
        """`train/tokens`, `train/offsets`, `heldout/...` or `token_bytes`, read lazily."""
        try:
            return self.folder.array(name, open=True, recheck_cached_data=False).result()
        except ValueError as error:
            raise DataError(f"{self.url}{name}: cannot be read: {brief(error)}") from error

    def tokenizer(self):
        """The store's Hugging Face tokenizer."""
        from tokenizers import Tokenizer

        file = self.manifest["tokenizer"]["file"]
        content = self.folder.read(file)
        if content is None:
            raise DataError(f"{self.url}: its {file} is gone; copy the whole store again")
        return Tokenizer.from_buffer(content)
