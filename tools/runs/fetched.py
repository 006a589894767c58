"""Run directories in buckets: copies of the parts that a record needs, on this machine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tools.common.buckets import Bucket, last_part
from tools.common.errors import ToolError
from tools.common.files import MIB
from tools.common.paths import is_url

_PARTS = re.compile(r"run\.json|metrics\.jsonl|sources/.+")
_MAX_BYTES = 1024 * MIB


@contextmanager
def on_this_machine(places: Sequence[str]) -> Generator[list[Path]]:
    """The run directories at these paths or URLs; a run in a bucket is copied, for the time being.

    Checkpoints are not copied. Messages of errors within name the URL, not the copy.

    Raises:
        ToolError: a bucket does not answer or denies access, or holds no run.
    """
    with tempfile.TemporaryDirectory(prefix="runs-") as directory:
        copies: dict[str, str] = {}
        paths: list[Path] = []
        for number, place in enumerate(places):
            if not is_url(place):
                paths.append(Path(place))
                continue
            copy = Path(directory, str(number), last_part(place))
            _copy(place, copy)
            copies[str(copy)] = place.rstrip("/")
            paths.append(copy)
        try:
            yield paths
        except ToolError as error:
            message = str(error)
            for copy, place in copies.items():
                message = message.replace(copy, place)
            raise ToolError(message) from error


def _copy(place: str, directory: Path) -> None:
    bucket = Bucket(place)
    names = [name for name in bucket.names() if _PARTS.fullmatch(name)]
    if "run.json" not in names or last_part(place) in ("", "..", "."):
        raise ToolError(f"{place}: holds no run.json: give the directory of a run")
    size = 0
    for name in names:
        if ".." in PurePosixPath(name).parts or name.endswith("/") or "\0" in name:
            raise ToolError(f"{place}/{name}: is no file of a run: remove it")
        content = bucket.read(name) or b""
        size += len(content)
        if size > _MAX_BYTES:
            raise ToolError(f"{place}: its record, metrics and sources hold more than 1 GiB")
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
