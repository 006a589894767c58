"""python -m tools.runs.profile RUN_DIR

Prints where the time of a run's traced steps went (--profile, docs/how-to/), by the scopes that the
model's code names: wall time of the devices, and of the thread that runs the steps.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.common.errors import ToolError, exit_with
from tools.common.paths import local_path
from tools.runs import trace
from tools.runs.op_names import BACKWARD, FORWARD, RECOMPUTED, parts

FOLDER = "profile/plugins/profile"
SMALLEST = 0.0005  # share of a step below which a row is left out
PHASES = (FORWARD, BACKWARD, RECOMPUTED)
MAX_DEPTH = 20


@dataclass
class Node:
    """Time of a scope with all scopes within it, in nanoseconds."""

    time: float = 0.0
    phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    inner: dict[str, Node] = field(default_factory=dict)

    def add(self, scopes: tuple[str, ...], phase: str, time: float) -> None:
        """Adds time of an operation in a scope."""
        self.time += time
        self.phases[phase] += time
        if scopes:
            self.inner.setdefault(scopes[0], Node()).add(scopes[1:], phase, time)


def by_scope(devices: list[trace.Times], depth: int) -> Node:
    """The mean over devices, as a tree of scopes down to a depth; what no scope names is `other`.

    The time of an operation that several scopes share is divided equally among them.
    """
    tree = Node()
    for device in devices:
        for name, time in device.items():
            found = parts(name)
            for part in found:
                scopes = part.scopes[:depth] or ("other",)
                tree.add(scopes, part.phase, time / len(found) / len(devices))
    return tree


def report(run_dir: Path, steps: str, depth: int) -> str:
    """What the command prints.

    Raises:
        ToolError: there is no trace, or none that this reads.
    """
    path = find(run_dir, steps)
    name = str(path)
    found = trace.read(path, name)
    tree = by_scope(found.devices, depth)
    last, each = found.first + found.steps - 1, found.span / found.steps
    count = len(found.devices)
    what = f"{count} {found.platform} devices, their mean" if count > 1 else found.platform
    lines = [
        f"{run_dir}: steps {found.first} to {last}, {each / 1e6:,.1f} ms each",
        "",
        _row(what, "ms/step", "share", *PHASES),
        *_rows(tree, found.span, found.steps, ""),
        _line("idle", max(0.0, found.span - tree.time), found),
        _line("total", found.span, found),
        "",
        _row("host", "ms/step", "share"),
    ]
    for what, time in sorted(found.host.items(), key=lambda item: -item[1]):
        lines.append(_line(what, time, found))
    lines.append(_line("other", max(0.0, found.span - sum(found.host.values())), found))
    lines.append(_line("total", found.span, found))
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _rows(tree: Node, span: float, steps: int, indent: str) -> Iterator[str]:
    """A row for each scope, the longest first, with those within it below."""

    def order(item: tuple[str, Node]) -> tuple[bool, float, str]:
        return item[0] == "other" and not indent, -item[1].time, item[0]

    for name, node in sorted(tree.inner.items(), key=order):
        if node.time >= SMALLEST * span:
            times = [node.phases[phase] for phase in PHASES]
            shown = [f"{time / steps / 1e6:,.1f}" if time else "" for time in times]
            time = f"{node.time / steps / 1e6:,.1f}"
            yield _row(f"{indent}{name}", time, f"{node.time / span:.1%}", *shown)
            yield from _rows(node, span, steps, f"{indent}  ")


def _line(name: str, time: float, found: trace.Trace) -> str:
    return _row(name, f"{time / found.steps / 1e6:,.1f}", f"{time / found.span:.1%}")


def _row(name: str, *columns: str) -> str:
    return f"{name:<30.30}" + "".join(f"{column:>11}" for column in columns)


def find(run_dir: Path, steps: str) -> Path:
    """The trace of process 0 of a run, by default that of the last steps.

    Raises:
        ToolError: there is none.
    """
    folder = run_dir / FOLDER
    there = {_shown(path.name): path for path in sorted(folder.glob("steps-*"))}
    if not there:
        raise ToolError(f"{folder}: no trace is there: run with --profile START:STEPS")
    chosen = there.get(steps) if steps else list(there.values())[-1]
    if not chosen:
        raise ToolError(f"{folder}: has no trace of {steps}: give one of {', '.join(there)}")
    path = chosen / "process-0.xplane.pb"
    if not path.is_file():
        raise ToolError(f"{path}: is not there: trace the run again")
    return path


def _shown(folder: str) -> str:
    """`4:3` of the folder `steps-00000004-00000006`; its name if it is another one."""
    try:
        first, last = map(int, folder.removeprefix("steps-").split("-"))
    except ValueError:
        return folder
    return f"{first}:{last - first + 1}"


def _depth(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_DEPTH:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1 to {MAX_DEPTH}")
    return int(text)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="profile", description="Print where the time of a run's traced steps went."
    )
    parser.add_argument(
        "run_dir", type=local_path, metavar="RUN_DIR", help="directory of a run with --profile"
    )
    parser.add_argument(
        "--steps",
        default="",
        metavar="START:STEPS",
        help="trace to read, as --profile named it (default: that of the last steps)",
    )
    parser.add_argument(
        "--depth", type=_depth, default=2, metavar="N", help="levels of scopes (default: 2)"
    )
    options = parser.parse_args(arguments)
    print(report(options.run_dir, options.steps, options.depth), end="")
    return 0


if __name__ == "__main__":
    exit_with(main)
