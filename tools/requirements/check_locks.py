"""Checks the locks that bundles install: one JAX for all, and wheels for some Linux machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.bundle.lock import MACHINES, Lock, Target, machines_of
from tools.bundle.manifest import Pythons
from tools.bundle.pack import JAX
from tools.common.errors import ToolError
from tools.requirements.workspace import Resolve


def pinned(lines: Iterable[Requirement]) -> str | None:
    """The version to which requirements fix JAX with ==; None if they leave it free."""
    for requirement in lines:
        specifiers = list(requirement.specifier)
        if canonicalize_name(requirement.name) == "jax" and len(specifiers) == 1:
            return specifiers[0].version if specifiers[0].operator == "==" else None
    return None


def one_jax(versions: Mapping[str, str | None], resolves: Iterable[Resolve]) -> None:
    """Checks that all accelerators have one JAX; `versions` are by resolve, None if unknown.

    Raises:
        ToolError: they differ.
    """
    pins = {name: version for name, version in sorted(versions.items()) if version}
    if len(set(pins.values())) < 2:
        return
    listings = ", ".join(resolve.listing for resolve in resolves)
    raise ToolError(
        f"a variant must find one JAX on every accelerator, but it would be "
        f"{', '.join(f'{version} in {name}' for name, version in pins.items())}: write the same "
        f"jax== into {listings}, then ./pants run locks -- update {' '.join(sorted(versions))}"
    )


def machines(lock: Lock, accelerator: str, requirements: Iterable[str]) -> dict[str, str]:
    """The glibc floor of each Linux machine on which a bundle of all `requirements` installs.

    Raises:
        ToolError: it installs on none; the message names the distribution that prevents it.
    """
    try:
        pythons = Pythons.parse(" ".join(lock.interpreters)).minors()
        targets = [Target(python, machine) for python in pythons for machine in MACHINES]
        pins = lock.needed((*requirements, JAX[accelerator]), targets)
        return machines_of(pins, pythons)
    except ToolError as error:
        raise ToolError(f"{lock.name}: {error}") from error


def apart(locks: Mapping[str, Lock]) -> list[str]:
    """One line for each distribution whose version differs between accelerators."""
    names = {
        canonicalize_name(Requirement(line).name)
        for accelerator in locks
        for line in shared(accelerator, locks)
    }
    lines = []
    for name in sorted(names):
        versions = {n: v for n, lock in sorted(locks.items()) if (v := lock.version(name))}
        if len(set(versions.values())) > 1:
            places = ", ".join(f"{version} in {where}" for where, version in versions.items())
            lines.append(f"{name} is {places}")
    return lines


def shared(accelerator: str, locks: Mapping[str, Lock]) -> list[str]:
    """The requirements that variants may import: the direct ones of an accelerator.

    Of the CPU's, only those that other accelerators have too: tests alone need the rest.
    """
    requirements = locks[accelerator].requirements
    if accelerator != "cpu" or len(locks) == 1:
        return list(requirements)
    other_lists = (locks[name].requirements for name in locks if name != accelerator)
    names = {canonicalize_name(Requirement(line).name) for lines in other_lists for line in lines}
    return [line for line in requirements if canonicalize_name(Requirement(line).name) in names]
