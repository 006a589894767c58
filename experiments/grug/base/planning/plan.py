"""A run's sizes, FLOPs, memory and shardings, from shapes alone: `--plan`."""

import collections
import dataclasses
import json
import math
import os
from collections.abc import Iterator
from typing import Any

import jax

from ..model import BATCH, MESH_AXES
from ..plumbing.branch import branch_point
from ..plumbing.record import VARIANT
from ..train import (
    TrainConfig,
    TrainError,
    TrainState,
    group_of,
    make_optimizer,
    mesh_shape,
)
from .compiled import Compiled, compiled, verdict
from .rule import Rule, rule
from .topology import Samplers, Topology

PLAN_SCHEMA = 1


def plan(
    cfg: TrainConfig,
    topology: str,
    make_sampler: Samplers,
    price: float = 0.0,
    *,
    as_json: bool = False,
) -> Iterator[str]:
    """Text, in parts: the estimate for this machine; with a topology, also what it compiles to.

    Args:
        cfg: the run.
        topology: the hardware, as in `v5e:4x4`; empty for none.
        make_sampler: launch.make_sampler.
        price: dollars per device and hour; 0 if it is not known.
        as_json: the same as one JSON object, in one part.

    Raises:
        ValueError: there is no such topology, or nothing is installed that compiles for it.
        TrainError: a program of the run does not fit on it; the text or JSON says so, too.
    """
    hardware = Topology.named(topology) if topology else None
    guess, found = estimate(cfg, hardware), None
    if hardware:
        found = Compiled(len(hardware.devices), hardware.devices[0].device_kind, hardware.memory)
    lines = compiled(cfg, hardware, make_sampler, found, price) if hardware and found else iter(())
    if not as_json:
        yield guess.text()
        yield from lines
        return
    failure = None
    try:
        collections.deque(lines, maxlen=0)
    except TrainError as error:
        failure = error
    yield encoded(cfg, topology, guess, found)
    if failure:
        raise failure


def encoded(cfg: TrainConfig, topology: str, guess: "Estimate", found: Compiled | None) -> str:
    """The plan as one JSON object: the estimate's fields, what ran, and `compiled`."""
    places = {name for name, role in cfg.roles().items() if role == "place"}
    content = {
        **dataclasses.asdict(guess),
        "schema_version": PLAN_SCHEMA,
        "variant": VARIANT,
        "config": {k: v for k, v in dataclasses.asdict(cfg).items() if k not in places},
        "topology": topology or None,
        "compiled": found.asdict() if found else None,
    }
    return json.dumps(content, sort_keys=True)


def check_flags(is_plan: bool, as_json: bool, topology: str, price: float) -> None:
    """Raises ValueError for flags of --plan that no plan can have."""
    for name, given in (("--json", as_json), ("--topology", topology), ("--price", price)):
        if given and not is_plan:
            raise ValueError(f"{name} is a part of --plan: add --plan, or remove it")
    if price and not topology:
        raise ValueError("--price is that of a device of --topology: add --topology, or remove it")
    if not 0 <= price < math.inf:
        raise ValueError(f"price={price}: must be dollars per device and hour, at least 0")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A run's sizes, FLOPs, memory and shardings, from shapes alone."""

    parameters: int
    active_parameters: int
    """Parameters that one token passes through."""
    flops_per_token: float
    tokens: int
    """From step 0, also of a branch."""
    steps: int
    branch_step: int
    """The step after which a branch begins; 0 of other runs, and where --branch-from has none."""
    chosen: Rule
    """What the config sets."""
    rule: Rule
    """What the rule gives for this model and these tokens."""
    mesh: dict[str, int]
    memory: dict[str, int]
    """Bytes per device, by what they hold."""
    memory_limit: float
    """Bytes of one device."""
    weights: dict[str, tuple[tuple[int, ...], str]]
    """Shape and sharding of each array of the model."""

    def text(self) -> str:
        """The estimate as a table."""
        total = sum(self.memory.values())
        fits = f"of {self.memory_limit / 2**30:.1f} GiB: {verdict(total < self.memory_limit)}"
        lines = [f"parameters        {self.parameters:,}"]
        if self.active_parameters < self.parameters:
            lines.append(f"active per token  {self.active_parameters:,}")
        lines += [
            f"FLOPs per token   {self.flops_per_token:.3g}",
            f"tokens            {self.tokens:,} in {self.steps:,} steps",
            f"FLOPs in total    {self.flops_per_token * self.tokens:.3g}",
            f"{'':<18}{'learning rate':<16}{'batch, tokens':<16}weight decay",
            f"as configured     {row(self.chosen)}",
            f"by the rule       {row(self.rule)}",
        ]
        if self.branch_step:
            own = self.steps - self.branch_step
            tokens = self.tokens // self.steps * own
            lines += [
                f"of the branch     {tokens:,} tokens in {own:,} steps, after {self.branch_step:,}",
                f"  its FLOPs       {self.flops_per_token * tokens:.3g}",
            ]
        lines += [
            f"mesh              {self.mesh}",
            # Evaluations and the sample have no gradients, and no more rows at a time.
            "memory per device, of the step, which is the largest program",
        ]
        lines += [f"  {name:<24} {n / 2**20:>12,.1f} MiB" for name, n in self.memory.items()]
        lines.append(f"  {'together (estimate)':<24} {total / 2**20:>12,.1f} MiB {fits}")
        lines.append("weights and their sharding")
        width = max(map(len, self.weights))
        for name, (shape, spec) in self.weights.items():
            lines.append(f"  {name:<{width}} {shape!s:<24} {spec}")
        return "\n".join(lines)


