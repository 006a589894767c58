"""Files and arrays at a location: a path of this machine, s3://bucket/path or gs://bucket/path.

TensorStore reads and writes all of them. Buckets are set up as for runs, by the same variables
(docs/reference/run.md).
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tools.common.errors import ToolError
from tools.common.paths import is_url

if TYPE_CHECKING:
    import tensorstore as ts

# As in experiments/grug/base/plumbing/storage.py: a transfer slower than 1 byte per second for this
# long is cut, and a request is given up after about a minute of errors.
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "20")
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
_RETRIES = {"max_retries": 8, "initial_delay": "500ms", "max_delay": "16s"}
_DENIED = re.compile("PERMISSION_DENIED|UNAUTHENTICATED|get credentials|code='40[13]'")
_SILENT = re.compile("ABORTED|UNAVAILABLE|DEADLINE_EXCEEDED")


def spec(place: str | Path) -> dict[str, Any]:
    """TensorStore's key-value spec of the folder at a location."""
    if not is_url(place):
        return {"driver": "file", "path": f"{os.path.abspath(place).rstrip('/')}/"}
    scheme, _, rest = str(place).partition("://")
    bucket, _, path = rest.partition("/")
    prefix = f"{path.strip('/')}/" if path.strip("/") else ""
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": prefix}
    s3: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": prefix}
    env = os.environ.get
    endpoint = env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL")
    region = env("AWS_REGION") or env("AWS_DEFAULT_REGION")
    if endpoint:
        s3 |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    elif region:
        s3["aws_region"] = region
    if env("AWS_ACCESS_KEY_ID"):  # else AWS's chain: profiles, containers, the machine's own role
        s3["aws_credentials"] = {"type": "environment"}
    return s3


def explain(error: Exception, place: str | Path) -> str:
    """One line on an error of TensorStore's: what went wrong where, and the remedy."""
    message = str(error).partition(" [")[0].splitlines()[0]
    if not is_url(place):
        return f"{place}: {message}"
    s3 = str(place).startswith("s3:")
    endpoint = "AWS_ENDPOINT_URL" if s3 else "TENSORSTORE_GCS_HTTP_URL"
    if _DENIED.search(str(error)):
        keys = (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"
            if s3
            else "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login,"
        )
        return f"{place}: access refused ({message}): {keys} of an account that may"
    if message.startswith("NOT_FOUND"):
        return f"{place}: no such bucket ({message}): make it, or correct its name or {endpoint}"
    if _SILENT.match(message):
        address = os.environ.get(endpoint, f"its public address; {endpoint} names another")
        return (
            f"{place}: the store does not answer ({message}) at {address}: check the address and "
            "network"
        )
    return f"{place}: {message}"


class Bucket:
    """The objects below a location, by their names from there. All methods may raise ToolError."""

    def __init__(self, place: str | Path) -> None:
        import tensorstore as ts

        self.place = str(place).rstrip("/")
        self._kv = self._wait(ts.KvStore.open(spec(place), context=context()))

    def read(self, name: str) -> bytes | None:
        """An object's content; None if there is no such object."""
        result = self._wait(self._kv.read(name))
        return bytes(result.value) if result.state == "value" else None

    def write(self, name: str, content: bytes) -> None:
        """Writes a whole object: a reader sees the old one or the new one."""
        self._wait(self._kv.write(name, content))

    def names(self) -> list[str]:
        """The names of all objects, at any depth, sorted."""
        return sorted(key.decode() for key in self._wait(self._kv.list()))

    def upload(self, directory: Path, last: str) -> None:
        """Writes the files of a directory, the one named `last` after all others."""
        files = (path for path in directory.rglob("*") if path.is_file())
        names = [path.relative_to(directory).as_posix() for path in files]
        for name in sorted(names, key=lambda name: (name == last, name)):
            self.write(name, (directory / name).read_bytes())

    def _wait(self, future: Any) -> Any:
        try:
            return future.result()
        except ValueError as error:  # what TensorStore raises, whatever went wrong
            raise ToolError(explain(error, self.place)) from error


def context() -> ts.Context:
    """TensorStore's context, in which a bucket that does not answer is given up after a minute."""
    import tensorstore as ts

    return ts.Context({"s3_request_retries": _RETRIES, "gcs_request_retries": _RETRIES})


def last_part(place: str) -> str:
    """The name of what a URL names, "" for a whole bucket."""
    return PurePosixPath(place.partition("://")[2].partition("/")[2]).name
