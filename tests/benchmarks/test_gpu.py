import argparse
import dataclasses
import json
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.grug.base import launch, model
from tests.benchmarks import carried, carry, gpu, gpu_numerics, gpu_profile, gpu_steps, ours
from tests.benchmarks.measure import BenchmarkError, Report, Series, Table
from tests.benchmarks.page import render

FLAGS = argparse.Namespace(
    quick=False, rounds=5, jax_python=Path("python"), torch_python=None, limit_s=540
)
HERE = ".".join(platform.python_version_tuple()[:2])


def planned(memory: int = 143_000, **flags: object) -> list[gpu.Stage]:
    return gpu.stages(argparse.Namespace(**{**vars(FLAGS), **flags}), memory, Path("t.gz"))


def test_the_order_is_by_what_is_worth_most_and_the_limits_fit():
    stages = planned()
    assert [one.name for one in stages] == [
        "numerics",
        "350m against PyTorch",
        "1b against PyTorch",
        "moe",
        "choices at 1b",
        "profile at 1b",
    ]
    assert sum(one.limit_s for one in stages) <= FLAGS.limit_s - 20
    assert all("--gpu" in one.command for one in stages[1:5])
    assert "flex" in stages[1].command and "--choices" in stages[4].command


def test_a_smaller_card_gets_half_the_rows_and_a_cpu_the_smallest_model():
    for one in planned(81_000)[1:]:
        assert "--rows" in one.command
    for one in planned(0, quick=True):
        assert {"1b", "350m", "--gpu", "--rows"}.isdisjoint(one.command)


def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    flags = argparse.Namespace(carry=None, json=tmp_path / "gpu.json", **vars(FLAGS))
    gpu.main(flags, 0.0)
    assert "finds no GPU" in capsys.readouterr().out and not flags.json.exists()


