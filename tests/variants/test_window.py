"""Layers that differ: three of four attend to a window, the fourth to the whole document."""

import json
from pathlib import Path

import pytest

from tests.variants.copies import Copy, Edit, make_copy

EDITS = [
    Edit("model.py", "PERIOD = 1\n", "PERIOD = 4\n"),
    Edit(
        "model.py",
        "    query_chunk: Count = 512\n",
        '    window: Count = 16\n    """Positions that three of four layers attend to."""\n'
        "    query_chunk: Count = 512\n",
    ),
    Edit(
        "model.py",
        "    query_chunk: int = eqx.field(static=True)\n\n    @staticmethod\n"
        "    def init(cfg: ModelConfig, *, key: PRNGKeyArray)",
        "    query_chunk: int = eqx.field(static=True)\n"
        "    window: int | None = eqx.field(static=True)\n\n    @staticmethod\n"
        "    def init(cfg: ModelConfig, place: int, *, key: PRNGKeyArray)",
    ),
    Edit(
        "model.py",
        "            query_chunk=cfg.query_chunk,\n",
        "            query_chunk=cfg.query_chunk,\n"
        "            window=None if place == PERIOD - 1 else cfg.window,\n",
    ),
    Edit(
        "model.py", "segment_ids, self.query_chunk)", "segment_ids, self.query_chunk, self.window)"
    ),
    Edit(
        "model.py",
        '    chunk: int,\n) -> Float[Array, "B S N H"]:\n    """softmax',
        '    chunk: int,\n    window: int | None,\n) -> Float[Array, "B S N H"]:\n    """softmax',
    ),
    Edit(
        "model.py",
        "partial(attend_in_chunks, chunk=chunk)",
        "partial(attend_in_chunks, chunk=chunk, window=window)",
    ),
    Edit(
        "model.py",
        '    *,\n    chunk: int,\n) -> Float[Array, "B S N H"]:\n    """Attention of one',
        '    *,\n    chunk: int,\n    window: int | None,\n) -> Float[Array, "B S N H"]:\n'
        '    """Attention of one',
    ),
    Edit(
        "model.py",
        "keys = slice(start, start + chunk), slice(0, start + chunk)\n",
        "keys = slice(start, start + chunk), slice(0, start + chunk)\n"
        "        if window is not None:\n"
        "            keys = slice(max(0, start - window + 1), start + chunk)\n",
    ),
    Edit(
        "model.py",
        "        outputs.append(attend_chunk(",
        "        if window is not None:\n"
        "            first = positions[None, None, queries, None] - window + 1\n"
        "            causal &= positions[None, None, None, keys] >= first\n"
        "        outputs.append(attend_chunk(",
    ),
    Edit(
        "model.py",
        'def init(cfg: ModelConfig, *, key: PRNGKeyArray) -> "Block":',
        'def init(cfg: ModelConfig, place: int, *, key: PRNGKeyArray) -> "Block":',
    ),
    Edit(
        "model.py",
        "attn=Attention.init(cfg, key=k_attn)",
        "attn=Attention.init(cfg, place, key=k_attn)",
    ),
    Edit(
        "model.py",
        "jax.vmap(lambda k: Block.init(cfg, key=k))",
        "jax.vmap(lambda k, place=place: Block.init(cfg, place, key=k))",
    ),
]
# Which earlier positions reach the last one, by |d hidden[last] / d embedding[position]|, where the
# full layer is left out and where it is not.
PROBE = """
import dataclasses, json, sys
import jax, jax.numpy as jnp, numpy as np
from experiments.grug.window.launch import PRESETS
from experiments.grug.window import model as m

cfg = dataclasses.replace(
    PRESETS["tiny"].model, vocab_size=64, d_model=32, n_layers=4, head_dim=16, d_ff=32,
    window=4, query_chunk=8, compute_dtype="float32",
)
length = 32
explicit = (jax.sharding.AxisType.Explicit,) * 3
with jax.set_mesh(jax.make_mesh((1, 1, 1), m.MESH_AXES, axis_types=explicit)):
    model = jax.jit(lambda: m.Transformer.init(cfg, key=jax.random.PRNGKey(0)))()
    rows = jax.sharding.PartitionSpec(m.BATCH, None)
    tokens = jax.device_put(jnp.arange(length)[None], rows)
    ones = jax.device_put(jnp.ones((1, length), jnp.int32), rows)
    pick = jnp.zeros((1, length, cfg.d_model))
    pick = pick.at[0, -1].set(jax.random.normal(jax.random.PRNGKey(1), (cfg.d_model,)))

    def reach(model):
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(x(tokens, ones, tokens) * pick)))(model)
        sizes = np.abs(np.asarray(gradient.embed)[:length]).sum(axis=1)
        return [int(i) for i in np.flatnonzero(sizes)]

    windows = [block.attn.window for block in model.blocks]
    full = reach(model)
    silent = jax.tree.map(jnp.zeros_like, model.blocks[3])
    local = reach(dataclasses.replace(model, blocks=(*model.blocks[:3], silent)))
print(json.dumps({"windows": windows, "full": full, "local": local}))
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return make_copy(tmp_path_factory.mktemp("workspace"), "window", EDITS)


def test_three_of_four_layers_see_a_window(window: Copy, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    process = window.run(str(tmp_path / "probe.py"))
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["windows"] == [4, 4, 4, None]
    assert result["full"] == [*range(32)]
    # Three layers, each of which looks 3 positions back.
    assert result["local"] == [*range(31 - 9, 32)]


def test_it_keeps_the_contract(window: Copy) -> None:
    window.check_contract()
