"""The flags that give a variant's run its recorded settings again.

The template's defaults and presets are read from its sources, which are parsed and never run. A
preset that comes nearest is named; flags say what differs from it.
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

# Where the template says them: the class of its settings, the fields' name for those of the model.
CLASSES = (("train.py", "TrainConfig.", ""), ("model.py", "ModelConfig.", "model."))
LAUNCH = "launch.py"
_PRESET = re.compile(r"PRESETS\['([^']+)'\](?:\.(.+))?")


@dataclass(frozen=True)
class Presets:
    """Settings of each preset by name, flat: `model.d_model`. None are known of no template."""

    values: Mapping[str, Mapping[str, Any]]
    default: str
    """The preset that holds where no flag names one."""
    fields: frozenset[str]
    """Settings that the variant has."""


def presets(directory: Path) -> Presets:
    """What a variant's sources say; values that are no literals are left out."""
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
            own = values.setdefault(match[1], dict(defaults))
            if match[2]:
                own[match[2]] = _literal(text)
    default = _literal(launch.get("Command.preset", "''"))
    return Presets(values, str(default), frozenset(defaults))


def flags(config: Mapping[str, Any], known: Presets) -> tuple[list[str], list[str]]:
    """Flags for a run's recorded settings but its seed, and settings the variant has no more."""
    recorded = {name: _plain(v) for name, v in flat(config).items() if name != "seed"}
    gone = sorted(set(recorded) - known.fields) if known.fields else []
    wanted = {name: value for name, value in recorded.items() if name not in gone}

    def differing(preset: str) -> list[str]:
        own = known.values.get(preset, {})
        return [n for n, value in wanted.items() if n not in own or _plain(own[n]) != value]

    # Of equals the default one: min keeps the first.
    names = sorted(known.values, key=lambda name: (name != known.default, name))
    nearest = min(names, key=lambda name: len(differing(name)), default=known.default)
    words = [] if nearest == known.default else ["--preset", nearest]
    return [*words, *(w for n in sorted(differing(nearest)) for w in _flag(n, wanted[n]))], gone


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--{_negated(flag)}"]
    return [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]


def _negated(flag: str) -> str:
    """As tyro spells it: --no-x, --model.no-x."""
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
