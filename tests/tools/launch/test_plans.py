"""Two variants' plans side by side."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tools.runs.conftest import Workspace
from tools.common.errors import ToolError
from tools.launch import main as launcher
from tools.launch.main import main
from tools.launch.plans import compare, take_flag
from tools.runs.run_summary import load_all

CONFIG = {
    "steps": 100,
    "seed": 0,
    "batch_size": 8,
    "sequence_length": 128,
    "microbatches": 1,
    "mesh": [1, -1, 1],
    "model": {"d_model": 64, "n_layers": 2},
}


def plan(**changes: Any) -> dict[str, Any]:
    """As a variant prints it, shortened, without a topology."""
    known = {
        "schema_version": 1,
        "parameters": 1_000_000,
        "active_parameters": 1_000_000,
        "flops_per_token": 6e6,
        "tokens": 102_400,
        "steps": 100,
        "memory": {"weights": 3 * 2**20, "optimizer": 2**20},
        "config": CONFIG,
        "compiled": None,
    }
    return known | changes


def compiled(**changes: Any) -> dict[str, Any]:
    known = {
        "devices": 16,
        "device_kind": "TPU v5 lite",
        "fits": True,
        "error": "",
        "peaks": {"step": 8 * 2**20, "sample": 2**20},
        "step": {
            "model_flops": 4e8,
            "flops": 5e8,
            "ratio": 1.25,
            "bytes_accessed": 20 * 2**20,
            "collectives": {"all-gather": 2**20, "all-reduce": 2 * 2**20},
            "roofline": {
                "seconds": {"compute": 0.004, "memory": 0.01, "links": 0.001, "network": 0.0},
                "binds": "memory",
                "step_seconds": 0.01,
                "mfu": 0.32,
                "tokens_per_second": 10_240.0,
                "hours": 0.5,
                "device_hours": 8.0,
                "dollars": None,
            },
        },
    }
    return known | changes


def started(plans: dict[str, Any]):
    """Processes that ended, one a variant."""

    def start(name: str) -> subprocess.CompletedProcess[str]:
        made = plans[name]
        code, out, err = made if isinstance(made, tuple) else (0, json.dumps(made), "")
        return subprocess.CompletedProcess([name], code, out, err)

    return start


def rows(text: str) -> dict[str, list[str]]:
    """The table's lines, by their label."""
    cells = [[cell for cell in line.split("  ") if cell] for line in text.splitlines()]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in cells if line}


def test_estimates_side_by_side(capsys):
    large = plan(parameters=3_000_000, flops_per_token=9e6)
    assert compare(["moe", "base"], started({"moe": large, "base": plan()}), []) == 0
    said = capsys.readouterr()
    found = rows(said.out)
    assert said.out.splitlines()[0].split() == ["moe", "base", "moe", "/", "base"]
    assert found["parameters"] == ["3,000,000", "1,000,000", "3.00"]
    assert found["active per token"] == ["1,000,000", "1,000,000", "1.00"]
    assert found["FLOPs in total"] == ["9.216e+11", "6.144e+11", "1.50"]
    assert found["memory per device, estimate, MiB"] == ["4", "4", "1.00"]
    assert not any("compiled" in label or "least" in label for label in found)
    assert said.err == "launch: planning moe ...\nlaunch: planning base ...\n"


def test_what_was_compiled_side_by_side(capsys):
    one, other = plan(compiled=compiled()), plan(compiled=compiled(peaks={"step": 4 * 2**20}))
    assert compare(["moe", "base"], started({"moe": one, "base": other}), []) == 0
    found = rows(capsys.readouterr().out)
    assert found["memory per device, compiled, MiB"] == ["8", "4", "2.00"]
    assert found["fits"] == ["yes", "yes"]
    assert found["over the model's"] == ["1.25", "1.25", "1.00"]
    assert found["device memory traffic, MiB"] == ["20", "20", "1.00"]
    assert found["collectives, MiB"] == ["3", "3", "1.00"]
    assert found["binds"] == ["memory", "memory"]
    assert found["least step time, ms"] == ["10.00", "10.00", "1.00"]
    assert found["highest MFU"] == ["32.0%", "32.0%", "1.00"]
    assert found["device-hours, at least"] == ["8.0", "8.0", "1.00"]
    assert "least time, network, ms" not in found and "dollars, at least" not in found
    assert not any("recorded" in label for label in found)


def test_one_that_does_not_fit_is_shown_and_ends_with_1(capsys):
    """The step did not compile: nothing is known of it."""
    failed = compiled(fits=False, error="RESOURCE_EXHAUSTED: 18G of 15G", peaks={}, step=None)
    plans = {"moe": (1, json.dumps(plan(compiled=failed)), "moe: does not fit ..."), "base": plan()}
    plans["base"] = plan(compiled=compiled())
    assert compare(["moe", "base"], started(plans), []) == 1
    text = capsys.readouterr().out
    assert rows(text)["fits"] == ["NO", "yes"]
    assert rows(text)["FLOPs per step and device, compiled"] == ["5e+08"]
    assert text.splitlines()[-1] == "moe does not fit: RESOURCE_EXHAUSTED: 18G of 15G"


