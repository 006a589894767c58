"""Runs the plans of several variants in one process, which imports their packages once.

    python tools/diff/plan_worker.py ROOT PRESET < modules

Reads a line per plan, the module of a variant's `launch` below ROOT, and answers each with a line:
the plan as the variant printed it, or nothing if it failed. Started by tools.diff.sizes, which runs
a plan that got no answer once more, alone: its error is then the variant's own. What one plan does
to the process is undone before the next; where it replaced a function or a class of a package, no
plan may follow it, and the process ends.

A script of its own: nothing of the tools may be on the path of a variant's modules.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TextIO

# Replaced by the standard library itself as it is used.
REPLACED_ANYHOW = ("__main__", "contextlib", "warnings")


def definitions() -> dict[str, dict[str, Any]]:
    """The functions and classes of all imported modules, by the module's and their own names."""
    modules = [(name, module) for name, module in sys.modules.items() if type(module) is ModuleType]
    return {
        name: {key: value for key, value in vars(module).items() if callable(value)}
        for name, module in modules
        if name not in REPLACED_ANYHOW
    }


def replaced(before: dict[str, dict[str, Any]], top: str) -> list[str]:
    """What a plan below the package `top` replaced, as MODULE.NAME.

    That is what has another value now, and what a variant itself defined in another's module, which
    may have been imported only since. Other new names and new modules do no harm.
    """
    found = []
    for module, names in before.items():
        now = vars(sys.modules[module]) if module in sys.modules else {}
        found += [f"{module}.{name}" for name, value in names.items() if now.get(name) is not value]
    for module, names in definitions().items():
        if module.partition(".")[0] != top:
            homes = {name: str(getattr(value, "__module__", "")) for name, value in names.items()}
            found += [f"{module}.{name}" for name in homes if homes[name].startswith(f"{top}.")]
    return found


def settings() -> Callable[[], None]:
    """What puts the environment, the module path and JAX's settings back to what they are now."""
    environment, path = dict(os.environ), list(sys.path)
    jax = sys.modules.get("jax")
    values = dict(jax.config.values) if jax else {}

    def restore() -> None:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        sys.path[:] = path
        if jax:
            for name, value in values.items():
                if jax.config.values[name] != value:
                    jax.config.update(name, value)

    return restore


def run(module: str, preset: str) -> str:
    """What the plan prints; empty if it fails."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            code = importlib.import_module(module).main(["--preset", preset, "--plan", "--json"])
    except BaseException:  # whatever it is, running it alone says it
        return ""
    return "" if code else output.getvalue()


def main(root: str, preset: str, modules: TextIO, answers: TextIO) -> None:
    """Answers each line until there is none, or until no plan may follow."""
    sys.path[0] = root
    with contextlib.suppress(ImportError):
        import jax  # noqa: F401 its settings are to be known before a variant changes them
    for line in modules:
        known, before, restore = set(sys.modules), definitions(), settings()
        text = run(line.strip(), preset)
        print(json.dumps(text), file=answers, flush=True)
        top = line.partition(".")[0]
        if replaced(before, top):
            return
        for name in set(sys.modules) - known:  # no variant meets another's modules
            if name.partition(".")[0] == top:
                del sys.modules[name]
        restore()


if __name__ == "__main__":
    # What a variant prints by other means than sys.stdout is no answer.
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main(*sys.argv[1:], sys.stdin, own)
