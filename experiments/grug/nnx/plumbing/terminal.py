"""What a run prints. A reader that is gone or stands still neither ends nor holds up the run."""

import contextlib
import os
import re
import select
import sys
import threading
from collections.abc import Generator
from typing import Any

PATIENCE = 30.0  # seconds that a reader may stand still
PIECE = 1024  # characters, at most 4 bytes each: a pipe that takes anything takes PIPE_BUF bytes
_lock = threading.RLock()

# What moves the cursor or reorders a line: controls other than tab and newline, separators of
# lines, changes of direction, halves of surrogate pairs.
UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def open_closed() -> None:
    """Sends a stream that was closed before the start (`>&-`) to nowhere.

    Else the next file that is opened gets its number, and what libraries print goes into that file.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
            try:
                os.fstat(number)  # it may be another file's already
            except OSError:
                os.dup2(getattr(sys, name).fileno(), number)


open_closed()


def printable(text: str) -> str:
    """The text with its control characters escaped, so that a document cannot steer a terminal."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(error: BaseException) -> str:
    """The first line of an error, with its type if that is one of Python's own."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    first = str(error).strip().partition("\n")[0]
    kind = type(error)
    return f"{kind.__name__}: {first}" if kind.__module__ == "builtins" or not first else first


def say(text: str) -> bool:
    """Prints to stdout, and gives whether that worked.

    A failure is told once on stderr; nothing is printed after it.
    """
    return _print("stdout", text)


def tell(text: str) -> None:
    """Prints to stderr, as far as someone reads it."""
    _print("stderr", text)


def _print(name: str, text: str) -> bool:
    with _lock:
        stream = getattr(sys, name)
        try:
            _write(stream, f"{printable(text)}\n")
            return True
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            message = f"{name}: {one_line(error)}; nothing more is printed there"
        # Also the buffer of the old stream, which must not be flushed again, is gone with it.
        setattr(sys, name, open(os.devnull, "w"))
        if name == "stdout":
            tell(message)
    return False


def _write(stream: Any, text: str) -> None:
    """Writes a piece at a time, when the reader is ready for it. Raises OSError if it is not."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        number = stream.fileno()
    except (AttributeError, OSError):  # it is no file
        number = None
    for start in range(0, len(text), PIECE):
        if number is not None and not select.select([], [number], [], PATIENCE)[1]:
            raise TimeoutError(f"nobody has read it for {PATIENCE:.0f} s")
        stream.write(text[start : start + PIECE])
        stream.flush()


@contextlib.contextmanager
def optional(name: str) -> Generator[None]:
    """A context whose failure is told in one line, and is nothing more.

    Of an interrupt too: what may be left out may be cut short.
    """
    try:
        yield
    except BaseException as error:  # a tokenizer's panic is no Exception
        tell(f"{name} left out: {one_line(error)}")
