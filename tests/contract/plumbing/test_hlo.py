"""What is counted of a compiled program.

The compilers of TPUs and GPUs themselves are tried by tests/slow/topology.
"""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from tests.contract.harness import under_test

count = under_test().hlo.count
LAYERS, BATCH, WIDTH = 5, 16, 32


@pytest.fixture(autouse=True)
def optimized():
    """Compiles as a run does; other tests leave optimizations out."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def compile_on(devices, function, *arrays):
    """`function` of (shape, spec) arrays, compiled for a mesh of one axis."""
    explicit = (jax.sharding.AxisType.Explicit,)
    with jax.set_mesh(jax.make_mesh((devices,), ("d",), explicit, devices=jax.devices()[:devices])):
        given = [
            jax.ShapeDtypeStruct(
                s, jnp.float32, sharding=jax.NamedSharding(jax.sharding.get_mesh(), p)
            )
            for s, p in arrays
        ]
        return jax.jit(function).lower(*given).compile()


def test_a_loop_counts_as_often_as_it_runs():
    def layers(x, weights):
        def layer(x, w):
            return x @ jax.reshard(w, P(None, None)), None

        return jax.lax.scan(layer, x, weights)[0]

    weights = ((LAYERS, WIDTH, WIDTH), P(None, "d", None))
    counts = count(compile_on(4, layers, ((BATCH, WIDTH), P("d", None)), weights).as_text())
    assert counts.collectives == {"all-gather": LAYERS * WIDTH * WIDTH * 4}
    assert counts.matrix_flops == LAYERS * 2 * BATCH / 4 * WIDTH * WIDTH
    assert counts.endless == 0


@pytest.mark.parametrize(
    "kind, collective, size",
    [
        ("all-reduce", lambda x: jax.lax.psum(x, "d"), BATCH),
        ("all-gather", lambda x: jax.lax.all_gather(x, "d"), 4 * BATCH),
        ("reduce-scatter", lambda x: jax.lax.psum_scatter(x, "d", tiled=True), BATCH),
        ("all-to-all", lambda x: jax.lax.all_to_all(x, "d", 0, 0, tiled=True), BATCH),
        (
            "collective-permute",
            lambda x: jax.lax.ppermute(x, "d", [(i, (i + 1) % 4) for i in range(4)]),
            BATCH,
        ),
    ],
)
def test_bytes_of_each_kind(kind, collective, size):
    @partial(jax.shard_map, in_specs=P(None, "d"), out_specs=P("d"), check_vma=False)
    def thrice(xs):
        return jax.lax.map(collective, xs).reshape(3, -1).sum(axis=0)

    rows = ((3, 4 * BATCH), P(None, "d"))
    counts = count(compile_on(4, thrice, rows).as_text())
    assert counts.collectives == {kind: 3 * size * 4}


def test_a_product_on_a_tpu_is_a_convolution():
    """Lines of libtpu's, of scores of 4 x 4 heads over 4096 keys each, and of a projection."""
    text = """ENTRY %main (a: bf16[4]) -> bf16[4] {
  %q = bf16[4096,4,4,128]{0,3,2,1:T(8,128)(2,1)} parameter(0)
  %k = bf16[4096,4,128,1]{0,2,3,1:T(8,128)(2,1)S(1)} parameter(1)
  %s = f32[4,4096,4,4096]{1,3,2,0:T(8,128)} convolution(%q, %k), \
window={size=4x1 stride=3x1 lhs_dilate=4x1}, dim_labels=b01f_o0i1->0b1f
  %x = bf16[4096,2048,1]{0,1,2:T(8,128)(2,1)} parameter(2)
  %w = bf16[2048,16,128]{0,2,1:T(8,128)(2,1)S(1)} parameter(3)
  ROOT %p = bf16[4096,16,128]{0,2,1:T(8,128)(2,1)} convolution(%x, %w), \
window={size=16 pad=15_15 rhs_reversal=1}, dim_labels=bf0_i0o->b0f
}"""
    scores, projection = 2 * 16 * 128 * 4096 * 4096, 2 * 2048 * 16 * 128 * 4096
    assert count(text).matrix_flops == scores + projection


def test_kernels_and_gemms_tell_their_flops():
    text = """ENTRY %main (a: bf16[4]) -> bf16[4] {
  %a = bf16[8,64]{1,0} parameter(0)
  %b = bf16[64,16]{1,0} parameter(1)
  %g = (bf16[8,16]{1,0}, s8[4096]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["1"]}}}
  ROOT %k = bf16[8,16]{1,0} custom-call(%a, %b), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"cost_estimate":{"flops":"1000","transcendentals":"0"}}}
}"""
    assert count(text).matrix_flops == 2 * 8 * 16 * 64 + 1000


@pytest.mark.parametrize(
    "groups", ["{{0},{1},{2},{3}}", "[4,1]<=[4]", "mesh['data'=4,'model'=1] {'model'}"]
)
def test_a_group_of_one_device_moves_nothing(groups):
    text = """ENTRY %main (a: f32[8]) -> f32[8] {{
  %a = f32[8]{{0}} parameter(0)
  %g = f32[8]{{0}} all-gather(%a), channel_id=1, replica_groups={}, dimensions={{0}}
  %m = f32[8]{{0}} all-reduce(%g), channel_id=2, replica_groups=mesh['a'=2,'b'=2] {{'a'}}
  ROOT %r = f32[8]{{0}} all-reduce(%m), channel_id=3, replica_groups={{{{0,1}},{{2,3}}}}
}}"""
    assert count(text.format(groups)).collectives == {"all-reduce": 2 * 8 * 4}


