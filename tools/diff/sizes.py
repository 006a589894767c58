"""Reads a variant's parameters and FLOPs from its own plan.

    python -m tools.diff.sizes DIR [--preset tiny]

Runs `python -m PACKAGE.launch --preset PRESET --plan --json` in a process that finds this
directory's tree first, and prints one JSON object: preset, parameters, active_parameters,
flops_per_token; or {"error": one line} and exit code 1.

    python -m tools.diff.sizes --together DIR...

prints {DIR: such an object, ...}. One process runs the plans of all, which costs a tenth of a
process for each; a plan that fails there, or that its process does not survive, runs once more in
a process of its own, so that no variant changes what is said of another.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.jsonio import parse_json
from tools.common.paths import local_path
from tools.diff.model import Size
from tools.diff.read_trees import workspace_name

TIMEOUT = 300.0  # seconds
# Until a plan that runs beside others is stopped, and runs alone.
PATIENCE = 60.0
WORKER = Path(__file__).with_name("plan_worker.py")


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


def _locate(directory: Path) -> tuple[Path, str]:
    """The root of a variant's tree, and the module of its command line."""
    name = workspace_name(str(directory.resolve()))
    root = directory.resolve()
    for _ in name.split("/"):
        root = root.parent
    return root, f"{name.replace('/', '.')}.launch"


def _environment() -> dict[str, str]:
    """Nothing of ours is on the module path; the root of the variant's tree comes first on it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return environment | {"JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}


def _without_launcher(directory: Path, preset: str) -> Size | None:
    if (directory / "launch.py").is_file():
        return None
    name = workspace_name(str(directory.resolve()))
    return Size(preset, error=f"{name} has no launch.py")


def measure(directory: Path, preset: str = "tiny", timeout: float = TIMEOUT) -> Size:
    """Runs a variant's plan, for at most `timeout` seconds. Any failure is the answer's `error`."""
    if missing := _without_launcher(directory, preset):
        return missing
    root, module = _locate(directory)
    command = [sys.executable, "-m", module, "--preset", preset, "--plan", "--json"]
    try:
        process = subprocess.run(
            command,
            cwd=root,
            env=_environment(),
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


def measure_together(
    directories: Sequence[Path], preset: str = "tiny", timeout: float = TIMEOUT
) -> list[Size]:
    """What `measure` finds of each, from as few processes as can be."""
    found: dict[Path, Size] = {}
    waiting = []
    for directory in directories:
        if missing := _without_launcher(directory, preset):
            found[directory] = missing
        elif waiting and _locate(directory)[0] != _locate(waiting[0])[0]:
            found[directory] = measure(directory, preset, timeout)
        else:
            waiting.append(directory)
    while waiting:
        batch = tuple(waiting)
        answers = _work(batch, preset, min(timeout, PATIENCE))
        for directory, text in zip(batch, answers, strict=False):  # it may end early
            size = read_plan(text, preset) if text else Size(preset, error="no plan")
            found[directory] = measure(directory, preset, timeout) if size.error else size
            waiting.remove(directory)
    return [found[directory] for directory in directories]


def _work(directories: Sequence[Path], preset: str, patience: float) -> Iterator[str]:
    """The plan of each as text, empty if it failed; ends after the first without an answer."""
    root = _locate(directories[0])[0]
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), str(root), preset],
        cwd=root,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    with worker, contextlib.ExitStack() as end:
        end.callback(_stop, worker)
        for directory in directories:
            answer = _ask(worker, _locate(directory)[1], patience)
            yield answer or ""
            if answer is None:
                return


def _stop(worker: subprocess.Popen[str]) -> None:
    """Ends a worker that a thread of a variant's may keep, or that has ended by itself."""
    worker.kill()
    with contextlib.suppress(BrokenPipeError):  # of a question that it did not live to read
        if worker.stdin:
            worker.stdin.close()


def _ask(worker: subprocess.Popen[str], module: str, patience: float) -> str | None:
    """A worker's answer; None if it has ended, also because it was stopped after `patience`."""
    assert worker.stdin
    assert worker.stdout
    watch = threading.Timer(patience, worker.kill)
    watch.start()
    try:
        print(module, file=worker.stdin, flush=True)
        answer = json.loads(worker.stdout.readline())
    except (OSError, ValueError):
        return None
    finally:
        watch.cancel()
    return answer if isinstance(answer, str) else None


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
    parser.add_argument("directory", type=local_path, nargs="+", help="directory of the variant")
    parser.add_argument("--preset", default="tiny", help="preset to plan (default: tiny)")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, help="seconds to wait for the plan"
    )
    parser.add_argument(
        "--together", action="store_true", help="print an object with each directory's answer"
    )
    options = parser.parse_args(arguments)
    directories = options.directory
    if options.together:
        sizes = measure_together(directories, options.preset, options.timeout)
        answers = {str(one): _answer(size) for one, size in zip(directories, sizes, strict=True)}
        print(json.dumps(answers, sort_keys=True))
        return 0
    if len(directories) > 1:
        parser.error("more than one directory: give --together")
    size = measure(directories[0], options.preset, options.timeout)
    print(json.dumps(_answer(size), sort_keys=True))
    return 1 if size.error else 0


def _answer(size: Size) -> dict[str, Any]:
    failed = bool(size.error)
    return {key: value for key, value in asdict(size).items() if (key == "error") == failed}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
