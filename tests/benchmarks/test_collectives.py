"""What crosses between devices in a step: no more than is known, and none that is not needed.

Compiled for a CPU, which writes a reduce-scatter as an all-reduce: twice the bytes.
"""

from functools import cache

import pytest

from tests.benchmarks.collectives import Traffic, small_config, traffic

DEVICES = 8


@cache
def measured(kind: str, recomputed: int, layers: int = 4) -> Traffic:
    return traffic(small_config(remat_layers=recomputed, n_layers=layers), kind, DEVICES)


@pytest.mark.parametrize("recomputed", [0, 4])
def test_fsdp_gathers_each_weight_as_often_as_needed(recomputed):
    layer, tables = 256 * 256 * 4 + 2 * 256 * 1024, 2 * 4096 * 256
    weights = 4 * (4 * layer + tables + recomputed * layer) * (DEVICES - 1) / DEVICES
    assert measured("fsdp", recomputed).counted["all-gather"] == pytest.approx(weights, rel=1e-3)


# Lower them when the step moves less. Above 1, of FSDP: all-reduces; of tensor parallelism: the
# gradients of q, k and v summed one by one.
HELD = {("fsdp", 0): 1.52, ("fsdp", 4): 1.40, ("tensor", 0): 1.46, ("tensor", 4): 1.38}


@pytest.mark.parametrize(("kind", "recomputed"), HELD)
def test_bytes_stay_as_near_to_the_least(kind, recomputed):
    assert measured(kind, recomputed).ratio < HELD[kind, recomputed]


def test_a_layer_of_fsdp_moves_its_gradient_once():
    """What two more layers add: their weights gathered, and their gradients all-reduced."""
    layer = 4 * (256 * 256 * 4 + 2 * 256 * 1024) * (DEVICES - 1) / DEVICES
    small, large = measured("fsdp", 0, 4), measured("fsdp", 0, 6)
    added = sum(large.counted.values()) - sum(small.counted.values())
    assert added == pytest.approx(2 * (layer + 2 * layer), rel=0.01)
