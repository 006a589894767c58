"""One change for each bucket, as small as base lets it be, and the ways in which it goes wrong."""

from tests.variants.copies import Change, Edit, Fault

GOLDEN = "test_train.py::test_golden_losses"

# --- attention/masking -------------------------------------------------------------------------

WINDOW = (
    Edit("PERIOD = 1\n", "PERIOD = 4\nWINDOW = 64  # keys of a query in three of four layers\n"),
    Edit(
        "        return float(position + 1)\n",
        "        return (3 * min(position + 1, WINDOW) + position + 1) / 4\n",
    ),
    Edit(
        "    query_chunk: int = eqx.field(static=True)\n\n    @staticmethod\n"
        "    def init(cfg: ModelConfig, *,",
        "    query_chunk: int = eqx.field(static=True)\n"
        "    window: int = eqx.field(static=True)\n\n    @staticmethod\n"
        "    def init(cfg: ModelConfig, place: int, *,",
    ),
    Edit(
        "            query_chunk=cfg.query_chunk,\n",
        "            query_chunk=cfg.query_chunk,\n"
        "            window=2**30 if place == PERIOD - 1 else WINDOW,\n",
    ),
    Edit(
        "        return query >= key\n",
        "        return (query >= key) & (query - key < self.window)\n",
    ),
    Edit(
        'def init(cfg: ModelConfig, *, key: PRNGKeyArray) -> "Block":',
        'def init(cfg: ModelConfig, place: int, *, key: PRNGKeyArray) -> "Block":',
    ),
    Edit("attn=Attention.init(cfg, key=k_attn)", "attn=Attention.init(cfg, place, key=k_attn)"),
    Edit(
        "jax.vmap(lambda k: Block.init(cfg, key=k))",
        "jax.vmap(lambda k, place=place: Block.init(cfg, place, key=k))",
    ),
)
KEYS = "test_flops.py::test_a_query_meets_as_many_keys_as_the_config_says"
WINDOW_FAULTS = {
    "a window one key too wide": Fault(
        (Edit("query - key < self.window", "query - key <= self.window"),),
        KEYS,
        r"meets \[65, 65, 65, 1366\] keys, .* 390.25 in the mean; ModelConfig.keys\(1365\) says "
        r"389.5: mend the mask, or `keys`",
    ),
    "keys that nobody updated": Fault(
        (
            Edit(
                "        return (3 * min(position + 1, WINDOW) + position + 1) / 4\n",
                "        return float(position + 1)\n",
            ),
        ),
        KEYS,
        r"meets \[64, 64, 64, 1366\] keys, .* says 1366: mend the mask, or `keys`",
    ),
    "scores that the FLOPs count in full": Fault(
        (
            Edit(
                "        keys = sum(map(self.keys, range(sequence_length))) / sequence_length\n",
                "        keys = (sequence_length + 1) / 2\n",
            ),
        ),
        "test_flops.py::test_flops_per_token_counts_the_products_with_keys",
        r"4096 positions: flops_per_token says [\d,]+, the model's matrix products come to [\d,]+ "
        r"\(\+\d\d+.\d%\): mend its line of the scores",
    ),
}

# --- block wiring/norm ordering ----------------------------------------------------------------

