"""What the command line says before a run."""

import dataclasses
import re

import jax
import pytest

from tests.contract.harness import make_abstract_mesh, make_init, mesh_fields, mesh_sizes


@pytest.mark.contract("help")
def test_help_names_every_flag(variant, capsys):
    with pytest.raises(SystemExit) as ended:
        variant.launch.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    flags = ["preset", "plan"]
    flags += [f.name for f in dataclasses.fields(variant.train.TrainConfig) if f.name != "model"]
    flags += [f"model.{f.name}" for f in dataclasses.fields(variant.model.ModelConfig)]
    absent = [f for f in flags if not re.search(rf"--{f.replace('_', '-')}\b", text)]
    assert not absent, f"--help does not name {absent}"


@pytest.mark.contract("help")
def test_plan_tells_sizes_and_allocates_nothing(variant, capsys):
    cfg = variant.presets()[-1]
    name = next(name for name, preset in variant.launch.PRESETS.items() if preset is cfg)
    sizes = {"replica": 2, "data": 4, "context": 2}
    shape, fields = mesh_sizes(variant, sizes), mesh_fields(variant, sizes)
    held = jax.live_arrays()  # held, so that none of them goes and makes room for another
    before = len(held)
    mesh = ["--mesh", *map(str, fields["mesh"]), "--context", str(fields["context"])]
    assert variant.launch.main(["--plan", "--preset", name, *mesh]) == 0
    now = len(jax.live_arrays())
    assert now == before, "the plan has allocated arrays"
    text = capsys.readouterr().out
    with jax.sharding.use_abstract_mesh(make_abstract_mesh(variant, shape)):
        model = jax.eval_shape(make_init(variant, cfg)).model
    parameters = sum(x.size for x in jax.tree.leaves(model))
    tokens = cfg.steps * cfg.batch_size * cfg.sequence_length
    flops = cfg.model.flops_per_token(cfg.sequence_length)
    numbers = (f"{parameters:,}", f"{flops:.3g}", f"{tokens:,}", f"{flops * tokens:.3g}")
    absent = [number for number in numbers if number not in text]
    assert not absent, f"--plan does not tell {absent}"


@pytest.mark.contract("help")
def test_the_plan_of_a_branch_tells_its_own_part(variant, capsys):
    """It does not look for the parent."""
    cfg = variant.launch.PRESETS["tiny"]
    flags = ["--plan", "--steps", "1000", "--branch-from", "nowhere/at/all@800"]
    assert variant.launch.main(flags) == 0
    text, each = capsys.readouterr().out, cfg.batch_size * cfg.sequence_length
    assert re.search(rf"^tokens +{1000 * each:,} in 1,000 steps$", text, re.MULTILINE)
    assert f"{200 * each:,} tokens in 200 steps, after 800\n" in text
    with pytest.raises(SystemExit):
        variant.launch.main([*flags, "--steps", "800"])
    assert "steps=800: a branch from step 800 needs more --steps" in capsys.readouterr().err
    assert re.search(r"memory per device", text)
    for part in ("weights", "gradients", "optimizer", "activations", "together"):
        assert re.search(rf"^ *{part}\b.* [\d,.]+ MiB", text, re.MULTILINE), part
