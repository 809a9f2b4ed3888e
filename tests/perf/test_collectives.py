"""The bytes of collectives are counted exactly, and a train step sends no more than it must."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from bert_jax import config
from bert_jax.config import replace
from bert_jax.distributed import constraints, sharding
from bert_jax.model.attention import AttentionMask, flash
from bert_jax.perf import collectives, hlo
from bert_jax.perf.collectives import bytes_by_kind
from bert_jax.perf.plan import costs
from bert_jax.training.step import compile_steps
from tests.helpers import tiny_configs

N = 4
BLOCK = 4 * 8 * 16  # bytes of float32 [8, 16], which each device holds
MESH = jax.make_mesh((2, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
BOTH = ("x", "y")


def collective_bytes(f: Any, mesh: Mesh = MESH) -> dict[str, int]:
    """Bytes of each kind of collective in `f`, which maps the [8, 16] of one device."""
    local = jax.shard_map(f, mesh=mesh, in_specs=P(BOTH), out_specs=P(BOTH), check_vma=False)
    x = jnp.zeros((8 * mesh.size, 16))
    by_kind = bytes_by_kind(jax.jit(local).lower(x).compile().as_text())
    return {kind: size for kind, size in by_kind.items() if size}


def test_each_kind_counts_the_whole_array() -> None:
    turn = [(i, (i + 1) % N) for i in range(N)]
    gather = partial(jax.lax.all_gather, axis_name=BOTH, tiled=True)
    assert collective_bytes(lambda x: jax.lax.psum(x, BOTH)) == {"all-reduce": BLOCK}
    assert collective_bytes(lambda x: gather(x) + 1) == {"all-gather": N * BLOCK}
    scatter = {"reduce-scatter": BLOCK}
    assert collective_bytes(lambda x: jax.lax.psum_scatter(x, BOTH, tiled=True)) == scatter
    exchange = {"all-to-all": BLOCK}
    assert (
        collective_bytes(lambda x: jax.lax.all_to_all(x, BOTH, 0, 1, tiled=True).reshape(8, 16))
        == exchange
    )
    assert collective_bytes(lambda x: jax.lax.ppermute(x, BOTH, turn)) == {
        "collective-permute": BLOCK
    }


def test_a_loop_counts_once_per_iteration() -> None:
    def inner(x: Any, _: Any) -> Any:
        return jnp.sin(jax.lax.psum(x, "x")), None

    def outer(x: Any, _: Any) -> Any:
        return jax.lax.scan(inner, x, None, length=5)[0], None

    assert collective_bytes(lambda x: jax.lax.scan(inner, x, None, length=7)[0]) == {
        "all-reduce": 7 * BLOCK
    }
    assert collective_bytes(lambda x: jax.lax.scan(outer, x, None, length=3)[0]) == {
        "all-reduce": 15 * BLOCK
    }


def test_a_group_of_one_device_sends_nothing() -> None:
    alone = jax.make_mesh((1, 4), BOTH, axis_types=(AxisType.Auto,) * 2)
    assert collective_bytes(lambda x: jnp.sin(jax.lax.psum(x, "x")), alone) == {}


def test_a_device_sends_twice_its_part_of_an_all_reduce() -> None:
    assert collectives.Collective("all-reduce", 800, 4).sent_bytes == 2 * 600
    assert collectives.Collective("all-gather", 800, 4, times=3).sent_bytes == 3 * 600


TPU = """HloModule jit_f, is_scheduled=true, num_partitions=8

%all-reduce-scatter.1 (p: f32[64]) -> f32[32] {
  %p = f32[64]{0:T(128)} parameter(0)
  %all-reduce.2 = f32[64]{0:T(128)} all-reduce(%p), replica_groups=mesh['a'=4,'b'=2] {'b'}, to_apply=%add
  ROOT %dynamic-slice.3 = f32[32]{0:T(128)} dynamic-slice(%all-reduce.2), dynamic_slice_sizes={32}
}