POST_NORM = (
    Edit(
        '    """Pre-norm residual block: attention, then MLP."""\n',
        '    """Post-norm residual block: attention, then MLP."""\n',
    ),
    Edit(
        "        x = x + self.attn(self.attn_norm(x), rope, segment_ids)\n"
        "        return x + self.mlp(self.mlp_norm(x))\n",
        "        x = self.attn_norm(x + self.attn(x, rope, segment_ids))\n"
        "        return self.mlp_norm(x + self.mlp(x))\n",
    ),
)
LEARNS = "test_train.py::test_every_weight_learns"
POST_NORM_FAULTS = {
    "a norm that is left out": Fault(
        (Edit("return self.mlp_norm(x + self.mlp(x))", "return x + self.mlp(x)"),),
        LEARNS,
        r"three steps teach these nothing: model/blocks/0/mlp_norm/scale; the loss does not",
    ),
}
# Each layer adds the values of the layer before it to its own (a residual of values).
VALUES = (
    Edit(
        '        self, x: Float[Array, "B S D"], rope: Rope, segment_ids: Int[Array, "B S"]\n'
        '    ) -> Float[Array, "B S D"]:\n'
        "        by_head",
        '        self, x: Array, rope: Rope, segment_ids: Array, values: Float[Array, "B S K H"]\n'
        '    ) -> tuple[Float[Array, "B S D"], Float[Array, "B S K H"]]:\n'
        "        by_head",
    ),
    Edit(
        '        v = jnp.einsum("bsd,dkh->bskh", x, gather(self.w_v, by_head, x.dtype))\n',
        '        v = jnp.einsum("bsd,dkh->bskh", x, gather(self.w_v, by_head, x.dtype))\n'
        "        v += values\n",
    ),
    Edit(
        "y, w_o, out_sharding=by_token(None))",
        "y, w_o, out_sharding=by_token(None)), v",
    ),
    Edit(
        '        self, x: Float[Array, "B S D"], rope: Rope, segment_ids: Int[Array, "B S"]\n'
        '    ) -> Float[Array, "B S D"]:\n'
        "        x = x + self.attn(self.attn_norm(x), rope, segment_ids)\n"
        "        return x + self.mlp(self.mlp_norm(x))\n",
        '        self, x: Array, values: Array, rope: Rope, segment_ids: Int[Array, "B S"]\n'
        '    ) -> tuple[Float[Array, "B S D"], Float[Array, "B S K H"]]:\n'
        "        y, values = self.attn(self.attn_norm(x), rope, segment_ids, values)\n"
        "        x = x + y\n"
        "        return x + self.mlp(self.mlp_norm(x)), values\n",
    ),
    Edit(
        "        def layer(x: Array, block: Block) -> Array:\n"
        "            return block(x, rope, segment_ids)\n"
        "\n"
        "        return self.final_norm(scan_layers(layer, x, self.blocks, cfg))\n",
        "        def layer(carry: tuple[Array, Array], block: Block) -> tuple[Array, Array]:\n"
        "            return block(*carry, rope, segment_ids)\n"
        "\n"
        "        shape = (*x.shape[:2], cfg.n_kv_heads, cfg.head_dim)\n"
        '        none = jnp.zeros(shape, dtype, out_sharding=by_token("model", None))\n'
        "        return self.final_norm(scan_layers(layer, (x, none), self.blocks, cfg)[0])\n",
    ),
)
VALUES_FAULTS = {
    "values that reach the next layer but not the attention": Fault(
        (
            Edit("        v += values\n", ""),
            Edit(
                "w_o, out_sharding=by_token(None)), v\n",
                "w_o, out_sharding=by_token(None)), jnp.roll(v, -1, 1)\n",
            ),
            Edit(
                "        y = self.attend(",
                "        v += values\n        y = self.attend(",
            ),
        ),
        "test_model.py::test_no_gradient_comes_from_the_future",
        r"tokens at positions \[\s*8\] reach position 7",
    ),
}

# --- MLP/activation ----------------------------------------------------------------------------

SWIGLU = (
    Edit(
        '    SPLIT = {"d_model": "data", "n_kv_heads": "model", "d_ff": "model", ',
        "    @property\n"
        "    def d_hidden(self) -> int:\n"
        '        """Two thirds of d_ff: SwiGLU has three matrices of it, where base has two."""\n'
        "        return 8 * round(self.d_ff / 12)\n"
        "\n"
        '    SPLIT = {"d_model": "data", "n_kv_heads": "model", "d_hidden": "model", ',
    ),
    Edit("mlp = 2 * self.d_model * self.d_ff\n", "mlp = 3 * self.d_model * self.d_hidden\n"),
    Edit("(heads + self.d_ff) / split", "(heads + 2 * self.d_hidden) / split"),
    Edit("self.head_dim + 2 * self.d_ff\n", "self.head_dim + 3 * self.d_hidden\n"),
    Edit(
        '    """Two matrices around a squared ReLU (Primer, arXiv:2109.08668)."""\n\n',
        '    """SwiGLU (arXiv:2002.05202): a gate and a value, multiplied."""\n\n'
        '    w_gate: Float[Array, "*L D F"]\n',
    ),
    Edit(
        "        k_up, k_down = jax.random.split(key)\n        d, f = cfg.d_model, cfg.d_ff\n",
        "        k_gate, k_up, k_down = jax.random.split(key, 3)\n"
        "        d, f = cfg.d_model, cfg.d_hidden\n",
    ),
    Edit(
        "        return MLP(\n",
        "        return MLP(\n"
        '            w_gate=truncated_normal(k_gate, (d, f), d**-0.5, P("data", "model")),\n',
    ),
    Edit(
        '        up = jnp.einsum("bsd,df->bsf", x, gather(self.w_up',
        '        gate = jnp.einsum("bsd,df->bsf", x, gather(self.w_gate, P(None, "model"), '
        "x.dtype))\n"
        '        up = jnp.einsum("bsd,df->bsf", x, gather(self.w_up',
    ),
    Edit(
        "        hidden = jnp.square(jax.nn.relu(up))\n",
        "        hidden = jax.nn.silu(gate) * up\n",
    ),
)
FLOPS = "test_flops.py::test_flops_per_token_counts_every_product_with_a_weight"
SWIGLU_FAULTS = {
    "FLOPs of two matrices": Fault(
        (Edit("mlp = 3 * self.d_model", "mlp = 2 * self.d_model"),),
        FLOPS,
        r"small model: flops_per_token says [\d,]+, the model's matrix products come to [\d,]+ "
        r"\(-\d+.\d%\): mend its lines of the layers' and the head's weights",
    ),
    "FLOPs of base's width": Fault(
        (Edit("3 * self.d_model * self.d_hidden", "3 * self.d_model * self.d_ff"),),
        FLOPS,
        r"\(\+\d+.\d%\): mend its lines",
    ),
    "a gate that is the value itself": Fault(
        (
            Edit(
                'gate = jnp.einsum("bsd,df->bsf", x, gather(self.w_gate',
                'gate = jnp.einsum("bsd,df->bsf", x, gather(self.w_up',
            ),
        ),
        LEARNS,
        r"three steps teach these nothing: model/blocks/0/mlp/w_gate; the loss does not",
    ),
}

