"""What must hold of the locks that bundles install: one JAX, and wheels for some Linux machine."""

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
    """The version that requirements fix JAX to with ==; None where they leave it free."""
    for requirement in lines:
        specifiers = list(requirement.specifier)
        if canonicalize_name(requirement.name) == "jax" and len(specifiers) == 1:
            return specifiers[0].version if specifiers[0].operator == "==" else None
    return None


def one_jax(versions: Mapping[str, str | None], resolves: Iterable[Resolve]) -> None:
    """Whether all accelerators have one JAX; `versions` is by resolve, None where unknown.

    Raises:
        ToolError: they part ways.
    """
    known = {name: version for name, version in sorted(versions.items()) if version}
    if len(set(known.values())) < 2:
        return
    listings = ", ".join(resolve.listing for resolve in resolves)
    raise ToolError(
        f"a variant must find one JAX on every accelerator, but it would be "
        f"{', '.join(f'{version} in {name}' for name, version in known.items())}: write the same "
        f"jax== into {listings}, then ./pants run locks -- update {' '.join(sorted(versions))}"
    )


def machines(lock: Lock, accelerator: str, requirements: Iterable[str]) -> dict[str, str]:
    """The glibc floor of each Linux machine on which a bundle of all `requirements` installs.

    Raises:
        ToolError: it installs on none; the line names the distribution that is in the way.
    """
    try:
        pythons = Pythons.parse(" ".join(lock.interpreters)).minors()
        targets = [Target(python, machine) for python in pythons for machine in MACHINES]
        pins = lock.needed((*requirements, JAX[accelerator]), targets)
        return machines_of(pins, pythons)
    except ToolError as error:
        raise ToolError(f"{lock.name}: {error}") from error


def apart(locks: Mapping[str, Lock]) -> list[str]:
    """What variants import at different versions on different accelerators, one line each."""
    names = {
        canonicalize_name(Requirement(line).name)
        for accelerator in locks
        for line in shared(accelerator, locks)
    }
    lines = []
    for name in sorted(names):
        versions = {n: v for n, lock in sorted(locks.items()) if (v := lock.version(name))}
        if len(set(versions.values())) > 1:
            found = ", ".join(f"{version} in {where}" for where, version in versions.items())
            lines.append(f"{name} is {found}")
    return lines


def shared(accelerator: str, locks: Mapping[str, Lock]) -> list[str]:
    """What variants may import: the direct requirements of an accelerator that others have too.

    Of the CPU's, the rest is what only tests need. A resolve without others has all of its own.
    """
    own = locks[accelerator].requirements
    if accelerator != "cpu" or len(locks) == 1:
        return list(own)
    others = (locks[name].requirements for name in locks if name != accelerator)
    names = {canonicalize_name(Requirement(line).name) for lines in others for line in lines}
    return [line for line in own if canonicalize_name(Requirement(line).name) in names]
