"""Reads a variant's parameters and FLOPs from its own plan.

    python -m tools.diff.sizes DIR [--preset tiny]

Runs `python -m PACKAGE.launch --preset PRESET --plan --json` in a process that finds this
directory's tree first, and prints one JSON object: preset, parameters, active_parameters,
flops_per_token; or {"error": one line} and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.jsonio import parse_json
from tools.common.paths import local_path
from tools.diff.model import Size
from tools.diff.read_trees import workspace_name

TIMEOUT = 300.0  # seconds


def read_plan(text: str, preset: str) -> Size:
    """The sizes in a plan's JSON, or an error if it is malformed."""
    try:
        plan = json.loads(text)
        parameters, active = (plan[name] for name in ("parameters", "active_parameters"))
        return Size(
            preset, parameters, None if active == parameters else active, plan["flops_per_token"]
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Size(preset, error=f"the plan is not the JSON of one: {error}")


def measure(directory: Path, preset: str = "tiny", timeout: float = TIMEOUT) -> Size:
    """Runs a variant's plan, for at most `timeout` seconds. Any failure is the answer's `error`."""
    name = workspace_name(str(directory.resolve()))
    if not (directory / "launch.py").is_file():
        return Size(preset, error=f"{name} has no launch.py")
    root = directory.resolve()
    for _ in name.split("/"):
        root = root.parent
    module = f"{name.replace('/', '.')}.launch"
    command = [sys.executable, "-m", module, "--preset", preset, "--plan", "--json"]
    # The working directory comes first on the module path of `-m`; nothing else of ours is on it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        process = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return Size(preset, error=f"the plan took more than {timeout:g} s")
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["nothing"]
        line = lines[-1].strip(" │╰╯─").replace(str(root), "")
        return Size(
            preset, error=f"the plan failed with exit code {process.returncode}: {line[:300]}"
        )
    return read_plan(process.stdout, preset)


def parse(text: str, path: str) -> tuple[Size, Size]:
    """Both sizes from the text of a file {"old": SIZE, "new": SIZE}.

    Raises:
        ToolError: it is malformed.
    """
    remedy = 'write {"old": SIZE, "new": SIZE} of what `python -m tools.diff.sizes` prints'
    try:
        data = parse_json(text, path)
        old, new = (_size(data[side]) for side in ("old", "new"))
    except (ToolError, KeyError, TypeError) as error:
        raise ToolError(f"{path}: holds no sizes; {remedy}") from error
    return old, new


def _size(data: dict[str, Any]) -> Size:
    counts = [data.get(name) for name in ("parameters", "active_parameters")]
    flops = data.get("flops_per_token")
    for value in (*counts, flops):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise TypeError(value)
    parameters, active = (None if count is None else int(count) for count in counts)
    return Size(str(data.get("preset", "")), parameters, active, flops, str(data.get("error", "")))


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="sizes", description="Print how large a variant is, by its own plan."
    )
    parser.add_argument("directory", type=local_path, help="directory of the variant")
    parser.add_argument("--preset", default="tiny", help="preset to plan (default: tiny)")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, help="seconds to wait for the plan"
    )
    options = parser.parse_args(arguments)
    size = measure(options.directory, options.preset, options.timeout)
    failed = bool(size.error)
    answer = {key: value for key, value in asdict(size).items() if (key == "error") == failed}
    print(json.dumps(answer, sort_keys=True))
    return 1 if size.error else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
