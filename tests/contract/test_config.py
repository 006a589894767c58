"""Configs and presets: what they hold, what they refuse."""

import ast
import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import jax
import pytest

from tests.contract.harness import Variant, mesh_fields, rows, small_run

# Fields of the template's configs. A variant may add to them, with a docstring each. Change these
# lists only together with base: every copy carries every field and every reader must know it.
MODEL_FIELDS = (
    "vocab_size d_model n_layers n_heads n_kv_heads head_dim d_ff rope_theta scan_unroll "
    "remat_layers query_chunk loss_chunk compute_dtype"
).split()
TRAIN_FIELDS = (
    "model data run_dir resume branch_from seed steps batch_size sequence_length microbatches "
    "learning_rate schedule warmup_steps decay_fraction weight_decay beta1 beta2 grad_clip "
    "skip_above z_loss ema_decay eval_every eval_tokens checkpoint_every keep_checkpoints mesh "
    "context tensorboard wandb watch_every profile"
).split()
PRESETS = ["tiny", "130m", "350m", "1b"]


def field_docstrings(path: Path, class_name: str) -> set[str]:
    """Names of a class's fields that a string follows."""
    (node,) = (
        n
        for n in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(n, ast.ClassDef) and n.name == class_name
    )
    return {
        field.target.id
        for field, after in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(after.value.value, str) and after.value.value.strip()
    }


@pytest.mark.contract("config-fields")
@pytest.mark.parametrize(
    "module, class_name, expected",
    [("model", "ModelConfig", MODEL_FIELDS), ("train", "TrainConfig", TRAIN_FIELDS)],
)
def test_fields_of_the_template_are_kept_and_others_explained(
    variant, module, class_name, expected
):
    config = getattr(getattr(variant, module), class_name)
    names = [field.name for field in dataclasses.fields(config)]
    absent = [name for name in expected if name not in names]
    assert not absent, f"{class_name} lacks {absent}: a variant adds fields, it removes none"
    assert [name for name in names if name in expected] == expected, "the order has changed"
    explained = field_docstrings(variant.directory / f"{module}.py", class_name)
    mute = [name for name in names if name not in expected and name not in explained]
    assert not mute, f"{class_name}: added without a docstring: {mute}"


@pytest.mark.contract("config")
@pytest.mark.parametrize("module, class_name", [("model", "ModelConfig"), ("train", "TrainConfig")])
def test_configs_construct_and_are_frozen(variant, module, class_name):
    config = getattr(getattr(variant, module), class_name)()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, None)


@pytest.mark.contract("config")
def test_every_preset_resolves(variant):
    assert variant.launch.PRESETS
    for name, preset in variant.launch.PRESETS.items():
        assert isinstance(preset, variant.train.TrainConfig), name
        resolved = variant.launch.resolve(preset)
        assert resolved.model.compute_dtype in ("float32", "bfloat16"), name
        chosen = {
            k: v for k, v in vars(resolved.model).items() if getattr(preset.model, k) == "auto"
        }
        assert "auto" not in chosen.values(), name
        kept = dataclasses.replace(preset.model, **chosen)
        assert resolved == dataclasses.replace(preset, model=kept), name
        assert variant.launch.resolve(resolved) == resolved, name
        devices = jax.device_count()
        assert len(variant.train.mesh_shape(resolved, devices)) == len(variant.model.MESH_AXES)


@pytest.mark.contract("presets")
def test_presets_are_those_of_the_template(variant):
    assert list(variant.launch.PRESETS) == PRESETS
    for name in PRESETS:
        command = variant.launch.parse(["--preset", name, "--run-dir", "r"])
        assert command.preset == name
        resolved = dataclasses.replace(variant.launch.PRESETS[name], run_dir="r")
        assert command.train == variant.launch.resolve(resolved)
    models = [preset.model for preset in variant.launch.PRESETS.values()]
    assert models == [preset.model for preset in variant.presets()], "larger names, larger models"


