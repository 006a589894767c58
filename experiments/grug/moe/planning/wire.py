"""Bytes that a device sends for a collective, by the usual ring algorithms.

For an array of n bytes over g devices: an all-reduce sends 2 n (g - 1) / g from each device, a
permutation n, the other kinds n (g - 1) / g (Patarasuk and Yuan 2009,
doi:10.1016/j.jpdc.2008.09.002). Where a group has m devices in each of several nodes, its m rings
each cross from node to node once: of these bytes, one in m goes over the network.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

EXPLICIT = re.compile(r"replica_groups=\{(\{[\d,]*\}(?:,\{[\d,]*\})*)\}")
IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(r"replica_groups=mesh\[([^]]*)\] \{([^}]*)\}")  # (axes' sizes, axes of a group)
PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
BETWEEN = " between slices"


@dataclasses.dataclass(frozen=True)
class Wire:
    """Bytes that a device sends, in one direction."""

    links: float = 0.0
    """To devices of its own slice or node."""
    network: float = 0.0
    """To other slices or nodes."""

    def __add__(self, other: "Wire") -> "Wire":
        return Wire(self.links + other.links, self.network + other.network)

    def __mul__(self, times: float) -> "Wire":
        return Wire(self.links * times, self.network * times)


def groups(attributes: str, devices: int) -> list[list[int]]:
    """The devices that a collective joins, group by group; all of them where it names none."""
    if match := MESH.search(attributes):
        sizes = {axis: int(n) for axis, n in re.findall(r"'([^']+)'=(\d+)", match[1])}
        inner = [axis for axis in sizes if axis in re.findall(r"'([^']+)'", match[2])]
        order = [axis for axis in sizes if axis not in inner] + inner
        grid = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
        turned = grid.transpose([list(sizes).index(axis) for axis in order])
        return turned.reshape(-1, math.prod(sizes[axis] for axis in inner)).tolist()
    if match := IOTA.search(attributes):
        shape, dims = (list(map(int, match[i].split(","))) for i in (1, 2))
        grid = np.arange(math.prod(dims)).reshape(dims)
        order = list(map(int, match[3].split(","))) if match[3] else list(range(len(dims)))
        return grid.transpose(order).reshape(shape[0], -1).tolist()
    if match := EXPLICIT.search(attributes):
        listed = re.findall(r"\{([\d,]+)\}", match[1])
        return [list(map(int, group.split(","))) for group in listed] or [list(range(devices))]
    return [list(range(devices))]


def is_alone(attributes: str) -> bool:
    """Whether each group of a collective is one device, so that it moves nothing."""
    return "replica_groups=" in attributes and max(map(len, groups(attributes, 2))) == 1


def sent(kind: str, size: float, attributes: str, nodes: Sequence[int]) -> Wire:
    """What the busiest device sends for one collective.

    Args:
        kind: as hlo.collective names it.
        size: bytes that a device puts in or gets out, whichever is more.
        attributes: the instruction's, with its groups.
        nodes: the slice or node of each device; one that is not listed is in the first.
    """
    node = dict(enumerate(nodes))
    if kind.endswith(BETWEEN):
        return Wire(network=_ring(kind.removesuffix(BETWEEN), size, len(set(nodes))))
    if kind == "collective-permute":
        match = PAIRS.search(attributes)
        pairs = re.findall(r"(\d+),(\d+)", match[1]) if match else []
        crosses = [node.get(int(a), 0) != node.get(int(b), 0) for a, b in pairs if a != b]
        return Wire(size * (False in crosses), size * (True in crosses))
    found = Wire()
    for group in groups(attributes, len(nodes)):
        places = [node.get(device, 0) for device in group]
        inside = min(map(places.count, places))
        share = 1 / inside if inside < len(group) else 0.0
        total = _ring(kind, size, len(group))
        if kind in ("all-to-all", "ragged-all-to-all"):  # each device sends to all others
            share = (len(group) - inside) / max(len(group) - 1, 1)
        part = Wire(total * (1 - share), total * share)
        found = Wire(max(found.links, part.links), max(found.network, part.network))
    return found


def _ring(kind: str, size: float, devices: int) -> float:
    """Bytes that each device of a ring sends."""
    return size * (2 if kind == "all-reduce" else 1) * (devices - 1) / devices
