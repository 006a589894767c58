"""Token stores of known content."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCAB = 64


def write_array(url: str, values: np.ndarray) -> None:
    spec = {"driver": "zarr3", "kvstore": url}
    array = ts.open(spec, create=True, dtype=values.dtype, shape=values.shape).result()
    array.write(values).result()


def write_store(root: Path, documents: dict[str, list[list[int]]]) -> Path:
    """A token store of given token ids; id 0 opens every document, id i > 0 is one byte."""
    splits = {}
    for split, texts in documents.items():
        tokens = np.array([t for text in texts for t in (0, *text)], np.uint16)
        offsets = np.cumsum([0, *(1 + len(text) for text in texts)]).astype(np.uint64)
        write_array(f"file://{root}/{split}/tokens/", tokens)
        write_array(f"file://{root}/{split}/offsets/", offsets)
        splits[split] = {"documents": len(texts), "bytes": sum(map(len, texts))}
    sizes = np.array([0] + [1] * (VOCAB - 1), np.uint32)
    write_array(f"file://{root}/token_bytes/", sizes)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: VOCAB - 1]
    tokenizer = Tokenizer(models.BPE({s: i for i, s in enumerate(["<|document|>", *alphabet])}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(root / "tokenizer.json"))
    manifest = {
        "schema_version": 1,
        "vocab_size": VOCAB,
        "bos_id": 0,
        "digest": "test",
        "sources": [],
        "splits": splits,
        "tokenizer": {"file": "tokenizer.json"},
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def make_store(tmp_path):
    """`make_store(train=[[1, 2], ...], heldout=[...])` writes a store, returns its path."""
    return lambda **documents: str(write_store(tmp_path / "store", documents))


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> str:
    """A store whose documents count upwards, so that the next token can be learned."""
    draw = np.random.default_rng(0)

    def document() -> list[int]:
        start, length = draw.integers(VOCAB), draw.integers(5, 90)
        return [int(1 + (start + i) % (VOCAB - 1)) for i in range(length)]

    documents = {
        "train": [document() for _ in range(400)],
        "heldout": [document() for _ in range(40)],
    }
    return str(write_store(tmp_path_factory.mktemp("store"), documents))
