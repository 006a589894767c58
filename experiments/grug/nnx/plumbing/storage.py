"""Files and objects by one name: a local path, s3://bucket/path or gs://bucket/path.

TensorStore does all reading and writing. S3 is set up by AWS's own variables (AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, ...), GCS by the default credentials of Google's tools;
TENSORSTORE_GCS_HTTP_URL names an emulator.
"""

import contextlib
import glob
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorstore as ts

# A transfer slower than 1 byte per second for this long is cut and tried again; TensorStore's own
# default is to wait forever.
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "20")
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
# A request is given up after about a minute of errors; TensorStore's default is 15 minutes. Where a
# run can wait for longer, Retry does, and tells of it.
RETRIES = {"max_retries": 8, "initial_delay": "500ms", "max_delay": "16s"}
CONTEXT = ts.Context(
    {
        "cache_pool": {"total_bytes_limit": 1 << 28},
        "s3_request_retries": RETRIES,
        "gcs_request_retries": RETRIES,
    }
)


class StorageError(ValueError):
    """A file or an object cannot be read or written; one line that names the remedy."""


class Outage(StorageError):
    """The store does not answer. It may again: start the run again then."""

    # Above 128, but for no signal: engines start a run again after it, as often as after a lost
    # node (docs/reference/bundles.md).
    EXIT_CODE = 175


class Retry:
    """Calls that wait out an outage of the store, `limit` seconds long since its last answer."""

    limit = 1800.0  # LAUNCH_OUTAGE_S
    longest_pause = 60.0

    def __init__(self) -> None:
        self.since: float | None = None  # time.monotonic() of the outage's beginning

    def is_too_long(self) -> bool:
        """Whether the store has been silent for longer than the limit."""
        return self.since is not None and time.monotonic() - self.since >= self.limit

    def __call__(
        self, act: Callable[[], Any], what: str, given_up: threading.Event | None = None
    ) -> Any:
        """The result of `act`, which is called again after growing pauses while it is an Outage.

        Tells once of `what` waits. Raises the Outage when it is too long, or `given_up` is set.
        """
        given_up, pause, told = given_up or threading.Event(), 1.0, False
        while True:
            try:
                result = act()
            except Outage as error:
                self.since = self.since or time.monotonic()
                if self.is_too_long() or given_up.is_set():
                    raise
                left = self.since + self.limit - time.monotonic()
                if not told:
                    print(
                        f"{what}: {error}; trying again for {max(1, round(left / 60))} min",
                        file=sys.stderr,
                        flush=True,
                    )
                told = True
                given_up.wait(max(0.0, min(pause, left)))
                pause = min(2 * pause, self.longest_pause)
            else:
                self.since = None
                return result


def spec(url: str) -> dict[str, Any]:
    """TensorStore's key-value spec of the folder at a local path or a file:, gs: or s3: URL.

    Raises:
        StorageError: `url` is none of these.
    """
    scheme, separator, location = url.partition("://")
    local = scheme == "file" if separator else not re.match("(file|gs|s3):", url)
    if local:
        path = os.path.abspath(os.path.expanduser(location if separator else url))
        return {"driver": "file", "path": path.rstrip("/") + "/"}
    bucket, _, path = location.partition("/")
    if scheme not in ("gs", "s3") or not bucket:  # s3:/b is what pathlib makes of s3://b
        raise StorageError(f"{url}: give a local path, s3://bucket/path or gs://bucket/path")
    prefix = path.strip("/") + "/" if path.strip("/") else ""
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


def brief(error: Exception) -> str:
    """TensorStore's message without its dump of the spec and of the server's answer."""
    return str(error).partition(" [")[0]


DENIED = re.compile("PERMISSION_DENIED|UNAUTHENTICATED|get credentials|code='40[13]'")
SILENT = re.compile("ABORTED|UNAVAILABLE|DEADLINE_EXCEEDED")


