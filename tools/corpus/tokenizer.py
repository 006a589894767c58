"""Byte-level BPE: training, loading, encoding in parallel, and the bytes each token stands for."""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.corpus.documents import TRAIN, Piece, Skip
from tools.corpus.errors import InputError

BOS = "<|document|>"
KNOWN_BOS = (BOS, "<|begin_of_text|>", "<|bos|>", "<bos>", "<s>", "<|endoftext|>")
SAMPLE_BYTES = 64 << 20
_LARGEST_VOCABULARY = 1 << 24
_ENTRY_BYTES = 160  # what Python keeps for a piece besides its text

# A word takes one symbol or space before it, a number at most three digits; symbols take the line
# break and indentation after them; blank lines and indentation stay together. On the default corpus
# with 4,096 entries this gives 3.30 bytes per token; GPT-2's pattern 2.96 and GPT-4's 3.09.
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{L}_]+"
    r"| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+(?:\n\s*)?"
    r"|\s*\n\s*"
    r"|\s+(?!\S)|\s+"
)


class Sample:
    """Keeps up to `limit` bytes of pieces, those with the smallest digests.

    The choice depends on the set of pieces alone, not on their order, and memory stays flat.
    """

    def __init__(self, limit: int = SAMPLE_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._heap: list[tuple[int, bytes]] = []  # (-digest, data), so the largest digest is first
        self._bound = -(1 << 64)

    def add(self, data: bytes) -> None:
        """Considers one document's text for the sample."""
        digest = hashlib.sha256(data).digest()
        key = -int.from_bytes(digest[8:16], "big")  # the first bytes decide a document's split
        if key <= self._bound:
            return
        heapq.heappush(self._heap, (key, data))
        self._size += len(data) + _ENTRY_BYTES
        while self._size > self._limit:
            self._bound, dropped = heapq.heappop(self._heap)
            self._size -= len(dropped) + _ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._heap)

    def texts(self) -> Iterator[str]:
        """The chosen documents, in an order that depends on their bytes alone."""
        return (data.decode() for _, data in sorted(self._heap, reverse=True))


