"""Attention of base and experts of moe on this device, against float32: values and gradients.

python -m tests.benchmarks.gpu_numerics --json OUT

The first stage of gpu.py. Inputs are bfloat16; the reference computes in float32 from the same
numbers, without a kernel or a chunk.
"""

import argparse
import contextlib
import dataclasses
import itertools
import math
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from experiments.grug.base import launch, model, train
from experiments.grug.moe.dispatch import expert_mlps
from tests.benchmarks.measure import (
    Aim,
    Series,
    Table,
    flags_of,
    keep,
    positive,
    report_of,
    run,
    spread,
)
from tests.benchmarks.stages import end_with_runner

# The norm of the difference over the norm of the reference. A number of bfloat16 is rounded by up
# to 2**-9; wrong masks, scales and sums are off by more than a tenth.
TOLERANCE = 0.01
Arrays = tuple[jax.Array, ...]
Exact = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class Heads:
    """Sizes of one attention."""

    rows: int
    length: int
    heads: int
    kv_heads: int
    head_dim: int
    query_chunk: int = 512


@dataclasses.dataclass(frozen=True)
class Experts:
    """Sizes of one layer's experts."""

    rows: int
    width: int
    hidden: int
    experts: int


# As in the presets, and small heads in a row whose length no kernel's block divides.
HEADS = {
    "350m": Heads(2, 2048, 8, 2, 128),
    "1b": Heads(1, 4096, 16, 4, 128),
    "1,000 positions": Heads(2, 1000, 8, 2, 64),
}
SMALL_HEADS = {"small": Heads(2, 96, 4, 2, 16, query_chunk=32)}
EXPERTS = {"350m": Experts(16_384, 1024, 768, 32)}
SMALL_EXPERTS = {"small": Experts(300, 32, 16, 4)}
ASSIGNMENTS = ("even", "uneven")


def documents(rows: int, length: int) -> np.ndarray:
    """(B, S) segment ids: several documents a row, cut in different places, and padding."""
    cuts = np.array([[0.1, 0.35, 0.8, 0.97], [0.02, 0.5, 0.55, 0.9]])
    ends = np.resize(cuts, (rows, 4)) * length
    segments = 1 + (np.arange(length)[None, :, None] >= ends[:, None]).sum(axis=2)
    return np.where(segments > 4, 0, segments).astype(np.int32)


def random(index: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(index), shape).astype(jnp.bfloat16)


def plain_attention(q: Any, k: Any, v: Any, segments: Any) -> jax.Array:
    """softmax(q k / sqrt(H)) v over all earlier keys of the document, with all scores at once."""
    k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("bqnh,bknh->bnqk", q, k, precision=Exact) / math.sqrt(q.shape[-1])
    place = jnp.arange(q.shape[1])
    mask = (segments[:, :, None] == segments[:, None]) & (place[:, None] >= place)
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bnqk,bknh->bqnh", weights, v, precision=Exact)


