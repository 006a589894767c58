"""Which compiler flags the locked jaxlib or libtpu knows: an unknown one aborts the process.

    python -m tools.bundle.flags XLA_FLAGS xla_gpu_autotune_level=4 xla_gpu_graph_level=0
    python -m tools.bundle.flags LIBTPU_INIT_ARGS xla_tpu_overlap_compute_collective_tc=true

asks the jaxlib or libtpu that is installed beside it, and keeps the answers in flags.json, by
version. Packaging reads that file alone, so that it needs neither.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import MIB
from tools.common.jsonio import json_text, read_json

TABLE = Path(__file__).with_name("flags.json")
# Who reads each variable, and a program that makes it do so without the hardware.
READERS = {
    "XLA_FLAGS": ("jaxlib", "import jax; jax.devices()"),
    "LIBTPU_INIT_ARGS": (
        "libtpu",
        "from jax.experimental import topologies as t; t.get_topology_desc('v5e:2x2', 'tpu')",
    ),
}
QUIET = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
TIMEOUT = 120.0  # seconds


def names(value: str, variable: str) -> list[str]:
    """The flags in a variable's value, without dashes and values. Raises ToolError."""
    try:
        tokens = shlex.split(value)
    except ValueError as error:
        raise ToolError(f"{variable}={value!r}: {error}") from error
    if bad := [token for token in tokens if not token.startswith("--")]:
        raise ToolError(f"{variable}: {bad[0]!r} is no flag: write --NAME=VALUE")
    return [token[2:].partition("=")[0] for token in tokens]


def _table() -> dict[str, Any]:
    return read_json(TABLE, MIB)


def check(variable: str, value: str, version: str | None) -> None:
    """Raises ToolError for a flag that this version refuses, or of which nothing is known."""
    package, _ = READERS[variable]
    flags = names(value, variable)
    if flags and version is None:
        raise ToolError(f"{variable} is set, but the lock has no {package} that would read it")
    known = _table()[package].get(version, {})
    for flag in flags:
        if flag in known.get("refused", ()):
            raise ToolError(f"{variable}: {package} {version} aborts on --{flag}: remove it")
        if flag not in known.get("accepted", ()):
            raise ToolError(
                f"{variable}: --{flag} was never tried with {package} {version}: where that is "
                f"installed, run python -m tools.bundle.flags {variable} {flag}=VALUE"
            )


def accepted(variable: str, flag: str) -> bool:
    """Whether the installed library starts with `flag` ("NAME=VALUE"), without the dashes."""
    run = subprocess.run(
        (sys.executable, "-c", READERS[variable][1]),
        env={**os.environ, **QUIET, variable: f"--{flag}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT,
    )
    if run.returncode and "Flag parsing failed" in run.stderr:
        raise ToolError(f"--{flag}: the value is of the wrong kind; try the flag with another")
    said = [line for line in run.stderr.splitlines() if "unknown" in line.lower()]
    if run.returncode and not said:
        last = (run.stderr.splitlines() or ["nothing"])[-1]
        raise ToolError(f"--{flag}: neither known nor unknown; the program said: {last}")
    return run.returncode == 0


def probe(variable: str, flags: list[str]) -> dict[str, Any]:
    """Tries each flag and returns the table with what was found."""
    package, _ = READERS[variable]
    version = importlib.metadata.version(package)
    table = _table()
    entry = table[package].setdefault(version, {"accepted": [], "refused": []})
    for flag in flags:
        name, key = flag.partition("=")[0], "accepted" if accepted(variable, flag) else "refused"
        print(f"{package} {version}: --{name} {key}")
        for list_name in entry:
            entry[list_name] = [n for n in entry[list_name] if n != name]
        entry[key] = sorted({*entry[key], name})
    return table


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="flags", description="Try flags on this JAX.")
    parser.add_argument("variable", choices=sorted(READERS))
    parser.add_argument("flags", nargs="+", metavar="FLAG=VALUE")
    options = parser.parse_args(arguments)
    try:
        table = probe(options.variable, options.flags)
    except ToolError as error:
        print(f"flags: {error}", file=sys.stderr)
        return 1
    TABLE.write_text(json_text(table))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
