"""The encoding pass: pieces become batches, batches tokens, and tokens the splits' arrays."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.corpus.documents import SPLITS, Piece, Position, Skip
from tools.corpus.journal import Journal, State
from tools.corpus.store import Appender
from tools.corpus.tokenizer import Encoder


@dataclass(frozen=True)
class Pace:
    """How the work is divided, which does not affect the result; sizes in bytes of text."""

    # Encodings take about 40 times the memory of their text, and there are two batches: 200 MiB.
    batch_bytes: int = 2 << 20
    batch_pieces: int = 1 << 14
    commit_bytes: int = 16 << 20


@dataclass(frozen=True)
class Batch:
    """Pieces to encode at once, `size` bytes of text, and the reasons for records skipped between.

    `after` is the position after the batch, `consumed` the bytes read of the file it ends in.
    """

    pieces: list[Piece]
    skips: list[str]
    size: int
    after: Position
    consumed: int = 0


def batches(pieces: Iterator[Piece | Skip], start: Position, pace: Pace) -> Generator[Batch]:
    """Groups pieces, in order, into batches that end when they reach a limit of `pace`."""
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
    """The items, each made by another thread while the one before it is in use."""

    def next_item() -> T | None:
        return next(items, None)

    with closing(items), ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next_item)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next_item)
            yield item


def encode(batches: Generator[Batch], encoder: Encoder) -> Generator[tuple[Batch, list[list[int]]]]:
    """Each batch and the token ids of its pieces."""
    with closing(batches):
        for batch in batches:
            yield batch, encoder.encode([piece.text for piece in batch.pieces])


def open_appenders(
    partial: Path, encoder: Encoder, shard: int, state: State
) -> list[tuple[Appender, Appender, Appender]]:
    """The (tokens, offsets, text_bytes) arrays of each split, as of the state."""
    store, tails = partial / "store", partial / "tails"
    store.mkdir(exist_ok=True)
    tails.mkdir(exist_ok=True)
    arrays = []
    for name, split in zip(SPLITS, state.splits, strict=True):

        def appender(kind: str, dtype: str, length: int, name: str = name) -> Appender:
            array = f"{name}/{kind}"
            digests = state.shards.get(array)
            return Appender(store, tails, array, dtype, shard=shard, length=length, digests=digests)

        tokens = appender("tokens", encoder.dtype, split.tokens)
        offsets = appender("offsets", "uint64", split.documents_written)
        text_bytes = appender("text_bytes", "uint64", split.documents)
        arrays.append((tokens, offsets, text_bytes))
    return arrays


class Writer:
    """Writes encoded batches into both splits' arrays, and keeps the state that a resume needs."""

    def __init__(
        self, partial: Path, encoder: Encoder, shard: int, journal: Journal, state: State
    ) -> None:
        self._encoder = encoder
        self._journal = journal
        self._state = state
        self._appenders = open_appenders(partial, encoder, shard, state)
        for (_, offsets, _), split in zip(self._appenders, state.splits, strict=True):
            if split.documents_written == 0:
                offsets.append(np.zeros(1, np.uint64))
                split.documents_written = 1

    def write(self, batch: Batch, encoded: list[list[int]]) -> bool:
        """Appends a batch; returns whether it completed a shard."""
        arrays = self._encoder.tokens(encoded)
        bos = np.array([self._encoder.bos_id], self._encoder.dtype)
        tokens: tuple[list[np.ndarray], ...] = ([], [])
        offsets: tuple[list[int], ...] = ([], [])
        sizes: tuple[list[int], ...] = ([], [])
        state = self._state
        for piece, ids, array in zip(batch.pieces, encoded, arrays, strict=True):
            split = state.splits[piece.split]
            if piece.first:
                tokens[piece.split].append(bos)
                split.tokens += 1
                split.open_bytes, split.open_exact = 0, True
            tokens[piece.split].append(array)
            split.tokens += len(ids)
            split.bytes += piece.size
            split.open_bytes += piece.size
            split.open_exact &= self._encoder.spells(ids, piece.text)
            if piece.last:
                split.documents += 1
                split.documents_written += 1
                split.inexact += not split.open_exact
                offsets[piece.split].append(split.tokens)
                sizes[piece.split].append(split.open_bytes)
                state.count_document(piece.source)
        for reason in batch.skips:
            state.count_skip(reason)
        state.position = batch.after
        completed = False
        for index, (token_array, offset_array, size_array) in enumerate(self._appenders):
            if tokens[index]:
                completed |= token_array.append(np.concatenate(tokens[index]))
            completed |= offset_array.append(np.array(offsets[index], np.uint64))
            completed |= size_array.append(np.array(sizes[index], np.uint64))
        return completed

    def close(self) -> None:
        """Closes every array's file."""
        for arrays in self._appenders:
            for array in arrays:
                array.close()

    def commit(self) -> None:
        """Makes what was written so far survive a crash, and commits the state to the journal."""
        arrays = [array for of_split in self._appenders for array in of_split]
        for array in arrays:
            array.sync()
            self._state.shards[array.name] = array.digests
        self._journal.commit(self._state)
        for array in arrays:
            array.drop_stale()
