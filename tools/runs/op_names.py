"""Reads the names that JAX gives to operations: `jit(step)/transpose(jvp(attention))/mul`.

A name is a path of scopes (`jax.named_scope`), of transformations around them and of JAX's own
structure; it ends with a primitive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FORWARD, BACKWARD, RECOMPUTED, NEITHER = "forward", "backward", "recomputed", ""
# What JAX puts into a path between scopes, in its versions 0.11 and 0.12.
_STRUCTURE = re.compile(
    r"while|body|cond|scan|checkpoint|remat2?|rematted_computation|eval_jaxpr|shard_map|pjit"
    r"|(?:closed|core|custom_[jv]vp)_call|branch_\d+_fun"
)
_WRAPPED = re.compile(r"([a-z]\w*)\((.*)\)")
_PHASES = {"jvp": FORWARD, "transpose": BACKWARD}
_DEEPEST = 100  # levels of parentheses


@dataclass(frozen=True)
class Part:
    """Where an operation belongs."""

    scopes: tuple[str, ...]
    """From the outermost one to the innermost; none of what no scope names."""
    phase: str
    """RECOMPUTED is a part of the backward pass that repeats one of the forward pass."""


def parts(name: str) -> list[Part]:
    """The parts that an operation belongs to: of a fused or combined one, several, which repeat.

    Of several, those that no scope names say nothing.
    """
    found = [_part(path) for one in name.split(";") for path in _alternatives(one)]
    return [part for part in found if part.scopes] or found[:1]


def _alternatives(name: str) -> list[str]:
    """The paths of a combined operation, whose name ends with `(path:path)`; else its own one."""
    *before, last = _split(name, "/")
    if last.startswith("(") and last.endswith(")"):
        return ["/".join([*before, path]) for path in _split(last[1:-1], ":")]
    return [name]


def _split(text: str, separator: str) -> list[str]:
    """Text split at a separator that stands in no parentheses."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == separator and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def _part(name: str) -> Part:
    path = _split(name, "/")
    if path and "(" not in path[-1]:
        path.pop()  # the primitive
    scopes: list[str] = []
    phases: list[str] = []
    recomputed = False
    for wraps, names in _unwrapped(path, 0):
        phases += [_PHASES[wrap] for wrap in wraps if wrap in _PHASES]
        recomputed |= "rematted_computation" in names
        own = [one for one in names if one and not _STRUCTURE.fullmatch(one)]
        # What is differentiated by hand repeats the path so far: a/b/transpose(a/b).
        if own != scopes[: len(own)]:
            scopes += [one for one in own if one not in scopes[-1:]]
    phase = phases[0] if phases else NEITHER
    return Part(tuple(scopes), RECOMPUTED if recomputed and phase == BACKWARD else phase)


def _unwrapped(path: Sequence[str], depth: int) -> Iterator[tuple[list[str], list[str]]]:
    """(transformations, names) of each piece of a path: `transpose(jvp(a/b))` has two of each."""
    for piece in path:
        match = _WRAPPED.fullmatch(piece)
        if not match or depth > _DEEPEST:
            yield [], [piece]
        elif match[1] in ("jit", "pjit"):
            continue  # the name of a function
        else:
            inner = list(_unwrapped(_split(match[2], "/"), depth + 1))
            wraps = [match[1], *(wrap for pair in inner for wrap in pair[0])]
            yield wraps, [name for pair in inner for name in pair[1]]
