"""Rows of packed documents, and the order a run reads them in. Plumbing: the same in every copy.

grain shuffles, shards over processes, prefetches and keeps the position that a checkpoint saves.
"""

import bisect
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from experiments.grug.moe.data import Batch, DataError, TokenStore
from experiments.grug.moe.model import BATCH


class PackedRows:
    """Random access to the rows of one split, packed by a plan that depends on lengths alone.

    A document of n tokens gives n - 1 positions, cut into pieces of at most S; every target is in
    exactly one row. Shorter pieces share rows by best fit; the model lets none see another.
    """

    def __init__(self, store: TokenStore, split: str, sequence_length: int):
        self.tokens = store.array(f"{split}/tokens")
        offsets = np.asarray(store.array(f"{split}/offsets").read().result()).astype(np.int64)
        self.length = sequence_length
        positions = np.maximum(np.diff(offsets) - 1, 0)
        pieces = -(-positions // sequence_length)
        document = np.repeat(np.arange(len(positions)), pieces)
        index = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        self.starts = offsets[document] + index * sequence_length
        self.lengths = np.minimum(positions[document] - index * sequence_length, sequence_length)
        self.full = np.flatnonzero(self.lengths == sequence_length)
        self.shared = best_fit(self.lengths, sequence_length)

    def __len__(self) -> int:
        return len(self.full) + len(self.shared)

    def __getitem__(self, index: int) -> Batch:
        """Row `index` as arrays of shape (S,)."""
        arrays: list[Any] = [np.zeros(self.length, t) for t in (*["int32"] * 4, "float32")]
        batch = Batch(*arrays)
        alone = index < len(self.full)
        pieces = [self.full[index]] if alone else self.shared[index - len(self.full)]
        spans = [(int(self.starts[p]), int(self.lengths[p])) for p in pieces]
        reads = [self.tokens[start : start + n + 1].read() for start, n in spans]
        at = 0
        for segment, ((_, n), read) in enumerate(zip(spans, reads, strict=True), start=1):
            piece, here = read.result(), slice(at, at + n)
            batch.tokens[here], batch.targets[here] = piece[:-1], piece[1:]
            batch.segment_ids[here] = segment
            batch.positions[here] = np.arange(n)
            batch.loss_weights[here] = 1.0
            at += n
        return batch


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Groups the items shorter than `capacity` into bins, each filled with the longest that fit."""
    by_length: dict[int, list[int]] = {}
    for item in np.flatnonzero(lengths < capacity).tolist():
        by_length.setdefault(int(lengths[item]), []).append(item)
    left, bins = sorted(by_length), []
    while left:
        room, items = capacity, []
        while (at := bisect.bisect_right(left, room) - 1) >= 0:
            items.append(by_length[left[at]].pop())
            room -= left[at]
            if not by_length[left[at]]:
                del left[at]
        bins.append(items)
    return bins


def loader(store: TokenStore, split: str, *, batch_size: int, sequence_length: int, seed: int):
    """An endless iterator of this process's share of each global batch, with get/set_state.

    Step s of a run reads the same rows whatever the number of processes.
    """
    rows = PackedRows(store, split, sequence_length)
    if len(rows) < batch_size:
        raise DataError(
            f"{store.url}: {split} gives {len(rows)} rows of {sequence_length} positions, less "
            f"than one batch of {batch_size}; add text, or lower --batch-size"
        )
    dataset = grain.MapDataset.source(rows).seed(seed).shuffle().repeat()
    dataset = dataset[jax.process_index() :: jax.process_count()]
    dataset = dataset.batch(batch_size // jax.process_count())
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def to_devices(batch: Batch) -> Batch:
    """This process's rows as global arrays, split over the mesh's batch axes."""
    sharding = jax.sharding.NamedSharding(jax.sharding.get_mesh(), P(BATCH, None))
    return Batch(*(jax.make_array_from_process_local_data(sharding, x) for x in batch))