def refused(error: Exception) -> bool:
    """Whether the store denied access or did not answer, which says nothing about its content."""
    return bool(DENIED.search(str(error)) or SILENT.match(str(error)))


def silent(error: Exception) -> bool:
    """Whether the store did not answer."""
    return bool(SILENT.match(str(error))) and not DENIED.search(str(error))


def failure(error: Exception, url: str) -> StorageError:
    """TensorStore's error at `url`, explained."""
    is_outage = silent(error) and url.startswith(("s3:", "gs:"))
    return (Outage if is_outage else StorageError)(explain(error, url))


def explain(error: Exception, url: str) -> str:
    """One line that says what went wrong at `url` and what to do about it."""
    message, s3 = brief(error), url.startswith("s3:")
    if not url.startswith(("s3:", "gs:")):
        return f"{url}: {message}"
    endpoint = "AWS_ENDPOINT_URL" if s3 else "TENSORSTORE_GCS_HTTP_URL"
    if DENIED.search(str(error)):
        keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"
        google = "GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login,"
        return (
            f"{url}: access refused ({message}): set {keys if s3 else google} of an account that "
            "may"
        )
    if message.startswith("NOT_FOUND"):
        return f"{url}: no such bucket ({message}): make it, or correct its name or {endpoint}"
    if SILENT.match(message):
        address = os.environ.get(endpoint, f"its public address; {endpoint} names another")
        return (
            f"{url}: the store does not answer ({message}) at {address}: check the address and "
            "network"
        )
    return f"{url}: {message}"


class Folder:
    """A directory, or a prefix in a bucket. Every method may raise StorageError."""

    def __init__(self, path: str | os.PathLike[str]):
        self.spec = spec(os.fspath(path))
        self.url = os.fspath(path).rstrip("/") + "/"
        self.local = Path(self.spec["path"]) if self.spec["driver"] == "file" else None
        self.kv = self.wait(ts.KvStore.open(self.spec, context=CONTEXT))

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.url + name)

    def wait(self, future: Any) -> Any:
        """The result of a TensorStore future, whose errors are explained."""
        try:
            return future.result()
        except ValueError as error:  # what TensorStore raises, whatever went wrong
            raise failure(error, self.url) from error

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is no such file."""
        result = self.wait(self.kv.read(name))
        return bytes(result.value) if result.state == "value" else None

    def write(self, name: str, content: bytes) -> None:
        """Writes a whole file: a reader sees the old one or the new one."""
        self.wait(self.kv.write(name, content))

    def names(self, prefix: str = "") -> list[str]:
        """Names, relative to the folder, of the files that begin with `prefix`, at any depth."""
        keys = self.wait(self.kv.list(_range(prefix) if prefix else ts.KvStore.KeyRange()))
        return sorted(key.decode() for key in keys)

    def empty(self) -> bool:
        """Whether the folder holds nothing; a folder that does not exist is empty."""
        return not (any(self.local.glob("*")) if self.local else self.names())

    def remove(self, prefix: str) -> None:
        """Removes the files whose names begin with `prefix`, and the directories that held them."""
        self.wait(self.kv.delete_range(_range(prefix)))
        if self.local:
            parent, _, beginning = prefix.rpartition("/")
            held = (self.local / parent).glob(f"{glob.escape(beginning)}*") if beginning else ()
            for top in held or [self.local / parent]:
                for directory, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):  # it is not empty, or another was faster
                        os.rmdir(directory)

    def array(self, name: str, **options: Any) -> Any:
        """The future of the zarr3 array at `name`, opened with TensorStore's `options`."""
        kvstore = {**self.spec, "path": f"{self.spec['path']}{name}/"}
        return ts.open({"driver": "zarr3", "kvstore": kvstore, **options}, context=CONTEXT)


def _range(prefix: str) -> ts.KvStore.KeyRange:
    # Keys are ordered: those that begin with "ab" lie from "ab" up to, but not including, "ac".
    return ts.KvStore.KeyRange(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))
