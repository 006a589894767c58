"""Tokenizers: ours, other byte-level ones, and those that are not."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tools.corpus.errors import InputError
from tools.corpus.tokenizer import BOS, Sample, load_encoder, train_tokenizer


def test_training_is_repeatable(tmp_path: Path, words: str, run) -> None:
    texts = [f"{words[index : index + 400]} {index:x}" for index in range(300)]
    expected = train_tokenizer(texts, 500)
    assert expected == train_tokenizer(texts[::-1], 500)
    source = tmp_path / "texts.json"
    source.write_text(json.dumps(texts))
    code = (
        "import json, sys; from tools.corpus.tokenizer import train_tokenizer\n"
        "sys.stdout.write(train_tokenizer(json.load(open(sys.argv[1])), 500))"
    )
    for threads in ("1", "5"):
        result = run("-c", code, source, RAYON_NUM_THREADS=threads, PYTHONIOENCODING="utf-8")
        assert result.stdout == expected, result.stderr


def test_the_document_token_in_a_text_is_plain_text(tokenizer: Path) -> None:
    encoder = load_encoder(tokenizer.read_text(encoding="utf-8"), "ours")
    ids = encoder.tokens(encoder.encode([f"a{BOS}b"]))[0]
    assert encoder.bos_id == 0 and 0 not in ids
    assert encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False) == f"a{BOS}b"


def test_the_sample_depends_on_the_set_alone() -> None:
    pieces = [f"piece {number} ".encode() * (1 + number % 9) for number in range(500)]
    chosen = set()
    for seed in range(5):
        random.Random(seed).shuffle(pieces)
        sample = Sample(20_000)
        for piece in pieces:
            sample.add(piece)
        texts = list(sample.texts())
        assert 10_000 < sum(map(len, texts)) + 160 * len(texts) <= 20_000
        chosen.add(tuple(texts))
    assert len(chosen) == 1


def byte_level(special: list[str], **changes: object) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(sorted(pre_tokenizers.ByteLevel.alphabet()))
    return json.dumps(json.loads(tokenizer.to_str()) | changes)


def test_choosing_the_document_token() -> None:
    assert load_encoder(byte_level(["<pad>", "<s>"]), "t").bos_id == 1
    assert load_encoder(byte_level(["<pad>", "<s>"]), "t", "<pad>").bos_id == 0
    with pytest.raises(InputError, match=r"no known document token.*--bos-token.*\[CLS\], <pad>"):
        load_encoder(byte_level(["[CLS]", "<pad>"]), "t")
    with pytest.raises(InputError, match="no special token <x>.*<pad>, <s>"):
        load_encoder(byte_level(["<pad>", "<s>"]), "t", "<x>")


def test_slices_only_where_they_change_nothing() -> None:
    assert load_encoder(byte_level([BOS]), "t").sliced
    assert load_encoder(byte_level([BOS], normalizer={"type": "NFC"}), "t").sliced
    assert not load_encoder(byte_level([BOS], normalizer={"type": "Lowercase"}), "t").sliced
    prefix = json.loads(byte_level([BOS]))["pre_tokenizer"] | {"add_prefix_space": True}
    assert not load_encoder(byte_level([BOS], pre_tokenizer=prefix), "t").sliced
    across = json.loads(byte_level([BOS]))["pre_tokenizer"] | {"use_regex": False}
    assert not load_encoder(byte_level([BOS], pre_tokenizer=across), "t").sliced
    for added in (AddedToken("of the"), AddedToken("x", lstrip=True), AddedToken("x", rstrip=True)):
        tokenizer = Tokenizer.from_str(byte_level([BOS]))
        tokenizer.add_tokens([added])
        assert not load_encoder(tokenizer.to_str(), "t").sliced


@pytest.mark.parametrize("nested", [False, True])
def test_bytes_of_tokens_that_are_byte_level(nested: bool) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    steps = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if nested:
        steps = pre_tokenizers.Sequence([pre_tokenizers.Sequence([steps])])
    tokenizer.pre_tokenizer = steps
    tokenizer.add_special_tokens([BOS])
    encoder = load_encoder(tokenizer.to_str(), "t")
    assert sorted(encoder.spelling[:256]) == [bytes([byte]) for byte in range(256)]
    every = "".join(map(chr, [*range(0x800), 0x20AC, 0x1F389]))  # all first and later bytes occur
    assert encoder.spells(encoder.encode([every])[0], every)
    assert not encoder.spells(encoder.encode([every])[0], f"{every} ")


def test_dropout_is_refused() -> None:
    settings = json.loads(byte_level([BOS]))
    settings["model"]["dropout"] = 0.1
    with pytest.raises(InputError, match="dropout"):
        load_encoder(json.dumps(settings), "t")


def test_ids_too_large_for_a_store() -> None:
    settings = json.loads(byte_level([BOS]))
    settings["model"]["vocab"] = {"a": 1 << 25}
    with pytest.raises(InputError, match="largest token id is 33554432"):
        load_encoder(json.dumps(settings), "t")


def test_truncation_and_padding_of_a_tokenizer_are_ignored() -> None:
    tokenizer = Tokenizer.from_str(byte_level([BOS]))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    encoder = load_encoder(tokenizer.to_str(), "t")
    assert [len(ids) for ids in encoder.encode(["abcdefghij", "ab"])] == [10, 2]


def test_bytes_of_tokens_that_are_not_byte_level() -> None:
    vocab = {"<unk>": 0, "▁the": 1, "<0x0A>": 2, "é": 3, "##ing": 4}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer.add_tokens([AddedToken("é語", normalized=False)])
    encoder = load_encoder(tokenizer.to_str(), "t")
    assert encoder.dtype == "uint16"
    assert encoder.token_bytes().tolist() == [5, 4, 1, 2, 3, 0, 5]


def test_a_large_vocabulary_takes_uint32() -> None:
    settings = json.loads(byte_level([BOS]))
    settings["model"]["vocab"] = {f"w{number}": number for number in range(70_000)}
    for index, token in enumerate(settings["added_tokens"]):
        token["id"] = 70_000 + index
    assert load_encoder(json.dumps(settings), "t").dtype == "uint32"
