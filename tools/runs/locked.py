"""What the text of a lock says of a run's packages. Uses the standard library alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PACKAGE = re.compile(
    r'"project_name":\s*"(?P<name>[^"]+)"(?:(?!"project_name").)*?"version":\s*"(?P<version>[^"]+)"',
    re.DOTALL,
)
_INTERPRETERS = re.compile(r'"valid_for_interpreter_constraints":\s*\[[\s/]*"([^"]*)"[\s/]*\]')
_BOUND = re.compile(r"(<=|>=|<|>)(\d+)\.(\d+)")
# What JAX needs to use a platform's devices.
_PLUGINS = {"tpu": re.compile(r"libtpu"), "gpu": re.compile(r"jax-(cuda|rocm)\d*-(plugin|pjrt)")}


def packages(lock: bytes) -> dict[str, str]:
    """The version of each package in a lock that Pants wrote, and its bounds for `python`."""
    text = lock.decode(errors="replace")
    found = {match["name"]: match["version"] for match in _PACKAGE.finditer(text)}
    if match := _INTERPRETERS.search(text):
        found["python"] = match[1]
    return found


def disagrees(locked: Mapping[str, str], versions: Mapping[str, str], platform: str) -> str:
    """In what a run was not under a lock, in words; empty if in nothing, or the lock is unreadable.

    Args:
        locked: as `packages` gives it.
        versions: the run's own.
        platform: that of its devices, by JAX's name.
    """
    if not locked.keys() - {"python"}:
        return ""
    if "jax" not in locked:
        return "is that of a lock without jax, which no run is under"
    for name in sorted(versions.keys() & locked.keys() - {"python"}):
        if versions[name].partition("+")[0] != locked[name].partition("+")[0]:
            return f"has {name} {locked[name]}, but the run had {versions[name]}"
    python = versions.get("python", "")
    if not _is_within(python, locked.get("python", "")):
        return f"is for Python {locked['python']}, but the run had {python}"
    needed = _PLUGINS.get(platform)
    if needed and not any(map(needed.fullmatch, locked)):
        return f"has no package for the platform {platform!r} of the run"
    return ""


def _is_within(python: str, bounds: str) -> bool:
    """Whether a version lies within bounds such as `CPython<3.15,>=3.12`."""
    parts = tuple(int(part) for part in python.split(".")[:2] if part.isdecimal())
    if len(parts) < 2:
        return True
    for sign, major, minor in _BOUND.findall(bounds):
        bound = (int(major), int(minor))
        is_within = {"<": parts < bound, "<=": parts <= bound, ">": parts > bound}
        if not is_within.get(sign, parts >= bound):
            return False
    return True
