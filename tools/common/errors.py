"""How a tool fails: an expected failure is one line with the remedy, a bug is a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class ToolError(Exception):
    """An expected failure. Its text is one line per fault: what, where and the remedy."""


def exit_with(main: Callable[[list[str]], int]) -> NoReturn:
    """Ends the process with main's exit code, or with 1 and the lines of an expected failure."""
    try:
        code = main(sys.argv[1:])
    except ToolError as error:
        print(error, file=sys.stderr)
        code = 1
    except OSError as error:
        print(f"{error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        code = 1
    sys.exit(code)
