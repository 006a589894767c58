"""Checkpoints by TensorStore alone. Plumbing: rarely edited, the same in every copy.

    RUN/checkpoints/step-00000100/<path of a leaf>/    one zarr3 array, one chunk a device shard
    RUN/checkpoints/step-00000100/COMMIT               JSON, written last: without it there is none

Nothing is pickled, a checksum guards every chunk, and a missing chunk is an error, not zeros.
"""

import json
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.grug.moe.data import brief, store_url

CHECKPOINT_SCHEMA = 1


class CheckpointError(Exception):
    """A checkpoint cannot be read, or is not of this run; the message names the difference."""


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """`{"model/embed": array, ...}` for every array of a tree."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in paths}


def describe(x: Any) -> str:
    """`float32[4,256]`."""
    return f"{np.dtype(x.dtype).name}[{','.join(map(str, x.shape))}]"


class Checkpoints:
    """The newest `keep` checkpoints of a run. A save copies, then writes while training goes on."""

    def __init__(self, run_dir: str, *, keep: int):
        self.url = store_url(run_dir) + "checkpoints/"
        self.keep = keep
        self.kv = ts.KvStore.open(self.url).result()
        self._pending: tuple[int, list[ts.WriteFutures], bytes] | None = None

    def _spec(self, step: int, name: str) -> dict[str, Any]:
        return {"driver": "zarr3", "kvstore": f"{self.url}step-{step:08d}/{name}/"}

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        keys = (key.decode().split("/") for key in self.kv.list().result())
        return sorted(int(k[0].removeprefix("step-")) for k in keys if k[1:] == ["COMMIT"])

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts to write arrays and `meta` (JSON with "config"); nothing if `step` exists."""
        self.wait()
        if step in self.steps():
            return
        self._delete(step)  # what a killed process left half-written
        leaves = leaves_by_name(state)
        writes = []
        for name, x in leaves.items():
            chunk = [max(1, n) for n in x.sharding.shard_shape(x.shape)]
            metadata = {
                "shape": x.shape,
                "data_type": np.dtype(x.dtype).name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
                "codecs": [{"name": "bytes"}, {"name": "crc32c"}],
            }
            # A chunk of zeros must be written too: on reading, a missing one is a fault.
            options = {"metadata": metadata, "store_data_equal_to_fill_value": True}
            array = ts.open(self._spec(step, name) | options, create=True).result()
            for shard in x.addressable_shards:
                if shard.replica_id == 0:
                    # A copy: the step donates its buffers, and on a CPU asarray shares them.
                    writes.append(array[shard.index].write(np.array(shard.data)))
        shapes = {name: describe(x) for name, x in leaves.items()}
        commit = {"schema_version": CHECKPOINT_SCHEMA, "step": step, "leaves": shapes, **meta}
        self._pending = (step, writes, json.dumps(commit, sort_keys=True).encode())

    def poll(self) -> None:
        """Commits the save under way if its data has been written."""
        if self._pending and all(write.done() for write in self._pending[1]):
            self.wait()

    def wait(self) -> None:
        """Finishes the save under way: data, then its COMMIT, then old checkpoints go."""
        if self._pending is None:
            return
        step, writes, commit = self._pending
        for write in writes:
            write.result()
        self.kv.write(f"step-{step:08d}/COMMIT", commit).result()
        self._pending = None
        for old in self.steps()[: -self.keep]:
            self._delete(old)

    def _delete(self, step: int) -> None:
        prefix = f"step-{step:08d}/"
        self.kv.write(prefix + "COMMIT", None).result()  # first, so that no half of it is loaded
        self.kv.delete_range(ts.KvStore.KeyRange(prefix, prefix[:-1] + "0")).result()

    def restore(self, step: int, like: Any, config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """(state, meta) of a step, laid out on the mesh as `like`: what jax.eval_shape gives.

        Raises:
            CheckpointError: unreadable, or its config or shapes are not those given.
        """
        wanted = leaves_by_name(like)
        where = f"checkpoint of step {step} in {self.url}"
        try:
            meta = json.loads(self.kv.read(f"step-{step:08d}/COMMIT").result().value)
            saved = {k: meta[k] for k in ("schema_version", "config", "leaves")}
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{where}: its COMMIT is unreadable: {error!r}") from error
        shapes = {name: describe(x) for name, x in wanted.items()}
        ours = {"schema_version": CHECKPOINT_SCHEMA, "config": config, "leaves": shapes}
        if changes := differences(saved, ours):
            raise CheckpointError(
                f"{where} is of another run: {'; '.join(changes)}. Give the run's own values to "
                "resume it, or another --run-dir to start anew"
            )

        def read(name: str, x: Any) -> jax.Array:
            spec = self._spec(step, name) | {"fill_missing_data_reads": False}
            array = ts.open(spec).result()
            spec = x.sharding.spec if x.sharding else P()  # None: an unsharded scalar
            sharding = NamedSharding(jax.sharding.get_mesh(), spec)
            load = lambda index: array[index].read().result()  # noqa: E731
            return jax.make_array_from_callback(x.shape, sharding, load)

        try:
            arrays = [read(name, x) for name, x in wanted.items()]
        except ValueError as error:  # what TensorStore raises
            raise CheckpointError(
                f"{where} is damaged: {brief(error)}. Delete its folder to go on from an older one "
                f"(there are {self.steps()})"
            ) from error
        return jax.tree.unflatten(jax.tree.structure(like), arrays), meta


def differences(saved: Any, ours: Any, name: str = "") -> list[str]:
    """`name: saved -> ours` for every entry that differs, of nested dicts."""
    if not (isinstance(saved, dict) and isinstance(ours, dict)):
        return [] if saved == ours else [f"{name}: {saved} -> {ours}"]
    keys = sorted(saved.keys() | ours.keys())
    pairs = ((k, saved.get(k, "absent"), ours.get(k, "absent")) for k in keys)
    return [d for k, a, b in pairs for d in differences(a, b, f"{name}.{k}" if name else k)]
