"""Each part of the model has its name in the compiled program, by which a profile sums up time."""

import contextlib
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.contract.harness import (
    Variant,
    abstract_batch,
    make_abstract_mesh,
    make_init,
    make_step,
    mesh_sizes,
    small_model,
    small_run,
)
from tools.runs.op_names import BACKWARD, FORWARD, RECOMPUTED, parts

pytestmark = pytest.mark.contract("parts")

# The block's second half is named by what it is.
HALVES = ("mlp", "experts")


def lowered(variant: Variant, **changes: Any) -> Any:
    """The step of a small run, on two devices so that weights are gathered."""
    model = small_model(variant, **changes)
    cfg = small_run(variant, "", Path(), model=model, skip_above=8.0)
    mesh = make_abstract_mesh(variant, mesh_sizes(variant, {"data": 2}))
    with jax.sharding.use_abstract_mesh(mesh):
        state = jax.eval_shape(make_init(variant, cfg))
        batch = abstract_batch(variant, cfg, mesh)
        step: Any = make_step(variant, cfg)
        return step.trace(state, batch).lower(lowering_platforms=("cpu",))


def phases(program: Any) -> dict[tuple[str, ...], set[str]]:
    """The phases in which each scope has operations."""
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for name in set(re.findall(r'loc\("(jit\([^"]*)"', program.as_text(debug_info=True))):
        for part in parts(name):
            for depth in range(1, len(part.scopes) + 1):
                found[part.scopes[:depth]].add(part.phase)
    return found


def test_parts_are_named_forward_and_backward(variant):
    """Also in loops, under recomputation, and where the gradient is written by hand."""
    found = phases(lowered(variant))
    named = {scopes[0] for scopes in found}
    (half,) = named & set(HALVES)
    for scopes in (
        *(("attention",), ("attention", "scores"), ("attention", "rotary"), ("attention", "norm")),
        *(("embedding",), ("norm",), (half,), ("loss",)),
    ):
        assert {FORWARD, BACKWARD} <= found[scopes], scopes
    for part in ("clip", "adamw", "muon"):
        assert "" in found["optimizer", part], part
    depth = variant.presets()[0].model.n_layers
    again = phases(lowered(variant, n_layers=depth, remat_layers=depth))
    for scopes in (("attention",), ("attention", "scores"), ("norm",), (half,)):
        assert RECOMPUTED in again[scopes], scopes


def test_an_evaluation_is_named(variant):
    cfg = small_run(variant, "", Path())
    mesh = make_abstract_mesh(variant, mesh_sizes(variant, {}))
    with jax.sharding.use_abstract_mesh(mesh):
        model = jax.eval_shape(make_init(variant, cfg)).model
        batch = abstract_batch(variant, cfg, mesh)
        sizes = jax.ShapeDtypeStruct((cfg.model.vocab_size,), "float32")
        traced = variant.train.make_eval_step().trace(model, batch, sizes)
        found = phases(traced.lower(lowering_platforms=("cpu",)))
    assert {("evaluation", "attention"), ("evaluation", "loss")} <= found.keys()


class Nothing(contextlib.ContextDecorator):
    """In place of `jax.named_scope`, around code and as a decorator."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def without_names(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> Generator[Variant]:
    """The variant, imported anew where no scope has a name."""
    ours = [name for name in sys.modules if f"{name}.".startswith(f"{variant.package}.")]
    with monkeypatch.context() as patch:
        for name in ours:
            patch.delitem(sys.modules, name)
        patch.setattr(jax, "named_scope", Nothing)
        parent, _, child = variant.package.rpartition(".")
        patch.setattr(importlib.import_module(parent), child, None, raising=False)
        again = Variant(variant.package)
        yield again
        for name in [one for one in sys.modules if f"{one}.".startswith(f"{variant.package}.")]:
            patch.delitem(sys.modules, name)


def test_names_change_nothing_that_is_compiled(variant, monkeypatch):
    module, program = variant.model, lowered(variant, remat_layers=variant.model.PERIOD)
    with without_names(variant, monkeypatch) as nameless:
        other = lowered(nameless, remat_layers=nameless.model.PERIOD)
        assert nameless.model is not module
    assert variant.model is module
    assert ("attention",) in phases(program) and ("attention",) not in phases(other)
    assert other.as_text() == program.as_text()
