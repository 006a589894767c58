"""A program of which process 1 fails while process 0 waits for it: failing.py [MESSAGE OF JAX]"""

import sys
import time

import jax
from jax.experimental import multihost_utils

from experiments.grug.base.plumbing.processes import meet, run


def main() -> int:
    meet()
    multihost_utils.sync_global_devices("begin")
    if jax.process_index() == 1 and sys.argv[1:]:
        raise jax.errors.JaxRuntimeError(sys.argv[1])
    if jax.process_index() == 1:
        raise RuntimeError("no luck\nsecond line")
    time.sleep(600)
    return 0


if __name__ == "__main__":
    run(main)
