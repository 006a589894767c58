"""Types of command-line arguments that name places: a path of this machine, or a URL.

Without them a URL becomes a path: `Path("s3://bucket/store")` is the local `s3:/bucket/store`. Each
of these functions is an argparse `type`, and raises what argparse prints as one line.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

# The latter is what pathlib makes of s3://.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(?:s3|gs):/")
_COPY = {"s3": "aws s3 cp --recursive", "gs": "gcloud storage cp --recursive"}


def local_path(text: str) -> Path:
    """A path of this machine; `file:///a/b` is one, too.

    Raises:
        ArgumentTypeError: it is empty, or a URL of another kind.
    """
    return Path(local_text(text))


def local_text(text: str) -> str:
    """Text that names a path of this machine, or something else that is no URL.

    Raises:
        ArgumentTypeError: it is empty, or a URL.
    """
    place = location(text)
    if match := _URL.match(place):
        copy = _COPY.get(match[1], "curl --output")
        raise argparse.ArgumentTypeError(
            f"{text}: is a URL, and this takes a path of this machine; copy between the two "
            f"({copy})"
        )
    return place


def location(text: str) -> str:
    """A path of this machine, s3://bucket/path or gs://bucket/path, as text.

    Raises:
        ArgumentTypeError: it is empty, or a URL of another kind.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a path, or leave the flag out")
    match = _URL.match(text)
    if not match:
        return text
    scheme, rest = match[1], text[match.end() :]
    if scheme == "file" and rest.startswith("/"):
        return rest
    if scheme not in _COPY or not rest.partition("/")[0]:
        raise argparse.ArgumentTypeError(
            f"{text}: give a path of this machine, s3://bucket/path or gs://bucket/path"
        )
    return text


def is_url(place: str | Path) -> bool:
    """Whether a `location` is in a bucket."""
    return isinstance(place, str) and bool(_URL.match(place))
