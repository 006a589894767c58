"""YAML that every engine's parser reads alike, and changes of it by path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tools.common.errors import ToolError

# What is plain text to YAML 1.1 and 1.2 and to Go's mixture of both: all else is quoted.
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
RESERVED = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


class _Dumper(yaml.SafeDumper):
    """Lists stand below their key; nothing is written by reference."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    """Scripts as blocks. Where a block cannot hold the text, PyYAML quotes it."""
    plain = PLAIN.fullmatch(value) and value.lower() not in RESERVED
    style = None if plain else "|" if re.fullmatch(r"\S.*\n", value, re.DOTALL) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _text)


def yaml_text(value: Mapping[str, Any]) -> str:
    """The value as YAML, in ASCII: no parser may take a letter for the end of a line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=False)


def parse(text: str, what: str) -> Any:
    """Raises ToolError where `text`, which `what` names, is no YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        first = str(error).replace("\n", " ")
        raise ToolError(f"{what}: not YAML: {first}") from None


def merged(below: Any, above: Any) -> Any:
    """Both mappings, and where both have something that is no mapping, the one above."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    both = {name: merged(below[name], above[name]) for name in below if name in above}
    return {**below, **above, **both}


def change(value: Any, path: str, text: str) -> None:
    r"""Puts YAML at a path, `metadata.labels.example\.com/team`, of a mapping, in place.

    A mapping is merged into what is there, all else takes its place. A number in the path counts
    the items of a list, from 0.

    Raises:
        ToolError: there is no such item, or the text is no YAML.
    """
    new, place = parse(text, f"{path}={text}"), value
    parts = [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", path)]
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        key: Any = part
        if isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise ToolError(f"{path}: {part} is no item of a list of {len(place)}")
            key = int(part)
        elif not isinstance(place, dict) or not part:
            raise ToolError(f"{path}: nothing can be below what stands before {part!r}")
        if following is None:
            old = place[key] if isinstance(place, list) else place.get(key)
            place[key] = merged(old, new)
        else:
            place = place[key] if isinstance(place, list) else place.setdefault(key, {})
