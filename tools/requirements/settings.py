"""Finds the flags that repeat a variant's run with its recorded settings.

The template's defaults and presets are read from its sources, which are parsed and never run. The
flags name the nearest preset and what differs from it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.diff.definitions import knob_values
from tools.diff.python import parse
from tools.runs.run_summary import flat

# (file, prefix of the knobs, prefix of the settings) of the template's classes of settings.
CLASSES = (("train.py", "TrainConfig.", ""), ("model.py", "ModelConfig.", "model."))
LAUNCH = "launch.py"
_PRESET = re.compile(r"PRESETS\['([^']+)'\](?:\.(.+))?")


@dataclass(frozen=True)
class Presets:
    """Settings of each preset, by flat names such as `model.d_model`; empty without a template."""

    values: Mapping[str, Mapping[str, Any]]
    default: str
    """The preset that applies without a flag."""
    fields: frozenset[str]
    """Settings that the variant has."""


def presets(directory: Path) -> Presets:
    """The presets in a variant's sources."""
    defaults: dict[str, Any] = {}
    for file, prefix, name in CLASSES:
        for knob, text in _knobs(directory / file).items():
            field = knob.removeprefix(prefix)
            if knob.startswith(prefix) and field.isidentifier() and not field.isupper():
                defaults[f"{name}{field}"] = _literal(text)
    launch = _knobs(directory / LAUNCH)
    values: dict[str, dict[str, Any]] = {}
    for knob, text in launch.items():
        if match := _PRESET.fullmatch(knob):
            settings = values.setdefault(match[1], dict(defaults))
            if match[2]:
                settings[match[2]] = _literal(text)
    default = _literal(launch.get("Command.preset", "''"))
    return Presets(values, str(default), frozenset(defaults))


def flags(config: Mapping[str, Any], presets: Presets) -> tuple[list[str], list[str]]:
    """(flags for a run's recorded settings except its seed, settings that the variant lost)."""
    recorded = {name: _plain(v) for name, v in flat(config).items() if name != "seed"}
    lost = sorted(set(recorded) - presets.fields) if presets.fields else []
    kept = {name: value for name, value in recorded.items() if name not in lost}

    def differing(preset: str) -> list[str]:
        settings = presets.values.get(preset, {})
        return [n for n, value in kept.items() if n not in settings or _plain(settings[n]) != value]

    # min returns the first of equals, which is the default.
    names = sorted(presets.values, key=lambda name: (name != presets.default, name))
    nearest = min(names, key=lambda name: len(differing(name)), default=presets.default)
    words = [] if nearest == presets.default else ["--preset", nearest]
    return [*words, *(w for n in sorted(differing(nearest)) for w in _flag(n, kept[n]))], lost


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--{_negated(flag)}"]
    return [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]


def _negated(flag: str) -> str:
    """The negated flag as tyro spells it: --no-x, --model.no-x."""
    group, dot, name = flag.rpartition(".")
    return f"{group}{dot}no-{name}"


def _knobs(path: Path) -> dict[str, str]:
    try:
        tree = parse(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return knob_values(tree) if tree else {}


def _literal(text: str) -> Any:
    """The value of a literal; the text itself, which equals no setting, for anything else."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return f"<{text}>"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
