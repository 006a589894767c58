"""The variant under test, and the pieces of a small run of it.

No module here names a variant: GRUG_VARIANT does, and everything is looked up in that package.
"""

import dataclasses
import importlib
import importlib.util
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tools.common.sources import is_source

EDITED = ("model", "train", "launch")
# What a copy does not edit, by directory. The workspace's other tests and tools use these.
PLUMBING = ("arrays", "branch", "checkpoint", "cluster", "cudnn", "data", "kernels")
PLUMBING += ("listeners", "packing")
PLUMBING += ("processes", "profile", "ranges", "record", "rundir", "runlog", "signals", "splash")
PLUMBING += ("storage", "terminal", "watch")
PLANNING = ("compiled", "hlo", "plan", "roofline", "rule", "topology", "traffic", "wire")
PATHS = {
    **{name: f"{name}.py" for name in EDITED},
    **{name: f"plumbing/{name}.py" for name in PLUMBING},
    **{name: f"planning/{name}.py" for name in PLANNING},
}
"""Path of each of the template's modules in a variant's directory."""


class Variant:
    """The package under test; its modules are attributes, imported when first asked for."""

    def __init__(self, package: str):
        try:
            spec = importlib.util.find_spec(package) if package else None
        except ImportError:
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise LookupError(
                f"GRUG_VARIANT={package!r} names no variant: ./pants test experiments/grug/NAME:: "
                "sets it (by hand: GRUG_VARIANT=experiments.grug.NAME)"
            )
        self.package = package
        self.directory = Path(next(iter(spec.submodule_search_locations)))

    def __getattr__(self, module: str) -> Any:
        if module not in PATHS:
            raise AttributeError(module)
        path = PATHS[module].removesuffix(".py").replace("/", ".")
        return importlib.import_module(f"{self.package}.{path}")

    def sources(self) -> list[Path]:
        """The variant's Python files less its tests, which need not be here."""
        return [path for path in self.files() if path.suffix == ".py"]

    def files(self) -> list[Path]:
        """All that the variant's runs may read."""
        files = [path for path in sorted(self.directory.rglob("*")) if path.is_file()]
        return [p for p in files if is_source(p.relative_to(self.directory).as_posix())]

    def presets(self) -> list[Any]:
        """The presets' configs, the cheapest token first, whatever they are called."""
        configs = self.launch.PRESETS.values()
        return sorted(configs, key=lambda c: c.model.flops_per_token(c.sequence_length))


def under_test() -> Variant:
    """The variant that GRUG_VARIANT names. Raises LookupError if there is none."""
    return Variant(os.environ.get("GRUG_VARIANT", ""))


def small_model(variant: Variant, **changes: Any) -> Any:
    """The tiny preset's model, shrunk in the fields that every variant has."""
    layers = math.lcm(2, variant.model.PERIOD)
    sizes: dict[str, Any] = {
        **{"vocab_size": 320, "d_model": 64, "n_layers": layers, "n_heads": 2, "n_kv_heads": 1},
        **{"head_dim": 32, "d_ff": 128, "loss_chunk": 32, "compute_dtype": "float32"},
    }
    return dataclasses.replace(variant.presets()[0].model, **{**sizes, **changes})


def small_run(variant: Variant, store: str, run_dir: Path, **changes: Any) -> Any:
    """A run of 30 steps, seconds long, with the tiny preset's learning rate."""
    sizes: dict[str, Any] = {
        **{"model": small_model(variant), "data": store, "run_dir": str(run_dir), "steps": 30},
        **{"batch_size": 8, "sequence_length": 64, "warmup_steps": 3, "eval_every": 10},
        **{"eval_tokens": 2048, "checkpoint_every": 10, "keep_checkpoints": 2},
        **{"tensorboard": False, "ema_decay": 0.9},
    }
    return dataclasses.replace(variant.presets()[0], **{**sizes, **changes})


def mesh_sizes(variant: Variant, sizes: dict[str, int]) -> tuple[int, ...]:
    """Devices along each of the variant's axes: those given, 1 along the others."""
    assert sizes.keys() <= set(variant.model.MESH_AXES), f"no such axes: {sizes}"
    return tuple(sizes.get(axis, 1) for axis in variant.model.MESH_AXES)