def test_the_card_is_the_first_that_nvidia_smi_names(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\necho 'NVIDIA H100, 81559'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.card() == ("NVIDIA H200", 143771)


def test_attention_that_is_right_passes_and_each_mistake_shows():
    size = gpu_numerics.SMALL_HEADS["small"]
    attend, mesh = gpu_numerics.attention_of("chunks", size)
    right = gpu_numerics.check_attention(attend, mesh, size)
    assert right.pop("leaks") == 0 and 0 < max(right.values()) < gpu_numerics.TOLERANCE

    def across_documents(q, k, v, segments):
        return attend(q, k, v, jnp.zeros_like(segments))

    wrong = gpu_numerics.check_attention(across_documents, mesh, size)
    assert wrong["leaks"] > 0 and wrong["values"] > 10 * gpu_numerics.TOLERANCE


def test_experts_that_are_right_pass_and_a_row_at_the_wrong_one_shows(monkeypatch):
    size, compute = gpu_numerics.SMALL_EXPERTS["small"], gpu_numerics.expert_mlps
    right = gpu_numerics.check_experts(size, "uneven")
    assert 0 < max(right.values()) < gpu_numerics.TOLERANCE
    monkeypatch.setattr(
        gpu_numerics,
        "expert_mlps",
        lambda rows, expert, *weights: compute(rows, expert.at[1].set(0), *weights),
    )
    wrong = gpu_numerics.check_experts(size, "even")
    assert min(wrong.values()) > gpu_numerics.TOLERANCE


def test_a_refusal_is_recorded_in_one_line():
    for words, why in (
        (["--model.attention", "sideways"], "invalid choice 'sideways'"),
        (["--model.remat-layers", "5"], "must be at most n_layers=4"),
        (["--model.attention", "splash"], "runs on a tpu, not on a cpu"),
    ):
        with pytest.raises(SystemExit) as refusal:
            ours.chosen(launch, "tiny", words)
        said = str(refusal.value)
        assert said.startswith("refused: ") and why in said and "\n" not in said
    assert ours.chosen(launch, "tiny", ["--model.remat-layers", "2"]).model.remat_layers == 2


def test_every_choice_is_one_that_the_template_knows():
    for words in gpu_steps.CHOICES.values():
        ours.chosen(launch, "1b", words)
    assert {
        gpu_steps.AS_IS,
        "attention=chunks",
        "attention=splash",
    } < gpu_steps.all_choices().keys()


def with_tables(report: Report, *tables: Table) -> Report:
    return dataclasses.replace(report, tables=tables)


EMPTY = Report("gpu", "2026-01-02", "abc", {}, 0.0, {}, {}, ())


def test_what_was_measured_as_the_preset_is_a_choice():
    rows = (Series("350m", "grug base", (9.0,)), Series("1b", "grug base", (3.0,), {"MiB": 1}))
    report = with_tables(EMPTY, Table("Training step", "tokens/s", "more", rows))
    assert gpu_steps.as_is(report, "1b") == [
        Series(gpu_steps.AS_IS, "grug base", (3.0,), {"MiB": 1})
    ]
    assert gpu_steps.as_is(report, "moe") == gpu_steps.as_is(None, "1b") == []


def test_the_fastest_choice_is_profiled_and_the_peak_is_the_newest():
    first, second = gpu_steps.AS_IS, next(iter(gpu_steps.CHOICES))
    rows = (Series(first, "ours", (5.0, 1.0, 1.0)), Series(second, "ours", (2.0, 2.0, 2.0)))
    choices = Table(f"{gpu_steps.CHOICE_TABLE} at 1b", "tokens/s", "more", rows)
    peaks = (Series("350m", "", (700.0,)), Series("1b", "", (600.0, 800.0)))
    report = with_tables(EMPTY, choices, Table(gpu_steps.PEAK_TABLE, "TFLOP/s", "more", peaks))
    assert gpu_profile.best_choice(report) == second
    assert gpu_profile.best_choice(EMPTY) == gpu_profile.best_choice(None) == first
    assert gpu_steps.peak_of(report) == [600e12, 800e12] and gpu_steps.peak_of(EMPTY) == []
    found = gpu_steps.with_share(Series("c", "", (1.0,), {"GFLOP/s": 350e3}), [600e12, 800e12])
    assert found.facts["% of the peak"] == pytest.approx(50.0)


def test_time_is_assigned_to_functions_of_the_template_and_their_passes(tmp_path):
    rope = (jnp.ones((2, 64, 1, 8)), jnp.ones((2, 64, 1, 8)))

    @jax.jit
    def step(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(jnp.sin(model.rotate(jnp.tanh(x @ w), rope))))(x)

    x, w = jnp.ones((2, 64, 4, 256)), jnp.ones((256, 16))
    compiled = step.lower(x, w).compile()
    text = compiled.as_text() or ""
    scopes = gpu_profile.scopes(text)
    assert {"rotate", "rotate, backward"} <= set(scopes.values())
    with jax.profiler.trace(str(tmp_path)):
        compiled(x, w).block_until_ready()
    (trace,) = tmp_path.rglob("*.xplane.pb")
    events = gpu_profile.events(trace, "jit_step")
    assert events and {event.instruction for event in events} & scopes.keys()
    assert sum(event.ms for event in events) > 0
    with pytest.raises(BenchmarkError, match="nothing that a device did"):
        gpu_profile.events(trace, "jit_other")
    assert gpu_profile.keep_trace(trace, tmp_path / "t.gz") == ""
    assert (tmp_path / "t.gz").stat().st_size > 0


def test_a_fusion_comes_from_where_most_of_it_does():
    text = "\n".join(
        [
            "HloModule jit_step, is_scheduled=true",
            "FileNames",
            '1 "/w/experiments/grug/base/model.py"',
            '2 "/s/optax/adam.py"',
            "FunctionNames",
            '1 "MLP.__call__"',
            '2 "update"',
            "FileLocations",
            "1 {file_name_id=1 function_name_id=1 line=3}",
            "2 {file_name_id=2 function_name_id=2 line=3}",
            "StackFrames",
            "1 {file_location_id=1 parent_frame_id=1}",
            "2 {file_location_id=2 parent_frame_id=1}",
            "%fused (p: f32[2]) -> f32[2] {",
            '  %a = f32[2] add(%p, %p), metadata={op_name="transpose(jvp())/add" stack_frame_id=1}',
            '  %b = f32[2] add(%p, %p), metadata={op_name="transpose(jvp())/add" stack_frame_id=1}',
            '  ROOT %c = f32[2] add(%a, %b), metadata={op_name="x" stack_frame_id=2}',
            "}",
            "ENTRY %main (p: f32[2]) -> f32[2] {",
            "  %fusion.1 = f32[2] fusion(%p), kind=kLoop, calls=%fused",
            '  %copy.2 = f32[2] copy(%p), metadata={op_name="y" stack_frame_id=1}',
            "}",
        ]
    )
    scopes = gpu_profile.scopes(text)
    assert scopes["fusion.1"] == "MLP.__call__, backward"
    assert scopes["copy.2"] == "MLP.__call__" and scopes["c"] == "optimizer"


def test_the_times_of_a_step_are_sorted_and_shared_out():
    table = gpu_profile.times({"a": 1.0, "b": 3.0}, "Time", 2)
    assert [(one.case, one.values, one.facts) for one in table.series] == [
        ("b", (1.5,), {"%": 75.0}),
        ("a", (0.5,), {"%": 25.0}),
    ]


def test_what_is_carried_leaves_out_what_jax_brings(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    names = {pin.name: pin.version for pin in carry.needed("3.12")}
    assert {"equinox", "grain", "jaxtyping", "optax", "tensorstore", "tyro"} <= names.keys()
    assert {"jax", "jaxlib", "numpy", "scipy", "torch"}.isdisjoint(names)
    assert carry.platforms("2.28")[0] == "manylinux_2_28_x86_64"


def test_only_an_ignored_directory_is_filled(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("/dist/\n")
    monkeypatch.chdir(tmp_path)
    carry.check_ignored(Path("dist/carried"))
    with pytest.raises(BenchmarkError, match="does not ignore elsewhere"):
        carry.check_ignored(Path("elsewhere"))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "has no carried.json"),
        ("[]", "has no carried.json"),
        ({"schema_version": 9}, "schema 9"),
        ({"python": "3.1"}, f"is for CPython 3.1, this is {HERE}"),
    ],
)
def test_what_does_not_fit_the_machine_is_refused_in_one_line(tmp_path, manifest, message):
    good = {"schema_version": 1, "python": HERE, "commit": "abc", "sources": "-"}
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else json.dumps({**good, **manifest})
        (tmp_path / carried.MANIFEST).write_text(text)
    with pytest.raises(BenchmarkError, match=message) as refusal:
        carried.unpack(tmp_path, tmp_path / "site", Path(sys.executable))
    assert "--carry" in str(refusal.value) and "\n" not in str(refusal.value)


