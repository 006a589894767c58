"""Every kind of input is read; every kind of bad input is one line, or counted and skipped."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import json
import lzma
import os
import re
from codecs import BOM_UTF8
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tools.corpus.build import Settings, build
from tools.corpus.cli import main
from tools.corpus.documents import Piece, read_pieces, split_of
from tools.corpus.encode import Pace
from tools.corpus.errors import InputError
from tools.corpus.inputs import plan_inputs
from tools.corpus.journal import Journal, State
from tools.corpus.reading import read_document
from tools.corpus.records import read_records

GOOD_LINE = b'{"text": "some text"}\n'
TEXTS = [f"document {number} " + "of some length\n" * number for number in range(30)]


def lines(texts: list[str], field: str = "text") -> bytes:
    return b"".join(json.dumps({field: text, "id": 1}).encode() + b"\n" for text in texts)


def write(path: Path, texts: list[str], field: str = "text") -> Path:
    data = lines(texts, field)
    if path.name.endswith(".gz"):
        half = len(data) // 2  # two members, as written by parallel compressors
        data = gzip.compress(data[:half]) + gzip.compress(data[half:])
    elif path.name.endswith((".zst", ".zstd")):
        half = len(data) // 2
        compress = zstandard.ZstdCompressor().compress
        data = compress(data[:half]) + compress(data[half:])
    elif path.name.endswith(".parquet"):
        table = pyarrow.table({"id": range(len(texts)), field: texts})
        parquet.write_table(table, path, row_group_size=7)
        return path
    path.write_bytes(data)
    return path


COMPRESSED = ["{}", "{}.gz", "{}.zst", "{}.zstd"]
ENDINGS = [form.format(kind) for kind in ("jsonl", "ndjson", "json") for form in COMPRESSED]


def capitals(name: str) -> str:
    return f"{name[:-3]}{name[-3:].upper()}"


@pytest.mark.parametrize("change", [str, capitals])
@pytest.mark.parametrize("ending", [*ENDINGS, "parquet"])
def test_kinds_of_file_hold_the_same_documents(
    tmp_path: Path, tokenizer: Path, ending: str, change
) -> None:
    plain = write(tmp_path / "plain.jsonl", TEXTS)
    (tmp_path / "in").mkdir()
    other = write(tmp_path / "in" / f"other.{ending}", TEXTS, "body")
    other = other.rename(other.with_name(change(other.name))).parent
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
    assert plan_inputs([root]).skipped == {"other_ending": 1, "hidden": 2}
    assert plan_inputs([root]).notes == (
        f"{root}: left out files of other endings (1: .py 1); a quoted glob takes them as plain "
        "text",
    )
    plan = plan_inputs([f"{root}/**/*.py", root / "z.txt"])
    assert [file.name for file in plan.files] == ["b/x.py", "z.txt"]
    assert plan.sources == ("corpus/**/*.py", "z.txt")
    result = build(plan, tmp_path / "out", Settings(tokenizer, heldout_fraction=0))
    assert [source["documents"] for source in result.manifest["sources"]] == [1, 1]


def documents(tmp_path: Path, *sources: str | Path, **options) -> list[bytes]:
    """The documents of a store built from sources, in order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.save(str(tmp_path / "bytes.json.tokenizer"))
    settings = Settings(tmp_path / "bytes.json.tokenizer", heldout_fraction=0)
    out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    manifest = build(plan_inputs(sources), out, settings, **options).manifest
    return [
        tokenizer.decode(read_document(out, "train", index)[1:].tolist()).encode()
        for index in range(manifest["splits"]["train"]["documents"])
    ]


VALUES = [{"text": f"number {n}, \u00e9 ] }} [ {{", "n": [n, {"a": "]"}]} for n in range(40)]
LAYOUTS = {
    "array": json.dumps(VALUES),
    "array of a value per line": "[\n" + ",\n".join(map(json.dumps, VALUES)) + "\n]\n",
    "pretty array": json.dumps(VALUES, indent=4),
    "pretty values": "\n".join(json.dumps(value, indent=2) for value in VALUES),
    "lines": "\n".join(map(json.dumps, VALUES)),
    "lines of DOS": "\r\n".join(map(json.dumps, VALUES)) + "\r\n",
    "blank lines": "\n\n  \n" + "\n\n".join(map(json.dumps, VALUES)),
    "one line": " ".join(map(json.dumps, VALUES)),
}


ENDINGS_OF_LAYOUTS = [
    *((layout, ending) for layout in LAYOUTS for ending in ("json", "json.gz")),
    *((layout, "jsonl") for layout in LAYOUTS if layout not in ("pretty values", "one line")),
]