BOX = "╭─ Unrecognized options ────╮\n│ Unrecognized: --model.n-experts │\n│ ─────── │\n╰────╯\n"


@pytest.mark.parametrize(
    "made, message",
    [
        ((2, "", BOX), "base has no plan for these flags: Unrecognized: --model.n-experts"),
        ((1, "", "base: no such hardware\n"), "base has no plan .*: base: no such hardware"),
        ((1, "", "Traceback:\n  File\nKeyError: 'x'\n"), "base has no plan .*: KeyError: 'x'"),
        ((1, "", ""), "base has no plan for these flags: it said nothing"),
        ((0, "parameters 3\n", ""), "the plan of base:1: is no JSON"),
        ((0, "[1]", ""), "base: its plan is of schema None, not 1; fast-forward"),
        (plan(schema_version=2), "base: its plan is of schema 2, not 1"),
    ],
)
def test_no_plan_is_one_line(made, message):
    with pytest.raises(ToolError, match=message) as caught:
        compare(["moe", "base"], started({"moe": plan(), "base": made}), [])
    assert "\n" not in str(caught.value)


@pytest.fixture
def recorded(tmp_path) -> Workspace:
    """Two runs of base on 16 chips, one on 8, and one of another width."""
    made = Workspace(tmp_path)
    devices = {"count": 16, "kind": "TPU v5 lite", "platform": "tpu", "processes": 4}
    common = {"tokens": 102_400, "config": CONFIG, "devices": devices}
    made.write_summary("base", "fast", seconds=20.0, seed=0, **common)
    seeded = {**common, "config": {**CONFIG, "seed": 1}}
    made.write_summary("base", "slow", seconds=40.0, seed=1, **seeded)
    made.write_summary("base", "few", seconds=10.0, **common | {"devices": devices | {"count": 8}})
    wide = CONFIG | {"model": {"d_model": 128, "n_layers": 2}}
    made.write_summary("base", "wide", seconds=10.0, **common | {"config": wide})
    return made


def test_recorded_runs_on_that_hardware_are_shown(recorded, capsys):
    runs, faults = load_all(recorded.root)
    assert not faults and len(runs) == 4
    plans = started({"moe": plan(compiled=compiled()), "base": plan(compiled=compiled())})
    assert compare(["moe", "base"], plans, runs) == 0
    found = rows(capsys.readouterr().out)
    assert found["tokens per second, of recorded runs"] == ["3,840"]  # of 5,120 and 2,560
    assert found["of the most possible"] == ["37.5%"]


@pytest.mark.parametrize(
    "kind, planned, is_same",
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100", True),
        ("NVIDIA H200", "NVIDIA H100", False),
        ("TPU v5 lite", "TPU v5", False),
    ],
)
def test_a_kind_of_device(recorded, capsys, kind, planned, is_same):
    devices = {"count": 16, "kind": kind, "platform": "gpu", "processes": 2}
    recorded.write_summary("moe", "there", tokens=102_400, config=CONFIG, devices=devices)
    made = plan(compiled=compiled(device_kind=planned))
    plans = started({"moe": made, "base": made})
    assert compare(["moe", "base"], plans, load_all(recorded.root)[0]) == 0
    assert ("tokens per second, of recorded runs" in capsys.readouterr().out) == is_same


@pytest.mark.parametrize(
    "flags, value, rest",
    [
        (["--plan", "--against", "base"], "base", ["--plan"]),
        (["--against=moe", "--plan", "--steps", "3"], "moe", ["--plan", "--steps", "3"]),
        (["--plan"], "", ["--plan"]),
    ],
)
def test_takes_its_flag(flags, value, rest):
    assert take_flag("--against", flags) == (value, rest)


@pytest.mark.parametrize(
    "flags, message",
    [
        ("moe --plan --against", "--against names no variant: --against base"),
        ("moe --plan --against --json", "--against names no variant"),
        ("moe --against base", "--against compares plans: add --plan"),
        ("moe --plan --against moe", "is the variant itself"),
        ("moe --plan --json --against base", "--against prints a table: remove --json"),
        ("moe --plan --against bass", "no variant 'bass' in experiments/grug/; nearest: base"),
    ],
)
def test_bad_flags_end_with_2_and_one_line(flags, message, capsys):
    assert main(flags.split()) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_real_variants(capsys, tmp_path, monkeypatch):
    """Each in a process of its own, for this machine."""
    root = Path(launcher.__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    assert launcher.start(["moe", "--plan", "--against", "base", "--steps", "7"], root) == 0
    found = rows(capsys.readouterr().out)
    assert found["steps"] == ["7", "7", "1.00"]
    more, less = (int(cell.replace(",", "")) for cell in found["parameters"][:2])
    assert more > less
    with pytest.raises(ToolError, match=r"^base has no plan for these flags: .*n-experts"):
        launcher.start(["moe", "--plan", "--against", "base", "--model.n-experts", "4"], root)
