"""The command line: presets, overrides, the plan, a run from end to end."""

import dataclasses
import json
import math
import os
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from . import launch
from .model import PERIOD, ModelConfig, Transformer
from .planning.plan import estimate, plan
from .plumbing.data import DataError
from .plumbing.record import VARIANT, code_state, loss_curve
from .plumbing.rundir import claimed
from .plumbing.sources import find_sources
from .train import TrainConfig

SMALL = (
    f"--model.n-layers {2 * PERIOD} --model.vocab-size 64 --model.d-model 32 --model.head-dim 8 "
    "--model.d-ff 64 --model.loss-chunk 8 --sequence-length 32 --batch-size 8 --steps 3 "
    "--warmup-steps 1 --eval-tokens 256"
).split()


def test_config_fields_are_frozen():
    """A new field is one more thing that every copy carries and every reader must know."""
    assert [f.name for f in dataclasses.fields(ModelConfig)] == (
        "vocab_size d_model n_layers n_heads n_kv_heads head_dim d_ff rope_theta scan_unroll "
        "remat_layers attention query_chunk loss_chunk compute_dtype"
    ).split()
    assert [f.name for f in dataclasses.fields(TrainConfig)] == (
        "model data run_dir resume branch_from seed steps batch_size sequence_length microbatches "
        "learning_rate schedule warmup_steps decay_fraction weight_decay beta1 beta2 "
        "muon_momentum grad_clip skip_above z_loss ema_decay eval_every eval_tokens "
        "checkpoint_every keep_checkpoints mesh context tensorboard wandb watch_every profile"
    ).split()


@pytest.mark.parametrize(
    "preset, low, high",
    [("tiny", 1e6, 4e6), ("130m", 120e6, 150e6), ("350m", 300e6, 400e6), ("1b", 1e9, 1.3e9)],
)
def test_presets_have_the_size_of_their_name(preset, low, high):
    text = "\n".join(plan(launch.parse(["--preset", preset]).train, "", launch.make_sampler))
    parameters = re.search(r"parameters +([\d,]+)", text)
    assert parameters
    assert low < int(parameters[1].replace(",", "")) < high


def test_any_field_can_be_overridden():
    flags = "--preset 130m --steps 7 --model.d-ff 512 --mesh 2 -1 1 --schedule wsd --resume"
    cfg = launch.parse(flags.split()).train
    assert (cfg.steps, cfg.model.d_ff, cfg.mesh, cfg.schedule) == (7, 512, (2, -1, 1), "wsd")
    assert cfg.resume and cfg.model.d_model == launch.PRESETS["130m"].model.d_model
    assert launch.parse(["--preset=1b"]).train.model.n_layers == 24


def test_the_next_free_run_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def chosen(resume: bool) -> str:
        with claimed("", resume=resume) as run_dir:
            (tmp_path / run_dir / "sources").mkdir(parents=True, exist_ok=True)
            (tmp_path / run_dir / "sources/model.py").touch()
            return run_dir

    assert chosen(False) == f"runs/{VARIANT}-1"
    for name in (f"{VARIANT}-1", f"{VARIANT}-9", f"{VARIANT}-mine", "other-12"):
        (tmp_path / "runs" / name).mkdir(parents=True, exist_ok=True)
    assert chosen(False) == f"runs/{VARIANT}-10"
    assert chosen(True) == f"runs/{VARIANT}-10"
    with claimed("", resume=False) as unused:
        assert unused == f"runs/{VARIANT}-11"
    assert not (tmp_path / unused).exists()
    assert launch.parse([]).train.run_dir == ""  # reading a command line takes no directory


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit) as ended:
        launch.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for config in (TrainConfig, ModelConfig):
        for field in dataclasses.fields(config):
            if field.name != "model":
                assert f"{field.name.replace('_', '-')} " in text
    assert "Rows per update, over all devices and microbatches" in " ".join(text.split())


