"""Every kind of input is read; every kind of bad input is one line, or counted and skipped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from tools.corpus.build import Settings, build
from tools.corpus.cli import main
from tools.corpus.encode import Pace
from tools.corpus.errors import InputError
from tools.corpus.inputs import plan_inputs
from tools.corpus.journal import Journal, State
from tools.corpus.reading import read_document

TEXTS = [f"document {number} " + "of some length\n" * number for number in range(30)]


def lines(texts: list[str], field: str = "text") -> bytes:
    return b"".join(json.dumps({field: text, "id": 1}).encode() + b"\n" for text in texts)


def write(path: Path, texts: list[str], field: str = "text") -> Path:
    data = lines(texts, field)
    if path.name.endswith(".gz"):
        half = len(data) // 2  # two members, as written by parallel compressors
        data = gzip.compress(data[:half]) + gzip.compress(data[half:])
    elif path.name.endswith(".zst"):
        half = len(data) // 2
        compress = zstandard.ZstdCompressor().compress
        data = compress(data[:half]) + compress(data[half:])
    elif path.name.endswith(".parquet"):
        table = pyarrow.table({"id": range(len(texts)), field: texts})
        parquet.write_table(table, path, row_group_size=7)
        return path
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_kinds_of_file_hold_the_same_documents(
    tmp_path: Path, tokenizer: Path, ending: str
) -> None:
    plain = write(tmp_path / "plain.jsonl", TEXTS)
    other = write(tmp_path / f"other.{ending}", TEXTS, "body")
    settings = Settings(tokenizer)
    expected = build(plan_inputs([plain]), tmp_path / "expected", settings).manifest
    result = build(
        plan_inputs([other]), tmp_path / "out", Settings(tokenizer, text_field="body")
    ).manifest
    assert result["digest"] == expected["digest"]
    assert result["splits"]["train"]["documents"] + result["splits"]["heldout"]["documents"] == 30


def test_directories_and_globs_in_order(tmp_path: Path, tokenizer: Path) -> None:
    root = tmp_path / "corpus"
    (root / "b").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for name in ("z.txt", "b/a.txt", "b/x.py", ".hidden/no.txt", "b/.no.txt"):
        (root / name).write_text(name)
    names = [file.name for file in plan_inputs([root]).files]
    assert names == ["b/a.txt", "z.txt"]
    assert plan_inputs([root]).skipped == {"other_ending": 1}
    plan = plan_inputs([f"{root}/**/*.py", root / "z.txt"])
    assert [file.name for file in plan.files] == ["b/x.py", "z.txt"]
    assert plan.sources == ("corpus/**/*.py", "z.txt")
    result = build(plan, tmp_path / "out", Settings(tokenizer, heldout_fraction=0))
    assert [source["documents"] for source in result.manifest["sources"]] == [1, 1]


def test_links_out_of_a_directory_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "corpus", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (root / "a.txt").write_text("a")
    (root / "b.txt").symlink_to(outside / "secret.txt")
    (root / "c").symlink_to(outside)
    (root / "d.txt").symlink_to("missing")
    plan = plan_inputs([root])
    assert [file.name for file in plan.files] == ["a.txt"]
    assert plan.skipped == {"link_outside": 1, "linked_directory": 1, "not_a_file": 1}
    assert [file.name for file in plan_inputs([f"{root}/*.txt"]).files] == ["a.txt"]
    assert plan_inputs([root / "b.txt"]).files[0].name == "b.txt"  # named by the user


GOOD = lines(["good text"])
BAD = {
    "invalid_utf8": (b'{"text": "\xff"}\n', "record 2: not UTF-8 at byte 10"),
    "half_surrogate": (b'{"text": "\\ud800"}\n', "record 2: field 'text' holds half a surrogate"),
    "invalid_json": (b'{"text": \n', "record 2: not JSON"),
    "deep_json": (b"[" * 100_000 + b"\n", "record 2: not JSON"),
    "no_object": (b"[1]\n", "record 2: has no field 'text'"),
    "missing_field": (b'{"body": "x"}\n', "record 2: has no field 'text'.*--text-field"),
    "not_a_string": (b'{"text": 3}\n', "record 2: field 'text' is int, not a string"),
    "null": (b'{"text": null}\n', "record 2: field 'text' is NoneType, not a string"),
}
REASONS = {
    "half_surrogate": "invalid_utf8",
    "deep_json": "invalid_json",
    "no_object": "missing_field",
    "null": "not_a_string",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_json_records(tmp_path: Path, tokenizer: Path, name: str) -> None:
    bad, message = BAD[name]
    source = tmp_path / "a.jsonl"
    source.write_bytes(GOOD + bad + GOOD)
    settings = Settings(tokenizer, heldout_fraction=0)
    with pytest.raises(InputError, match=rf"a\.jsonl: {message}.*--skip-bad"):
        build(plan_inputs([source]), tmp_path / "out", settings)
    result = build(plan_inputs([source]), tmp_path / "out", settings, skip_bad=True)
    assert result.manifest["skipped"] == {REASONS.get(name, name): 1}
    assert result.manifest["splits"]["train"]["documents"] == 2
    assert len(result.messages) == 1


def test_a_record_too_long_to_hold(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.corpus.records.MAX_RECORD_BYTES", 1 << 20)
    source = tmp_path / "a.jsonl"
    source.write_bytes(GOOD + lines(["x" * (5 << 20)]) + GOOD)
    settings = Settings(tokenizer, heldout_fraction=0)
    with pytest.raises(InputError, match="record 2: longer than 1 MiB"):
        build(plan_inputs([source]), tmp_path / "out", settings)
    result = build(plan_inputs([source]), tmp_path / "out", settings, skip_bad=True)
    assert result.manifest["skipped"] == {"too_long": 1}
    assert result.manifest["splits"]["train"]["documents"] == 2


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst", "parquet"])
def test_truncated_files(tmp_path: Path, tokenizer: Path, ending: str) -> None:
    source = write(tmp_path / f"a.{ending}", TEXTS * 20)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 4 // 5])
    (tmp_path / "b.txt").write_text("another")
    inputs = plan_inputs([source, tmp_path / "b.txt"])
    settings = Settings(tokenizer, heldout_fraction=0)
    message = "not readable as Parquet" if ending == "parquet" else "unreadable or cut short"
    with pytest.raises(InputError, match=rf"a\.{ending}: record \d+: {message}.*--skip-bad"):
        build(inputs, tmp_path / "out", settings)
    result = build(inputs, tmp_path / "out", settings, skip_bad=True)
    assert list(result.manifest["skipped"].values()) == [1]
    last = result.manifest["splits"]["train"]["documents"] - 1
    assert read_document(result.store, "train", last).tolist()[0] == 0
    assert result.manifest["sources"][1]["documents"] == 1


@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_skipping_a_cut_file_counts_once_when_interrupted(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    source = write(tmp_path / "a.jsonl.gz", TEXTS[:3])
    source.write_bytes(source.read_bytes()[:-30])
    for name in ("b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    inputs = plan_inputs([source, tmp_path / "b.txt", tmp_path / "c.txt"])
    settings = Settings(tokenizer, heldout_fraction=0)
    whole = build(inputs, tmp_path / "whole", settings, skip_bad=True).manifest
    assert whole["splits"]["train"]["documents"] == 2 + 2
    commit = Journal.commit

    def commit_and_stop(journal: Journal, state: State) -> None:
        commit(journal, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "commit", commit_and_stop)
    stops = 0
    while True:
        try:
            pace = Pace(1 << 20, pieces, 1)
            result = build(inputs, tmp_path / "out", settings, pace=pace, skip_bad=True)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 0 and result.resumed
    assert result.manifest == whole and sum(whole["skipped"].values()) == 1


def test_parquet_of_other_columns(tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": [1], "body": [b"\xff"]}), path)
    with pytest.raises(InputError, match="no column 'text'; --text-field may be one of id, body"):
        build(plan_inputs([path]), tmp_path / "out", Settings(tokenizer))
    with pytest.raises(InputError, match="record 1: field 'body' is bytes, not a string"):
        build(plan_inputs([path]), tmp_path / "out", Settings(tokenizer, text_field="body"))


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a command which must fail with exit code 2 prints."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and captured.err.endswith(errors[0] + "\n"), captured.err
    return errors[0]


def test_one_line_for_each_mistake(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.txt").write_text("")
    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    good = tmp_path / "good.txt"
    good.write_text(words)

    def error(source: str | Path, *flags: str | Path) -> str:
        return fails(capsys, "build", source, "--out", out, *flags)

    assert "no such file" in error(tmp_path / "missing.txt")
    assert "no file matches" in error(f"{tmp_path}/*.nothing")
    assert "no file in this directory ends in" in error(tmp_path / "empty")
    assert "no training text" in error(tmp_path / "blank.txt")
    assert "no training text" in error(tmp_path / "blank.txt", "--tokenizer", tokenizer)
    assert "bad.txt: not UTF-8 at byte 2" in error(tmp_path / "bad.txt")
    assert "has at least 257" in error(good, "--vocab-size", "200")
    assert "pass --vocab-size" in error(good, "--vocab-size", "5000")
    assert "below 1" in error(good, "--heldout-fraction", "1")
    assert "not a tokenizer.json" in error(good, "--tokenizer", good)
    assert "not a readable tokenizer.json" in error(good, "--tokenizer", tmp_path / "none")
    assert "no special token <x>" in error(good, "--tokenizer", tokenizer, "--bos-token", "<x>")
    assert fails(capsys, "build", good, good, "--out", out).count("named by") == 1
    assert not out.exists() and not out.with_name("out.partial").exists()


def test_a_long_text_file_is_checked_in_a_stream(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.corpus.records.MAX_RECORD_BYTES", 1 << 10)
    source = tmp_path / "a.txt"
    source.write_bytes(b"word " * (1 << 19) + b"\xff")
    with pytest.raises(InputError, match="a.txt: not UTF-8 near byte 2621440"):
        build(plan_inputs([source]), tmp_path / "out", Settings(tokenizer))


def test_files_that_change_while_they_are_read(tmp_path: Path, tokenizer: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(GOOD)
    plan = plan_inputs([source])
    source.write_bytes(GOOD * 2)
    with pytest.raises(Exception, match="changed while it was read.*--restart"):
        build(plan, tmp_path / "out", Settings(tokenizer))