def mesh_fields(variant: Variant, sizes: dict[str, int]) -> dict[str, Any]:
    """The fields of a run's config for these devices along the axes: `mesh` has no context."""
    axes = zip(variant.model.MESH_AXES, mesh_sizes(variant, sizes), strict=True)
    return {
        "mesh": tuple(size for axis, size in axes if axis != "context"),
        "context": sizes.get("context", 1),
    }


def make_mesh(variant: Variant, **sizes: int) -> jax.sharding.Mesh:
    """A mesh of the first devices."""
    shape, axes = mesh_sizes(variant, sizes), variant.model.MESH_AXES
    explicit = (AxisType.Explicit,) * len(axes)
    devices = jax.devices()[: math.prod(shape)]
    return jax.make_mesh(shape, axes, axis_types=explicit, devices=devices)


def make_abstract_mesh(variant: Variant, shape: tuple[int, ...]) -> AbstractMesh:
    """A mesh without devices: enough for shapes and shardings."""
    axes = variant.model.MESH_AXES
    return AbstractMesh(shape, axes, (AxisType.Explicit,) * len(axes))


def make_init(variant: Variant, cfg: Any) -> Callable[[], Any]:
    """Makes the training state of step 0."""
    train = variant.train
    return lambda: train.TrainState.init(cfg, train.make_optimizer(cfg))


def make_step(variant: Variant, cfg: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The variant's jitted step."""
    return variant.train.make_train_step(cfg, variant.train.make_optimizer(cfg))


def abstract_batch(variant: Variant, cfg: Any, mesh: AbstractMesh) -> Any:
    """The shapes of one global batch, split over the mesh."""
    by_row = NamedSharding(mesh, P(variant.model.BATCH, None))
    shape = (cfg.batch_size, cfg.sequence_length)
    types = [np.int32] * 4 + [np.float32]
    return variant.data.Batch(*(jax.ShapeDtypeStruct(shape, t, sharding=by_row) for t in types))


def hidden_states(output: Any) -> jax.Array:
    """What a model returns, or the first of it where a variant returns more."""
    return output[0] if isinstance(output, tuple) else output


def leaves(tree: Any) -> dict[str, Any]:
    """Every array of a tree by its path."""
    paths = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in paths}


def values(tree: Any) -> dict[str, np.ndarray]:
    """A copy of every array of a tree by its path."""
    return {name: np.array(x) for name, x in leaves(tree).items()}


def bits(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What two trees must agree on to be the same bit for bit."""
    return {name: (x.dtype.name, x.shape, x.tobytes()) for name, x in arrays.items()}


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Fails with the names of the arrays that differ."""
    a, b = bits(one), bits(other)
    differing = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    assert not differing, f"these differ: {', '.join(differing)}"


@dataclasses.dataclass(frozen=True)
class Steps:
    """A few steps by hand: the state before and after each, and each one's metrics."""

    states: list[dict[str, np.ndarray]]
    metrics: list[dict[str, np.ndarray]]
    last: Any
    """The final state on its device."""


def take_steps(variant: Variant, cfg: Any, count: int) -> Steps:
    """Traces everything anew, so that nothing is shared with other steps but their cause."""
    state, step = jax.jit(make_init(variant, cfg))(), make_step(variant, cfg)
    sizes, axes = (cfg.batch_size, cfg.sequence_length), variant.model.BATCH
    store = variant.data.TokenStore.open(cfg.data)
    batches = variant.packing.loader(store, "train", *sizes, axes, seed=cfg.seed)
    states, metrics = [values(state)], []
    for _ in range(count):
        state, observed = step(state, variant.packing.to_devices(next(batches), axes))
        states.append(values(state))
        metrics.append(values(observed))
    return Steps(states, metrics, state)


class SignalDuring:
    """A loader that sends this process SIGTERM while it reads its nth batch."""

    def __init__(self, batches: Any, n: int):
        self.batches, self.left = batches, n

    def __next__(self) -> Any:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return next(self.batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)


def rows(run_dir: Path) -> list[dict[str, float]]:
    """A run's lines of metrics."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def checkpoint_bytes(run_dir: Path, step: int) -> dict[str, bytes]:
    """Every file of one checkpoint."""
    root = run_dir / "checkpoints" / f"step-{step:08d}"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