%condition (c: (s32[], f32[64])) -> pred[] {
  %c = (s32[]{:T(128)}, f32[64]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%c), index=0
  %limit = s32[]{:T(128)} constant(24)
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (b: (s32[], f32[64])) -> (s32[], f32[64]) {
  %b = (s32[]{:T(128)}, f32[64]{0}) parameter(0)
  %x = f32[64]{0} get-tuple-element(%b), index=1
  %fusion.1 = f32[32]{0:T(128)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %gather.1 = (f32[32]{0:T(128)}, f32[64]{0:T(128)S(1)}) all-gather-start(%fusion.1), replica_groups={{0,1},{2,3},{4,5},{6,7}}
  %done.1 = f32[64]{0:T(128)S(1)} all-gather-done(%gather.1)
  ROOT %t = (s32[]{:T(128)}, f32[64]{0}) tuple(%b, %done.1)
}

ENTRY %main (a: f32[64]) -> f32[64] {
  %a = (s32[]{:T(128)}, f32[64]{0}) parameter(0)
  %while.1 = (s32[]{:T(128)}, /*index=1*/f32[64]{0}) while(%a), condition=%condition, body=%body
  ROOT %out = f32[64]{0} get-tuple-element(%while.1), index=1
}
"""  # noqa: E501


def test_the_notation_of_the_tpu_compiler_is_parsed() -> None:
    """A loop without a trip count, groups named by axes, a reduce-scatter as an all-reduce and a
    slice."""
    by_kind = bytes_by_kind(TPU)
    assert by_kind["reduce-scatter"] == 24 * 4 * 64
    assert by_kind["all-gather"] == 24 * 4 * 64
    assert by_kind["all-reduce"] == 0
    assert {c.devices for c in collectives.read_collectives(hlo.parse_hlo(TPU))} == {2}


# ---- products and traffic


def test_products_count_once_per_iteration_of_a_loop() -> None:
    def f(x: Any, w: Any) -> Any:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    text = jax.jit(f).lower(jnp.zeros((8, 16)), jnp.zeros((5, 16, 16))).compile().as_text()
    assert costs.read_costs(hlo.parse_hlo(text)).flops == 5 * 2 * 8 * 16 * 16


@pytest.mark.parametrize(
    ("line", "flops"),
    [
        (
            "f32[8,16,512,512]{3,2,1,0} convolution(%a, %b), window={size=8x16 stride=7x15 "
            "lhs_dilate=8x16}, dim_labels=01bf_01oi->01bf",
            2 * 8 * 16 * 512 * 512 * 64,
        ),
        (
            "f32[8,16,512,512]{3,2,1,0} convolution(%a, %b), window={size=8x16 stride=8x16 "
            "pad=7_7x15_15 lhs_dilate=7x15 rhs_reversal=1x1}, dim_labels=01bf_01oi->01bf",
            2 * 8 * 16 * 512 * 512 * 64,
        ),
    ],
)
def test_a_batched_product_written_as_a_dilated_convolution_counts_right(
    line: str, flops: int
) -> None:
    text = (
        "ENTRY %main (a: f32[8]) -> f32[8] {\n"
        "  %a = f32[8,16,512,64]{3,2,1,0} parameter(0)\n"
        "  %b = f32[8,16,512,64]{3,2,1,0} parameter(1)\n"
        f"  ROOT %c = {line}\n}}\n"
    )
    assert costs.read_costs(hlo.parse_hlo(text)).flops == flops


def test_fast_memory_costs_no_traffic_and_a_slice_only_its_part() -> None:
    text = (
        "ENTRY %main (a: f32[8]) -> f32[8] {\n"
        "  %a = f32[24,64]{1,0} parameter(0)\n"
        "  %i = s32[]{:T(128)S(6)} parameter(1)\n"
        "  %near = f32[1,64]{1,0:T(8,128)S(1)} dynamic-slice(%a, %i), dynamic_slice_sizes={1,64}\n"
        "  ROOT %far = f32[1,64]{1,0:T(8,128)} negate(%near)\n}\n"
    )
    read = written = 4 * 64  # the slice, and the result
    assert costs.read_costs(hlo.parse_hlo(text)).bytes == read + written


def test_slices_and_updates_of_stacked_layers_move_one_layer() -> None:
    """Also in nested fusions."""
    text = (
        "%inner (p: f32[24,64]) -> f32[1,64] {\n"
        "  %p = f32[24,64]{1,0} parameter(0)\n"
        "  %at = s32[] parameter(1)\n"
        "  ROOT %view = f32[1,64]{1,0} dynamic-slice(%p, %at), dynamic_slice_sizes={1,64}\n}\n"
        "%outer (q: f32[24,64]) -> f32[24,64] {\n"
        "  %q = f32[24,64]{1,0} parameter(0)\n"
        "  %to = f32[24,64]{1,0} parameter(1)\n"
        "  %at.1 = s32[] parameter(2)\n"
        "  %cast = f32[24,64]{1,0} bitcast(%q)\n"
        "  %layer = f32[1,64]{1,0} fusion(%cast, %at.1), kind=kLoop, calls=%inner\n"
        "  %put = f32[24,64]{1,0} dynamic-update-slice(%to, %layer, %at.1)\n"
        "  ROOT %cast.1 = f32[24,64]{1,0} bitcast(%put)\n}\n"
        "ENTRY %main (a: f32[24,64]) -> f32[24,64] {\n"
        "  %a = f32[24,64]{1,0} parameter(0)\n"
        "  %b = f32[24,64]{1,0} parameter(1)\n"
        "  %i = s32[]{:S(6)} parameter(2)\n"
        "  ROOT %f = f32[24,64]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%outer\n}\n"
    )
    assert costs.read_costs(hlo.parse_hlo(text)).bytes == 2 * 4 * 64


def test_a_kernel_counts_by_its_cost_estimate() -> None:
    with_estimate = (
        "ENTRY %main (a: f32[8]) -> f32[8] {\n"
        "  %a = f32[8]{0} parameter(0)\n"
        '  ROOT %k = f32[8]{0} custom-call(%a), custom_call_target="tpu_custom_call", '
        'backend_config={"custom_call_config":{"cost_estimate":{"flops":"700",'
        '"transcendentals":"0","bytes_accessed":"90"}}}\n}\n'
    )
    assert costs.read_costs(hlo.parse_hlo(with_estimate)) == costs.ProgramCosts(700.0, 90.0, 1, 0)
    without_estimate = with_estimate.replace("cost_estimate", "nothing")
    assert costs.read_costs(hlo.parse_hlo(without_estimate)) == costs.ProgramCosts(0.0, 64.0, 0, 1)


# ---- steps


@pytest.mark.slow_unless("albert", nightly=("bert",))
@pytest.mark.parametrize("family", ["albert", "bert", "electra"])
def test_data_parallel_steps_sum_the_gradient_once(family: str) -> None:
    """Also with tied tables, shared layers and gradient accumulation."""
    c = replace(tiny_configs.FAMILIES[family], data=dict(batch_size=16), optim=dict(accumulate=2))
    steps = compile_steps(c, tiny_configs.build(c), sharding.make_mesh(config.Mesh(N)))
    text = steps.train.lower(steps.like, tiny_configs.batch(16)).compile().as_text()
    gradient = 4 * sum(x.size for x in jax.tree.leaves(steps.like.params))
    by_kind = bytes_by_kind(text)
    assert gradient <= by_kind.pop("all-reduce") <= 1.01 * gradient
    assert not any(by_kind.values())


def test_dropout_of_sharded_rows_equals_that_of_the_whole_batch() -> None:
    """Each device draws the random words of its rows alone."""
    mesh = sharding.make_mesh(config.Mesh(N))

    def sum_of_words(_: Any, batch: Any, key: jax.Array) -> Any:
        words = constraints.random_words(key, (2, 3, 5))
        return constraints.psum_batch(words.astype(jnp.float32).sum() + 0 * batch.sum())

    key = jax.random.key(1)
    f = sharding.with_mesh(
        mesh, lambda batch: constraints.data_parallel(sum_of_words)(0, batch, key)
    )
    sharded = jax.jit(f, in_shardings=sharding.batch_sharding(mesh))(jnp.zeros((8, 1)))
    whole = jax.random.bits(key, (8, 3, 5), jnp.uint32).astype(jnp.float32).sum()
    np.testing.assert_allclose(sharded, whole, rtol=1e-6)


@pytest.mark.parametrize("mesh", [config.Mesh(4), config.Mesh(2, 2), config.Mesh(2, 1, 2)])
def test_kernel_dropout_of_sharded_rows_equals_that_of_the_whole_batch(mesh: config.Mesh) -> None:
    """Whether `data_parallel` shards the rows, or the kernel, for a mesh with more axes."""

    def total(_: Any, x: Any, key: jax.Array) -> Any:
        mask = AttentionMask(jnp.ones((len(x), 128), jnp.int32), packed=False)
        out = flash.attend(x, x, x, mask, 0.5, key)
        return constraints.psum_batch((out * x).sum())

    x = jax.random.normal(jax.random.key(0), (4, 2, 128, 64))
    key = jax.random.key(1)
    device_mesh = sharding.make_mesh(mesh)
    f = sharding.with_mesh(device_mesh, lambda x: constraints.data_parallel(total)(0, x, key))
    sharded = jax.jit(f, in_shardings=sharding.batch_sharding(device_mesh))(x)
    np.testing.assert_allclose(sharded, total(0, x, key), rtol=1e-5)