def test_changed_sources_change_their_digest(tmp_path):
    source = tmp_path / "tests/benchmarks/a.py"
    source.parent.mkdir(parents=True)
    digests = set()
    for text in ("a = 1\n", "a = 2\n"):
        source.write_text(text)
        digests.add(carried.sources_digest(tmp_path))
    assert len(digests) == 2 and carried.sources_digest(tmp_path) in digests


def test_the_page_names_a_stage_that_was_killed():
    template = "@overview@\n\n## gpu\n\n@gpu@\n"
    assert "Not measured yet." in render(template, {}, {})
    machine = {"cpu": "C", "cores": 16, "memory_gib": 128, "kernel": "L", "accelerator": "H200"}
    killed = dataclasses.replace(
        EMPTY, machine=machine, missing={"moe": "killed at its limit of 70 s"}
    )
    text = render(template, {"gpu": killed}, {})
    assert "Not measured: moe: killed at its limit of 70 s." in text and "H200" in text


def test_a_result_is_near_its_reference_by_norms():
    a = jnp.asarray([3.0, 4.0])
    assert gpu_numerics.difference(a, a) == 0
    assert gpu_numerics.difference(a + jnp.asarray([0.0, 0.5]), a) == pytest.approx(0.1)
    assert np.isnan(gpu_numerics.difference(a * jnp.nan, a))


def test_a_check_that_fails_or_is_not_finite_is_missing():
    checks = gpu_numerics.Checks()
    add = partial(checks.add, into=checks.attention)
    add("good", check=lambda: {"values": 0.001, "leaks": 0})
    add("nan", check=lambda: {"values": float("nan"), "leaks": 0})
    add("refused", check=lambda: (_ for _ in ()).throw(ValueError("no such kernel\nmore")))
    assert [one.case for one in checks.attention] == ["good"]
    assert checks.missing == {
        "nan": "its results are not finite",
        "refused": "ValueError: no such kernel",
    }
    assert [aim.reached for aim in checks.aims()] == [True, True]
    add("bad", check=lambda: {"values": 0.5, "leaks": 3})
    assert [aim.reached for aim in checks.aims()] == [False, False]
