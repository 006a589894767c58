"""Token stores, read through TensorStore.

The format: docs/reference/token-store.md.
"""

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from jaxtyping import Array, Float, Int

from .storage import Folder, Outage, StorageError, brief, failure

STORE_SCHEMA = 1


class DataError(Exception):
    """The token store is missing or unreadable, or does not fit the run; the message says why."""


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
        """Its path or URL, with a slash at the end."""
        return self.folder.url

    @property
    def document_token(self) -> int:
        """The token that begins every document, and that its last token predicts.

        Raises:
            DataError: the manifest names none.
        """
        token = self.manifest.get("bos_id")
        if type(token) is not int or not 0 <= token < self.manifest["vocab_size"]:
            raise DataError(f"{self.url}: its manifest.json names no document token (bos_id)")
        return token

    @staticmethod
    def open(path: str) -> "TokenStore":
        """Opens the store at `path`, a local path or a gs: or s3: URL.

        Raises:
            DataError: there is no complete store of a known schema.
            Outage: the store does not answer.
        """
        build = "./pants run corpus -- build TEXT --out STORE"
        try:
            folder = Folder(path)
            manifest = json.loads(folder.read("manifest.json") or "null")
            if not manifest:
                folder.empty()  # a bucket that does not exist reads like one without the file
        except Outage:
            raise
        except StorageError as error:
            raise DataError(f"token store {error}") from error
        except ValueError as error:
            raise DataError(f"{path}: its manifest.json cannot be read: {error}") from error
        if not manifest:
            raise DataError(f"{path}: no token store here (no manifest.json); {build} makes one")
        if manifest.get("schema_version") != STORE_SCHEMA:
            schema = manifest.get("schema_version")
            raise DataError(f"{path}: schema {schema}, this reads {STORE_SCHEMA}; {build} again")
        return TokenStore(folder, manifest)

    def array(self, name: str) -> ts.TensorStore:
        """`train/tokens`, `train/offsets`, `heldout/...` or `token_bytes`, read lazily.

        Raises:
            DataError: the array is missing or damaged.
            Outage: the store does not answer.
        """
        try:
            return self.folder.array(name, open=True, recheck_cached_data=False).result()
        except ValueError as error:
            if isinstance(outage := failure(error, self.url), Outage):
                raise outage from error
            raise DataError(f"{self.url}{name}: cannot be read: {brief(error)}") from error

    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each token id stands for, as float32.

        Raises:
            DataError: the array is missing or damaged.
            Outage: the store does not answer.
        """
        array = self.array("token_bytes")
        try:
            return np.asarray(array.read().result(), np.float32)
        except ValueError as error:
            problem = failure(error, self.url)
            raise problem if isinstance(problem, Outage) else DataError(str(problem)) from error

    def text_bytes(self, split: str) -> ts.TensorStore | None:
        """UTF-8 bytes of the text of each document; None if the bytes of its tokens tell them.

        They do not where a tokenizer changes the text. A store built before these bytes were kept
        has None, too.

        Raises:
            DataError: the array is missing or damaged, or the store does not answer.
        """
        if "text_bytes_sha256" not in self.manifest.get("splits", {}).get(split, {}):
            return None
        return self.array(f"{split}/text_bytes")

    def tokenizer(self) -> Any:
        """The store's Hugging Face tokenizer. Raises DataError when its file is missing."""
        from tokenizers import Tokenizer

        file = self.manifest["tokenizer"]["file"]
        content = self.folder.read(file)
        if content is None:
            raise DataError(f"{self.url}: its {file} is gone; copy the whole store again")
        return Tokenizer.from_buffer(content)
