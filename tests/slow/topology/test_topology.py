"""Real compiles for TPUs that are not here: what fits, what must not, and what is counted.

GPUs are left out: their packages are 3.5 GB. `--plan --topology 8xh100` tries them by hand.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.launch.hardware import python_for

ROOT = Path(__file__).parents[3]
BUNDLE = Path("bundles/base-tpu").absolute()  # where Pants puts it


@pytest.fixture(scope="module")
def python() -> Path:
    return python_for("v5e:2x2", ROOT)


def start(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


def plan(python: Path, cwd: Path, variant: str, *flags: str) -> subprocess.CompletedProcess:
    module = f"experiments.grug.{variant}.launch"
    return start(python, "-P", "-m", module, "--plan", *flags, cwd=cwd)


def number(text: str, line: str, section: str = "") -> float:
    """What stands on a line of the plan, from its section on."""
    found = re.search(rf"^ *{re.escape(line)} +([\d.,e+]+)", text[text.index(section) :], re.M)
    assert found, f"no {line!r} in:\n{text}"
    return float(found[1].replace(",", ""))


def test_a_step_that_fits(tmp_path):
    """By a bundle for TPUs, on a machine without one."""
    done = start(sys.executable, BUNDLE / "run.py", "--plan", "--topology", "v5e:2x2", cwd=tmp_path)
    text = done.stdout
    assert done.returncode == 0, done.stderr
    assert "TPU v5 lite" in text and "of 15.75 GiB: fits" in text
    # What goes in: weights and both moments, and a batch.
    state = number(text, "weights") + number(text, "optimizer")
    arguments = number(text, "arguments", "compiled")
    assert state < arguments < 1.3 * state
    assert number(text, "in place of arguments") > 0.95 * state  # donated
    peak = number(text, "step", "peak memory per device")
    assert arguments < peak < 4 * number(text, "together (estimate)")
    assert number(text, "evaluation", "peak memory per device") < peak
    assert "the largest is the step" in text
    # Attention computes the half above the diagonal too.
    model = number(text, "of the model")
    assert model < number(text, "compiled", "FLOPs per step and device") < 1.3 * model
    # In bfloat16, a quarter of the weights on each device: gathered once forwards, once backwards.
    weights = 4 * number(text, "weights") / 2
    assert weights / 2 < number(text, "all-gather") < 2 * weights
    assert not list(tmp_path.iterdir())


def test_a_step_that_must_not_fit(python, tmp_path):
    """A billion weights and their moments are 14 GiB; a chip has 15.75."""
    done = plan(python, tmp_path, "base", "--preset", "1b", "--topology", "v5e:1x1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("base: does not fit on v5e:1x1: RESOURCE_EXHAUSTED")
    assert "15.75G" in line and "--microbatches" in line
    assert "FLOPs in total" in done.stdout


def test_slices_exchange_gradients_alone(python, tmp_path):
    flags = "--topology 2xv6e:2x2 --mesh 2 -1 1 --model.n-layers 2".split()
    done = plan(python, tmp_path, "base", *flags)
    text = done.stdout
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\S+) between slices", text) == ["all-reduce"]
    between, gradients = number(text, "all-reduce between slices"), number(text, "gradients")
    assert gradients / 2 < between < 2 * gradients  # the shard that a device has of them
    assert number(text, "reduce-scatter") > 0 and number(text, "all-gather") > 0


@pytest.mark.parametrize(
    "topology, device, memory",
    [("v5e:2x2", "TPU v5 lite", "15.75"), ("v5p:2x2x1", "TPU v5", "95.74")],
)
def test_experts_exchange_tokens(python, tmp_path, topology, device, memory):
    flags = "--mesh 1 2 2 1 --model.n-layers 2 --model.scan-unroll 1".split()
    done = plan(python, tmp_path, "moe", "--topology", topology, *flags)
    assert done.returncode == 0, done.stderr
    assert device in done.stdout and f"of {memory} GiB: fits" in done.stdout
    assert number(done.stdout, "all-to-all") > 0
    assert number(done.stdout, "compiled", "FLOPs per step") > number(done.stdout, "of the model")


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_splash_attention(python, tmp_path, topology):
    flags = "--model.attention splash --model.n-layers 2 --model.scan-unroll 1".split()
    done = plan(python, tmp_path, "base", "--topology", topology, *flags)
    assert done.returncode == 0, done.stderr
    # Of each layer one forwards and one backwards.
    assert "and those of 4 calls of kernels" in done.stdout


PROGRAM = """
from experiments.grug.base import launch
from experiments.grug.base.planning import hlo, topology
topology.leave_hardware_alone(["--topology"])
flags = "--plan --topology v5e:2x2 --model.n-layers 2 --model.loss-chunk 256"
flags += " --model.scan-unroll {unroll}"
cfg = launch.parse(flags.split()).train
devices = topology.Topology.named("v5e:2x2").devices
_, program = next(topology.compile_programs(cfg, devices, launch.make_sampler))
print(program.cost_analysis()["flops"], hlo.count(program.as_text()).matrix_flops)
"""


def test_the_count_is_the_compilers_where_there_is_no_loop(python, tmp_path):
    """XLA counts a loop once, and more than matrix products."""
    done = start(python, "-P", "-c", PROGRAM.format(unroll=2), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    theirs, unrolled = map(float, done.stdout.split()[-2:])
    assert 0.9 * theirs < unrolled <= theirs
    done = start(python, "-P", "-c", PROGRAM.format(unroll=1), cwd=tmp_path)
    theirs, looped = map(float, done.stdout.split()[-2:])
    assert looped == pytest.approx(unrolled, rel=0.01)
    assert theirs < 0.7 * looped
