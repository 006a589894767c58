"""The tools at the URLs of buckets: a store is built into one and read there; runs are recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.grug.base.plumbing import storage
from experiments.grug.base.plumbing.data import TokenStore
from tests.tools.runs.conftest import Workspace, rows
from tools.common import buckets
from tools.common.errors import ToolError
from tools.corpus.cli import main as corpus
from tools.corpus.store import MANIFEST
from tools.runs.record import main as record


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    texts = [f"{number} é some text that is here to be read\n" * 20 for number in range(40)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


FLAGS = ["--vocab-size", "280", "--heldout-fraction", "0.3"]


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_store_is_built_into_a_bucket_and_read_there(
    root: Callable[[str], str], kind: str, cache: Path, text: Path, capsys, tmp_path: Path
) -> None:
    url = root(kind)
    assert corpus(["build", str(text), "--out", url, *FLAGS]) == 0
    assert corpus(["build", str(text), "--out", str(tmp_path / "local"), *FLAGS]) == 0
    local = tmp_path / "local"
    names = {p.relative_to(local).as_posix(): p for p in local.rglob("*") if p.is_file()}
    folder = storage.Folder(url)
    assert set(folder.names()) == set(names)
    assert all(folder.read(name) == path.read_bytes() for name, path in names.items())
    assert not any(path.is_file() for path in cache.rglob("*")), "nothing of it stays here"
    assert not list(tmp_path.glob("*:*")), "no path of this machine was made of the URL"
    opened = TokenStore.open(url)
    ours, theirs = opened.text_bytes("heldout"), TokenStore.open(str(local)).text_bytes("heldout")
    assert ours is None and theirs is None  # the tokens of both tell the bytes
    assert (opened.token_bytes() == TokenStore.open(str(local)).token_bytes()).all()
    capsys.readouterr()
    assert corpus(["inspect", url, "--verify"]) == 0
    assert "verified" in capsys.readouterr().out
    assert corpus(["inspect", url, "--document", "1", "--split", "heldout"]) == 0
    assert " é some text that is here" in capsys.readouterr().out
    assert corpus(["build", str(text), "--out", f"{url}/", *FLAGS]) == 0
    assert "already there" in capsys.readouterr().out
    assert corpus(["build", str(text), "--out", url, "--heldout-fraction", "0.5"]) == 1
    assert "holds a token store of other heldout fraction" in capsys.readouterr().err


def test_a_copy_that_stopped_goes_on(
    root: Callable[[str], str], cache: Path, text: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = root("s3")
    write = buckets.Bucket.write
    left = 3

    def write_or_stop(bucket: buckets.Bucket, name: str, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ToolError(f"{url}: access refused")
        write(bucket, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(buckets.Bucket, "write", write_or_stop)
        assert corpus(["build", str(text), "--out", url, *FLAGS]) == 1
    assert capsys.readouterr().err.endswith(f"error: {url}: access refused\n")
    assert len(storage.Folder(url).names()) == 3 and not storage.Folder(url).read(MANIFEST)
    assert corpus(["inspect", url]) == 1
    assert "no complete token store" in capsys.readouterr().err
    assert len(list(cache.glob("builds/*/manifest.json"))) == 1, "the work is kept"
    assert corpus(["build", str(text), "--out", url, *FLAGS]) == 0
    assert corpus(["inspect", url, "--verify"]) == 0
    assert not list(cache.glob("builds/*"))


def test_places_where_no_store_can_be(
    root: Callable[[str], str], cache: Path, text: Path, capsys
) -> None:
    """Refused before the work, in one line."""
    used = root("s3")
    storage.Folder(used).write("run.json", b"{}")
    for url, message in (
        (used, "holds run.json, which no token store has; choose another --out"),
        ("s3://grug-none/store", "no such bucket .*: make it"),
    ):
        assert corpus(["build", str(text), "--out", url, *FLAGS]) == 1
        error = capsys.readouterr().err
        assert re.fullmatch(f"error: {url}: {message}.*\n", error), error
        assert corpus(["inspect", url]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert not cache.exists()


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_runs_in_a_bucket_are_recorded(
    root: Callable[[str], str], kind: str, tmp_path: Path, capsys
) -> None:
    workspace, url = Workspace(tmp_path / "workspace"), root(kind)
    run = workspace.write_run("run", rows(10))
    folder = storage.Folder(url)
    for path in (p for p in run.rglob("*") if p.is_file()):
        folder.write(path.relative_to(run).as_posix(), path.read_bytes())
    folder.write("checkpoints/step-00000010/commit.json", b"not read")
    flags = ["--root", str(workspace.root)]
    assert record([url, *flags]) == 0
    written = capsys.readouterr().out.splitlines()
    assert written[0] == "docs/reports/runs/base/run.json"
    inside = (workspace.root / written[0]).read_bytes()
    assert record([str(run), *flags]) == 0
    assert (workspace.root / written[0]).read_bytes() == inside
    folder.write("metrics.jsonl", b"{}\n")
    with pytest.raises(ToolError, match=f"^{url}/metrics.jsonl:1: lacks 'step'"):
        record([url, *flags])
    with pytest.raises(ToolError, match="holds no run.json: give the directory of a run"):
        record([f"{url}/sources", *flags])
    with pytest.raises(ToolError, match="no such bucket|holds no run.json"):
        record([f"{kind}://grug-none/run", *flags])


def test_a_run_in_a_bucket_writes_nowhere_else(root: Callable[[str], str], tmp_path: Path) -> None:
    url = root("gs")
    folder = storage.Folder(url)
    folder.write("run.json", b"{}")
    folder.write("sources/../../../escaped", b"hostile")
    assert "sources/../../../escaped" in folder.names()
    with pytest.raises(ToolError, match="is no file of a run: remove it"):
        record([url, "--root", str(Workspace(tmp_path).root)])


@pytest.mark.parametrize(
    "url", ["s3://b", "s3://b/", "s3://b/a/c/", "gs://b/a b", "gs://b", "a/b", "/a"]
)
@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:1"])
def test_tools_reach_what_runs_reach(url: str, endpoint: str, monkeypatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert buckets.spec(url) == storage.spec(url)
