"""Eight CPU devices, strict JAX and checked types for every test of this variant."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorstore as ts
from jaxtyping import install_import_hook
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of a test's time
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Must come before the first import of the model: shapes and types are checked at every call.
PACKAGE = ".".join(Path(__file__).resolve().parts[-4:-1])
install_import_hook(f"{PACKAGE}.model", "beartype.beartype")

VOCAB = 64


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory):
    """Compiles a program once per session, however often it is traced."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session")
def mesh():
    """`mesh(1, 2, 2, context=2)` makes a mesh of (replica, data, model) from the first devices."""

    def make(replica: int, data: int, model: int, *, context: int = 1) -> jax.sharding.Mesh:
        shape, axes = (replica, data, context, model), ("replica", "data", "context", "model")
        devices = jax.devices()[: int(np.prod(shape))]
        explicit = (jax.sharding.AxisType.Explicit,) * len(axes)
        return jax.make_mesh(shape, axes, axis_types=explicit, devices=devices)

    return make


def write_array(url: str, values: np.ndarray) -> None:
    spec = {"driver": "zarr3", "kvstore": url}
    array = ts.open(spec, create=True, dtype=values.dtype, shape=values.shape).result()
    array.write(values).result()


def write_store(root: Path, documents: dict[str, list[list[int]]]) -> Path:
    """A token store of given token ids; id 0 opens every document, id i > 0 is one byte."""
    for split, texts in documents.items():
        tokens = np.array([t for text in texts for t in (0, *text)], np.uint16)
        offsets = np.cumsum([0, *(1 + len(text) for text in texts)]).astype(np.uint64)
        write_array(f"file://{root}/{split}/tokens/", tokens)
        write_array(f"file://{root}/{split}/offsets/", offsets)
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
