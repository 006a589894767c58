"""The arithmetic of links and of the least time."""

import pytest

from tests.contract.harness import under_test

hlo, roofline, wire = under_test().hlo, under_test().roofline, under_test().wire
N = 1200.0
EIGHT = [0] * 8
TWO_NODES = [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    "attributes, devices, expected",
    [
        ("replica_groups={{0,2},{1,3}}, to_apply=%add", 4, [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", 4, [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", 4, [[0, 2], [1, 3]]),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", 8, [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", 4, [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", 4, [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2] {'a','c'}", 4, [[0, 1, 2, 3]]),
        ("replica_groups={}, to_apply=%add", 3, [[0, 1, 2]]),
        ("channel_id=3", 2, [[0, 1]]),
    ],
)
def test_groups_of_a_collective(attributes, devices, expected):
    assert wire.groups(attributes, devices) == expected


@pytest.mark.parametrize(
    "kind, attributes, nodes, links, network",
    [
        # A ring over 8 devices of one node or slice.
        ("all-gather", "replica_groups={}", EIGHT, N * 7 / 8, 0),
        ("reduce-scatter", "replica_groups={}", EIGHT, N * 7 / 8, 0),
        ("all-reduce", "replica_groups={}", EIGHT, 2 * N * 7 / 8, 0),
        ("all-reduce", "replica_groups=[4,2]<=[8]", EIGHT, N, 0),
        ("all-to-all", "replica_groups={}", EIGHT, N * 7 / 8, 0),
        ("collective-permute", "source_target_pairs={{0,1},{1,0}}", EIGHT, N, 0),
        ("collective-permute", "source_target_pairs={{0,0}}", EIGHT, 0, 0),
        # Over two nodes of 4, each of the 4 rings crosses between them once.
        ("all-gather", "replica_groups={}", TWO_NODES, N * 7 / 8 * 3 / 4, N * 7 / 8 / 4),
        ("all-gather", "replica_groups=[2,4]<=[8]", TWO_NODES, N * 3 / 4, 0),
        ("all-gather", "replica_groups=[4,2]<=[2,4]T(1,0)", TWO_NODES, 0, N / 2),
        ("all-to-all", "replica_groups={}", TWO_NODES, N * 3 / 8, N * 4 / 8),
        ("collective-permute", "source_target_pairs={{0,4}}", TWO_NODES, 0, N),
        # What a TPU's program sends between its slices.
        ("all-reduce between slices", "", TWO_NODES, 0, N),
        ("all-reduce between slices", "", [0, 1, 2, 3], 0, 2 * N * 3 / 4),
    ],
)
def test_bytes_on_the_wire(kind, attributes, nodes, links, network):
    found = wire.sent(kind, N, attributes, nodes)
    assert (found.links, found.network) == pytest.approx((links, network))


def test_a_loop_sends_as_often_as_it_turns():
    text = """HloModule m, num_partitions=4

%body (t: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %y = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups={}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %w = f32[8]{0} while(%a), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"6"}}
}"""
    assert hlo.count(text).wire == wire.Wire(links=6 * 2 * 32 * 3 / 4)


def least(flops: float, memory: float, links: float, network: float = 0.0, **changes):
    """Of 16 v5e chips, 32,768 tokens a step and 900 steps."""
    counts = hlo.Counts(matrix_flops=flops, wire=wire.Wire(links, network))
    facts = {"chip": roofline.CHIPS["v5e"], "devices": 16, "tokens": 32_768, "steps": 900} | changes
    return roofline.roofline(counts, memory, 0.8 * flops, **facts)


def test_compute_binds():
    found = least(flops=0.4 * 197e12, memory=0.1 * 819e9, links=0.2 * 200e9)
    expected = {"compute": 0.4, "memory": 0.1, "links": 0.2, "network": 0.0}
    assert found.seconds == pytest.approx(expected)
    assert (found.binds, found.step_seconds) == ("compute", pytest.approx(0.4))
    assert found.mfu == pytest.approx(0.8)
    assert found.tokens_per_second == pytest.approx(32_768 / 0.4)
    assert found.hours == pytest.approx(0.1) and found.device_hours == pytest.approx(1.6)
    assert found.dollars is None


def test_memory_binds_and_costs():
    found = least(flops=0.1 * 197e12, memory=0.4 * 819e9, links=0.2 * 200e9, price=1.5)
    assert (found.binds, found.mfu) == ("memory", pytest.approx(0.2))
    assert found.dollars == pytest.approx(2.4)
    text = "\n".join(roofline.lines_of(found, 900, 1.5))
    assert "  memory binds: at most 20.0% MFU and 81,920 tokens per second" in text
    assert "  900 steps take at least 0.10 hours, 1.6 device-hours, 2.40 dollars at 1.5" in text
    assert "  compute                        100.00 ms  at 197 TFLOP/s" in text
    assert "network" not in text


def test_the_network_between_slices_binds():
    found = least(flops=197e9, memory=819e6, links=200e6, network=0.4 * 3.125e9)
    assert (found.binds, found.step_seconds) == ("network", pytest.approx(0.4))
    assert "  network                        400.00 ms  at 3.125 GB/s" in list(
        roofline.lines_of(found, 900, 0.0)
    )


def test_each_chip_that_a_plan_knows_has_its_peaks():
    topology, chips = under_test().topology, roofline.CHIPS
    assert chips.keys() == topology.TPUS.keys() | topology.GPUS.keys()
    peak_flops_of = under_test().record.peak_flops_of
    peaks = {name: peak_flops_of(chip.kind) for name, chip in chips.items()}
    assert (peaks["v5e"], peaks["v5p"], peaks["h100"]) == (197e12, 459e12, 989e12)
    assert all(peaks.values()) and peak_flops_of("cpu") is None