@pytest.mark.parametrize("mark", [b"", BOM_UTF8], ids=["", "marked"])
@pytest.mark.parametrize(("layout", "ending"), ENDINGS_OF_LAYOUTS)
def test_layouts_of_json(
    tmp_path: Path, ending: str, layout: str, mark: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.corpus.streams._JSON_BLOCK_BYTES", 7)
    data = mark + LAYOUTS[layout].encode()
    path = tmp_path / f"a.{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    (file,) = plan_inputs([path]).files
    records = list(read_records(file, "text"))
    assert [getattr(r, "data", r) for r in records] == [str(v["text"]).encode() for v in VALUES]
    for start, record in enumerate(records[:-1], start=1):  # as a resumed build reads on
        rest = read_records(file, "text", record.number + 1, record.cursor)
        assert [r.number for r in rest] == [r.number for r in records[start:]]


@pytest.mark.parametrize(
    ("data", "reason", "message", "kept"),
    [
        (b'[{"text": "a"}, {"text": "b"', "invalid_json", "record 2: not JSON", 1),
        (b'[{"text": "a"} {"text": "b"}]', "invalid_json", "no comma between two elements", 1),
        (b'[{"text": "a"}] {"text": "b"}', "invalid_json", "text after the array", 1),
        (b'[{"text": "a"},', "invalid_json", "record 2: not JSON", 1),
        (b'[{"text": "a"}', "invalid_json", "the array has no end", 1),
        (b'[{"text": "a"}, {"text": "\xff"}]', "invalid_utf8", "record 2: not UTF-8", 1),
        (b'["a", {"text": "b"}]', "missing_field", "it is no JSON object", 1),
        (b'{"data": [\n{"text": "a"}]}', "missing_field", "none of its fields is a string", 0),
        (b'{"body": "a", "n": 1, "title": "b"}', "missing_field", "('body', 'title')", 0),
        (b'[{"text": "a"}, {"text": "' + b"x" * 300 + b'"}]', "invalid_json", "more than 200", 1),
    ],
)
def test_bad_json_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str, message: str, kept
) -> None:
    monkeypatch.setattr("tools.corpus.streams._JSON_BLOCK_BYTES", 4)
    monkeypatch.setattr("tools.corpus.records.MAX_RECORD_BYTES", 200)
    (tmp_path / "a.json").write_bytes(data)
    (tmp_path / "b.txt").write_text("another")
    sources = [tmp_path / "a.json", tmp_path / "b.txt"]
    with pytest.raises(InputError, match=rf"^a\.json: .*{re.escape(message)}.*--skip-bad"):
        documents(tmp_path, *sources)
    assert documents(tmp_path, *sources, skip_bad=True)[kept:] == [b"another"]
    manifest = json.loads((tmp_path / "out0" / "manifest.json").read_bytes())
    assert manifest["skipped"] == {reason: 1}


def test_a_mark_at_the_beginning_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "é word" * 50 + "\ufeff"
    (tmp_path / "a.txt").write_bytes(BOM_UTF8 + text.encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(BOM_UTF8 + f"b{text}".encode()))
    sources = [tmp_path / "a.txt", tmp_path / "b.txt.gz"]
    expected = [text.encode(), f"b{text}".encode()]
    assert documents(tmp_path, *sources) == expected
    splits = [piece.split for piece in all_pieces(sources)]
    monkeypatch.setattr("tools.corpus.records.MAX_RECORD_BYTES", 1 << 9)  # a.txt is streamed
    assert documents(tmp_path, sources[0]) == expected[:1]
    assert [piece.split for piece in all_pieces(sources[:1])] == splits[:1]
    assert splits == [split_of(hashlib.sha256(data).digest(), 0.5) for data in expected]


def all_pieces(sources: list[Path]) -> list[Piece]:
    plan = plan_inputs(sources)
    pieces = read_pieces(plan, text_field="text", heldout_fraction=0.5, skip_bad=False)
    return [piece for piece in pieces if isinstance(piece, Piece)]


@pytest.mark.parametrize("ending", ["txt.gz", "txt.zst", "TXT.GZ"])
def test_compressed_text_is_a_document(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "é a line\n".encode() * 1000
    compress = gzip.compress if ending.lower().endswith("gz") else zstandard.compress
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"a.{ending}"
    path.write_bytes(compress(text))
    assert documents(tmp_path, path.parent) == [text]
    path.write_bytes(compress(text)[:-9])
    with pytest.raises(InputError, match=rf"a\.{ending}: unreadable or cut short"):
        documents(tmp_path, path)
    monkeypatch.setattr("tools.corpus.records.MAX_RECORD_BYTES", 1 << 10)
    path.write_bytes(compress(text))
    with pytest.raises(InputError, match=rf"a\.{ending}: holds more than 0 MiB; decompress it"):
        documents(tmp_path, path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", gzip.compress(GOOD_LINE), "is compressed with gzip; name it a.jsonl.gz"),
        ("a.jsonl", zstandard.compress(GOOD_LINE), "compressed with zstd; name it a.jsonl.zst"),
        ("a.txt", gzip.compress(b"text"), "is compressed with gzip; name it a.txt.gz"),
        ("a.json.gz", gzip.compress(gzip.compress(GOOD_LINE)), "compressed with gzip"),
        ("a.txt", bz2.compress(b"text"), "is compressed with bzip2; decompress it"),
        ("a.md.xz", lzma.compress(b"text"), "is compressed with xz; decompress it"),
        ("a.jsonl", '{"text": "é"}'.encode("utf-16"), "is UTF-16; convert it with iconv"),
        ("a.txt", "é text".encode("utf-16-be"), "not UTF-8 at byte 1"),
        ("a.parquet.gz", gzip.compress(b"PAR1"), "is compressed with gzip"),
        ("a.jsonl.gz", GOOD_LINE, "unreadable or cut short"),
        ("a.jsonl.gz", b"", "is empty, so its copy was cut short"),
        ("a.parquet", b"", "is empty, so its copy was cut short"),
    ],
)
def test_what_a_name_does_not_say(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "b.txt").write_text("another")
    with pytest.raises(InputError, match=rf"^{name}: .*{message}.*--skip-bad"):
        documents(tmp_path, tmp_path / name)
    assert documents(tmp_path, tmp_path / name, tmp_path / "b.txt", skip_bad=True) == [b"another"]


