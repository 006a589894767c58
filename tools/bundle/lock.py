"""What a bundle installs: the part of a resolve's Pex lock that a variant needs, with hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from tools.common.errors import ToolError
from tools.common.jsonio import json_text

MACHINES = ("aarch64", "x86_64")
# https://peps.python.org/pep-0600/: the older names of a manylinux floor.
LEGACY_FLOORS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True, order=True)
class Target:
    """One kind of worker: CPython `python` ("3.12") on Linux, `machine` as `uname -m` says it."""

    python: str
    machine: str

    def markers(self, extra: str) -> dict[str, str]:
        """The environment of https://peps.python.org/pep-0508/, as far as a lock asks for it."""
        return {
            "extra": extra,
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Wheel:
    """A wheel that a lock names, and where to get it."""

    name: str
    url: str
    sha256: str

    def floor(self, target: Target) -> tuple[int, int] | None:
        """The oldest glibc it runs with on `target`; (0, 0) for any, None where it doesn't run."""
        try:
            tags = parse_wheel_filename(self.name)[3]
        except InvalidWheelFilename as error:
            raise ToolError(f"the lock names {self.name}, which is no wheel: {error}") from error
        floors = [
            floor
            for tag in tags
            if _runs_on(tag.interpreter, tag.abi, target.python)
            and (floor := _platform_floor(tag.platform, target.machine)) is not None
        ]
        return min(floors, default=None)


def _runs_on(interpreter: str, abi: str, python: str) -> bool:
    major, minor = python.split(".")
    digits = interpreter[2:]
    if interpreter[:2] == "py":
        return digits == major or (digits[:1] == major and int(digits[1:]) <= int(minor))
    if interpreter[:2] != "cp":
        return False
    if abi == "abi3":
        return digits[:1] == major and int(digits[1:] or 0) <= int(minor)
    return digits == major + minor and abi in (f"cp{digits}", "none")


def _platform_floor(platform: str, machine: str) -> tuple[int, int] | None:
    if platform == "any":
        return (0, 0)
    if not platform.startswith("manylinux") or not platform.endswith(f"_{machine}"):
        return None
    name = platform.removesuffix(f"_{machine}")
    if name in LEGACY_FLOORS:
        return LEGACY_FLOORS[name]
    _, major, minor = name.split("_")
    return int(major), int(minor)


@dataclass(frozen=True)
class Pin:
    """A locked distribution and the wheels of it that some target can install."""

    name: str
    version: str
    wheels: tuple[Wheel, ...]
    targets: frozenset[Target]  # those that need it


@dataclass(frozen=True)
class Lock:
    """A Pex lock of one resolve."""

    name: str  # of its file, for messages
    text: str  # JSON, without the header that Pants writes
    sha256: str  # of the file as the workspace has it
    distributions: Mapping[str, Mapping[str, Any]]
    requirements: tuple[str, ...]  # what was asked for: "jax[tpu]==0.10.2"
    interpreters: tuple[str, ...]  # what it is for: "CPython<3.14,>=3.11"

    @classmethod
    def parse(cls, text: str, name: str) -> Lock:
        """Reads a Pex lock, as `pants generate-lockfiles` writes it."""
        body = "".join(line for line in text.splitlines(True) if not line.startswith("//"))
        try:
            content = json.loads(body)
            (resolve,) = content["locked_resolves"]
            entries: dict[str, Any] = {
                canonicalize_name(r["project_name"]): r for r in resolve["locked_requirements"]
            }
            asked = tuple(map(str, content.get("requirements", ())))
            interpreters = tuple(map(str, content.get("requires_python", ())))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ToolError(
                f"{name} is no Pex lock of one resolve: write it with ./pants generate-lockfiles"
            ) from error
        digest = hashlib.sha256(text.encode()).hexdigest()
        return cls(name, body.lstrip(), digest, entries, asked, interpreters)

    def version(self, name: str) -> str | None:
        """The locked version of a distribution; None where it is not locked."""
        entry = self.distributions.get(name)
        return entry["version"] if entry else None

    def needed(self, roots: Iterable[str], targets: Iterable[Target]) -> list[Pin]:
        """`roots` ("jax[tpu]") and all that they bring in on any of the targets, by name.

        Raises:
            ToolError: the lock lacks one, or no wheel of it runs on a target that needs it.
        """
        wanted: dict[str, set[Target]] = {}
        for target in targets:
            for name in self._closure([Requirement(root) for root in roots], target):
                wanted.setdefault(name, set()).add(target)
        return [self._pin(name, frozenset(wanted[name])) for name in sorted(wanted)]

    def _closure(self, roots: list[Requirement], target: Target) -> set[str]:
        seen: set[tuple[str, str]] = set()
        queue = [(canonicalize_name(r.name), extra) for r in roots for extra in ("", *r.extras)]
        while queue:
            name, extra = queue.pop()
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name not in self.distributions:
                raise ToolError(
                    f"{self.name} has no {name}, which a bundle needs: add it to the resolve's "
                    f"requirements, then ./pants run locks -- update {PurePath(self.name).stem}"
                )
            for line in self.distributions[name]["requires_dists"]:
                need = Requirement(line)
                if need.marker is None or need.marker.evaluate(target.markers(extra)):
                    queue += [(canonicalize_name(need.name), e) for e in ("", *need.extras)]
        return {name for name, _ in seen}

    def _pin(self, name: str, targets: frozenset[Target]) -> Pin:
        entry = self.distributions[name]
        artifacts = [
            Wheel(unquote(posixpath.basename(urlsplit(a["url"]).path)), a["url"], a["hash"])
            for a in entry["artifacts"]
            if a["algorithm"] == "sha256" and urlsplit(a["url"]).path.endswith(".whl")
        ]
        usable = (w for w in artifacts if any(w.floor(t) is not None for t in targets))
        wheels = tuple(sorted(usable, key=lambda wheel: wheel.name))
        return Pin(name, entry["version"], wheels, targets)


def machines_of(pins: Iterable[Pin], pythons: Iterable[str]) -> dict[str, str]:
    """The glibc floor ("2.31") of each machine on which every pin has a wheel for every Python."""
    pins, pythons = list(pins), list(pythons)
    found = {}
    for machine in MACHINES:
        floors = [_floor(pin, Target(p, machine)) for pin in pins for p in pythons]
        if None not in floors:
            newest = max(floor for floor in floors if floor is not None)
            found[machine] = ".".join(map(str, newest))
    if not found:
        # The first distribution that stands in the way, on the machine most have.
        at = [Target(p, "x86_64") for p in pythons]
        bad = next(pin for pin in pins if any(_floor(pin, target) is None for target in at))
        raise ToolError(
            f"{bad.name} {bad.version} has no wheel for Linux x86_64 and CPython "
            f"{', '.join(pythons)}: bundles install wheels only; lock another version"
        )
    return found


def _floor(pin: Pin, target: Target) -> tuple[int, int] | None:
    if target not in pin.targets:
        return (0, 0)
    floors = [floor for wheel in pin.wheels if (floor := wheel.floor(target)) is not None]
    return min(floors, default=None)


def requirements_text(pins: Iterable[Pin], targets: Iterable[Target]) -> str:
    """A requirements file of pinned versions with the sha256 of every wheel that fits."""
    everywhere = frozenset(targets)
    lines = []
    for pin in pins:
        marker = "" if pin.targets == everywhere else f" ; {_marker(pin.targets)}"
        hashes = sorted({wheel.sha256 for wheel in pin.wheels})
        lines.append(f"{pin.name}=={pin.version}{marker} \\\n")
        lines.append(" \\\n".join(f"    --hash=sha256:{digest}" for digest in hashes) + "\n")
    return "".join(lines)


def _marker(targets: Iterable[Target]) -> str:
    clauses = (
        f'python_version == "{t.python}" and platform_machine == "{t.machine}"'
        for t in sorted(targets)
    )
    return " or ".join(clauses)


@dataclass(frozen=True)
class Download:
    """Requirements of one wheel each, and the platform that has Pex take just these, as JSON.

    https://docs.pex-tool.org/buildingpex.html describes a complete platform.
    """

    requirements: str
    platform: str


def one_wheel_each(pins: Iterable[Pin], target: Target) -> Download:
    """What `target` alone needs, with no choice left among the wheels of a pin.

    Of those that run on the oldest glibc on which all pins have one, the wheel for the newest.
    Raises ToolError where a pin has none for the target.
    """
    pins = [pin for pin in pins if target in pin.targets]
    floors = machines_of(pins, [target.python])
    if target.machine not in floors:
        raise ToolError(
            f"not every distribution has a wheel for {target.machine}: there are all for "
            f"{' and '.join(floors)}"
        )
    oldest = tuple(int(part) for part in floors[target.machine].split("."))
    chosen = []
    for pin in pins:
        fit = [(floor, w) for w in pin.wheels if (floor := w.floor(target)) and floor <= oldest]
        best = max(fit, key=lambda pair: (pair[0], pair[1].name))[1]
        chosen.append(dataclasses.replace(pin, wheels=(best,), targets=frozenset([target])))
    return Download(requirements_text(chosen, [target]), _complete_platform(target, oldest))


def _complete_platform(target: Target, glibc: tuple[int, ...]) -> str:
    legacy = {floor: name for name, floor in LEGACY_FLOORS.items()}
    platforms = []
    for minor in range(glibc[1], 4, -1):
        names = (f"manylinux_2_{minor}", legacy.get((2, minor)))
        platforms += [f"{name}_{target.machine}" for name in names if name]
    platforms.append(f"linux_{target.machine}")
    major, minor = map(int, target.python.split("."))
    tags = [
        *cpython_tags((major, minor), platforms=platforms, abis=[f"cp{major}{minor}"]),
        *compatible_tags((major, minor), f"cp{major}{minor}", platforms),
    ]
    markers = {name: value for name, value in target.markers("").items() if name != "extra"}
    told = {"marker_environment": markers, "compatible_tags": [str(tag) for tag in tags]}
    return json_text(told)
