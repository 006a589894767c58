"""Trees of arrays as zarr3 in a folder.

One chunk per device shard, each guarded by a checksum; a missing chunk is an error, not zeros.
"""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from .storage import Folder

IN_FLIGHT = 1 << 28  # bytes being written at a time, in addition to the copy of the shards


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """`{"model/embed": array, ...}` for every array of a tree."""
    paths = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in paths}


def describe(x: Any) -> str:
    """`float32[4,256]`."""
    return f"{np.dtype(x.dtype).name}[{','.join(map(str, x.shape))}]"


@jax.jit
def _finite(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])


def not_finite(tree: Any) -> list[str]:
    """Names of the arrays that hold a NaN or an infinity. Waits for the devices that compute it."""
    leaves = {
        name: x for name, x in leaves_by_name(tree).items() if jnp.issubdtype(x.dtype, jnp.inexact)
    }
    if not leaves:
        return []
    finite = np.asarray(_finite(list(leaves.values())))
    return [name for name, fine in zip(leaves, finite, strict=True) if not fine]


class HostCopy(NamedTuple):
    """This process's part of an array, ready to be written."""

    metadata: dict[str, Any]
    shards: list[tuple[Any, np.ndarray]]
    """Index and values of each shard that this process writes."""


def host_copy(x: jax.Array) -> HostCopy:
    """Copies this process's shards: a step donates its buffers, and asarray shares them on a CPU.

    Of several copies of a shard, only the one with replica_id 0 is taken.
    """
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
        StorageError: an array could not be written.
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
                write, written = waiting.popleft()
                folder.wait(write)
                size -= written
    for write, _ in waiting:
        folder.wait(write)


def read_arrays(folder: Folder, like: dict[str, Any]) -> dict[str, jax.Array]:
    """Arrays with the shapes and specs of `like` on the current mesh.

    All reads of this process's shards are started at once, since a store may be far away.

    Raises:
        ValueError: TensorStore's, when an array is damaged, missing or out of reach.
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