def test_other_text_that_begins_like_a_format(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"BZh is how bzip2 begins")
    assert documents(tmp_path, tmp_path / "a.txt") == [b"BZh is how bzip2 begins"]


def test_empty_files_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jsonl", "b.json", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.txt").write_text("text")
    assert documents(tmp_path, *sorted(tmp_path.glob("[abcd].*"))) == [b"text"]
    manifest = json.loads((tmp_path / "out0/manifest.json").read_bytes())
    assert manifest["skipped"] == {"empty": 3}


def test_a_hugging_face_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Snapshots hold links to blobs; the layout of huggingface_hub."""
    cache = tmp_path / "hub/datasets--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("2" * 40)
    for revision, number in (("1", 1), ("2", 1), ("2", 2)):
        blob = cache / f"blobs/{number}{'f' * 63}"
        blob.write_bytes(lines([f"text {number}"]))
        folder = cache / f"snapshots/{revision * 40}/data"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jsonl").symlink_to(os.path.relpath(blob, folder))
    snapshot = cache / "snapshots" / ("2" * 40)
    expected = [b"text 1", b"text 2"]
    assert documents(tmp_path, snapshot) == expected
    assert documents(tmp_path, snapshot / "data") == expected
    assert documents(tmp_path, f"{cache}/snapshots/2*/**/*.jsonl") == expected
    assert documents(tmp_path, f"{snapshot}/data/2.jsonl") == [b"text 2"]
    assert documents(tmp_path, cache) == expected  # of two revisions that share a file
    assert plan_inputs([cache]).skipped["link_to_the_same"] == 1
    told = "".join(plan_inputs([cache]).notes)
    assert "left out links to files read under another name (1)" in told
    secret = tmp_path / "hub/secret.jsonl"
    secret.write_bytes(lines(["secret"]))
    (snapshot / "data/3.jsonl").symlink_to(secret)
    assert documents(tmp_path, snapshot) == expected
    assert plan_inputs([snapshot]).skipped == {"link_outside": 1}


def test_a_directory_of_links_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "in/a.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "in/b.txt").symlink_to("b.txt")  # a loop
    (tmp_path / "in/c.txt").symlink_to("nothing")
    for source in (tmp_path / "in", f"{tmp_path}/in/*.txt"):
        with pytest.raises(
            InputError, match=r"left out links that lead out of it \(1\).*links to nothing \(2\)"
        ):
            plan_inputs([source])
    with pytest.raises(InputError, match=r"c\.txt: a link to nothing, which is not there"):
        plan_inputs([tmp_path / "in/c.txt"])
    with pytest.raises(InputError, match=r"b\.txt: a link to b\.txt, which is not there"):
        plan_inputs([tmp_path / "in/b.txt"])


def test_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in/closed").mkdir(parents=True)
    (tmp_path / "in/a.txt").write_text("text")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.fspath(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="in/closed: Permission denied; make it readable"):
        plan_inputs([tmp_path / "in"])


def test_what_is_left_out_or_guessed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name in ("a.txt", "b.md", "c.md", "LICENSE", ".hidden.txt", "d.arrow"):
        (root / name).write_text(f"{name} the text of a file that is here\n" * 20)
    flags = ["--vocab-size", "270", "--heldout-fraction", "0"]
    assert main(["build", str(root), "--out", str(tmp_path / "1"), *flags]) == 0
    told = capsys.readouterr()
    assert "left out files of other endings (4: .md 2, " in told.err
    assert "skipped     hidden: 1\n" in told.out and "other_ending: 4\n" in told.out
    assert main(["build", f"{root}/*.md", "--out", str(tmp_path / "2"), *flags]) == 0
    told = capsys.readouterr().err
    assert "*.md: reads files of other endings (2: .md 2) as plain text" in told


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
    "missing_field": (
        b'{"body": "x"}\n',
        "record 2: has no field 'text'; --text-field names another",
    ),
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
    assert "no file to read in this directory ends in" in error(tmp_path / "empty")
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
