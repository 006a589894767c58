"""Which recorded runs a new lock concerns, and commands that give the same settings again."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from experiments.grug.base import launch
from experiments.grug.moe import launch as moe
from tests.tools.requirements.conftest import Lab
from tools.requirements import records, render
from tools.requirements.records import Replaced
from tools.requirements.settings import flags, presets
from tools.runs import run_summary
from tools.speedrun import entry

ROOT = Path(__file__).parents[3]
OLD, NEW, OLDER = "a" * 64, "b" * 64, "c" * 64
CPU = {"cpu": Replaced(OLD, NEW)}


@pytest.mark.parametrize("variant", [launch, moe], ids=["base", "moe"])
def test_presets_are_read_as_python_has_them(variant):
    known = presets(Path(variant.__file__).parent)
    assert set(known.values) == set(variant.PRESETS) and known.default == "tiny"
    for name, config in variant.PRESETS.items():
        assert known.values[name] == run_summary.flat(dataclasses.asdict(config)), name


@pytest.mark.parametrize("preset", ["tiny", "130m", "1b"])
@pytest.mark.parametrize(
    "changed",
    [
        "",
        "--steps 7 --model.d-model 256 --ema-decay 0.5 --schedule wsd --mesh 1 2 1 --learning-rate "
        "0.003 --no-tensorboard",
    ],
)
def test_flags_give_the_recorded_settings_again(preset, changed):
    words = ["--preset", preset, *changed.split()]
    ran = launch.parse([*words, "--run-dir", "x", "--seed", "3"]).train
    config = json.loads(json.dumps(dataclasses.asdict(ran)))
    given, gone = flags(config, presets(ROOT / "experiments/grug/base"))
    assert launch.parse([*given, "--seed", "3"]).train == ran and not gone
    most = (
        len(words)
        - (2 if preset == "tiny" else 0)
        + len("--model.attention x --model.compute-dtype x --run-dir x".split())
    )
    assert len(given) <= most


def test_the_recorded_runs_can_be_repeated():
    """What the workspace itself has recorded; only settings that are no more are left out.

    A copy's records are not held to this: a retired copy can no longer be run.
    """
    runs, faults = run_summary.load_all(ROOT)
    assert runs and not faults
    modules = {"base": launch, "moe": moe}
    assert modules.keys() <= {run.variant for run in runs}
    for run in (run for run in runs if run.variant in modules):
        variant = modules[run.variant]
        given, gone = flags(run.config, presets(ROOT / f"experiments/grug/{run.variant}"))
        again = run_summary.flat(
            json.loads(json.dumps(dataclasses.asdict(variant.parse(given).train)))
        )
        settings = run_summary.flat({k: v for k, v in run.config.items() if k != "seed"})
        assert gone == sorted(settings.keys() - again.keys())
        assert {k: again[k] for k in settings if k not in gone} == {
            k: v for k, v in settings.items() if k not in gone
        }


def test_a_setting_that_is_no_more_is_named():
    known = presets(ROOT / "experiments/grug/base")
    assert flags({"steps": 9, "warp": 8, "seed": 1}, known) == (["--steps", "9"], ["warp"])


@pytest.fixture
def recorded(lab: Lab) -> Lab:
    for name in ("base", "moe"):
        for file in ("launch.py", "train.py", "model.py"):
            content = (ROOT / "experiments/grug/base" / file).read_bytes()
            lab.write(f"experiments/grug/{name}/{file}", content)
    for seed in (0, 1):
        lab.archive.write_summary("base", f"base-seed{seed}", seed=seed, lock=OLD, steps=100)
    lab.archive.write_summary("base", "base-long", seed=0, lock=OLD, steps=900)
    lab.archive.write_summary("base", "ancient", seed=0, lock=OLDER)
    lab.archive.write_summary("moe", "moe-seed0", seed=0, lock=OLDER)
    lab.archive.write_summary("gone", "gone-0", lock=OLD)
    return lab


def shown(lab: Lab, replaced: dict[str, Replaced]) -> list[str]:
    return list(render.records(records.concerned(lab.root, replaced)))


def test_runs_under_the_replaced_lock_or_else_older_ones(recorded):
    _, _, *lines = shown(recorded, CPU)
    assert lines == [
        "  base: base-long, base-seed0, base-seed1",
        "    for seed in 0; do ./pants run launch -- base --steps 900 --seed $seed --run-dir "
        "runs/base-seed$seed-bbbbbb; done",
        "    for seed in 0 1; do ./pants run launch -- base --steps 100 --seed $seed --run-dir "
        "runs/base-2-seed$seed-bbbbbb; done",
        "    ./pants run tools/runs:record -- runs/base-seed0-bbbbbb runs/base-2-seed0-bbbbbb "
        "runs/base-2-seed1-bbbbbb",
        "  gone: gone-0 (experiments/grug/gone is no more: nothing to run)",
        "  moe: moe-seed0 (under older locks still)",
        "    for seed in 0; do ./pants run launch -- moe --steps 100 --seed $seed --run-dir "
        "runs/moe-seed$seed-bbbbbb; done",
        "    ./pants run tools/runs:record -- runs/moe-seed0-bbbbbb",
    ]


def test_runs_under_the_new_lock_or_another_accelerators_are_not_concerned(recorded):
    assert shown(recorded, {}) == []
    assert shown(recorded, {"tpu": Replaced("d" * 64, "e" * 64)}) == []
    (group,) = records.concerned(recorded.root, {"cpu": Replaced(OLDER, OLD)}).groups[1:]
    assert group.name == "moe" and group.runs == ("moe-seed0",)


def test_a_run_on_other_hardware_says_so(recorded):
    devices = {"count": 8, "kind": "TPU v5e", "platform": "tpu", "processes": 2}
    recorded.archive.write_summary("moe", "big", lock=OLDER, devices=devices)
    lines = shown(recorded, {"tpu": Replaced(OLDER, NEW)})
    assert "  moe: big, moe-seed0 (big ran on 8 TPU v5e)" in lines


def test_a_branch_names_what_must_be_repeated_first(recorded):
    parent = {"run": "trunk", "step": 5, "digest": "d" * 64, "horizon": {"steps": 10}}
    branch = {"run_schema": 5, "ancestors": [parent]}
    recorded.archive.write_summary("moe", "decay", lock=OLD, **branch)
    (line,) = (line for line in shown(recorded, CPU) if line.startswith("  moe: "))
    assert line == (
        "  moe: decay (decay is a branch of trunk@5: repeat that, and add --branch-from)"
    )


def test_malformed_records_are_named_and_stop_nothing(recorded):
    recorded.write("docs/reports/runs/base/bad.json", "{}")
    recorded.write("experiments/speedrun/2026-11-22_x/record.json", '{"software": 1}')
    lines = shown(recorded, CPU)
    assert "  gone: gone-0 (experiments/grug/gone is no more: nothing to run)" in lines
    assert lines[-2].startswith("docs/reports/runs/base/bad.json:1: lacks")
    assert lines[-1].startswith("experiments/speedrun/2026-11-22_x/record.json:1: is no record")


def test_speedruns_are_recorded_again_by_their_own_program(lab):
    name = entry.entries(ROOT)[0]
    path = f"experiments/speedrun/{name}/record.json"
    record = json.loads((ROOT / path).read_bytes())
    lab.write(path, (ROOT / path).read_bytes())
    lock, seeds = record["software"]["lock"], [run["seed"] for run in record["runs"]]
    _, _, head, runs, again = shown(lab, {"cpu": Replaced(lock, NEW)})
    assert head.startswith(f"  {name}: seed 0, seed 1")
    assert runs.strip() == (
        f"for seed in {' '.join(map(str, seeds))}; do ./pants run experiments/speedrun/{name}/"
        f"run.py -- --data STORE --seed $seed --out runs/{name}-seed$seed-bbbbbb; done"
    )
    words = shlex.split(again)
    assert words[:5] == ["./pants", "run", "tools/speedrun:record", "--", name]
    assert words[5:] == [*(f"runs/{name}-seed{s}-bbbbbb" for s in seeds), "--author",
                         record["author"]]  # fmt: skip
    assert shown(lab, CPU) == []
