"""Packing, the order of the data and what goes wrong with a token store."""

import hashlib
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers

from tests.contract.harness import under_test
from tools.corpus.build import Settings, build
from tools.corpus.documents import HELDOUT, split_of
from tools.corpus.inputs import plan_inputs
from tools.corpus.tokenizer import train_tokenizer

packing = under_test().packing
DataError, TokenStore = under_test().data.DataError, under_test().data.TokenStore
PackedRows, best_fit, loader = packing.PackedRows, packing.best_fit, packing.loader
LENGTH = 16


def read(store: str, split: str) -> list[list[int]]:
    """The documents of a split, straight from its arrays."""
    opened = TokenStore.open(store)
    tokens = opened.array(f"{split}/tokens").read().result()
    offsets = opened.array(f"{split}/offsets").read().result()
    return [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets)]


def test_every_target_is_in_exactly_one_row(store):
    rows = PackedRows(TokenStore.open(store), "train", LENGTH)
    pairs = []
    for row in (rows[i] for i in range(len(rows))):
        real = row.loss_weights > 0
        pairs += zip(row.tokens[real].tolist(), row.targets[real].tolist(), strict=True)
    end = TokenStore.open(store).manifest["bos_id"]  # a document's last token predicts its end
    ended = [[*doc, end] for doc in read(store, "train")]
    expected = [pair for doc in ended for pair in itertools.pairwise(doc)]
    assert sorted(pairs) == sorted(expected)


def test_a_document_of_one_token_has_its_end_to_predict(make_store):
    """Also the last of the split, after which the store has no token."""
    opened = TokenStore.open(make_store(train=[[], [5, 6]], heldout=[[]]))
    rows = PackedRows(opened, "train", 2)
    assert len(rows) == 2
    whole, shared = (list(zip(row.tokens, row.targets, strict=True)) for row in (rows[0], rows[1]))
    assert whole == [(0, 5), (5, 6)] and sorted(shared) == [(0, 0), (6, 0)]


@pytest.mark.parametrize("batch_size", [7, 8])
def test_an_epoch_is_every_row_once(store, batch_size):
    opened = TokenStore.open(store)
    rows = PackedRows(opened, "train", LENGTH)
    batches = loader(opened, "train", batch_size, LENGTH, (), seed=0)
    assert batches.epoch * batch_size == len(rows)
    read: list[bytes] = []
    while len(read) < len(rows):
        batch = next(batches)
        read += [batch.tokens[i].tobytes() + batch.targets[i].tobytes() for i in range(batch_size)]
    every = [rows[i] for i in range(len(rows))]
    expected = [row.tokens.tobytes() + row.targets.tobytes() for row in every]
    assert sorted(read[: len(rows)]) == sorted(expected)


def test_segments_are_pieces_of_documents_and_positions_restart(store):
    rows = PackedRows(TokenStore.open(store), "train", LENGTH)
    text = ["".join(map(chr, [*doc, doc[0]])) for doc in read(store, "train")]
    shared = 0
    for row in (rows[i] for i in range(len(rows))):
        segments = sorted(set(row.segment_ids.tolist()) - {0})
        shared += len(segments) > 1
        for segment in segments:
            directory = np.flatnonzero(row.segment_ids == segment)
            assert row.positions[directory].tolist() == list(range(len(directory)))
            piece = [*row.tokens[directory].tolist(), int(row.targets[directory[-1]])]
            assert any("".join(map(chr, piece)) in document for document in text)
        assert (row.segment_ids[row.loss_weights == 0] == 0).all()
    assert shared > 10


def test_packing_leaves_little_padding(store):
    rows = PackedRows(TokenStore.open(store), "train", 128)
    filled = np.mean([rows[i].loss_weights.mean() for i in range(len(rows) - 1)])
    assert filled > 0.95


def test_best_fit_puts_each_item_in_one_bin_within_capacity():
    lengths = np.random.default_rng(0).integers(1, 20, 300)
    bins = best_fit(lengths, 20)
    assert sorted(i for b in bins for i in b) == list(range(300))
    assert max(sum(lengths[b]) for b in bins) <= 20


def take(batches, n: int) -> list[np.ndarray]:
    return [next(batches).tokens for _ in range(n)]


SIZES = {"batch_size": 8, "sequence_length": LENGTH, "axes": under_test().model.BATCH}


def test_the_order_follows_the_seed_and_shuffles(store):
    opened = TokenStore.open(store)
    first, again, other = (take(loader(opened, "train", **SIZES, seed=s), 3) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.array(first) != np.array(other)).any()
    rows = PackedRows(opened, "train", LENGTH)
    assert (first[0] != np.stack([rows[i].tokens for i in range(8)])).any()


