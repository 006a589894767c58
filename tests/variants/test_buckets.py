"""One change of each bucket keeps the contract, and the same change made wrongly does not.

Here the part of the contract that is about the bucket runs; tests/slow/variants runs all of it.
"""

import json
import re
from pathlib import Path

import pytest

from tests.variants.copies import Copy, make_copy
from tests.variants.edits import CHANGES, SWIGLU, Edit

RECIPE = Path("docs/recipes/change_grug.md")
SLOW = Path("tests/slow/variants/BUILD")
FAULTS = [
    pytest.param(name, wrong, id=f"{name}: {wrong}")
    for name, change in CHANGES.items()
    for wrong in change.faults
]


@pytest.mark.parametrize("name", CHANGES)
def test_an_edit_is_as_short_as_the_recipe_says(name: str, tmp_path: Path) -> None:
    """Fails where base has changed so that the edit does not apply, or is longer."""
    change = CHANGES[name]
    lines = make_copy(tmp_path, name, change.edits).changed_lines()
    assert lines == change.lines, f"{name} adds and removes {lines} lines: say so in edits.py"
    row = rf"^\| `{change.bucket}` \| [^|]*\| `{name}` \| {lines[0]} \| {lines[1]} \|"
    assert re.search(row, RECIPE.read_text(), re.MULTILINE), f"{RECIPE} has no line like {row}"


@pytest.mark.parametrize("name, wrong", FAULTS)
def test_the_edits_of_a_fault_apply(name: str, wrong: str, tmp_path: Path) -> None:
    """What takes minutes to try below is known here in a second."""
    change = CHANGES[name]
    make_copy(tmp_path, name, (*change.edits, *change.faults[wrong].edits))  # fails if one does not


def test_each_change_is_held_to_the_whole_contract() -> None:
    named = set(re.findall(r"GRUG_CHANGE=(\w+)", SLOW.read_text()))
    assert named == set(CHANGES), f"name the changes of edits.py in {SLOW}"


@pytest.mark.parametrize("name", CHANGES)
def test_it_keeps_the_contract(name: str, tmp_path: Path) -> None:
    change = CHANGES[name]
    make_copy(tmp_path, name, change.edits).check_contract(*change.tests)


@pytest.mark.parametrize("name, wrong", FAULTS)
def test_the_contract_names_what_is_wrong(name: str, wrong: str, tmp_path: Path) -> None:
    change = CHANGES[name]
    fault = change.faults[wrong]
    copy = make_copy(tmp_path, name, (*change.edits, *fault.edits))
    result = copy.pytest(f"tests/contract/{fault.test}")
    assert result.returncode == 1, result.stdout[-10_000:] + result.stderr[-2_000:]
    said = " ".join(result.stdout.split())
    assert re.search(fault.message, said), f"no {fault.message!r} in: {said[-5_000:]}"


# Arrays of the shape of x that cross `model` in a program of the loss and its gradient.
PROBE = """
import dataclasses, importlib, json, math, os, re, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from tests.contract.harness import abstract_batch, make_mesh, small_run, under_test

variant = under_test()
with jax.set_mesh(make_mesh(variant, data=2, model=2)) as mesh:
    cfg = small_run(variant, "", "", model=dataclasses.replace(
        variant.presets()[0].model, n_kv_heads=2, compute_dtype="float32", scan_unroll=1))
    init = lambda: variant.model.Transformer.init(cfg.model, key=jax.random.PRNGKey(0))
    model = jax.eval_shape(init)
    batch = abstract_batch(variant, cfg, jax.sharding.get_mesh())
    loss = lambda model, batch: variant.train.loss_sums(model, batch, 0.0)[0]
    text = jax.jit(jax.grad(loss)).lower(model, batch).compile().as_text()
shape = f"f32[{cfg.batch_size // 2},{cfg.sequence_length},{cfg.model.d_model}]"
sums = re.findall(r"= (.*) all-reduce(?:-start)?[(]", text)
print(json.dumps(sum(types.count(shape) for types in sums)))
"""


def sums_over_model(copy: Copy) -> int:
    """Arrays of the shape of x that are summed over devices."""
    probe = copy.root / "probe.py"
    probe.write_text(PROBE)
    result = copy.run(str(probe))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_second_product_of_a_layer_costs_no_second_sum(tmp_path: Path) -> None:
    """As `for_products` promises: the gradients of both are added before they cross `model`."""
    without = Edit("        x = for_products(x)\n        gate", "        gate")
    base = sums_over_model(make_copy(tmp_path / "base", "base_copy", ()))
    swiglu = sums_over_model(make_copy(tmp_path / "swiglu", "swiglu", SWIGLU))
    assert base > 0 and swiglu == base
    twice = sums_over_model(make_copy(tmp_path / "twice", "twice", (*SWIGLU, without)))
    assert twice == base + 1