# --- loss kernel -------------------------------------------------------------------------------

SOFT_CAP = (Edit("    return products\n", "    return 30.0 * jnp.tanh(products / 30.0)\n"),)
LOSS = "test_loss.py"
CAP_OF_LOGITS = Edit("        return logits_of(products)\n", "        return products\n")
SOFT_CAP_FAULTS = {
    "samples without the cap": Fault(
        (CAP_OF_LOGITS,),
        f"{LOSS}::test_the_cross_entropy_is_that_of_the_logits",
        r"loss_sums gives a cross-entropy of [\d.]+ nats, Transformer.logits one of [\d.]+: make a "
        r"change of the logits",
    ),
    "a gradient without the cap": Fault(
        (
            Edit(
                "            d_products = pull_back(jnp.ones_like(loss))[0].astype(x.dtype)\n",
                "            d_products = pull_back(jnp.ones_like(loss))[0].astype(x.dtype)\n"
                "            d_products /= 1 - jnp.tanh(products / 30.0) ** 2\n",
            ),
        ),
        f"{LOSS}::test_the_gradient_of_the_loss_is_its_own",
        r"the loss changes 0.\d+ times as fast along its gradient with respect to hidden as the "
        r"gradient says: the backward pass lacks what the forward pass does",
    ),
}

# --- optimizer/training loop -------------------------------------------------------------------

LION = (
    Edit(
        '    optimizer: Literal["adamw", "muon"]',
        '    optimizer: Literal["adamw", "lion", "muon"]',
        "train.py",
    ),
    Edit('    "embedding": Group(),\n', '    "embedding": Group("lion", rate=0.1),\n', "train.py"),
    Edit(
        '        "muon": scale_by_muon(',
        '        "lion": optax.scale_by_lion(cfg.beta1, cfg.beta2),\n'
        '        "muon": scale_by_muon(',
        "train.py",
    ),
)
LION_FAULTS = {
    "a moment that is whole on every device": Fault(
        (
            Edit(
                '        "lion": optax.scale_by_lion(cfg.beta1, cfg.beta2),\n',
                '        "lion": optax.GradientTransformation(\n'
                "            lambda weights: jax.tree.map(lambda w: jnp.zeros(w.shape), weights),\n"
                "            lambda updates, state, _: (updates, state),\n"
                "        ),\n",
                "train.py",
            ),
        ),
        "test_shapes.py::test_fully_sharded_data_parallel",
        "more than a share of it is on every device",
    ),
    "a group that does not move": Fault(
        (Edit('Group("lion", rate=0.1)', 'Group("lion", rate=0.0)', "train.py"),),
        LEARNS,
        r"three steps teach these nothing: model/embed;",
    ),
}

CHANGES = {
    "window": Change(
        "attention/masking",
        WINDOW,
        (10, 7),
        ("test_flops.py", "test_model.py"),
        frozenset({GOLDEN}),  # with four layers as a period, the tests' model has eight
        WINDOW_FAULTS,
    ),
    "post_norm": Change(
        "block wiring/norm ordering",
        POST_NORM,
        (3, 3),
        ("test_flops.py", "test_model.py", LEARNS),
        frozenset({GOLDEN}),
        POST_NORM_FAULTS,
    ),
    "values": Change(
        "block wiring/norm ordering",
        VALUES,
        (15, 11),
        ("test_flops.py", "test_model.py"),
        frozenset({GOLDEN}),
        VALUES_FAULTS,
    ),
    "swiglu": Change(
        "MLP/activation",
        SWIGLU,
        (17, 9),
        ("test_flops.py", "test_model.py", LEARNS),
        frozenset({GOLDEN}),
        SWIGLU_FAULTS,
    ),
    "soft_cap": Change(
        "loss kernel",
        SOFT_CAP,
        (1, 1),
        (LOSS,),
        frozenset({GOLDEN}),
        SOFT_CAP_FAULTS,
    ),
    "lion": Change(
        "optimizer/training loop",
        LION,
        (3, 2),
        ("test_shapes.py", LEARNS),
        frozenset({GOLDEN}),
        LION_FAULTS,
    ),
}
"""By the name of the copy."""