def plain_experts(rows: Any, w_up: Any, w_down: Any, expert: Any) -> jax.Array:
    """Each row's output from its expert, by computing all experts for all rows."""

    def add(total: jax.Array, one: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        up, down, number = one
        hidden = jnp.square(jax.nn.relu(jnp.matmul(rows, up, precision=Exact)))
        out = jnp.matmul(hidden, down, precision=Exact)
        return total + jnp.where((expert == number)[:, None], out, 0.0), None

    numbers = jnp.arange(len(w_up))
    return jax.lax.scan(jax.checkpoint(add), jnp.zeros_like(rows), (w_up, w_down, numbers))[0]


def with_gradients(f: Callable[..., jax.Array]) -> Callable[..., Arrays]:
    """(gradient of the result, constant, arguments) -> the result, the arguments' gradients."""

    def values(slope: jax.Array, constant: jax.Array, *arguments: jax.Array) -> Arrays:
        result, pull = jax.vjp(lambda *xs: f(*xs, constant), *arguments)
        return result, *pull(slope.astype(result.dtype))

    return jax.jit(values)


def difference(found: jax.Array, true: jax.Array) -> float:
    """Relative, by Euclidean norms."""
    a, b = (np.asarray(x, np.float64) for x in (found, true))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def differences(
    computed: Callable[..., jax.Array],
    reference: Callable[..., jax.Array],
    constant: jax.Array,
    arguments: Sequence[jax.Array],
    mesh: contextlib.AbstractContextManager[Any],
) -> list[float]:
    """Of the result, then of each argument's gradient; the slope is random.

    What is computed, not the reference, runs on `mesh`.
    """
    wide = [x.astype(jnp.float32) for x in arguments]
    shape = jax.eval_shape(reference, *wide, constant).shape
    slope = random(9, *shape)
    true = with_gradients(reference)(slope.astype(jnp.float32), constant, *wide)
    with mesh:
        found = with_gradients(computed)(slope, constant, *arguments)
    return [difference(a, b) for a, b in zip(found, true, strict=True)]


def ways_to_attend() -> list[str]:
    """Of base, by the names of its own flag."""
    names = typing.get_args(typing.get_type_hints(model.ModelConfig)["attention"])
    return [name for name in names if name != "auto"]


def attention_of(name: str, size: Heads) -> tuple[Callable[..., jax.Array], Any]:
    """base's attention between its projections, (q, k, v, segment ids) -> y, and its mesh.

    Raises:
        ValueError: this machine cannot run it.
    """
    sizes = model.ModelConfig(
        n_heads=size.heads,
        n_kv_heads=size.kv_heads,
        head_dim=size.head_dim,
        query_chunk=size.query_chunk,
        compute_dtype="bfloat16",
    )
    named: Any = {"attention": name}
    cfg = launch.resolve(train.TrainConfig(model=dataclasses.replace(sizes, **named)))
    axes = model.MESH_AXES
    one = jax.devices()[:1]
    mesh = jax.make_mesh((1,) * len(axes), axes, (AxisType.Explicit,) * len(axes), devices=one)
    heads = P(train.BATCH, None, "model", None)  # as `by_token` has them on one device
    with jax.set_mesh(mesh):  # of its weights only the shapes: they are not used here
        key = jax.random.PRNGKey(0)
        layer = jax.eval_shape(lambda: model.Attention.init(cfg.model, key=key))

    def attend(q: Any, k: Any, v: Any, segments: Any) -> jax.Array:
        q, k, v = (jax.reshard(x, heads) for x in (q, k, v))
        y = layer.attend(q, k, v, jax.reshard(segments, P(train.BATCH, None)))
        return jax.reshard(y, P(None, None, None, None))

    return attend, mesh


def leaks(
    attend: Callable[..., jax.Array], qkv: Sequence[jax.Array], segments: np.ndarray, mesh: Any
) -> int:
    """Numbers of the other documents' results that change with the keys and values of one."""
    inside = jnp.asarray(segments == 2)[:, :, None, None]
    q, *kv = qkv
    others = [jnp.where(inside, 8 * random(7 + i, *x.shape), x) for i, x in enumerate(kv)]
    with jax.set_mesh(mesh):
        before, after = (jax.jit(attend)(q, *pair, jnp.asarray(segments)) for pair in (kv, others))
    changed = np.asarray(before) != np.asarray(after)
    return int(np.count_nonzero(changed[segments != 2]))


def check_attention(attend: Callable[..., jax.Array], mesh: Any, size: Heads) -> dict[str, float]:
    """Differences from float32, and numbers that leak from one document into another."""
    segments = documents(size.rows, size.length)
    heads = (size.heads, size.kv_heads, size.kv_heads)
    qkv = [random(i, size.rows, size.length, n, size.head_dim) for i, n in enumerate(heads)]
    on_mesh = jax.set_mesh(mesh)
    found = differences(attend, plain_attention, jnp.asarray(segments), qkv, on_mesh)
    names = ("values", "gradient of q", "gradient of k", "gradient of v")
    return dict(zip(names, found, strict=True)) | {"leaks": leaks(attend, qkv, segments, mesh)}


def check_experts(size: Experts, assignment: str) -> dict[str, float]:
    """Differences of moe's experts from float32. Every eighth row belongs to none."""
    draw = np.random.default_rng(0).random(size.rows)
    skewed = draw if assignment == "even" else draw**4  # a third to the first, few to the last
    expert = np.where(np.arange(size.rows) % 8, (size.experts * skewed).astype(int), size.experts)
    rows, up, down = (
        random(0, size.rows, size.width),
        random(1, size.experts, size.width, size.hidden) * size.width**-0.5,
        random(2, size.experts, size.hidden, size.width) * size.hidden**-0.5,
    )

    def computed(rows: Any, up: Any, down: Any, expert: Any) -> jax.Array:
        return expert_mlps(rows, expert, up, down)[0]

    arguments = (rows, up.astype(jnp.bfloat16), down.astype(jnp.bfloat16))
    chosen, anywhere = jnp.asarray(expert, jnp.int32), contextlib.nullcontext()
    found = differences(computed, plain_experts, chosen, arguments, anywhere)
    names = ("values", "gradient of rows", "gradient of w_up", "gradient of w_down")
    return dict(zip(names, found, strict=True))


Case = tuple[str, list[Series], Callable[[], dict[str, float]]]
"""A name, where its result goes, and what computes it."""


@dataclasses.dataclass
class Checks:
    """What was found so far."""

    attention: list[Series] = dataclasses.field(default_factory=list)
    experts: list[Series] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, case: str, into: list[Series], check: Callable[[], dict[str, float]]) -> None:
        """A refusal or a failure of one case is recorded; the others go on."""
        try:
            found = check()
        except Exception as error:  # whatever a compiler or a kernel raises
            self.missing[case] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            return
        if not all(map(math.isfinite, found.values())):
            self.missing[case] = "its results are not finite"
            return
        values = found.pop("values")
        into.append(Series(case, "", (values,), found))

    def tables(self) -> list[Table]:
        unit, better = "relative difference", "less"
        tables = [
            Table("Attention against float32", unit, better, tuple(self.attention)),
            Table("Experts against float32", unit, better, tuple(self.experts)),
        ]
        return [table for table in tables if table.series]

    def aims(self) -> list[Aim]:
        """The worst difference, and the worst leak."""
        rows = [*self.attention, *self.experts]
        leaked = [float(row.facts["leaks"]) for row in self.attention]
        worst = [
            max([*row.values, *(float(x) for n, x in row.facts.items() if n != "leaks")])
            for row in rows
        ]
        found = [("largest difference from float32", worst, TOLERANCE)]
        found += [("numbers that leak from a document", leaked, 0.0)]
        return [
            Aim(what, spread([max(values)]), "at most", bound)
            for what, values, bound in found
            if values
        ]


