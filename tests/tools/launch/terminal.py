"""What a program writes to a terminal, which is a pseudo-terminal of this process."""

import contextlib
import os
import pty
import subprocess
import sys


def on_a_terminal(module: str, *flags: str, within: float = 300, **environment: str) -> bytes:
    """All that `python -m MODULE FLAGS` writes to a terminal that shows colours.

    NO_COLOR is as `environment` says, whatever it is here. Fails unless the program ends well.
    """
    ours, theirs = pty.openpty()
    inherited = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    inherited |= {"TERM": "xterm-256color", "COLUMNS": "100"}
    inherited |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        env={**inherited, **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
        while chunk := os.read(ours, 65536):
            written += chunk
    os.close(ours)
    assert process.wait(timeout=within) == 0, written.decode()
    return written
