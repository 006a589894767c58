"""FLOPs of a program's matrix products, counted in its jaxpr: what a model's own formula must say.

XLA's cost analysis counts the body of a loop once, and elementwise operations too. A jaxpr has the
trip count of every scan and the dimensions of every product, so the count is exact.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


class Uncountable(Exception):
    """A program holds work whose FLOPs no jaxpr tells."""


def product_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of the matrix products in a call of `function`, over all devices of the mesh.

    Two per multiplication and addition. Work inside of a shard_map counts once per device, padding
    of buffers as often as it is multiplied. A product of a vector is none (a norm, a weighted sum
    of a few rows): both operands need a dimension of their own. Of a cond the largest branch
    counts.

    Args:
        function: what to count; it is traced, nothing is computed.
        arguments: its arguments, arrays or shapes.

    Raises:
        Uncountable: there are products in a while loop, whose trip count is not known, or there is
            a kernel.
    """
    return of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def of_jaxpr(jaxpr: Jaxpr) -> int:
    """FLOPs of all equations of a jaxpr."""
    return sum(map(of_equation, jaxpr.eqns))


def of_equation(equation: JaxprEqn) -> int:
    """FLOPs of one equation, those inside of it included."""
    name, parameters = equation.primitive.name, equation.params
    if name in PRODUCTS:
        arrays = (*equation.invars[:2], *equation.outvars)
        avals: list[Any] = [x.aval for x in arrays]  # of arrays, whatever JAX's types allow
        shapes = [x.shape for x in avals]
        return PRODUCTS[name](parameters, *shapes)
    if name in ("pallas_call", "ffi_call"):
        raise Uncountable(f"{name}: a kernel does not say how often it multiplies")
    parts = [of_jaxpr(inner) for inner in inner_jaxprs(parameters)]
    if name == "scan":
        return parameters["length"] * sum(parts)
    if name == "cond":
        return max(parts)
    if name == "while" and any(parts):
        raise Uncountable("a while loop with products in it: its trip count is not known")
    if name == "shard_map":
        axes = parameters["newly_manual_axes"]
        return math.prod(parameters["mesh"].shape[axis] for axis in axes) * sum(parts)
    return sum(parts)  # a jit, a checkpoint, a custom derivative, ...


def inner_jaxprs(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    """The jaxprs among an equation's parameters, and in tuples of these."""
    for value in parameters.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def dot_general(
    parameters: dict[str, Any],
    left: tuple[int, ...],
    right: tuple[int, ...],
    result: tuple[int, ...],
) -> int:
    """FLOPs of a product of two arrays."""
    contracted, batched = parameters["dimension_numbers"]
    taken = [len(a) + len(b) for a, b in zip(contracted, batched, strict=True)]
    if taken[0] == len(left) or taken[1] == len(right):
        return 0
    return 2 * math.prod(result) * math.prod(left[axis] for axis in contracted[0])


def ragged_dot(
    parameters: dict[str, Any],
    left: tuple[int, ...],
    right: tuple[int, ...],
    result: tuple[int, ...],
) -> int:
    """FLOPs of a product of grouped rows: each row meets the matrix of its own group."""
    numbers = parameters["ragged_dot_dimension_numbers"]
    (_, contracted), (_, batched) = numbers.dot_dimension_numbers
    taken = {*contracted, *batched, *numbers.rhs_group_dimensions}
    return 2 * math.prod(left) * math.prod(n for i, n in enumerate(right) if i not in taken)


def convolution(
    parameters: dict[str, Any],
    left: tuple[int, ...],
    right: tuple[int, ...],
    result: tuple[int, ...],
) -> int:
    """FLOPs of a convolution; of a depthwise one none, as for any product of vectors."""
    outputs = right[parameters["dimension_numbers"].rhs_spec[0]]
    inputs = right[parameters["dimension_numbers"].rhs_spec[1]]
    return 2 * math.prod(result) * math.prod(right) // outputs if inputs > 1 else 0


PRODUCTS: dict[str, Callable[..., int]] = {
    "dot_general": dot_general,
    "ragged_dot_general": ragged_dot,
    "conv_general_dilated": convolution,
}
