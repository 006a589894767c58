"""Trees of arrays as zarr3 in a folder.

One chunk a device shard, each guarded by a checksum; a missing chunk is an error, not zeros.
"""

import collections
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from .storage import Folder

IN_FLIGHT = 1 << 28  # bytes that wait to be written, beside the copy of this process's shards


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """`{"model/embed": array, ...}` for every array of a tree."""
    paths = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in paths}


def describe(x: Any) -> str:
    """`float32[4,256]`."""
    return f"{np.dtype(x.dtype).name}[{','.join(map(str, x.shape))}]"


class HostCopy(NamedTuple):
    """What a process writes of an array."""

    metadata: dict[str, Any]
    shards: list[tuple[Any, np.ndarray]]
    """Index and values of those that are this process's to write."""


def host_copy(x: jax.Array) -> HostCopy:
    """A copy, since a step donates its buffers, and on a CPU asarray shares them."""
    chunk = [max(1, n) for n in x.sharding.shard_shape(x.shape)]
    metadata = {
        "shape": x.shape,
        "data_type": np.dtype(x.dtype).name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "codecs": [{"name": "bytes"}, {"name": "crc32c"}],
    }
    shards = [(s.index, np.array(s.data)) for s in x.addressable_shards if s.replica_id == 0]
    return HostCopy(metadata, shards)


def write_arrays(folder: Folder, copies: dict[str, HostCopy]) -> None:
    """Writes this process's shards, and empties `copies`; process 0 writes the metadata.

    Raises:
        StorageError: not all could be written.
    """
    first = jax.process_index() == 0
    # A chunk of zeros must be written too: on reading, a missing one is a fault.
    options = {"open": True, "create": first, "store_data_equal_to_fill_value": True}
    arrays = {
        name: folder.array(name, metadata=x.metadata, assume_metadata=not first, **options)
        for name, x in copies.items()
    }
    waiting, size = collections.deque(), 0
    while copies:
        name, (_, shards) = copies.popitem()
        array = folder.wait(arrays[name])
        for index, x in shards:
            # The copy is ours alone, so that TensorStore need not make another.
            write = array[index].write(x, can_reference_source_data_indefinitely=True)
            waiting.append((write, x.nbytes))
            size += x.nbytes
            while size > IN_FLIGHT:
                write, done = waiting.popleft()
                folder.wait(write)
                size -= done
    for write, _ in waiting:
        folder.wait(write)


def read_arrays(folder: Folder, like: dict[str, Any]) -> dict[str, jax.Array]:
    """Arrays with the shapes and specs of `like` on the current mesh.

    All reads of this process's shards go out at once, since a store may be far.

    Raises:
        ValueError: TensorStore's, when one is damaged, missing or not to be had.
    """
    options = {"open": True, "fill_missing_data_reads": False}
    opened = {name: folder.array(name, **options) for name in like}
    reads = {}
    for name, x in like.items():
        spec = x.sharding.spec if x.sharding else P()  # None: an unsharded scalar
        sharding, array = NamedSharding(jax.sharding.get_mesh(), spec), opened[name].result()
        indices = sharding.addressable_devices_indices_map(x.shape).values()
        shards = {repr(index): index for index in indices}  # devices may hold the same one
        reads[name] = sharding, {key: array[index].read() for key, index in shards.items()}

    def assemble(name: str) -> jax.Array:
        sharding, shards = reads.pop(name)

        def load(index: Any) -> Any:
            return shards[repr(index)].result()

        return jax.make_array_from_callback(like[name].shape, sharding, load)

    return {name: assemble(name) for name in like}