def sample_pieces(pieces: Iterable[Piece | Skip], limit: int) -> Sample:
    """At most `limit` bytes of the training split's pieces, chosen by digest."""
    sample = Sample(limit)
    for piece in pieces:
        if isinstance(piece, Piece) and piece.split == TRAIN:
            sample.add(piece.text.encode())
    return sample


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> str:
    """A byte-level BPE of exactly `vocab_size` entries, as the text of a tokenizer.json.

    BOS has id 0.

    Raises:
        InputError: `vocab_size` is too small for the bytes, or too large for the texts.
    """
    smallest = len(pre_tokenizers.ByteLevel.alphabet()) + 1
    if vocab_size < smallest:
        raise InputError(
            f"--vocab-size {vocab_size}: a byte-level vocabulary has at least {smallest} entries "
            "(256 bytes and the document token)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocab_size:
        raise InputError(
            f"the training text is too small for {vocab_size} vocabulary entries: it gives "
            f"{reached}; pass --vocab-size {reached} or less, or add text"
        )
    return tokenizer.to_str(pretty=True)


@dataclass(frozen=True)
class Encoder:
    """A tokenizer ready to encode: `dtype` is "uint16" or "uint32", by `vocab_size`.

    `sliced` says whether a document may be encoded in the slices of `documents.slices` without
    changing what it decodes to. `spelling` holds the bytes that each token stands for.
    """

    tokenizer: Tokenizer
    bos_id: int
    vocab_size: int
    dtype: str
    sliced: bool
    spelling: list[bytes] = field(repr=False)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without BOS, on all cores; other threads run meanwhile."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def tokens(self, encoded: Iterable[list[int]]) -> list[np.ndarray]:
        """The ids as arrays, `dtype` [tokens]. Raises InputError for a BOS in them."""
        tokens = [np.array(ids, self.dtype) for ids in encoded]
        if any((ids == self.bos_id).any() for ids in tokens):
            raise InputError(
                "the tokenizer encodes plain text to its document token; name another one with "
                "--bos-token"
            )
        return tokens

    def spells(self, ids: list[int], text: str) -> bool:
        """Whether the bytes of the tokens, one after another, are those of the text."""
        return b"".join(map(self.spelling.__getitem__, ids)) == text.encode()

    def token_bytes(self) -> np.ndarray:
        """Number of UTF-8 bytes that each token stands for, uint32 [vocab]; 0 for special tokens.

        Whether they add up to a text depends on the text too: a normalizer may change it, and
        `spells` says whether it did.
        """
        return np.array([len(spelling) for spelling in self.spelling], np.uint32)


def load_encoder(text: str, name: str, bos_token: str | None = None) -> Encoder:
    """The encoder of a tokenizer.json, given as text; `name` is its name in messages.

    Raises:
        InputError: the text is malformed, drops merges at random, has too large a vocabulary, or
            its document token is neither named nor known.
    """
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise InputError(
            f"{name}: not a tokenizer.json ({error}); --tokenizer takes that file of a Hugging "
            "Face tokenizer"
        ) from None
    settings = json.loads(text)
    if settings["model"].get("dropout"):
        raise InputError(f"{name}: its model has dropout; set it to null for repeatable tokens")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # a special token's name inside a text is plain text
    vocab_size = vocabulary_size(tokenizer)
    if not 0 < vocab_size <= _LARGEST_VOCABULARY:
        raise InputError(
            f"{name}: its largest token id is {vocab_size - 1}; a token store takes ids from 0 to "
            f"{_LARGEST_VOCABULARY - 1}"
        )
    return Encoder(
        tokenizer,
        _bos_id(tokenizer, name, bos_token),
        vocab_size,
        "uint16" if vocab_size <= 1 << 16 else "uint32",
        _may_slice(tokenizer, settings),
        token_spelling(tokenizer),
    )


def read_tokenizer(path: Path) -> str:
    """The text of a tokenizer file. Raises InputError if it can't be read."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise InputError(
            f"{path}: not a readable tokenizer.json ({reason}); --tokenizer takes that file of a "
            "Hugging Face tokenizer"
        ) from None


def _bos_id(tokenizer: Tokenizer, name: str, bos_token: str | None) -> int:
    special = {
        token.content: index
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
        if token.special
    }
    for candidate in [bos_token] if bos_token else KNOWN_BOS:
        if candidate in special:
            return special[candidate]
    candidates = ", ".join(list(special)[:12]) or "none"
    problem = f"no special token {bos_token}" if bos_token else "no known document token"
    raise InputError(
        f"{name}: {problem}; name one with --bos-token (its special tokens: {candidates})"
    )


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """The largest token id plus 1; 0 for an empty vocabulary."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def token_spelling(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that each token stands for, by id; nothing for special tokens and unused ids.

    In a byte-level vocabulary every character of a token is one byte. In others "▁" is a space,
    "<0x0A>" is one byte and a leading "##" is nothing.
    """
    settings = json.loads(tokenizer.to_str())
    steps = _steps(settings["pre_tokenizer"]) + _steps(settings["decoder"])
    byte_level = any(step["type"] == "ByteLevel" for step in steps)
    alphabet = _byte_alphabet()
    added = tokenizer.get_added_tokens_decoder()
    spelling = [b""] * vocabulary_size(tokenizer)
    for token, index in tokenizer.get_vocab(with_added_tokens=True).items():
        if index in added:
            spelling[index] = b"" if added[index].special else added[index].content.encode()
        elif byte_level:
            spelling[index] = b"".join(alphabet.get(c) or c.encode() for c in token)
        elif re.fullmatch("<0x[0-9A-Fa-f]{2}>", token):
            spelling[index] = bytes.fromhex(token[3:5])
        else:
            spelling[index] = token.removeprefix("##").replace("▁", " ").encode()
    return spelling


def _byte_alphabet() -> dict[str, bytes]:
    """The byte of each character of a byte-level vocabulary, as GPT-2 chose them.

    Printable bytes of Latin-1 are the character of that code; the others follow from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): bytes([byte]) for byte in printable} | {
        chr(0x100 + index): bytes([byte]) for index, byte in enumerate(others)
    }


def _steps(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder of a tokenizer.json, in order."""
    if not step:
        return []
    for plural in ("normalizers", "pretokenizers", "decoders"):
        if plural in step:
            return [inner for each in step[plural] for inner in _steps(each)]
    return [step]


def _may_slice(tokenizer: Tokenizer, settings: dict[str, Any]) -> bool:
    """Whether a text may be cut where a space follows a letter: no token crosses that place."""
    steps = _steps(settings.get("pre_tokenizer"))
    plain = any(step["type"] == "ByteLevel" and not step["add_prefix_space"] for step in steps)
    if not plain or any(step["type"] != "NFC" for step in _steps(settings.get("normalizer"))):
        return False
    added = tokenizer.get_added_tokens_decoder().values()
    if any(t.lstrip or t.rstrip or " " in t.content for t in added if not t.special):
        return False
    words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("alpha beta")]
    return "alpha" in accumulate(words)
