"""What a tool says of an argument that is missing or broken: one line that names its place."""

import importlib
import json
from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.ledger.ledger import LEDGER

ROOT = "name the workspace with --root"
# (module of the program, arguments, what the line says); all paths are in an empty directory but
# for `dir`, `text`, `bytes`, `cut.json` (half of an object), `ctrl/run.json` and `old/run.json`.
SAYS = [
    (
        "runs.record",
        "ctrl",
        "ctrl/run.json:1: is no JSON: Invalid control character at column 9; put",
    ),
    ("runs.record", "old", "old/run.json:1: variant is not what a run writes: put the run's own"),
    ("runs.record", "dir", "dir/run.json: is not there: give the directory of a run"),
    ("runs.record", "text", "text/run.json: is not there: give the directory of a run"),
    ("runs.record", "nothing", "nothing/run.json: is not there: give the directory of a run"),
    ("runs.record", "dir --root nothing", f"nothing: is no directory; {ROOT}"),
    ("runs.claim", "a --against b --root text", f"text: is no directory; {ROOT}"),
    ("runs.__main__", "check --root nothing", f"nothing: is no directory; {ROOT}"),
    ("speedrun.__main__", "check --root nothing", f"nothing: is no directory; {ROOT}"),
    ("speedrun.page", "--root nothing --out o", f"nothing: is no directory; {ROOT}"),
    ("isolation.__main__", "links a --root nothing", f"nothing: is no directory; {ROOT}"),
    ("isolation.__main__", "scan a nothing", "nothing: No such file or directory; name files"),
    ("isolation.__main__", "scan a dir", "dir: Is a directory; name files that can be read"),
    ("bundle.sample", "o nothing", "nothing: cannot be read: No such file or directory"),
    ("bundle.sample", "o bytes", "bytes:1: is not UTF-8"),
    ("bundle.sample", "dir text", "dir: Is a directory; choose another OUT"),
    (
        "bundle.__main__",
        "specs nothing --out o",
        "nothing/bundle.json: cannot be read: No such file",
    ),
    (
        "diff.__main__",
        "nothing dir",
        "nothing: no such file or directory; for one that was deleted",
    ),
    ("diff.__main__", "dir dir --out dir", "dir: Is a directory; choose another --out"),
    (
        "diff.__main__",
        "dir dir --buckets cut.json",
        "cut.json:1: is no JSON: Expecting value at col",
    ),
    ("diff.closest", "nothing dir", "nothing: no such file or directory; for one that was deleted"),
    ("review.__main__", "pack --summary bytes --out o", "bytes:1: is not UTF-8"),
    ("site.links", "nothing", "nothing: holds no index.html: build the site first"),
    ("site.splice", "nothing dir", "nothing: holds no index.html: build the site first"),
    ("site.splice", "text dir", "text: holds no index.html: build the site first"),
    (
        "variants.__main__",
        "list cut.json x",
        "cut.json:1: is no JSON: Expecting value at column 7; ",
    ),
    ("reference.__main__", "--root dir", f"dir: holds no pants.toml; {ROOT}"),
    (
        "corpus.cli",
        "inspect dir",
        "dir: no manifest.json, so no complete token store; build one, or",
    ),
    ("corpus.cli", "inspect cut", "cut/manifest.json: is no JSON (Expecting value"),
    ("corpus.cli", "inspect short", "short/manifest.json: lacks bos_id; copy the store again, or"),
    (
        "corpus.cli",
        "build text --out text",
        "text: exists and is no token store; choose another --out",
    ),
    (
        "corpus.cli",
        "build text --out text/o",
        "cannot be written; choose another --out",
    ),
    (
        "corpus.cli",
        "build text --out o --tokenizer dir",
        "dir: not a readable tokenizer.json (Is a",
    ),
    (
        "corpus.cli",
        "build text --out o --tokenizer bytes",
        "bytes: not a readable tokenizer.json (it",
    ),
    ("corpus.cli", "build text --out o --tokenizer cut.json", "cut.json: not a tokenizer.json ("),
    (
        "corpus.cli",
        "default --cache-dir text",
        "cannot be written; name another directory in GRUG_C",
    ),
]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dir", "ctrl", "old", "cut", "short"):
        (tmp_path / name).mkdir()
    for name, content in {
        "text": b"some text\n",
        "bytes": b"\xff\xfe\x00",
        "cut.json": b'{"a": ',
        "ctrl/run.json": b'{"a": "x\x01"}',
        "old/run.json": b'{"schema_version": 3}',
        "cut/manifest.json": b'{"a": ',
        "short/manifest.json": b'{"schema_version": 1}',
        LEDGER: b"# Ledger\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(("module", "arguments", "says"), SAYS)
def test_a_fault_is_one_line_that_names_it(module, arguments, says, places, capsys):
    before = {p: p.read_bytes() for p in places.rglob("*") if p.is_file()}
    try:
        assert importlib.import_module(f"tools.{module}").main(arguments.split()) in (1, 2)
        told = capsys.readouterr()
        lines = [
            line for line in told.err.splitlines() if not line.startswith(("hashing", "text: "))
        ]
        assert "Traceback" not in told.err
    except ToolError as error:  # which exit_with prints
        lines = str(error).splitlines()
    assert len(lines) == 1 and says in lines[0], lines
    assert {p: p.read_bytes() for p in places.rglob("*") if p.is_file()} == before


def test_a_broken_summary_is_anothers(places):
    from tools.runs.record import _is_another

    data = json.dumps({"a": 1}).encode()
    assert _is_another(Path("cut.json"), data) and not _is_another(Path("nothing"), data)
