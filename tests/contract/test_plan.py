"""The plan compiles the step that runs."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from tests.contract.harness import Variant, make_init, mesh_sizes, small_run

pytestmark = pytest.mark.contract("plan")


@pytest.fixture(autouse=True)
def optimized() -> Iterator[None]:
    """Compiles as a run does; other tests leave optimizations out."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def cfg(variant: Variant, store: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    run_dir = tmp_path_factory.mktemp("planned")
    return small_run(variant, store, run_dir, mesh=mesh_sizes(variant, {"data": 4}))


def test_the_compiled_step_is_the_one_that_runs(variant: Variant, cfg: Any) -> None:
    """From shapes alone, the same program as from a run's arrays, less what names source lines."""
    train, packing = variant.train, variant.packing
    devices = jax.devices()[:4]
    programs = variant.topology.compile_programs(cfg, devices, variant.launch.make_sampler)
    _, ahead = next(programs)
    with jax.set_mesh(train.make_mesh(cfg, devices)):
        state = jax.jit(make_init(variant, cfg))()
        step = train.make_train_step(cfg, train.make_optimizer(cfg))
        sizes = (cfg.batch_size, cfg.sequence_length, variant.model.BATCH)
        rows = packing.loader(variant.data.TokenStore.open(cfg.data), "train", *sizes, seed=0)
        run = step.lower(state, packing.to_devices(next(rows), variant.model.BATCH)).compile()

    def bare(program: jax.stages.Compiled) -> str:
        text = (program.as_text() or "").partition("\nFileNames")[0]
        return re.sub(r", metadata=\{[^}]*\}", "", text)

    assert bare(ahead) == bare(run)


def test_says_whether_it_fits(variant: Variant, cfg: Any) -> None:
    topology, sampler = variant.topology, variant.launch.make_sampler
    devices = jax.devices()[:4]
    large = topology.Topology("large", devices, 2.0**30)
    text = "\n".join(topology.compiled(cfg, large, sampler))
    assert "the largest is the step, of 1.00 GiB: fits" in text
    for program in ("step", "evaluation", "sample", "initialization"):
        assert re.search(rf"\n  {program} +[\d.]+ MiB", text), program
    for part in ("arguments", "temporaries", "of the model", "all-gather", "all-reduce"):
        assert re.search(rf"\n  {part} +[\d.e+]+", text), part
    lines: list[str] = []
    with pytest.raises(
        variant.train.TrainError, match=r"does not fit on small: .* GiB at the peak"
    ):
        lines.extend(topology.compiled(cfg, topology.Topology("small", devices, 2.0**10), sampler))
    assert "DOES NOT FIT" in "\n".join(lines) and "all-gather" in "\n".join(lines)
