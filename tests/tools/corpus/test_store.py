"""The arrays on disk, damage to them, and the commands that show them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tools.common.errors import ToolError
from tools.corpus import store as stores
from tools.corpus.build import Pace, Settings, build
from tools.corpus.cli import main
from tools.corpus.documents import Position, read_pieces
from tools.corpus.encode import ahead, batches
from tools.corpus.inputs import plan_inputs
from tools.corpus.reading import open_array, read_document, verify
from tools.corpus.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, words: str, tokenizer: Path) -> Path:
    root = tmp_path_factory.mktemp("store")
    for number in range(10):
        (root / f"{number}.txt").write_text(f"{number} {words}")
    settings = Settings(tokenizer, heldout_fraction=0.3, shard_length=3000)
    return build(plan_inputs([root]), root / "out", settings).store


def test_the_arrays_are_sharded_zarr(store: Path) -> None:
    metadata = json.loads((store / "train/tokens/zarr.json").read_bytes())
    assert metadata["zarr_format"] == 3 and metadata["data_type"] == "uint16"
    assert [codec["name"] for codec in metadata["codecs"]] == ["sharding_indexed"]
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [3000]
    tokens = open_array(store / "train/tokens").read().result()
    offsets = open_array(store / "train/offsets").read().result()
    assert offsets.dtype == np.uint64 and offsets[0] == 0 and offsets[-1] == len(tokens)
    assert (tokens[offsets[:-1]] == 0).all() and (tokens == 0).sum() == len(offsets) - 1


def test_shards_of_the_published_size() -> None:
    assert (stores.SHARD_LENGTH, stores.CHUNK_LENGTH) == (1 << 24, 1 << 15)


def damage_byte(store: Path) -> None:
    path = store / "train/tokens/c/0"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x40
    path.write_bytes(data)


def damage_value(store: Path) -> None:
    offsets = open_array(store / "heldout/offsets").read().result()
    shutil.rmtree(store / "heldout/offsets")
    offsets[1] += 1
    stores.write_array(store / "heldout/offsets", offsets)


def damage_manifest(store: Path) -> None:
    path = store / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["splits"]["train"]["tokens"] += 1
    path.write_text(json.dumps(manifest))


def damage_tokenizer(store: Path) -> None:
    with (store / "tokenizer.json").open("a") as stream:
        stream.write("\n")


def drop_shard(store: Path) -> None:
    (store / "train/tokens/c/1").unlink()


def damage_sizes(store: Path) -> None:
    sizes = open_array(store / "token_bytes").read().result()
    shutil.rmtree(store / "token_bytes")
    sizes[70] += 1
    sizes[80] -= 1
    stores.write_array(store / "token_bytes", sizes)


@pytest.mark.parametrize(
    "damage",
    [damage_byte, damage_value, damage_manifest, damage_tokenizer, damage_sizes, drop_shard],
)
def test_verify_notices_damage(tmp_path: Path, store: Path, damage, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    assert verify(copy)["splits"]["train"]["documents"] > 0
    damage(copy)
    assert main(["inspect", str(copy), "--verify"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "build" in error


def test_a_store_whose_exactness_was_guessed(tmp_path: Path, words: str) -> None:
    """As they were built when a byte-level tokenizer was taken to change nothing."""
    settings = json.loads(train_tokenizer([words], 300))
    settings["normalizer"] = {"type": "NFC"}
    (tmp_path / "t.json").write_text(json.dumps(settings))
    (tmp_path / "a.txt").write_text(f"e\u0301 {words}")
    plan, given = plan_inputs([tmp_path / "a.txt"]), Settings(tmp_path / "t.json")
    store = build(plan, tmp_path / "out", given).store
    manifest = json.loads((store / "manifest.json").read_bytes()) | {"exact_token_bytes": True}
    for name, split in manifest["splits"].items():
        del split["inexact_documents"], split["text_bytes_sha256"]
        shutil.rmtree(store / name / "text_bytes")
    manifest["digest"] = stores.manifest_digest(manifest)
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ToolError, match="a version that only guessed.*build it anew"):
        verify(store)


def test_verify_notices_other_bytes_of_the_text(tmp_path: Path, words: str) -> None:
    settings = json.loads(train_tokenizer([words], 300))
    settings["normalizer"] = {"type": "NFC"}
    (tmp_path / "t.json").write_text(json.dumps(settings))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": f"e\u0301 {words}"}) + "\n")
    given = Settings(tmp_path / "t.json", heldout_fraction=0)
    store = build(plan_inputs([tmp_path / "a.jsonl"]), tmp_path / "out", given).store
    verify(store)
    sizes = open_array(store / "train/text_bytes").read().result()
    shutil.rmtree(store / "train/text_bytes")
    stores.write_array(store / "train/text_bytes", sizes + np.uint64(1))
    with pytest.raises(ToolError, match="train: text_bytes.*damaged"):
        verify(store)


def test_inspect(store: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(store), "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "train" in shown and "verified" in shown and "bytes per token" in shown
    assert main(["inspect", str(store), "--document", "0"]) == 0
    assert capsys.readouterr().out in [f"{number} {words}" for number in range(10)]
    with pytest.raises(ToolError, match="holds"):
        read_document(store, "train", 99)
    assert main(["inspect", str(store), "--document", "99"]) == 1
    assert main(["inspect", str(store.parent)]) == 1
    assert "no complete token store" in capsys.readouterr().err


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema_version": 2}')
    with pytest.raises(ToolError, match="schema version 2, this tool reads 1"):
        verify(tmp_path)


def test_an_appender_forgets_what_was_not_recorded(tmp_path: Path) -> None:
    tails = tmp_path / "tails"
    tails.mkdir()
    values = np.arange(25, dtype=np.uint16)
    appender = stores.Appender(tmp_path, tails, "a", "uint16", shard=10)
    assert appender.append(values[:12])
    recorded = list(appender.digests)
    appender.sync()
    appender.drop_stale()
    appender.append(np.full(9, 99, np.uint16))  # completes a shard that is never recorded
    appender.close()
    again = stores.Appender(tmp_path, tails, "a", "uint16", shard=10, length=12, digests=recorded)
    assert [path.name for path in tails.iterdir()] == ["a.1"]
    again.append(values[12:])
    again.finish()
    assert (open_array(tmp_path / "a").read().result() == values).all()


def test_batches_stay_small(tmp_path: Path) -> None:
    """Whatever the sizes of documents, a batch holds its limit and at most one slice more."""
    texts = ["x" * 3, "a b " * 100_000, "wörd" * 300_000, "y", "z " * 50_000]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * 3))
    pieces = read_pieces(
        plan_inputs([source]), text_field="text", heldout_fraction=0.5, skip_bad=False
    )
    sizes = [batch.size for batch in batches(pieces, Position(), Pace(batch_bytes=500_000))]
    assert sum(sizes) == sum(len(text.encode()) for text in texts * 3)
    assert max(sizes) <= 500_000 + (256 << 10) + 4 and len(sizes) > 10


PEAK = """
import resource, sys
from pathlib import Path
from tools.corpus.build import Pace, Settings, build
from tools.corpus.inputs import plan_inputs
settings = Settings(vocab_size=260, sample_bytes=1 << 19, shard_length=1 << 19)
build(plan_inputs([sys.argv[1]]), Path(sys.argv[2]), settings, pace=Pace(1 << 18))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_flat(tmp_path: Path, run) -> None:
    """Eight times the input takes no more memory, but for the allocator's slack."""
    peaks = []
    for count in (100, 800):
        source = tmp_path / f"{count}.jsonl"
        with source.open("w") as stream:
            for number in range(count):
                text = f"{number} aaaa bbbb cccc dddd\n" * 400
                stream.write(json.dumps({"text": text}) + "\n")
        result = run("-c", PEAK, source, tmp_path / f"out{count}")
        assert result.returncode == 0, result.stderr
        peaks.append(int(result.stdout) / 1024)
    assert peaks[1] < peaks[0] + 30, f"MiB at 1 and 8 MB: {peaks}"


def test_the_next_item_is_made_while_one_is_in_use() -> None:
    created = [threading.Event() for _ in range(3)]
    closed = threading.Event()

    def items() -> Generator[int]:
        try:
            for number, event in enumerate(created):
                event.set()
                yield number
            raise ToolError("no more")
        finally:
            closed.set()

    def take() -> None:
        for number in ahead(items()):
            assert number == 2 or created[number + 1].wait(60)

    with pytest.raises(ToolError, match="no more"):
        take()
    closed.clear()
    with closing(ahead(items())) as whoever_stops_early:
        assert next(whoever_stops_early) == 0
    assert closed.is_set()
