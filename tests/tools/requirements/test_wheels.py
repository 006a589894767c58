"""Which modules a wheel brings, from its files' names and from a real wheel."""

import functools
import hashlib
import http.server
import threading
import zipfile
from pathlib import Path

import pytest

from tests.tools.requirements.conftest import entry, make_lock
from tools.common.errors import ToolError
from tools.requirements.wheels import modules, modules_of

INFO = "x-1.dist-info"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["yaml/__init__.py", "_yaml/__init__.py", f"{INFO}/top_level.txt"], ("yaml",)),
        (["six.py", f"{INFO}/RECORD"], ("six",)),
        (["google/cloud/storage/__init__.py", "google/cloud/storage/a/b.py"],
         ("google.cloud.storage",)),
        (["google/cloud/one/__init__.py", "google/cloud/two.py"],
         ("google.cloud.one", "google.cloud.two")),
        (["cv2/__init__.py", "cv2/cv2.abi3.so", "tests/__init__.py"], ("cv2",)),
        (["tests/__init__.py"], ("tests",)),
        (["_cffi_backend.cpython-312-x86_64-linux-gnu.so"], ("_cffi_backend",)),
        (["x-1.data/purelib/odd/__init__.py", "x-1.data/scripts/odd.py"], ("odd",)),
        (["nvidia/nccl/lib/libnccl.so.2", "nvidia/nccl/include/nccl.h"], ()),
        (["yaml-stubs/__init__.pyi", "not a name/__init__.py"], ()),
        (["deep/__init__.py", "deep/er/__init__.py", "deep/er/x.py"], ("deep",)),
    ],
)  # fmt: skip
def test_modules_of_files(files, found):
    assert modules(files) == found


@pytest.fixture
def wheel(tmp_path) -> Path:
    path = tmp_path / "files" / "odd_name-1-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("odd/__init__.py", "")
        archive.writestr("odd_name-1.dist-info/METADATA", "")
    return path


def locked(url: str, digest: str):
    found = entry("odd-name", "1")
    found["artifacts"] = [
        {"algorithm": "sha256", "hash": "0" * 64, "url": "https://nowhere.invalid/odd_name-1.zip"},
        {"algorithm": "sha256", "hash": digest, "url": url},
    ]
    return make_lock(found)


def test_a_wheel_is_downloaded_and_looked_into(wheel):
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(wheel.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/{wheel.name}"
            assert modules_of(locked(url, digest), "odd-name") == ("odd",)
            with pytest.raises(ToolError, match="has another sha256 than the lock says"):
                modules_of(locked(url, "1" * 64), "odd-name")
            with pytest.raises(ToolError, match="cannot be downloaded"):
                modules_of(locked(url.replace("odd_", "even_"), digest), "odd-name")
        finally:
            server.shutdown()


def test_no_wheel_and_a_broken_one(wheel):
    assert modules_of(locked(wheel.as_uri(), hashlib.sha256(wheel.read_bytes()).hexdigest()),
                      "odd-name") == ("odd",)  # fmt: skip
    wheel.write_bytes(b"PK")
    digest = hashlib.sha256(b"PK").hexdigest()
    with pytest.raises(ToolError, match="is no wheel"):
        modules_of(locked(wheel.as_uri(), digest), "odd-name")
    with pytest.raises(ToolError, match="has no wheel to look into"):
        modules_of(locked("https://nowhere.invalid/odd-1.tar.gz", digest), "odd-name")
