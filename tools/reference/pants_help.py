"""Reads the workspace's own goals, options and target types from `./pants help-all`."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tools.common.errors import ToolError

BACKEND = "grug"
KEYS = ("name_to_api_type_info", "name_to_target_type_info", "scope_to_help_info")


@dataclass(frozen=True)
class Option:
    """An option; `default` is JSON, or empty if there is none."""

    flag: str
    default: str
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Scope:
    """A goal, or a subsystem that goals use."""

    name: str
    is_goal: bool
    help: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Field:
    """A field of a target type."""

    name: str
    type: str
    default: str
    required: bool
    help: str


@dataclass(frozen=True)
class TargetType:
    """A target type of the workspace."""

    name: str
    help: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class PantsHelp:
    """What the workspace's backend adds to Pants."""

    scopes: tuple[Scope, ...]
    target_types: tuple[TargetType, ...]


def parse(text: str, name: str) -> PantsHelp:
    """The help of our backend in the output of `./pants help-all`, which messages call `name`.

    Raises:
        ToolError: it is not the output of that command, or holds nothing of ours.
    """
    remedy = "give what ./pants help-all prints"
    try:
        info = json.loads(text)
    except json.JSONDecodeError as error:
        raise ToolError(f"{name}:{error.lineno}: is no JSON: {error.msg}; {remedy}") from error
    if not isinstance(info, dict) or not all(isinstance(info.get(key), dict) for key in KEYS):
        raise ToolError(f"{name}: lacks one of {', '.join(KEYS)}; {remedy}")
    try:
        own_scopes = _own_scopes(info["name_to_api_type_info"].values())
        scopes = [
            v for k, v in info["scope_to_help_info"].items() if k.replace("-", "_") in own_scopes
        ]
        types = [v for v in info["name_to_target_type_info"].values() if v["provider"] == BACKEND]
        result = PantsHelp(
            tuple(sorted(map(_scope, scopes), key=lambda scope: scope.name)),
            tuple(sorted(map(_target_type, types), key=lambda target: target.name)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ToolError(f"{name}: has another form than Pants 2.17's: {error!r}") from error
    if not (result.scopes and result.target_types):
        raise ToolError(f"{name}: names nothing of the backend {BACKEND!r}; {remedy}")
    return result


def _own_scopes(types: Iterable[Mapping[str, Any]]) -> set[str]:
    """Scopes, with `_` for `-`, whose options a class of the plugin declares.

    A scope's own `provider` does not tell: it is the shortest name of all backends that use the
    scope, hence ours for Pants' `python` and `test`.
    """
    rules = (
        rule
        for info in types
        if info["module"].split(".")[0] == BACKEND
        for rule in info["returned_by_rules"] or ()
    )
    prefix = "construct_scope_"
    return {rule.removeprefix(prefix) for rule in rules if rule.startswith(prefix)}


def _scope(info: Mapping[str, Any]) -> Scope:
    options = [*info["basic"], *info["advanced"]]
    return Scope(
        info["scope"],
        info["is_goal"],
        info["description"],
        tuple(sorted(map(_option, options), key=lambda option: option.flag)),
    )


def _option(info: Mapping[str, Any]) -> Option:
    """An option as the code declares it, without values from this machine or pants.toml."""
    flag = info["scoped_cmd_line_args"][0]
    if info["typ"] == "bool":
        flag = f"--[no-]{flag.removeprefix('--')}"
    default = info["default"]
    return Option(
        flag,
        "" if default is None else json.dumps(default),
        tuple(info["choices"] or ()),
        info["help"],
    )


def _target_type(info: Mapping[str, Any]) -> TargetType:
    fields = sorted(map(_field, info["fields"]), key=lambda field: field.name)
    return TargetType(info["alias"], info["description"], tuple(fields))


def _field(info: Mapping[str, Any]) -> Field:
    default = info["default"]
    return Field(
        info["alias"],
        info["type_hint"].removesuffix(" | None"),
        # A Python value, shown as a BUILD file would write it.
        "" if default is None else json.dumps(ast.literal_eval(default)),
        info["required"],
        info["description"] or "",
    )
