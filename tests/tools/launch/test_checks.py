"""What is refused before it waits in a queue, by a real variant's own plan."""

import subprocess
from pathlib import Path

import pytest

from tools.bundle.topology import Topology
from tools.common.errors import ToolError
from tools.launch.checks import check_compiled, check_plan
from tools.launch.main import planner

ROOT = Path(__file__).parents[3]
WHAT = {"cpu": "3", "gpu": "8xh100", "tpu": "v5e:4x4", "slices": "2xv6e:4x4"}


def check(topology: str, *flags: str) -> None:
    accelerator = {"gpu": "gpu", "cpu": "cpu"}.get(topology, "tpu")
    check_plan(flags, Topology.parse(accelerator, WHAT[topology]), planner("base", ROOT))


def test_what_runs_there_passes():
    check("gpu", "--preset", "130m", "--run-dir", "gs://bucket/run", "--resume")
    check("slices", "--preset", "130m", "--mesh", "2", "-1", "1", "--data", "gs://bucket/text")


@pytest.mark.parametrize(
    "topology, flags, said",
    [
        ("gpu", "--presset 1b", "start no run on 8xh100: see above"),
        ("gpu", "--batch-size abc", "start no run on 8xh100: see above"),
        ("cpu", "--batch-size 8", "cannot be split over 3 devices"),
        ("tpu", "--preset 130m --mesh 1 3 1", "3"),
        ("slices", "--preset 130m", r"has 2 slices, .*as in --mesh 2 -1 1"),
        ("tpu", "--preset 1b", r"does not fit on v5e:4x4: about \d+\.\d of 15\.8 GiB per device"),
    ],
)
def test_what_would_end_at_its_start_is_refused(capsys, topology, flags, said):
    with pytest.raises(ToolError, match=said):
        check(topology, *flags.split())
    if "see above" in said:
        assert flags.split()[0].lstrip("-") in capsys.readouterr().err.replace("_", "-")


def test_what_the_compiler_says_of_memory_counts():
    told = []

    def plan(flags, variables):
        told.append((flags, variables))
        values = '{"compiled": {"fits": false, "error": "RESOURCE_EXHAUSTED: too\\nmuch"}}'
        return subprocess.CompletedProcess([], 1, values, "")

    topology = Topology.parse("tpu", "2xv6e:4x4")
    with pytest.raises(ToolError, match="does not fit on 2xv6e:4x4: RESOURCE_EXHAUSTED: too much"):
        check_compiled(["--steps", "3"], topology, plan)
    assert told == [(["--plan", "--json", "--topology", "2xv6e:4x4", "--steps", "3"], {})]


@pytest.mark.parametrize(
    "accelerator, text", [*WHAT.items(), ("gpu", "2x8xh200"), ("tpu", "v5p:2x2x2")]
)
def test_a_topology_is_written_as_it_is_read(accelerator, text):
    accelerator = accelerator if accelerator in ("cpu", "gpu") else "tpu"
    assert str(Topology.parse(accelerator, text)) == text


def test_memory_is_what_the_templates_plan_reckons_with():
    from experiments.grug.base.planning import topology

    for kind, (dimensions, gib) in topology.TPUS.items():
        asked = Topology.parse("tpu", f"{kind}:{'x'.join(['2'] * dimensions)}")
        assert asked.memory == gib * 2**30
    for kind, facts in topology.GPUS.items():
        assert Topology.parse("gpu", f"8x{kind}").memory == facts["device_memory_size"] * 0.75
