"""One of two processes that save, restore and read data together. Run by test_processes.py.

python -m tests.stores.worker ACTION COORDINATOR INDEX URL [STORE]
"""

from __future__ import annotations

import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.grug.base.model import BATCH
from experiments.grug.base.plumbing import checkpoint
from experiments.grug.base.plumbing.checkpoint import CheckpointError, Checkpoints
from experiments.grug.base.plumbing.data import TokenStore
from experiments.grug.base.plumbing.packing import loader, to_devices
from tests.stores.tree import CONFIG, assert_holds, like, make_mesh, make_state


def save(url: str) -> None:
    """Saves steps 1 to 3 over four devices, says of each whether it is there, and restores."""
    with jax.set_mesh(make_mesh(1, 2, 2)):
        checkpoints = Checkpoints(url, keep=2)
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step), {"config": CONFIG})
            try:
                checkpoints.wait()
                print(f"saved {step}", flush=True)
            except CheckpointError as error:
                print(f"failed {step}: {error}", flush=True)
    restore(url)


def apart(url: str) -> None:
    """Saves where the other process does not."""
    checkpoint.PATIENCE = 1.0
    save(url)


def restore(url: str) -> None:
    """Restores the newest onto the mesh it was saved from and onto others."""
    for shape in ((1, 2, 2), (1, 4, 1), (2, 2, 1), (1, 1, 4)):
        with jax.set_mesh(make_mesh(*shape)):
            checkpoints = Checkpoints(url, keep=2)
            step = checkpoints.latest()
            assert step is not None
            assert_holds(checkpoints.restore(step, like(), CONFIG)[0], step)
    print(f"restored {step}", flush=True)


def read(url: str, store: str) -> None:
    """On every mesh both processes hold the batches that one process alone reads."""
    opened = TokenStore.open(store)
    sizes = {"batch_size": 8, "sequence_length": 32, "axes": BATCH, "seed": 0}
    alone = loader(opened, "train", **sizes)
    expected = [next(alone) for _ in range(3)]
    for shape in ((1, 4, 1), (2, 1, 2), (1, 1, 4), (2, 2, 1)):
        with jax.set_mesh(make_mesh(*shape)):
            batches = loader(opened, "train", **sizes)
            for wanted in expected:
                batch = to_devices(next(batches), BATCH)
                for ours, theirs in zip(batch, wanted, strict=True):
                    whole = multihost_utils.process_allgather(ours, tiled=True)
                    np.testing.assert_array_equal(whole, theirs)
            assert batches.get_state() == alone.get_state()
    print("read", flush=True)


def main(action: str, coordinator: str, index: str, *arguments: str) -> None:
    jax.distributed.initialize(coordinator, 2, int(index))
    {"save": save, "apart": apart, "restore": restore, "read": read}[action](*arguments)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    main(*sys.argv[1:])
