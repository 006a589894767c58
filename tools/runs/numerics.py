"""What changed a run's numbers besides its sources, config, data, packages and devices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Variables whose value is a list of flags.
_FLAGS = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")
# They change where something is kept, what is said, or where a program runs, which a run's devices
# and config tell.
_NO_MATTER = re.compile(
    r"JAX_(COMPILATION_CACHE|PERSISTENT_CACHE|ENABLE_COMPILATION_CACHE|LOG|TRACEBACK|DEBUG|EXPLAIN"
    r"|DUMP|PLATFORM|NUM_CPU_DEVICES|CUDA_VISIBLE|ROCM_VISIBLE|COORDINATOR|CHECK_TRACER|CHECK_PROXY"
    r").*"
)
_NO_MATTER_FLAG = re.compile(r"--xla_(dump|hlo_profile|force_host_platform_device_count).*")
_ELSEWHERE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|[a-z][a-z0-9+.-]*://")

Numerics = dict[str, Any]
"""Values by name: `XLA_FLAGS`, or `jax.enable_x64`; a variable that is not set is not there."""


def is_elsewhere(value: Any) -> bool:
    """Whether a value is a path or an address, which is of one machine alone."""
    return isinstance(value, str) and bool(_ELSEWHERE.match(value))


def of_attempt(recorded: Mapping[str, Any] | None) -> Numerics | None:
    """What can change numbers of what an attempt recorded; None of one that recorded nothing.

    A setting of JAX that was recorded goes before the variable that may have set it.
    """
    if recorded is None:
        return None
    settings = recorded["jax"]
    numerics: Numerics = {f"jax.{name}": value for name, value in settings.items()}
    for name, value in recorded["environment"].items():
        is_set_otherwise = name.removeprefix("JAX_").lower() in settings
        if is_set_otherwise or _NO_MATTER.fullmatch(name) or is_elsewhere(value):
            continue
        if text := _flags(value) if name in _FLAGS else value.strip():
            numerics[name] = text
    return dict(sorted(numerics.items()))


def _flags(text: str) -> str:
    """The flags that matter, in order of their names; of one given twice, the last."""
    by_name: dict[str, str] = {}
    for flag in text.split():
        name, _, value = flag.partition("=")
        if not _NO_MATTER_FLAG.fullmatch(flag) and not is_elsewhere(value):
            by_name[name] = flag
    return " ".join(flag for _, flag in sorted(by_name.items()))


def differences(ours: Numerics | None, theirs: Numerics | None) -> list[str]:
    """What differs, as `XLA_FLAGS unset → --xla_x=1` from theirs to ours; empty if nothing does."""
    if ours == theirs:
        return []
    if ours is None or theirs is None:
        return ["flags of JAX and XLA (recorded of one side alone)"]
    names = sorted(ours.keys() | theirs.keys())
    return [
        f"{name} {_shown(theirs, name)} → {_shown(ours, name)}"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def _shown(numerics: Numerics, name: str) -> str:
    return str(numerics[name])[:80] if name in numerics else "unset"
