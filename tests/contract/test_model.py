"""What reaches what: over positions and over packed documents."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.contract.harness import hidden_states, make_mesh, small_model

LENGTH = 32
# No other size is this one: an array's axis of this length counts vocabulary entries.
VOCAB = 61
# Rounding of the small float32 model, whose hidden states are about 1.
NOISE = 2e-5


@pytest.fixture(scope="module", autouse=True)
def one_device(variant):
    with jax.set_mesh(make_mesh(variant)):
        yield


@pytest.fixture(scope="module", params=["chunks", "cudnn", "splash"])
def model(request, variant, one_device):
    """With attention in each way: a kernel is interpreted, or XLA runs what it must equal."""
    cfg = small_model(variant, vocab_size=VOCAB)
    if hasattr(cfg, "attention"):
        cfg = dataclasses.replace(cfg, attention=request.param)
    elif request.param != "chunks":
        pytest.skip("this variant has attention of one kind")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variant.splash, "INTERPRET", True)
        patch.setattr(variant.cudnn, "IMPLEMENTATION", "xla")
        yield jax.jit(lambda: variant.model.Transformer.init(cfg, key=jax.random.PRNGKey(0)))()


@pytest.fixture(scope="module")
def put(variant):
    """`put(rows, ...)` places rows as the model wants them."""

    def place(*rows):
        by_row = P(variant.model.BATCH, None)
        return [jax.device_put(np.asarray(x, np.int32), by_row) for x in rows]

    return place


@pytest.fixture(scope="module")
def influence(model, put):
    """`influence(segment_ids, positions, at)`: how the token at each position moves hidden[at].

    The token at every position is another one. Its influence is the gradient of a random
    projection of hidden[at] with respect to its rows in all arrays that have an axis of
    vocabulary entries, whatever they are called.
    """
    direction = jax.random.normal(jax.random.PRNGKey(1), (model.cfg.d_model,))

    @jax.jit
    def gradient(model, tokens, segment_ids, positions, at):
        def read(model):
            hidden = hidden_states(model(tokens, segment_ids, positions))
            return jnp.sum(hidden * (jnp.arange(LENGTH) == at)[None, :, None] * direction)

        return jax.grad(read)(model)

    def measure(segment_ids, positions, at: int) -> np.ndarray:
        rows = put([[*range(LENGTH)]], [[*segment_ids]], [[*positions]])
        total = np.zeros(VOCAB)
        for x in map(np.asarray, jax.tree.leaves(gradient(model, *rows, at))):
            for axis in np.flatnonzero(np.array(x.shape) == VOCAB):
                total += np.abs(np.moveaxis(x, axis, 0)).reshape(VOCAB, -1).sum(axis=1)
        assert np.isfinite(total).all()
        return total[:LENGTH]

    return measure


@pytest.fixture(scope="module")
def forward(model, put):
    """Hidden states of four rows."""
    run = jax.jit(lambda model, *rows: hidden_states(model(*rows)))
    return lambda *rows: np.asarray(run(model, *put(*rows)))


def differing(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Positions at which hidden states differ by more than rounding."""
    return np.flatnonzero(np.abs(ours - theirs).max(axis=-1) > NOISE)


@functools.cache
def text() -> np.ndarray:
    return np.random.default_rng(0).integers(VOCAB, size=LENGTH)


@pytest.mark.contract("causality")
@pytest.mark.parametrize("at", [0, 7, LENGTH - 1])
def test_no_gradient_comes_from_the_future(influence, at):
    result = influence([1] * LENGTH, range(LENGTH), at)
    later = at + 1 + np.flatnonzero(result[at + 1 :])
    assert not later.size, f"tokens at positions {later} reach position {at}"
    near = result[max(0, at - 1) : at + 1]  # no further back: a variant's attention may be local
    assert (near > 0).all(), f"the nearest tokens do not reach position {at}"


@pytest.mark.contract("causality")
def test_later_tokens_change_nothing_before_them(forward):
    """By value, for what has no gradient: the choice of an expert, a hash of tokens."""
    changed = [0, 5, LENGTH - 1]
    tokens = np.stack([text()] * 4)
    for row, at in enumerate(changed, start=1):
        tokens[row, at:] = (tokens[row, at:] + 1 + row) % VOCAB
    hidden = forward(tokens, np.ones_like(tokens), [[*range(LENGTH)]] * 4)
    for row, at in enumerate(changed, start=1):
        early = differing(hidden[row, :at], hidden[0, :at])
        assert not early.size, f"other tokens from position {at} on change positions {early}"
        change = np.abs(hidden[row, at] - hidden[0, at]).max()
        assert change > 100 * NOISE, f"another token at position {at} does not change it"


@pytest.mark.contract("document-isolation")
@pytest.mark.parametrize("first", [1, 13])
def test_no_gradient_crosses_documents(influence, first):
    second = LENGTH - first
    segment_ids, positions = [1] * first + [2] * second, [*range(first), *range(second)]
    result = influence(segment_ids, positions, LENGTH - 1)
    leaks = np.flatnonzero(result[:first])
    assert not leaks.size, f"positions {leaks} of the first document reach the second"
    assert (result[-2:] > 0).all(), "the last two tokens do not reach the last position"


@pytest.mark.contract("document-isolation")
def test_packed_documents_give_what_they_give_alone(forward):
    """The same documents in one row, and in a row each before padding, as the packing makes it."""
    lengths = [5, 18, LENGTH - 23]
    ends = np.cumsum(lengths)
    tokens, segment_ids, positions = np.zeros((3, 4, LENGTH), int)
    tokens[0], segment_ids[0] = text(), np.repeat([1, 2, 3], lengths)
    positions[0] = np.concatenate([np.arange(n) for n in lengths])
    for row, (n, end) in enumerate(zip(lengths, ends, strict=True), start=1):
        tokens[row, :n], segment_ids[row, :n] = text()[end - n : end], 1
        positions[row, :n] = np.arange(n)
    hidden = forward(tokens, segment_ids, positions)
    for row, (n, end) in enumerate(zip(lengths, ends, strict=True), start=1):
        off = differing(hidden[0, end - n : end], hidden[row, :n])
        assert not off.size, f"positions {off} of document {row} of 3 are not what they are alone"


@pytest.mark.contract("document-isolation")
def test_packing_tells_documents_apart(variant, store):
    """Where a document begins in a row, a segment begins and positions restart."""
    opened = variant.data.TokenStore.open(store)
    offsets = opened.array("train/offsets").read().result()
    rows = variant.packing.PackedRows(opened, "train", 8192)  # many a document is shorter
    begun, shared = 0, 0
    for row in map(rows.__getitem__, range(len(rows))):
        real = row.loss_weights > 0
        begins = np.diff(row.segment_ids, prepend=-1) != 0
        opens = real & (row.tokens == opened.manifest["bos_id"])
        assert begins[opens].all() and (row.positions[begins] == 0).all()
        within = (real & ~begins)[1:]
        assert (row.positions[1:] == row.positions[:-1] + 1)[within].all()
        assert (row.targets[:-1] == row.tokens[1:])[within].all()
        begun += opens.sum()
        shared += opens.sum() > 1
    assert begun == len(offsets) - 1, "every document begins once"
    assert shared > 3, "several documents share a row"