def numbers(variant: Variant) -> dict[str, tuple[Any, list[Any]]]:
    """{field: (its config at the smallest preset, its ranges)} of all fields that are a number."""
    preset = variant.presets()[0]
    found = {}
    for config in (preset.model, preset):
        for name, hint in get_type_hints(type(config), include_extras=True).items():
            kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            if kind in (int, float):
                ranges = [r for r in get_args(hint)[1:] if isinstance(r, variant.ranges.Range)]
                found[name] = (config, ranges)
    return found


@pytest.mark.contract("config")
def test_every_number_states_its_range_and_keeps_to_it(variant):
    """One beyond either end, and what is not finite, are refused by name."""
    fields = numbers(variant)
    mute = [name for name, (_, ranges) in fields.items() if len(ranges) != 1]
    assert not mute, f"without a range, such as Count of plumbing/ranges.py: {mute}"
    for name, (config, (allowed,)) in fields.items():
        beyond = [allowed.low if allowed.above else allowed.low - 1, math.nan, math.inf]
        if math.isfinite(allowed.high):
            beyond.append(allowed.high if allowed.below else allowed.high + 1)
        for value in beyond:
            assert value not in allowed
            with pytest.raises(ValueError, match=rf"^{name}={value}: must be \w+"):
                dataclasses.replace(config, **{name: value})


@pytest.mark.contract("config")
def test_a_word_that_is_no_choice_is_refused(variant):
    preset = variant.presets()[0]
    with pytest.raises(ValueError, match="schedule='linear': must be one of cosine, "):
        dataclasses.replace(preset, schedule="linear")
    with pytest.raises(ValueError, match="compute_dtype='int8': must be one of auto, "):
        dataclasses.replace(preset.model, compute_dtype="int8")


@pytest.mark.contract("config")
def test_the_lowest_values_run(variant, store, tmp_path, one_device):
    """What the ranges let through trains, saves and evaluates."""
    lowest = {
        name: type(getattr(config, name))(allowed.low)
        for name, (config, (allowed,)) in numbers(variant).items()
        if not allowed.above and name in TRAIN_FIELDS
    }
    lowest |= {"eval_tokens": 100, "schedule": "wsd"}
    assert lowest["batch_size"] == lowest["steps"] == 1 and lowest["beta1"] == 0.0
    cfg = small_run(variant, store, tmp_path, **{**lowest, "steps": 2})
    variant.train.train(cfg)
    assert rows(tmp_path)[-1]["step"] == 2


@pytest.mark.contract("config")
@pytest.mark.parametrize(
    "changes", [{"n_heads": 3, "n_kv_heads": 2}, {"remat_layers": 1000}, {"head_dim": 3}], ids=str
)
def test_a_model_that_does_not_fit_is_named(variant, changes):
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=rf"\b{name}={value}\b"):
        dataclasses.replace(variant.presets()[0].model, **changes)


@pytest.mark.contract("config")
def test_microbatches_that_do_not_divide_the_batch_are_named(variant):
    with pytest.raises(ValueError, match=r"\bmicrobatches=3\b"):
        dataclasses.replace(variant.presets()[0], microbatches=3, batch_size=8)


@pytest.mark.contract("config")
@pytest.mark.parametrize("axis", ["replica", "data", "context", "model"])
def test_a_mesh_that_does_not_fit_is_named(variant, axis):
    """7 devices divide no size of this config."""
    preset = variant.presets()[0]
    model = dataclasses.replace(preset.model, vocab_size=320, loss_chunk=8)
    mesh = mesh_fields(variant, {axis: 7})
    cfg = dataclasses.replace(preset, model=model, batch_size=8, sequence_length=8, **mesh)
    with pytest.raises(ValueError, match=r"\w=\d+.*\b7\b"):
        variant.train.mesh_shape(cfg, 7)
    with pytest.raises(ValueError, match="context=" if axis == "context" else "mesh="):
        variant.train.mesh_shape(dataclasses.replace(cfg, **mesh_fields(variant, {axis: 0})), 7)