def test_bad_command_lines_end_with_2(capsys):
    for flags in (["--no-such-flag", "1"], ["--steps", "many"], ["--preset", "huge"]):
        with pytest.raises(SystemExit) as ended:
            launch.main(flags)
        assert ended.value.code == 2


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--data names no token store"),
        (["--data", "/nowhere/at/all"], "no token store here"),
        (["--model.attention", "splash"], "splash runs on a tpu, not on a cpu: use chunks"),
        (["--model.attention", "cudnn"], "cudnn runs on a gpu, not on a cpu: use chunks"),
        (["--data", "x", "--mesh", "3", "1", "1", "--batch-size", "6"], "take 3 of the 8 devices"),
    ],
)
def test_expected_failures_are_one_line(flags, message, capsys, tmp_path):
    assert launch.main([*flags, "--run-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_plan_counts_the_parameters(mesh, capsys):
    """Those of a model that is made."""
    assert launch.main(["--plan", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    cfg = launch.PRESETS["tiny"].model
    with jax.set_mesh(mesh(1, 1, 1)):
        model = jax.jit(lambda: Transformer.init(cfg, key=jax.random.PRNGKey(0)))()
    sizes = [np.asarray(x).size for x in jax.tree.leaves(model)]
    assert planned["parameters"] == planned["active_parameters"] == sum(sizes)
    assert sorted(math.prod(shape) for shape, _ in planned["weights"].values()) == sorted(sizes)


@pytest.mark.parametrize("preset", launch.PRESETS)
def test_presets_are_the_rules_values(preset):
    """The rate to a tenth, the batch to the next power of two, the decay to a factor of two."""
    plan = estimate(launch.PRESETS[preset])
    ours, rule = plan.chosen, plan.rule
    assert ours.learning_rate == pytest.approx(rule.learning_rate, rel=0.1)
    assert abs(math.log2(ours.batch_tokens / rule.batch_tokens)) <= 0.5
    assert abs(math.log2(ours.weight_decay / rule.weight_decay)) < 1
    if preset != "tiny":
        assert plan.tokens == pytest.approx(20 * plan.parameters, rel=0.005)


def test_the_plan_shows_the_rule_beside_what_is_set(capsys):
    assert launch.main(["--plan", "--learning-rate", "0.5", "--weight-decay", "0"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"as configured +0\.5 +2,048 +0\n", text)
    rule = estimate(launch.PRESETS["tiny"]).rule
    numbers = f"{rule.learning_rate:.2g}", f"{rule.batch_tokens:,.0f}", f"{rule.weight_decay:.2g}"
    assert re.search(rf"by the rule +{' +'.join(map(re.escape, numbers))}\n", text)


def test_the_plan_allocates_nothing(capsys):
    before = len(jax.live_arrays())
    assert launch.main(["--plan", "--preset", "1b", "--mesh", "1", "64", "4"]) == 0
    assert len(jax.live_arrays()) == before
    text = capsys.readouterr().out
    cfg = launch.parse(["--preset", "1b"]).train
    (parameters,) = re.findall(r"parameters +([\d,]+)", text)
    assert f"{cfg.steps * cfg.batch_size * cfg.sequence_length:,}" in text
    weights = re.search(r"weights +([\d,.]+) MiB", text)
    assert weights
    # float32, split over 64 x 4; the norm scales are whole on every device
    np.testing.assert_allclose(
        float(weights[1].replace(",", "")),
        4 * int(parameters.replace(",", "")) / 256 / 2**20,
        rtol=0.05,
    )
    shape = re.escape(str((cfg.model.d_model, cfg.model.vocab_size)))
    assert re.search(rf"head +{shape} +P\('data', 'model'\)", text)


def test_the_plan_as_json_is_the_plan(capsys):
    assert launch.main(["--plan", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert launch.main(["--plan"]) == 0
    assert f"parameters        {values['parameters']:,}\n" in capsys.readouterr().out
    model = launch.PRESETS["tiny"].model
    shape = [model.d_model, model.vocab_size]
    assert values["weights"]["head"] == [shape, "P('data', 'model')"]


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--json", "--json is a part of --plan: add --plan"),
        ("--topology v5e:4x4 --steps 3", "--topology is a part of --plan"),
        ("--topology nonsense", "--topology is a part of --plan"),
        ("--price 2", "--price is a part of --plan"),
        ("--plan --price 2", "--price is that of a device of --topology"),
        ("--plan --topology v5e:4x4 --price -2", "price=-2.0: must be dollars"),
        ("--plan --topology v5e:4x4 --price nan", "price=nan: must be dollars"),
        ("--seed -1", "seed=-1: must be at least 0"),
        ("--model.n-layers 0", "n_layers=0: must be at least 1"),
        ("--microbatches 3", "is not a multiple of microbatches=3"),
    ],
)
def test_flags_that_no_run_can_have(capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        launch.main(flags.split())
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_loss_curve_falls_from_left_to_right():
    curve = loss_curve([{"step": i + 1, "train/loss": 9.0 - i / 50} for i in range(300)])
    lines = curve.splitlines()
    assert lines[0].index("*") < lines[9].index("*")
    assert "8.96" in lines[0] and "step 1 to 300" in lines[-1]


def test_trains_resumes_and_shows_what_was_learned(store, tmp_path, capsys):
    with jax.numpy_dtype_promotion("standard"):
        flags = [*SMALL, "--data", store, "--warmup-steps", "3", "--run-dir", str(tmp_path / "w")]
        assert launch.main(flags) == 0
        assert "the model goes on" not in capsys.readouterr().out
        flags = [*SMALL, "--data", store, "--run-dir", str(tmp_path / "run")]
        assert launch.main(flags) == 0
        text = capsys.readouterr().out
        for part in ("step 3/3", "training loss", "held-out prompt", "the model goes on"):
            assert part in text
        assert f"run: {tmp_path / 'run'}" in text
        assert launch.main(flags) == 1
        assert "is not empty: add --resume" in capsys.readouterr().err
        assert launch.main([*flags, "--resume"]) == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert [attempt["from_step"] for attempt in record["attempts"]] == [0]
    assert record["config"]["model"]["compute_dtype"] == "float32"
    (events,) = (tmp_path / "run/tensorboard").iterdir()
    told = events.read_bytes()
    assert b"_hparams_/session_start_info" in told and b"model.compute_dtype" in told


@pytest.fixture
def finished(monkeypatch):
    """A run that is done, whatever is shown of it: the trouble is the show's alone."""
    rows = [{"step": 1, "train/loss": 3.0, "eval/bpb": 1.5}]
    result = SimpleNamespace(model=None, history=rows)
    monkeypatch.setattr(launch, "train", lambda cfg: result)
    return [*SMALL, "--data", "x", "--steps", "3", "--warmup-steps", "1", "--run-dir", "/r\x1b[2J"]


class Panic(BaseException):
    """As a tokenizer's panic, which is no Exception."""


@pytest.mark.parametrize(
    "trouble, message",
    [
        (RuntimeError("out of memory\nin two lines"), "RuntimeError: out of memory"),
        (DataError("x/: its tokenizer.json is gone"), "x/: its tokenizer.json is gone"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (Panic("index out of bounds"), "index out of bounds"),
    ],
)
def test_the_closing_show_does_not_decide_how_a_run_ends(
    finished, trouble, message, monkeypatch, capsys
):
    def fail(*arguments):
        raise trouble

    monkeypatch.setattr(launch, "continuation", fail)
    assert launch.main(finished) == 0
    assert capsys.readouterr().err == f"the closing show left out: {message}\n"


def test_what_is_shown_cannot_steer_a_terminal(finished, monkeypatch, capsys):
    monkeypatch.setattr(launch, "continuation", lambda *_: "a\x1b]0;owned\x07b\tc\nd")
    assert launch.main(finished) == 0
    text, _ = capsys.readouterr()
    assert r"a\x1b]0;owned\x07b" + "\tc\nd\n" in text and r"run: /r\x1b[2J" in text
    assert not set(text) & {"\x1b", "\x07"}


def test_a_plan_that_nobody_got_is_no_success(monkeypatch, capsys):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        assert launch.main(["--plan", "--json"]) == 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bundled_run_records_what_the_bundle_was_packed_from(tmp_path, monkeypatch):
    packed = {"git": {"commit": "0123abc", "dirty": False}, "lock": "0" * 64}
    (tmp_path / "bundle.json").write_text(json.dumps(packed | {"variant": "other"}))
    monkeypatch.setenv("GRUG_BUNDLE", str(tmp_path))
    assert code_state(find_sources()) == packed
