"""What crosses between devices in a step: what must, and nothing else."""

from functools import cache

import pytest

from experiments.grug.base.planning.hlo import count
from tests.benchmarks.collectives import Traffic, compiled_step, small_config, traffic

DEVICES = 8


@cache
def measured(kind: str, recomputed: int, layers: int = 4) -> Traffic:
    return traffic(small_config(remat_layers=recomputed, n_layers=layers), kind, DEVICES)


@pytest.mark.parametrize("recomputed", [0, 4])
def test_fsdp_gathers_each_weight_as_often_as_needed(recomputed):
    layer, tables = 256 * 256 * 4 + 2 * 256 * 1024, 2 * 4096 * 256
    weights = 4 * (4 * layer + tables + recomputed * layer) * (DEVICES - 1) / DEVICES
    assert measured("fsdp", recomputed).counted["all-gather"] == pytest.approx(weights, rel=1e-3)


@pytest.mark.parametrize("recomputed", [0, 4])
@pytest.mark.parametrize("kind", ["fsdp", "tensor"])
def test_no_more_than_the_least_possible(kind, recomputed):
    """But for norms, scalars and the loss's sums."""
    assert measured(kind, recomputed).ratio < 1.005


def test_a_layer_of_fsdp_moves_its_gradient_once():
    """What two more layers add: their weights gathered, and their gradients scattered."""
    layer = 4 * (256 * 256 * 4 + 2 * 256 * 1024) * (DEVICES - 1) / DEVICES
    small, large = measured("fsdp", 0, 4), measured("fsdp", 0, 6)
    added = sum(large.counted.values()) - sum(small.counted.values())
    assert added == pytest.approx(2 * (layer + layer), rel=0.01)


def test_copies_exchange_shards_alone():
    """Two copies of the weights, four shards of each: what crosses `replica` is one shard."""
    layer, tables = 256 * 256 * 4 + 2 * 256 * 1024, 2 * 4096 * 256
    found = count(compiled_step(small_config(n_layers=4), (2, 4, 1)).as_text()).collectives
    assert found["all-reduce"] == pytest.approx(4 * (4 * layer + tables) / 4, rel=0.01)
