"""Real compiles for TPUs that are not here: what fits, what must not, and what is counted.

GPUs are left out: their packages are 3.5 GB. `--plan --topology 8xh100` tries them by hand.
"""

import json
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
    # It takes some time to compute, less than the FLOPs of all would at a tenth of the peak.
    compute = number(text, "compute", "least step time") / 1e3
    assert compute == pytest.approx(number(text, "compiled", "FLOPs per step") / 197e12, rel=0.2)
    assert re.search(r"(compute|memory|links) binds: at most [\d.]+% MFU", text)
    assert not list(tmp_path.iterdir())


def test_a_step_that_must_not_fit(python, tmp_path):
    """A billion weights and their moments are 14 GiB; a chip has 15.75."""
    done = plan(python, tmp_path, "base", "--preset", "1b", "--topology", "v5e:1x1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("base: does not fit on v5e:1x1: RESOURCE_EXHAUSTED")
    assert "15.75G" in line and "--microbatches" in line
    assert "FLOPs in total" in done.stdout
    done = plan(python, tmp_path, "base", "--preset", "1b", "--topology", "v5e:1x1", "--json")
    assert done.returncode == 1
    values = json.loads(done.stdout)
    assert values["parameters"] > 1e9 and values["compiled"]["step"] is None
    assert values["compiled"]["fits"] is False and "15.75G" in values["compiled"]["error"]


def test_a_preset_fits_where_the_docs_say(python, tmp_path):
    """As docs/reference/run.md has it; tests/benchmarks:plans compiles the other pairs."""
    flags = ("--preset", "130m", "--topology", "v5e:4x4", "--json")
    done = plan(python, tmp_path, "base", *flags)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    compiled = values["compiled"]
    assert compiled["fits"] is True
    assert sum(values["memory"].values()) == pytest.approx(
        max(compiled["peaks"].values()), rel=0.15
    )
    assert compiled["step"]["ratio"] < 1.2


def test_slices_exchange_gradients_alone(python, tmp_path):
    flags = "--topology 2xv6e:2x2 --mesh 2 -1 1 --model.n-layers 2 --price 3".split()
    done = plan(python, tmp_path, "base", *flags)
    text = done.stdout
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\S+) between slices", text) == ["all-reduce"]
    between, gradients = number(text, "all-reduce between slices"), number(text, "gradients")
    assert gradients / 2 < between < 2 * gradients  # the shard that a device has of them
    assert number(text, "reduce-scatter") > 0 and number(text, "all-gather") > 0
    # Over two slices, a ring sends each byte once: at 12.5 GB/s per chip.
    network = number(text, "network", "least step time") / 1e3
    assert network == pytest.approx(between * 2**20 / 12.5e9, rel=0.1)
    assert "network binds" in text and "dollars at 3" in text


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
    flags += "--sequence-length 1024 --json".split()
    done = plan(python, tmp_path, "base", "--topology", topology, *flags)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    step, model = values["compiled"]["step"], values["config"]["model"]
    # Of 2 x 2 blocks of 512 positions, one is skipped. On 2 rows, in each of 2 layers: two products
    # forwards and five backwards.
    heads, width = model["n_heads"], model["head_dim"]
    kernels = 2 * 7 * (2 * 2 * heads * 3 * 512**2 * width)
    outside = step["flops"] - kernels
    assert step["uncounted_kernels"] == 0
    without = 6 * 2 * heads * width * model["n_layers"] * 513 / 2 * 2 * 1024
    assert outside == pytest.approx(step["model_flops"] - 2 * without, rel=0.1)


def test_devices_that_share_rows(python, tmp_path):
    """One row for four chips: each has a quarter of its work, but of attention the last has most.

    The row is long, so that the optimizer's products are few beside the model's.
    """
    flags = "--model.n-layers 2 --model.scan-unroll 1 --sequence-length 16384".split()
    flags += ["--batch-size", "1"]
    done = plan(
        *(python, tmp_path, "base", "--topology", "v5e:2x2", *flags, "--json"),
        *("--mesh", "1", "1", "1", "--context", "4"),
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    step, model = values["compiled"]["step"], values["config"]["model"]
    assert values["mesh"] == {"replica": 1, "data": 1, "context": 4, "model": 1}
    assert model["attention"] == "splash" and step["uncounted_kernels"] == 0
    heads, width, layers = model["n_heads"], model["head_dim"], model["n_layers"]
    blocks = sum(range(25, 33))  # the last 8 of 32 blocks of 512 queries see all keys before them
    kernels = layers * 7 * (2 * heads * blocks * 512**2 * width)
    without = 6 * 2 * heads * width * layers * 16385 / 2 * 4096  # scores, as the model counts them
    assert step["flops"] - kernels == pytest.approx(step["model_flops"] - without, rel=0.1)
    # Keys and values in bfloat16, gathered forwards and again backwards, of each layer.
    whole = layers * 2 * 16384 * model["n_kv_heads"] * width * 2
    assert whole < step["collectives"]["all-gather"] < 3 * whole


TRAFFIC = """
import jax, jax.numpy as jnp
from experiments.grug.base.planning import topology, traffic
topology.leave_hardware_alone(["--topology"])
device = topology.Topology.named("v5e:1x1").devices[0]
where = jax.sharding.SingleDeviceSharding(device)
shapes = [(8192, 2048), (2048, 16384), (16384, 2048)]
arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=where) for shape in shapes]

def loss(x, up, down):
    hidden = jnp.square(jax.nn.relu(x @ up))
    return jnp.mean(jnp.square((x + hidden @ down).astype(jnp.float32)))

program = jax.jit(jax.grad(loss, argnums=(1, 2))).lower(*arrays).compile()
print(program.cost_analysis()["bytes accessed"], traffic.memory_traffic(program.as_text()))
"""


def test_the_traffic_is_near_the_compilers_where_there_is_no_loop(python, tmp_path):
    """The compiler counts more: what stays in VMEM, and twice what a fusion uses twice."""
    done = start(python, "-P", "-c", TRAFFIC, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    theirs, ours = map(float, done.stdout.split()[-2:])
    assert 0.7 * theirs < ours < theirs
    # At least: what goes in and comes out, and twice the hidden layer and its gradient.
    arrays = 8192 * 2048 + 2 * 2 * 2048 * 16384
    assert ours > 2 * (arrays + 4 * 8192 * 16384)


PROGRAM = """
from experiments.grug.base import launch
from experiments.grug.base.planning import hlo, topology
topology.leave_hardware_alone(["--topology"])
flags = "--plan --topology v5e:2x2 --model.n-layers 2 --model.loss-chunk 256"
flags += " --model.attention chunks --model.scan-unroll {unroll}"
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
