"""A store gives back every document, byte for byte, and is the same however it was built."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

import tools.corpus.__main__  # noqa: F401  (run as a process below)
from tools.corpus.build import Pace, Settings, build
from tools.corpus.cli import main
from tools.corpus.documents import HELDOUT, SLICE_BYTES, TRAIN, slices, split_of
from tools.corpus.inputs import plan_inputs
from tools.corpus.journal import Journal, State
from tools.corpus.reading import open_array, read_document, verify
from tools.corpus.tokenizer import BOS, load_encoder


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def decode(store: Path) -> dict[str, list[bytes]]:
    """Every document of each split, decoded."""
    tokenizer = Tokenizer.from_file(str(store / "tokenizer.json"))
    manifest = verify(store)
    return {
        split: [
            tokenizer.decode(
                read_document(store, split, index)[1:].tolist(), skip_special_tokens=False
            ).encode()
            for index in range(manifest["splits"][split]["documents"])
        ]
        for split in ("train", "heldout")
    }


def by_split(texts: list[str], fraction: float) -> dict[str, list[bytes]]:
    """The documents each split should hold, in order."""
    splits: dict[str, list[bytes]] = {"train": [], "heldout": []}
    for data in (text.encode() for text in texts if text):
        held_out = int(hashlib.sha256(data).hexdigest()[:16], 16) / 2**64 < fraction
        splits["heldout" if held_out else "train"].append(data)
    return splits


def test_every_document_decodes_to_its_bytes(tmp_path: Path, words: str) -> None:
    texts = [f"{number}: {words[number:]}\r\n\x00\t" for number in range(50)]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    settings = Settings(vocab_size=320, heldout_fraction=0.3, shard_length=5000)
    result = build(plan_inputs([source]), tmp_path / "out", settings)
    assert decode(result.store) == by_split(texts, 0.3)
    assert result.manifest["splits"]["heldout"]["documents"] > 5
    assert len(list((result.store / "train/tokens/c").iterdir())) > 3
    assert not (tmp_path / "out.partial").exists()
    assert not list(result.store.rglob("*.__lock"))
    first = read_document(result.store, "train", 0)
    assert first[0] == 0 and first.dtype == np.uint16


def test_token_bytes_add_up_to_the_documents(tmp_path: Path, words: str, tokenizer: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [words, "ab\n", words[5:]])
    store = build(
        plan_inputs([source]), tmp_path / "out", Settings(tokenizer, heldout_fraction=0)
    ).store
    sizes = open_array(store / "token_bytes").read().result()
    assert sizes[0] == 0
    for index, text in enumerate([words, "ab\n", words[5:]]):
        assert sizes[read_document(store, "train", index)].sum() == len(text.encode())


def byte_level(prefix: bool = False) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.add_special_tokens([BOS])
    return tokenizer


def normalized() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def stripping() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<t>", lstrip=True, rstrip=True)])
    return tokenizer


def pieces_of_words(prepend: bool = False) -> Tokenizer:
    """Not byte-level: spaces are "▁", and other characters of no token are bytes."""
    vocab = {character: index for index, character in enumerate("▁abcdefghijklmnopqrstuvwxyz")}
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prepend else replace
    )
    tokenizer.add_special_tokens([BOS])
    return tokenizer


@pytest.mark.parametrize(
    ("make", "inexact"),
    [
        (byte_level, 0),
        (normalized, 1),
        (lambda: byte_level(prefix=True), 5),
        (stripping, 1),
        (pieces_of_words, 1),  # "▁" itself is taken for a space
        (lambda: pieces_of_words(prepend=True), 6),
    ],
    ids=["plain", "NFC", "prefix space", "stripping", "words", "prepended"],
)
def test_bytes_are_counted_where_tokens_do_not_tell_them(
    tmp_path: Path, make, inexact: int, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["e\u0301 a", "b  <t>  c", " of\u2581it", "x" * 50, "語 z", "last"]
    make().save(str(tmp_path / "t.json"))
    settings = Settings(tmp_path / "t.json", heldout_fraction=0)
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    store = build(plan_inputs([source]), tmp_path / "out", settings).store
    manifest = verify(store)  # a fresh store is sound, whatever its tokenizer does
    split = manifest["splits"]["train"]
    assert split["bytes"] == sum(len(text.encode()) for text in texts)
    assert manifest["exact_token_bytes"] == (inexact == 0) == ("inexact_documents" not in split)
    assert main(["inspect", str(store), "--verify"]) == 0
    assert (f"{inexact} of 6 documents do not spell" in capsys.readouterr().out) == (inexact > 0)
    if inexact:
        assert split["inexact_documents"] == inexact
        sizes = open_array(store / "train/text_bytes").read().result()
        assert sizes.tolist() == [len(text.encode()) for text in texts]
    else:
        assert not (store / "train/text_bytes").exists()


def test_bytes_of_a_long_document_are_counted_across_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digests
) -> None:
    normalized().save(str(tmp_path / "t.json"))
    texts = ["first", "e\u0301 plain words " * 20_000, "plain words " * 20_000]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    settings, pace = Settings(tmp_path / "t.json", heldout_fraction=0), Pace(1, 1, 1)
    whole = build(plan_inputs([source]), tmp_path / "whole", settings, pace=pace)
    assert whole.manifest["splits"]["train"]["inexact_documents"] == 1
    commit, commits = Journal.commit, iter([4, 4, 99])

    def build_a_part() -> None:
        left = next(commits)

        def commit_or_stop(journal: Journal, state: State) -> None:
            nonlocal left
            commit(journal, state)
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "commit", commit_or_stop)
        build(plan_inputs([source]), tmp_path / "out", settings, pace=pace)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            build_a_part()
    build_a_part()
    assert digests(tmp_path / "out") == digests(whole.store)
    sizes = open_array(whole.store / "train/text_bytes").read().result()
    assert sizes.tolist() == [len(text.encode()) for text in texts]


def test_same_bytes_whatever_the_cores_and_batches(
    tmp_path: Path, words: str, run, digests
) -> None:
    texts = [words[number:] * (1 + number % 3) for number in range(60)]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    result = []
    for threads in ("1", "7"):
        out = tmp_path / f"threads{threads}"
        flags = ["--out", out, "--vocab-size", "320", "--heldout-fraction", "0.2"]
        process = run("-m", "tools.corpus", "build", source, *flags, RAYON_NUM_THREADS=threads)
        assert process.returncode == 0, process.stderr
        result.append(digests(out))
    settings = Settings(vocab_size=320, heldout_fraction=0.2)
    for index, pace in enumerate([Pace(1, 1, 1), Pace(30_000, 1000, 70_000)]):
        out = tmp_path / f"pace{index}"
        result.append(digests(build(plan_inputs([source]), out, settings, pace=pace).store))
    assert all(other == result[0] for other in result[1:])


def test_manifest_holds_no_place_and_no_clock(tmp_path: Path, words: str) -> None:
    for place in ("here", "elsewhere"):
        (tmp_path / place).mkdir()
        write_jsonl(tmp_path / place / "a.jsonl", [words])
        source = tmp_path / place / "a.jsonl"
        build(plan_inputs([source]), tmp_path / place / "out", Settings(vocab_size=300))
    manifests = [(tmp_path / p / "out/manifest.json").read_text() for p in ("here", "elsewhere")]
    assert manifests[0] == manifests[1]
    assert str(tmp_path) not in manifests[0]


def test_adding_documents_moves_none_between_splits(
    tmp_path: Path, words: str, tokenizer: Path
) -> None:
    texts = [f"{number} {words[:100]}" for number in range(80)]
    settings = Settings(tokenizer, heldout_fraction=0.25)
    few = build(
        plan_inputs([write_jsonl(tmp_path / "few.jsonl", texts[:40])]), tmp_path / "few", settings
    )
    many = build(
        plan_inputs([write_jsonl(tmp_path / "many.jsonl", texts[::-1])]),
        tmp_path / "many",
        settings,
    )
    before, after = decode(few.store), decode(many.store)
    assert before["heldout"] and set(before["heldout"]) < set(after["heldout"])
    assert set(before["train"]) < set(after["train"])


@pytest.mark.parametrize(
    ("first", "split"), [(0, HELDOUT), (0x3F, HELDOUT), (0x40, TRAIN), (0xFF, TRAIN)]
)
def test_split_by_the_first_eight_bytes(first: int, split: int) -> None:
    assert split_of(bytes([first]) + bytes(31), 0.25) == split
    assert split_of(bytes([first]) + b"\xff" * 7 + bytes(24), 0.25) == split


@pytest.mark.parametrize(
    "text",
    [
        "ab cd e_f(1):\n      x = 'y z'\n" * 12_000,
        "word" * 100_000,
        "語" * 200_000,
        " \n" * 150_000,
    ],
    ids=["code", "no spaces", "wide", "blank"],
)
def test_a_long_document_in_slices(
    tmp_path: Path, tokenizer: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory and streamed alike; where slices end at words, tokens are those of the whole."""
    source = tmp_path / "long.txt"
    source.write_bytes(text.encode())
    stores = []
    for name, limit in (("memory", 64 << 20), ("streamed", 1 << 10)):
        monkeypatch.setattr("tools.corpus.records.MAX_RECORD_BYTES", limit)
        settings = Settings(tokenizer, heldout_fraction=0)
        pace = Pace(1 << 16, 10, 1 << 17)
        stores.append(build(plan_inputs([source]), tmp_path / name, settings, pace=pace).store)
    tokens = [read_document(store, "train", 0) for store in stores]
    assert (tokens[0] == tokens[1]).all()
    assert decode(stores[0])["train"] == [text.encode()]
    with source.open("rb") as stream:
        sizes = [len(data) for data in slices(stream)]
    assert len(sizes) > 1 and max(sizes) <= 4 * SLICE_BYTES + 4
    if " c" in text:
        encoder = load_encoder(tokenizer.read_text(encoding="utf-8"), "tokenizer")
        assert (tokens[0][1:] == encoder.tokens(encoder.encode([text]))[0]).all()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
@example(texts=[f"before {BOS} after", BOS, f"{BOS}{BOS}\n"])
@example(texts=["\ufeff\u2028\r\n\x85", "a\x00b", "\U0010ffff ̈"])
def test_any_text_round_trips(texts: list[str], tokenizer: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = write_jsonl(directory / "a.jsonl", ["always one", *texts])
        settings = Settings(tokenizer, heldout_fraction=0)
        store = build(plan_inputs([source]), directory / "out", settings).store
        assert decode(store)["train"] == [t.encode() for t in ["always one", *texts] if t]
