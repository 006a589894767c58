"""What a site's jobs always need: [engines] in grug.toml, of the workspace and of its user.

    [engines]
    secret = ["HF_TOKEN"]

    [engines.slurm]
    time-limit = "12:00:00"
    engine-arg = ["account=lab", "partition=h100"]

A key is an option of `--on` without its dashes. Both files are read, the user's after the
workspace's, and the command line after both: the last one that sets something counts. `env`,
`secret` and `engine-arg` add to what is there.
"""

from __future__ import annotations

import argparse
import difflib
import os
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import MIB, read_text

FILE = "grug.toml"
# An answer to one command, and no habit.
NOT_THERE = ("on", "name", "dry_run", "resume", "help", "branch_from")


def files(root: Path) -> list[Path]:
    """The files that may be there, the strongest last."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return [root / FILE, Path(home, "grug", FILE).expanduser()]


def words(
    parser: argparse.ArgumentParser, engine: str, engines: Collection[str], root: Path
) -> list[str]:
    """The options of `engine` in all files, as a command line says them.

    Raises:
        ToolError: a file has what no option of the parser is; file, key and remedy.
    """
    actions = {action.dest: action for action in parser._actions}
    known = {name.replace("_", "-") for name in actions if name not in NOT_THERE}
    found: list[str] = []
    for path in files(root):
        if not path.is_file():
            continue
        tables = _tables(path, engines)
        for place, table in tables.items():
            for key, value in table.items():
                if key not in known:
                    near = difflib.get_close_matches(key, known) or sorted(known)
                    raise ToolError(f"{path}: [{place}] {key}: no such option: {', '.join(near)}")
                if place in ("engines", f"engines.{engine}"):
                    action = actions[key.replace("-", "_")]
                    found += _said(action, value, f"{path}: [{place}] {key}")
    return found


def _tables(path: Path, engines: Collection[str]) -> dict[str, dict[str, Any]]:
    """[engines] and those below it, by their names."""
    try:
        whole = tomllib.loads(read_text(path, MIB)).get("engines", {})
    except tomllib.TOMLDecodeError as error:
        raise ToolError(f"{path}: not TOML: {error}") from error
    if not isinstance(whole, dict):
        raise ToolError(f"{path}: engines: write a table, [engines]")
    below = {name: value for name, value in whole.items() if isinstance(value, dict)}
    if strange := sorted(set(below) - set(engines)):
        known = ", ".join(sorted(engines))
        raise ToolError(f"{path}: [engines.{strange[0]}]: no such engine: {known}")
    rest = {name: value for name, value in whole.items() if name not in below}
    return {"engines": rest, **{f"engines.{name}": table for name, table in below.items()}}


def _said(action: argparse.Action, value: Any, where: str) -> Iterator[str]:
    flag = action.option_strings[0]
    if isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise ToolError(f"{where}: write true or false")
        yield flag if value else f"--no-{flag.removeprefix('--')}"
        return
    several = isinstance(action, argparse._AppendAction)
    values = value if several else [value]
    fit = isinstance(values, list) and all(
        isinstance(each, str | int) and not isinstance(each, bool) for each in values
    )
    if not fit:
        form = "a list of strings" if several else "a string or a number"
        raise ToolError(f"{where}: write {form}")
    for each in values:
        yield f"{flag}={each}"
