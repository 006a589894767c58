"""What `./pants help-all` says of the workspace's own goals, options and target types."""

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
    """`default` is JSON, or empty where there is none."""

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
    """Raises ToolError: not what `./pants help-all` prints, or nothing of ours in it."""
    remedy = "give what ./pants help-all prints"
    try:
        said = json.loads(text)
    except json.JSONDecodeError as error:
        raise ToolError(f"{name}:{error.lineno}: is no JSON: {error.msg}; {remedy}") from error
    if not isinstance(said, dict) or not all(isinstance(said.get(key), dict) for key in KEYS):
        raise ToolError(f"{name}: lacks one of {', '.join(KEYS)}; {remedy}")
    try:
        own = _own_scopes(said["name_to_api_type_info"].values())
        scopes = [v for k, v in said["scope_to_help_info"].items() if k.replace("-", "_") in own]
        types = [v for v in said["name_to_target_type_info"].values() if v["provider"] == BACKEND]
        found = PantsHelp(
            tuple(sorted(map(_scope, scopes), key=lambda scope: scope.name)),
            tuple(sorted(map(_target_type, types), key=lambda target: target.name)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ToolError(f"{name}: has another form than Pants 2.17's: {error!r}") from error
    if not (found.scopes and found.target_types):
        raise ToolError(f"{name}: names nothing of the backend {BACKEND!r}; {remedy}")
    return found


def _own_scopes(types: Iterable[Mapping[str, Any]]) -> set[str]:
    """Scopes, `-` as `_`, whose options a class of the plugin declares.

    A scope's own `provider` is no answer: the shortest name of all backends that use it, hence ours
    for Pants' `python` and `test`.
    """
    rules = (
        rule
        for info in types
        if info["module"].split(".")[0] == BACKEND
        for rule in info["returned_by_rules"] or ()
    )
    prefix = "construct_scope_"
    return {rule.removeprefix(prefix) for rule in rules if rule.startswith(prefix)}


def _scope(said: Mapping[str, Any]) -> Scope:
    options = [*said["basic"], *said["advanced"]]
    return Scope(
        said["scope"],
        said["is_goal"],
        said["description"],
        tuple(sorted(map(_option, options), key=lambda option: option.flag)),
    )


def _option(said: Mapping[str, Any]) -> Option:
    """Only what the code says: values that a machine or pants.toml gave it are left out."""
    flag = said["scoped_cmd_line_args"][0]
    if said["typ"] == "bool":
        flag = f"--[no-]{flag.removeprefix('--')}"
    default = said["default"]
    return Option(
        flag,
        "" if default is None else json.dumps(default),
        tuple(said["choices"] or ()),
        said["help"],
    )


def _target_type(said: Mapping[str, Any]) -> TargetType:
    fields = sorted(map(_field, said["fields"]), key=lambda field: field.name)
    return TargetType(said["alias"], said["description"], tuple(fields))


def _field(said: Mapping[str, Any]) -> Field:
    default = said["default"]
    return Field(
        said["alias"],
        said["type_hint"].removesuffix(" | None"),
        # A Python value: shown as a BUILD file would write it.
        "" if default is None else json.dumps(ast.literal_eval(default)),
        said["required"],
        said["description"] or "",
    )