def test_an_epoch_reads_every_row_once(store):
    opened = TokenStore.open(store)
    n = len(PackedRows(opened, "train", LENGTH))
    rows = np.concatenate(take(loader(opened, "train", **SIZES, seed=0), 2 * n // 8))
    expected = [PackedRows(opened, "train", LENGTH)[i].tokens.tolist() for i in range(n)]
    assert sorted(rows[:n].tolist()) == sorted(expected)
    assert rows[:n].tolist() != rows[n : 2 * n].tolist()  # another order in the next epoch


def test_state_goes_through_json_and_continues_in_place(store):
    opened = TokenStore.open(store)
    batches = loader(opened, "train", **SIZES, seed=0)
    take(batches, 5)
    state = json.loads(json.dumps(batches.get_state()))
    expected = take(batches, 4)
    resumed = loader(opened, "train", **SIZES, seed=0)
    resumed.set_state(state)
    np.testing.assert_array_equal(take(resumed, 4), expected)


def test_processes_share_each_batch_in_order_and_each_others_position(store, monkeypatch):
    opened = TokenStore.open(store)
    whole = take(loader(opened, "train", **SIZES, seed=0), 5)
    for count in (2, 4):
        parts, states = [], []
        for process in range(count):
            rows = [*range(8)][process * 8 // count :][: 8 // count]
            monkeypatch.setattr(packing, "local_rows", lambda n, axes, r=rows: r)
            batches = loader(opened, "train", **SIZES, seed=0)
            parts.append(take(batches, 3))
            states.append(batches.get_state())
        for step in range(3):
            np.testing.assert_array_equal(np.concatenate([p[step] for p in parts]), whole[step])
        monkeypatch.undo()
        for state in states:  # of one process of several, for one process alone
            alone = loader(opened, "train", **SIZES, seed=0)
            alone.set_state(state)
            np.testing.assert_array_equal(take(alone, 2), whole[3:])


def test_what_is_no_store_is_named(tmp_path, store):
    with pytest.raises(DataError, match="no token store here"):
        TokenStore.open(str(tmp_path))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        TokenStore.open(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(DataError, match="schema 99, this reads 1"):
        TokenStore.open(str(tmp_path))
    manifest = json.loads((Path(store) / "manifest.json").read_text())
    for token in (None, -1, manifest["vocab_size"], "0"):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"bos_id": token}))
        with pytest.raises(DataError, match="names no document token"):
            _ = TokenStore.open(str(tmp_path)).document_token
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="train/tokens: cannot be read: NOT_FOUND"):
        PackedRows(TokenStore.open(str(tmp_path)), "train", LENGTH)


def test_bytes_of_the_text_behind_a_choice_of_targets(tmp_path):
    """Where a normalizer makes the bytes of the tokens fewer than those of the text."""
    texts = [f"e\u0301 {number} " * (1 + number) for number in range(30)]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer = Tokenizer.from_str(train_tokenizer(texts, 257))
    found = []
    for normalizer in (None, normalizers.NFC()):
        if normalizer:
            tokenizer.normalizer = normalizer
        tokenizer.save(str(tmp_path / "t.json"))
        out = tmp_path / f"store-{len(found)}"
        settings = Settings(tmp_path / "t.json", heldout_fraction=0.5)
        build(plan_inputs([source]), out, settings)
        found.append(TokenStore.open(str(out)))
    exact, normalized = found
    assert exact.text_bytes("heldout") is None
    assert PackedRows(exact, "heldout", LENGTH).text_bytes is None
    documents = [
        len(data)
        for data in (text.encode() for text in texts)
        if split_of(hashlib.sha256(data).digest(), 0.5) == HELDOUT
    ]
    sizes = normalized.text_bytes("heldout")
    assert sizes is not None and sizes.read().result().tolist() == documents
    assert len(documents) > 5
    assert PackedRows(normalized, "heldout", LENGTH).text_bytes == sum(documents)
    offsets = np.asarray(normalized.array("heldout/offsets").read().result(), np.int64)
    positions = np.diff(offsets)
    half = int(positions.sum()) // 2
    part = PackedRows(normalized, "heldout", LENGTH, targets=half)
    taken = packing.chosen(positions, half)
    assert taken.sum() == half and ((taken > 0) & (taken < positions)).sum() <= 1
    assert part.text_bytes == pytest.approx(sum(documents * taken / positions))
    assert 0 < part.text_bytes < sum(documents)


def test_an_array_that_cannot_be_read_is_named(tmp_path, store):
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    for shard in (copy / "heldout/offsets/c").iterdir():
        shard.write_bytes(b"no zarr")
    opened = TokenStore.open(str(copy))
    with pytest.raises(DataError, match=f"^token store {copy}/: ") as refused:
        PackedRows(opened, "heldout", LENGTH)
    assert "\n" not in str(refused.value)
    for shard in (copy / "token_bytes/c").iterdir():
        shard.write_bytes(b"no zarr")
    with pytest.raises(DataError, match=f"^{copy}/: ") as refused:
        opened.token_bytes()
    assert "\n" not in str(refused.value)


def test_too_little_text_for_a_batch(make_store):
    opened = TokenStore.open(make_store(train=[[1, 2, 3]], heldout=[[1, 2]]))
    with pytest.raises(DataError, match="gives 1 rows .* less than one batch of 8"):
        loader(opened, "train", **SIZES, seed=0)
