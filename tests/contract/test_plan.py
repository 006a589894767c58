"""The plan compiles the step that runs."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from tests.contract.harness import Variant, make_init, mesh_fields, small_run

pytestmark = pytest.mark.contract("plan")


@pytest.fixture(autouse=True, scope="module")
def optimized() -> Iterator[None]:
    """Compiles as a run does; other tests leave optimizations out."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def cfg(variant: Variant, store: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    run_dir = tmp_path_factory.mktemp("planned")
    return small_run(variant, store, run_dir, **mesh_fields(variant, {"data": 4}))


@pytest.fixture(scope="module")
def programs(variant: Variant, cfg: Any) -> list[tuple[str, jax.stages.Compiled]]:
    devices = jax.devices()[:4]
    return list(variant.topology.compile_programs(cfg, devices, variant.launch.make_sampler))


@pytest.fixture
def once(
    variant: Variant,
    programs: list[tuple[str, jax.stages.Compiled]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plans of `cfg` find its programs compiled."""
    monkeypatch.setattr(variant.compiled, "compile_programs", lambda *_: iter(programs))


def test_the_compiled_step_is_the_one_that_runs(
    variant: Variant, cfg: Any, programs: list[tuple[str, jax.stages.Compiled]]
) -> None:
    """From shapes alone, the same program as from a run's arrays, less what names source lines."""
    train, packing = variant.train, variant.packing
    devices = jax.devices()[:4]
    _, ahead = programs[0]
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


@pytest.mark.usefixtures("once")
def test_says_whether_it_fits(variant: Variant, cfg: Any) -> None:
    """And what the step takes, as text and as numbers."""
    topology, sampler = variant.topology, variant.launch.make_sampler
    compiled, found = variant.compiled.compiled, variant.compiled.Compiled
    devices = jax.devices()[:4]
    # As if this CPU were a chip whose peaks are published.
    chip = variant.roofline.CHIPS["v5e"]
    large = topology.Topology("large", devices, 2.0**30, chip)
    values = found(4, "TPU v5 lite", 2.0**30)
    text = "\n".join(compiled(cfg, large, sampler, values, price=2.0))
    assert "the largest is the step, of 1.00 GiB: fits" in text
    for program in ("step", "evaluation", "sample", "initialization"):
        assert re.search(rf"\n  {program} +[\d.]+ MiB", text), program
    for part in ("arguments", "temporaries", "of the model", "device memory", "all-gather"):
        assert re.search(rf"\n  {part} +[\d.e+]+", text), part
    for part in ("compute", "memory", "links"):
        assert re.search(rf"\n  {part} +[\d.]+ ms  at [\d.]+ (TFLOP|GB)/s\n", text), part
    assert re.search(r"\n  \w+ binds: at most [\d.]+% MFU and [\d,]+ tokens per second", text)
    assert "device-hours, 0.00 dollars at 2\n" in text
    assert "float32 products count at the peak of bfloat16" in text
    told = values.asdict()
    assert told["fits"] and told["error"] == ""
    assert list(told["peaks"]) == ["step", "evaluation", "sample", "initialization"]
    step = told["step"]
    assert f"{step['ratio']:.2f} x the model's" in text
    assert f"{step['bytes_accessed'] / 2**20:,.1f} MiB" in text
    assert step["roofline"]["step_seconds"] == max(step["roofline"]["seconds"].values()) > 0
    lines: list[str] = []
    small, values = topology.Topology("small", devices, 2.0**10), found(4, "cpu", 2.0**10)
    with pytest.raises(
        variant.train.TrainError, match=r"does not fit on small: .* GiB at the peak"
    ):
        lines.extend(compiled(cfg, small, sampler, values))
    assert "DOES NOT FIT" in "\n".join(lines) and "all-gather" in "\n".join(lines)
    assert "least step time" not in "\n".join(lines)  # of a chip without published peaks
    assert not values.asdict()["fits"] and "GiB at the peak" in values.error


@pytest.mark.parametrize("ratio, is_warned", [(1.4, False), (1.6, True)])
def test_warns_of_more_flops_than_the_models(
    variant: Variant, cfg: Any, ratio: float, is_warned: bool
) -> None:
    module = variant.compiled
    memory = dict.fromkeys(module.MEMORY, 0)
    step = module.Step(memory, 1e9, ratio * 1e9, 0, 0.0, {}, 0.0, 0.0, 0, {}, None)
    assert is_warned == any("warning: " in line for line in module.text_of(step, cfg, 0.0))


def test_the_plan_as_json(variant: Variant, capsys: pytest.CaptureFixture[str]) -> None:
    """With what older readers know at its top."""
    assert variant.launch.main(["--plan", "--json", "--seed", "3", "--data", "/some/where"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["schema_version"] == variant.plan.PLAN_SCHEMA
    known = ("parameters", "active_parameters", "flops_per_token", "memory", "weights")
    assert values.keys() >= {*known, "variant", "config"}
    assert values["topology"] is values["compiled"] is None
    assert values["config"]["seed"] == 3 and "data" not in values["config"]


@pytest.mark.usefixtures("once")
def test_a_plan_that_does_not_fit_is_still_json(
    variant: Variant,
    cfg: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    devices = jax.devices()[:4]
    small = variant.topology.Topology("small", devices, 2.0**10)
    monkeypatch.setattr(variant.plan.Topology, "named", lambda name: small)
    monkeypatch.setattr(variant.launch, "resolve", lambda *_: cfg)
    assert variant.launch.main(["--plan", "--topology", "v5e:2x2", "--json"]) == 1
    said = capsys.readouterr()
    compiled = json.loads(said.out)["compiled"]
    assert compiled["fits"] is False and "GiB at the peak" in compiled["error"]
    assert compiled["step"]["flops"] > 0 and compiled["devices"] == 4
    assert said.err.count("\n") == 1 and "does not fit on small" in said.err