def row(values: Rule) -> str:
    """A rule's values as columns of a table."""
    rate, batch = f"{values.learning_rate:.2g}", f"{values.batch_tokens:,.0f}"
    return f"{rate:<16}{batch:<16}{values.weight_decay:.2g}"


def estimate(cfg: TrainConfig, hardware: Topology | None = None) -> Estimate:
    """The estimate for a topology's devices; without one, for this machine's.

    Raises:
        ValueError: the run cannot be split over these devices.
    """
    shape = mesh_shape(cfg, len(hardware.devices) if hardware else jax.device_count())
    mesh = dict(zip(MESH_AXES, shape, strict=True))
    explicit = (jax.sharding.AxisType.Explicit,) * len(MESH_AXES)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh(shape, MESH_AXES, explicit)):
        state = jax.eval_shape(lambda: TrainState.init(cfg, make_optimizer(cfg)))

    def per_device(tree: Any) -> int:
        leaves = [x for x in jax.tree.leaves(tree) if x.sharding]  # None: an unsharded scalar
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)

    parameters = sum(x.size for x in jax.tree.leaves(state.model))
    groups = jax.tree.leaves(jax.tree.map_with_path(group_of, state.model))
    sizes = zip(groups, jax.tree.leaves(state.model), strict=True)
    outer = sum(x.size for group, x in sizes if group in ("embedding", "head"))
    active = parameters - cfg.model.idle_parameters()
    batch = cfg.batch_size * cfg.sequence_length
    return Estimate(
        parameters=parameters,
        active_parameters=active,
        flops_per_token=cfg.model.flops_per_token(cfg.sequence_length),
        tokens=cfg.steps * batch,
        steps=cfg.steps,
        branch_step=branch_point(cfg.branch_from)[1] or 0,
        chosen=Rule(cfg.learning_rate, batch, cfg.weight_decay),
        rule=rule(active - outer, cfg.steps * batch),
        mesh=mesh,
        memory={
            "weights": per_device(state.model),
            "gradients": per_device(state.model),
            "optimizer": per_device(state.optimizer),
            "weights' running average": per_device(state.ema),
            "activations (estimate)": activation_bytes(cfg, mesh),
        },
        memory_limit=hardware.memory if hardware else device_memory(),
        weights={
            jax.tree_util.keystr(path, simple=True, separator="."): (x.shape, str(x.sharding.spec))
            for path, x in jax.tree.leaves_with_path(state.model)
        },
    )


def activation_bytes(cfg: TrainConfig, mesh: dict[str, int]) -> int:
    """The model's own estimate of its activations, for one device's rows of one microbatch."""
    rows = cfg.batch_size / cfg.microbatches / math.prod(mesh[axis] for axis in BATCH)
    return int(cfg.model.activation_bytes(rows, cfg.sequence_length, mesh))


def device_memory() -> int:
    """Bytes of one device: its own memory, or its share of a CPU host's."""
    stats = jax.devices()[0].memory_stats() or {}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit", host // jax.local_device_count())