def test_the_parts_of_one_collective_count_once():
    """A TPU spreads one over fusions of one channel and chain; a loop's turns are their own."""
    text = """%part.1 (p: f32[8]) -> f32[32] {
  %p = f32[8]{0} parameter(0)
  ROOT %g = f32[32]{0} all-gather(%p), channel_id=7, frontend_attributes={chain_id="0"}
}

%part.2 (p: f32[8]) -> f32[32] {
  %p = f32[8]{0} parameter(0)
  ROOT %g = f32[32]{0} all-gather(%p), channel_id=7, frontend_attributes={chain_id="0"}
}

%another.1 (p: f32[8]) -> f32[16] {
  %p = f32[8]{0} parameter(0)
  ROOT %g = f32[16]{0} all-gather(%p), channel_id=7, frontend_attributes={chain_id="1"}
}

%all-reduce-scatter.1 (p: f32[32]) -> f32[8] {
  %p = f32[32]{0} parameter(0)
  %r = f32[32]{0} all-reduce(%p), channel_id=8, to_apply=%add
  ROOT %s = f32[8]{0} slice(%r), slice={[0:8]}
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8]{0} parameter(0)
  %one = f32[32]{0} fusion(%x), kind=kCustom, calls=%part.1
  %two = f32[32]{0} fusion(%x), kind=kCustom, calls=%part.2
  %three = f32[16]{0} fusion(%x), kind=kCustom, calls=%another.1
  ROOT %z = f32[8]{0} fusion(%two), kind=kCustom, calls=%all-reduce-scatter.1
}

%condition (t: (s32[], f32[8])) -> pred[] {
  %i = s32[] parameter(0)
  %limit = s32[]{:T(128)} constant(6)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %t = token[] after-all()
  %sent = (f32[8]{0}, u32[], token[]) send(%a, %t), channel_id=3, is_host_transfer=true, \
frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %w = f32[8]{0} while(%a), condition=%condition, body=%body
}"""
    counts = count(text)
    assert counts.collectives == {
        "all-gather": 6 * (32 + 16) * 4,
        "reduce-scatter": 6 * 32 * 4,
        "all-reduce between slices": 8 * 4,
    }
    assert counts.endless == 0
    endless = text.replace("constant(6)", "parameter(1)")
    for turns in (0, 1, 3):
        counts = count(endless, turns_of_endless=turns)
        assert counts.endless == 1
        assert counts.collectives["reduce-scatter"] == turns * 32 * 4
        assert counts.collectives["all-reduce between slices"] == 8 * 4


@pytest.mark.parametrize(
    "kernel, flops, kernels",
    [
        ('"tpu_custom_call"', 0, 6),
        ('"tpu_custom_call", "flops":"40"', 6 * 40, 0),
        ('"mosaic_gpu_v2"', 0, 6),
        ('"__cudnn$fmhaScaleBiasSoftmaxBackward"', 0, 6),
        ('"__cudnn$convForward"', 0, 0),
    ],
)
def test_a_kernel_whose_flops_nobody_tells_is_told(kernel, flops, kernels):
    text = f"""%body (t: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %y = f32[8]{{0}} custom-call(%x), custom_call_target={kernel}
}}

ENTRY %main (a: f32[8]) -> f32[8] {{
  %a = f32[8]{{0}} parameter(0)
  %buffer = f32[8]{{0}} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %w = f32[8]{{0}} while(%a), condition=%c, body=%body, \
backend_config={{"known_trip_count":{{"n":"6"}}}}
}}"""
    counts = count(text)
    assert (counts.matrix_flops, counts.kernels) == (flops, kernels)


def test_a_caller_tells_the_flops_of_its_kernels():
    """By the part of the kernel's name; its metadata has lines of its own."""
    text = """ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %x = f32[8]{0} custom-call(%a), custom_call_target="tpu_custom_call", frontend_attributes={\
flops_fwd="300",flops_dkv="700",kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="jit(step)/a_fwd_b/pallas_call"}
  %y = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={\
flops_fwd="300",flops_dkv="700"}, metadata={op_name="jit(step)/a_dkv_b/pallas_call"}
  ROOT %z = f32[8]{0} custom-call(%y), custom_call_target="tpu_custom_call", \
frontend_attributes={flops_fwd="300"}, metadata={op_name="jit(step)/another/pallas_call"}
}"""
    counts = count(text)
    assert (counts.matrix_flops, counts.kernels) == (300 + 700, 1)


@pytest.mark.parametrize("target", ["__cudnn$fmhaSoftmax", "mosaic_gpu_v2", "triton_kernel_call"])
def test_kernels_on_gpus_are_told(target):
    text = f"""ENTRY %main (a: f32[8]) -> f32[8] {{
  %a = f32[8]{{0}} parameter(0)
  ROOT %x = f32[8]{{0}} custom-call(%a), custom_call_target="{target}"
}}"""
    assert count(text).kernels == 1
