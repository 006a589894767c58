"""Rows of packed documents, and the order in which a run reads them.

grain shuffles, prefetches and keeps the position that a checkpoint saves. `axes` are the mesh axes
that split the rows of a batch.
"""

import bisect
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import partial
from typing import Any

import grain
import jax
import numpy as np
import tensorstore as ts
from jax.sharding import PartitionSpec as P

from .data import Batch, DataError, TokenStore
from .storage import Outage, Retry, StorageError, failure

AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
DTYPES = ("int32", "int32", "int32", "int32", "float32")  # of a Batch's arrays


class PackedRows:
    """Random access to the rows of one split, packed by a plan that depends on lengths alone.

    A document of n tokens gives n positions, cut into pieces of at most S. Each predicts the next
    token, and the last one the document token, which ends a document as it starts one. Every target
    is in exactly one row. Shorter pieces share rows by best fit; attention keeps them apart.
    """

    def __init__(self, store: TokenStore, split: str, sequence_length: int, *, targets: int = 0):
        """With `targets`, only so many of the split's, those that `chosen` names.

        `text_bytes` is the bytes of text behind the rows' targets, where their tokens do not tell
        it: of a document in part, its part of the targets.
        """
        self.tokens, self.url = store.array(f"{split}/tokens"), store.url
        self.end = store.document_token
        self._retry = Retry()
        lengths = self._wait(store.array(f"{split}/offsets").read)
        offsets = np.asarray(lengths).astype(np.int64)
        self.length = sequence_length
        positions = np.diff(offsets)
        sizes, whole = store.text_bytes(split), np.maximum(positions, 1)
        if targets:
            positions = chosen(positions, targets)
        self.text_bytes = None
        if sizes is not None:
            self.text_bytes = float(self._wait(sizes.read) @ (positions / whole))
        pieces = -(-positions // sequence_length)
        document = np.repeat(np.arange(len(positions)), pieces)
        index = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        self.starts = offsets[document] + index * sequence_length
        self.lengths = np.minimum(positions[document] - index * sequence_length, sequence_length)
        self.is_end = self.starts + self.lengths == offsets[document + 1]
        self.full = np.flatnonzero(self.lengths == sequence_length)
        self.shared = best_fit(self.lengths, sequence_length)

    def __len__(self) -> int:
        return len(self.full) + len(self.shared)

    def __getitem__(self, index: int) -> Batch:
        """Row `index` as arrays of shape (S,)."""
        return Batch(*(x[0] for x in self.batch([index])))

    def batch(self, indices: Iterable[int]) -> Batch:
        """These rows as arrays of shape (B, S). All reads start at once: a store may be far away.

        An index beyond the last row gives padding.

        Raises:
            DataError: a read failed.
            Outage: the store has not answered for too long.
        """
        rows = [
            [(span, span.read(), is_end) for span, is_end in self._spans(int(index))]
            for index in indices
        ]
        arrays: list[Any] = [np.zeros((len(rows), self.length), t) for t in DTYPES]
        for row, reads in enumerate(rows):
            pieces = []
            for span, begun, is_end in reads:
                tokens = self._wait(span.read, begun)
                pieces.append(np.append(tokens, self.end) if is_end else tokens)
            fill(Batch(*(x[row] for x in arrays)), pieces)
        return Batch(*arrays)

    def _spans(self, index: int) -> list[tuple[ts.TensorStore, bool]]:
        """Each piece's tokens, with its last target unless the piece ends its document."""
        if index >= len(self):
            return []
        alone = index < len(self.full)
        pieces = [self.full[index]] if alone else self.shared[index - len(self.full)]
        places = [(int(self.starts[p]), int(self.lengths[p]), bool(self.is_end[p])) for p in pieces]
        return [(self.tokens[start : start + n + (not end)], end) for start, n, end in places]

    def _wait(self, read: Callable[[], ts.Future], begun: ts.Future | None = None) -> np.ndarray:
        """What `read` gives, `begun` or begun anew while the store does not answer."""
        futures = [begun or read()]

        def result() -> np.ndarray:
            try:
                return (futures.pop() if futures else read()).result()
            except ValueError as error:
                raise failure(error, self.url) from error

        try:
            return self._retry(result, "reading the token store")
        except Outage:
            raise
        except StorageError as error:
            raise DataError(f"token store {error}") from error


def chosen(positions: np.ndarray, targets: int) -> np.ndarray:
    """The positions of each document that are in a fixed choice of `targets` from all documents.

    It takes whole documents in an order of their own, since neighbours in a corpus are alike, and
    the last one's beginning. The order is that of NumPy's legacy generator, which never changes.
    """
    order = np.random.RandomState(0).permutation(len(positions))
    before = np.cumsum(positions[order]) - positions[order]
    taken = np.zeros_like(positions)
    taken[order] = np.clip(targets - before, 0, positions[order])
    return taken


def fill(row: Batch, pieces: list[np.ndarray]) -> None:
    """Fills a row with pieces, one after another; each has n tokens and the last one's target."""
    start = 0
    for segment, piece in enumerate(pieces, start=1):
        n = len(piece) - 1
        span = slice(start, start + n)
        row.tokens[span], row.targets[span] = piece[:-1], piece[1:]
        row.segment_ids[span] = segment
        row.positions[span] = np.arange(n)
        row.loss_weights[span] = 1.0
        start += n


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Groups the items shorter than `capacity` into bins, each filled with the longest that fit."""
    by_length: dict[int, list[int]] = {}
    for item in np.flatnonzero(lengths < capacity).tolist():
        by_length.setdefault(int(lengths[item]), []).append(item)
    remaining, bins = sorted(by_length), []
    while remaining:
        room, items = capacity, []
        while (index := bisect.bisect_right(remaining, room) - 1) >= 0:
            items.append(by_length[remaining[index]].pop())
            room -= remaining[index]
            if not by_length[remaining[index]]:
                del remaining[index]
        bins.append(items)
    return bins


def local_rows(batch_size: int, axes: tuple[str, ...]) -> list[int]:
    """Indices of a global batch's rows on this process's devices, under the current mesh."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return list(range(batch_size))
    split = jax.sharding.NamedSharding(mesh, P(axes))
    spans = split.devices_indices_map((batch_size,)).items()
    own = {
        span.indices(batch_size) for d, (span,) in spans if d.process_index == jax.process_index()
    }
    return sorted(row for span in own for row in range(*span))


class Batches:
    """grain's iterator; `epoch` is the number of batches that read every row of the split once."""

    def __init__(self, iterator: Any, epoch: Fraction):
        self._iterator, self.epoch = iterator, epoch

    def __iter__(self) -> "Batches":
        return self

    @partial(jax.profiler.annotate_function, name="run/loading")
    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """The position in the data, for a checkpoint."""
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a position that `get_state` gave."""
        self._iterator.set_state(state)


def loader(
    store: TokenStore,
    split: str,
    batch_size: int,
    sequence_length: int,
    axes: tuple[str, ...],
    *,
    seed: int,
) -> Batches:
    """An endless iterator of this process's rows of each global batch.

    Step s of a run reads the same batch whatever the number of processes and the mesh; the state
    is the number of batches read, the same in every process.

    Raises:
        DataError: the split does not fill one batch.
    """
    rows = PackedRows(store, split, sequence_length)
    if len(rows) < batch_size:
        raise DataError(
            f"{store.url}: {split} gives {len(rows)} rows of {sequence_length} positions, less "
            f"than one batch of {batch_size}; add text, or lower --batch-size"
        )
    own = local_rows(batch_size, axes)
    indices = grain.MapDataset.range(len(rows)).seed(seed).shuffle().repeat()
    # The last batch is never reached; a full one keeps the length below the largest there is.
    batches = indices.batch(batch_size, drop_remainder=True)
    dataset = batches.map(lambda batch: rows.batch(batch[own])).to_iter_dataset(AHEAD)
    return Batches(iter(dataset), Fraction(len(rows), batch_size))


def every_row(rows: PackedRows, batch_size: int, axes: tuple[str, ...]) -> Any:
    """This process's rows of each batch of all rows, in order; the last one is filled with padding.

    It can be iterated over again and again.

    Raises:
        DataError: there are none.
    """
    if not len(rows):
        raise DataError(f"{rows.url}: its held-out documents hold no target: add text")
    own = np.array(local_rows(batch_size, axes))
    starts = grain.MapDataset.range(0, len(rows), batch_size)
    return starts.map(lambda start: rows.batch(start + own)).to_iter_dataset(AHEAD)


@partial(jax.profiler.annotate_function, name="run/loading")
def to_devices(batch: Batch, axes: tuple[str, ...]) -> Batch:
    """This process's rows as global arrays, split over `axes` of the current mesh."""
    sharding = jax.sharding.NamedSharding(jax.sharding.get_mesh(), P(axes, None))
    return Batch(*(jax.make_array_from_process_local_data(sharding, x) for x in batch))
