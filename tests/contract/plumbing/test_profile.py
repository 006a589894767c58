"""Which steps are traced, and what becomes of a profiler that fails."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from tests.contract.harness import under_test

profile = under_test().profile
Profile, steps_of = profile.Profile, profile.steps_of


def test_start_and_steps():
    assert steps_of("", 10) == range(0)
    assert steps_of("1:1", 10) == range(1, 2)
    assert steps_of("8:3", 10) == range(8, 11)


@pytest.mark.parametrize(
    "text, why",
    [
        *(
            (text, "write START:STEPS")
            for text in ("5", "a:b", "1:", ":1", "-1:2", "1:2:3", "1.5:2")
        ),
        *(
            (text, "write START:STEPS")
            for text in ("1 :2", "9999999999:1", "\N{SUPERSCRIPT TWO}:1")
        ),
        ("0:3", "the first step is 1"),
        ("3:0", "one step is the least"),
        ("8:4", "ends after step 10"),
        ("11:1", "ends after step 10"),
    ],
)
def test_other_text_is_refused_in_one_line(text, why):
    with pytest.raises(ValueError, match=f"profile={re.escape(text)}: .*{why}") as raised:
        steps_of(text, 10)
    assert "\n" not in str(raised.value)


def make_steps(run_dir: Path, chosen: range, start: int, last: int) -> None:
    """A loop as in train.py: each step is an operation, and nothing else."""
    step = jax.jit(lambda x: x @ x)
    with Profile(run_dir, chosen, start) as tracing:
        for number in range(start + 1, last + 1):
            with jax.profiler.StepTraceAnnotation("run/step", step_num=number):
                x = step(jnp.ones((64, 64)))
            if tracing.due(number):
                x.block_until_ready()
                tracing.end(number)
                tracing.begin(number)


def traces(run_dir: Path) -> list[str]:
    return sorted(p.relative_to(run_dir).as_posix() for p in run_dir.rglob("*") if p.is_file())


def events(run_dir: Path) -> list[Any]:
    """What is in a trace."""
    (path,) = run_dir.rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    return [e for plane in planes for line in plane.lines for e in line.events]


def step_numbers(run_dir: Path) -> list[int]:
    """The steps in a trace."""
    return sorted(dict(e.stats)["step_num"] for e in events(run_dir) if e.name == "run/step")


@pytest.mark.parametrize(
    "start, chosen", [(0, range(1, 3)), (0, range(3, 6)), (2, range(3, 4)), (0, range(4, 7))]
)
def test_the_chosen_steps_are_traced_and_no_others(tmp_path, capsys, start, chosen):
    make_steps(tmp_path, chosen, start, 6)
    name = f"profile/plugins/profile/steps-{chosen[0]:08d}-{chosen[-1]:08d}/process-0"
    assert traces(tmp_path) == [f"{name}.trace.json.gz", f"{name}.xplane.pb"]
    assert step_numbers(tmp_path) == [*chosen]
    compiles = any("compile" in event.name for event in events(tmp_path))
    assert not compiles or chosen[0] == start + 1
    assert capsys.readouterr() == ("", "")


def test_without_it_nothing_is_written(tmp_path):
    make_steps(tmp_path, range(0), 0, 3)
    assert traces(tmp_path) == []


def test_steps_that_are_made_already_are_left_out_with_a_line(tmp_path, capsys):
    make_steps(tmp_path, range(3, 6), 3, 6)
    assert traces(tmp_path) == []
    error = capsys.readouterr().err
    assert error == "no profile: step 3 was made before this start\n"


def test_a_run_that_stops_early_leaves_what_it_has(tmp_path):
    make_steps(tmp_path, range(2, 9), 0, 3)
    assert step_numbers(tmp_path) == [2, 3]


def test_a_second_trace_at_once_loses_itself_alone(tmp_path, capsys):
    jax.profiler.start_trace(str(tmp_path / "other"))
    try:
        make_steps(tmp_path / "run", range(2, 4), 0, 4)
        error = capsys.readouterr().err
        assert error.startswith("the profile left out: RuntimeError: ") and error.count("\n") == 1
        assert not (tmp_path / "run").exists()
    finally:
        jax.profiler.stop_trace()
    assert step_numbers(tmp_path / "other") == [1, 2, 3, 4]


def test_a_trace_that_cannot_be_written_is_told_of(tmp_path, capsys):
    (tmp_path / "profile").write_text("in its place")
    make_steps(tmp_path, range(2, 4), 0, 4)
    error = capsys.readouterr().err
    assert error.startswith("the profile left out: ") and error.count("\n") == 1
    make_steps(tmp_path / "again", range(2, 4), 0, 4)  # and the next one starts
    assert step_numbers(tmp_path / "again") == [2, 3]


def test_a_program_that_was_cached_under_other_names_is_compiled_anew(tmp_path):
    """JAX finds a compiled program by what it computes; its names would be those of before."""

    def program(name: str):
        return lambda x: jax.named_scope(name)(jnp.sin)(x) * 1.25

    before = getattr(jax.config, profile.CACHE_KEY)
    jax.jit(program("old"))(jnp.ones(17)).block_until_ready()
    with Profile(tmp_path, range(1, 2), 0) as tracing:
        with jax.profiler.StepTraceAnnotation("run/step", step_num=1):
            jax.jit(program("new"))(jnp.ones(17)).block_until_ready()
        tracing.end(1)
    assert getattr(jax.config, profile.CACHE_KEY) == before
    (path,) = tmp_path.rglob("*.xplane.pb")
    assert b"/new/" in path.read_bytes() and b"/old/" not in path.read_bytes()


def test_a_part_of_an_optimizer_is_named_and_the_same():
    plain, named = optax.scale_by_adam(), profile.named("adamw", optax.scale_by_adam())
    weights = {"w": jnp.arange(4.0)}
    state = plain.init(weights)
    assert jax.tree.structure(named.init(weights)) == jax.tree.structure(state)
    for ours, theirs in zip(
        jax.tree.leaves(named.update(weights, state)),
        jax.tree.leaves(plain.update(weights, state)),
        strict=True,
    ):
        assert (ours == theirs).all()
    text = jax.jit(named.update).lower(weights, state).as_text(debug_info=True)
    assert "jit(" in text and "/adamw/" in text