def main(flags: argparse.Namespace, load: float) -> None:
    ends = time.monotonic() + flags.limit_s
    checks = Checks()
    heads, experts = (SMALL_HEADS, SMALL_EXPERTS) if flags.quick else (HEADS, EXPERTS)
    names = ways_to_attend()
    attention: list[Case] = [
        (
            f"{name}, {case}",
            checks.attention,
            lambda name=name, size=size: check_attention(*attention_of(name, size), size),
        )
        for (case, size), name in itertools.product(heads.items(), names)
    ]
    products: list[Case] = [
        (
            f"experts, {case}, {assignment}",
            checks.experts,
            lambda size=size, assignment=assignment: check_experts(size, assignment),
        )
        for (case, size), assignment in itertools.product(experts.items(), ASSIGNMENTS)
    ]
    # One size of every kernel first: time may not suffice for all.
    cases = attention[: len(names)] + products + attention[len(names) :]
    for case, into, check in cases:
        if time.monotonic() > ends:
            checks.missing[case] = "no time was left"
            continue
        checks.add(case, into, check)
        report = report_of(
            flags,
            checks.tables(),
            load=load,
            aims=checks.aims(),
            missing=checks.missing,
            versions={"jax": jax.__version__},
        )
        keep(flags, report)


if __name__ == "__main__":
    end_with_runner()
    parser = flags_of("gpu_numerics", __doc__)
    parser.add_argument("--limit-s", type=positive, default=60, help="seconds in all (60)")
    run("gpu_numerics", main, parser)
