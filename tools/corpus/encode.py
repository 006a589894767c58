"""The encoding pass: pieces to batches, batches to tokens, tokens to both splits' arrays."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding

from tools.corpus.documents import SPLITS, Piece, Position, Skip
from tools.corpus.journal import Journal, State
from tools.corpus.store import Appender
from tools.corpus.tokenizer import Encoder


@dataclass(frozen=True)
class Pace:
    """How the work is cut up, which no byte of the result depends on; sizes in bytes of text."""

    # Encodings take about 40 times their text, and there are two batches of them: 200 MiB.
    batch_bytes: int = 2 << 20
    batch_pieces: int = 1 << 14
    commit_bytes: int = 16 << 20


@dataclass(frozen=True)
class Batch:
    """Pieces to encode at once, `size` bytes of text, and the reasons of records skipped between.

    `after` is the position behind the batch, `consumed` the bytes read of the file it ends in.
    """

    pieces: list[Piece]
    skips: list[str]
    size: int
    after: Position
    consumed: int = 0


def batches(pieces: Iterator[Piece | Skip], start: Position, pace: Pace) -> Generator[Batch]:
    """Pieces in their order, cut where a batch reaches one of the limits of `pace`."""
    batch: list[Piece] = []
    skips: list[str] = []
    size, after, consumed = 0, start, 0
    for piece in pieces:
        after, consumed = piece.after, piece.consumed
        if isinstance(piece, Skip):
            skips.append(piece.reason)
        else:
            batch.append(piece)
            size += piece.size
        if size >= pace.batch_bytes or len(batch) + len(skips) >= pace.batch_pieces:
            yield Batch(batch, skips, size, after, consumed)
            batch, skips, size = [], [], 0
    if batch or skips:
        yield Batch(batch, skips, size, after, consumed)


def ahead[T](items: Generator[T]) -> Generator[T]:
    """The items, each made by a thread of its own while the one before it is in use."""

    def following() -> T | None:
        return next(items, None)

    with closing(items), ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(following)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(following)
            yield item


def encode(batches: Generator[Batch], encoder: Encoder) -> Generator[tuple[Batch, list[Encoding]]]:
    """Each batch and the encodings of its pieces."""
    with closing(batches):
        for batch in batches:
            yield batch, encoder.encode([piece.text for piece in batch.pieces])


def open_appenders(
    partial: Path, encoder: Encoder, shard: int, state: State
) -> list[tuple[Appender, Appender]]:
    """The (tokens, offsets) arrays of each split, as of the state."""
    store, tails = partial / "store", partial / "tails"
    store.mkdir(exist_ok=True)
    tails.mkdir(exist_ok=True)
    pairs = []
    for name, split in zip(SPLITS, state.splits, strict=True):

        def appender(kind: str, dtype: str, length: int, name: str = name) -> Appender:
            array = f"{name}/{kind}"
            digests = state.shards.get(array)
            return Appender(store, tails, array, dtype, shard=shard, length=length, digests=digests)

        tokens = appender("tokens", encoder.dtype, split.tokens)
        offsets = appender("offsets", "uint64", split.documents_written)
        pairs.append((tokens, offsets))
    return pairs


class Writer:
    """Writes encoded batches into both splits' arrays and keeps the state that a resume needs."""

    def __init__(
        self, partial: Path, encoder: Encoder, shard: int, journal: Journal, state: State
    ) -> None:
        self._encoder = encoder
        self._journal = journal
        self._state = state
        self._appenders = open_appenders(partial, encoder, shard, state)
        for (_, offsets), split in zip(self._appenders, state.splits, strict=True):
            if split.documents_written == 0:
                offsets.append(np.zeros(1, np.uint64))
                split.documents_written = 1

    def write(self, batch: Batch, encodings: list[Encoding]) -> bool:
        """Append a batch; true if a shard was completed."""
        encoded = self._encoder.tokens(encodings)
        bos = np.array([self._encoder.bos_id], self._encoder.dtype)
        tokens: tuple[list[np.ndarray], ...] = ([], [])
        offsets: tuple[list[int], ...] = ([], [])
        state = self._state
        for piece, ids in zip(batch.pieces, encoded, strict=True):
            split = state.splits[piece.split]
            if piece.first:
                tokens[piece.split].append(bos)
                split.tokens += 1
            tokens[piece.split].append(ids)
            split.tokens += len(ids)
            split.bytes += piece.size
            if piece.last:
                split.documents += 1
                split.documents_written += 1
                offsets[piece.split].append(split.tokens)
                state.count_document(piece.source)
        for reason in batch.skips:
            state.count_skip(reason)
        state.position = batch.after
        completed = False
        for index, (token_array, offset_array) in enumerate(self._appenders):
            if tokens[index]:
                completed |= token_array.append(np.concatenate(tokens[index]))
            completed |= offset_array.append(np.array(offsets[index], np.uint64))
        return completed

    def close(self) -> None:
        """Closes every array's file."""
        for pair in self._appenders:
            for array in pair:
                array.close()

    def commit(self) -> None:
        """Makes what was written so far outlast a crash, and notes it in the state."""
        arrays = [array for pair in self._appenders for array in pair]
        for array in arrays:
            array.sync()
            self._state.shards[array.name] = array.digests
        self._journal.commit(self._state)
        for array in arrays:
            array.drop_stale()
