"""Attention in one Pallas kernel for TPUs, with dropout. All scores of a tile of queries fit in
VMEM, so the softmax takes one pass and no [l, l] array reaches HBM.

    grid            row of the batch, group of heads, tile of queries
    forward         q k v -> out
    backward        q k v and the cotangent of out -> dq dk dv; recomputes the probabilities with
                    the same dropout, which is a function of the position and has no state

Heads are side by side, [b, l, h k], as the dense layers produce them: an array whose last axis is
one head, 64 wide, would fill half of a TPU's 128 lanes. On a CPU the same kernel is interpreted,
for tests. A GPU is rejected: interpreting would be very slow.

Axes: b batch, l tokens, t queries of a tile, h heads, k head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt32

from bert_jax.distributed.constraints import platform
from bert_jax.model.attention.flash_kernel import (
    LANES,
    KernelConfig,
    backward,
    dropout_scalars,
    forward,
    with_offset,
)
from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.attention.shard_map import AttentionShards, KernelCost

MAX_LENGTH = 1024  # tokens; for longer rows tiles get small and splash is the better kernel
# Scores of one grid step, in each of a few float32 arrays. At 1,024 tokens v5e's compiler schedules
# a fifth fewer instructions of the backward kernel with this value than with half of it.
MAX_SCORES = 512 * 1024


def attend(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    mask: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | Int[Array, ""] | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`; the window may be traced. The output is zero at padding. The dropout rate is
    rounded to a 256th, as in `layers.dropout`.

    ValueError: on a GPU, or for rows of more than 1,024 tokens.
    """
    if (device := platform()) not in ("cpu", "tpu"):
        raise ValueError(f"attention flash needs a TPU, found {device}: choose run.attention auto")
    b, h, length, width = q.shape
    if length > MAX_LENGTH:
        raise ValueError(
            f"attention flash takes rows of up to {MAX_LENGTH} tokens, found {length}: "
            "choose run.attention splash (without dropout) or xla"
        )
    keep, scalars = dropout_scalars(key, rate, window)
    config = KernelConfig(h, width, mask.packed, window is not None, keep)
    pad = -length % LANES

    def flat(x: jax.Array) -> jax.Array:
        x = x.swapaxes(1, 2).reshape(b, length, h * width)
        return jnp.pad(x, ((0, 0), (0, pad), (0, 0)))

    segments = jnp.pad(mask.segments, ((0, 0), (0, pad)))
    out: jax.Array = _attend(config, flat(q), flat(k), flat(v), segments, scalars)
    return out[:, :length].reshape(b, length, h, width).swapaxes(1, 2)


def kernel_cost(
    b: int, h: int, length: int, k: int, itemsize: int = 2, backward: bool = False
) -> KernelCost:
    """The cost of one call, which the kernel reports to XLA's cost analysis.

    Forward: two matrix products of l x l x k; it reads q k v and the segments and writes out.
    Backward: five, two of which repeat the forward's; it also reads the cotangent of out, and
    writes dq dk dv.
    """
    arrays, products = (7, 5) if backward else (4, 2)
    return KernelCost(
        flops=2 * products * b * h * length**2 * k,
        bytes=arrays * b * h * length * k * itemsize + 4 * b * length,
        exponentials=b * h * length**2,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    config: KernelConfig,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array,
    scalars: jax.Array,
) -> Any:
    return _map_shards(config, forward, 1, (q, k, v), segments, scalars)[0]


def _attend_fwd(config: KernelConfig, *args: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _attend(config, *args), args


def _attend_bwd(
    config: KernelConfig, residuals: tuple[jax.Array, ...], d_out: jax.Array
) -> tuple[Any, ...]:
    *qkv, segments, scalars = residuals
    return *_map_shards(config, backward, 3, (*qkv, d_out), segments, scalars), None, None


_attend.defvjp(_attend_fwd, _attend_bwd)


def _map_shards(
    config: KernelConfig,
    kernel: Callable[..., None],
    num_outputs: int,
    arrays: tuple[jax.Array, ...],
    segments: jax.Array,
    scalars: jax.Array,
) -> tuple[jax.Array, ...]:
    """The kernel on each device's rows and heads. Rows and heads keep their indices in the whole
    batch, so dropout is the same on every mesh."""
    shards = AttentionShards.of(segments.shape[0], config.heads)

    def local(segments: jax.Array, scalars: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        b, _, width = arrays[0].shape
        row, head = shards.first_index(b, width // config.width)
        call = partial(_call, config, kernel, num_outputs)
        return lax.platform_dependent(
            with_offset(scalars, row, head),
            segments[:, None],
            *arrays,
            tpu=partial(call, False),
            default=partial(call, True),
        )

    heads = P(shards.rows, None, shards.heads)
    specs = (P(shards.rows, None), P(None), *[heads] * len(arrays))
    return shards.map(local, specs, (heads,) * num_outputs)(segments, scalars, *arrays)


def _call(
    config: KernelConfig,
    kernel: Callable[..., None],
    num_outputs: int,
    interpret: bool,
    scalars: UInt32[Array, "5"],
    segments: Int[Array, "b 1 l"],
    *arrays: Float[Array, "b l hk"],
) -> tuple[jax.Array, ...]:
    b, length, width = arrays[0].shape
    heads = width // config.width
    t, n = tile_shape(length, heads, config.width)
    row_spec = pl.BlockSpec((1, length, n * config.width), lambda row, at, _: (row, 0, at))
    tile_spec = pl.BlockSpec((1, t, n * config.width), lambda row, at, i: (row, i, at))
    cost = kernel_cost(b, heads, length, config.width, arrays[0].dtype.itemsize, num_outputs == 3)
    return pl.pallas_call(
        partial(kernel, config),
        grid=(b, heads // n, length // t),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            pl.BlockSpec((1, 1, length), lambda row, *_: (row, 0, 0)),
            *([tile_spec, row_spec, row_spec, tile_spec][: len(arrays)]),
        ],
        out_specs=[tile_spec, row_spec, row_spec][:num_outputs],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays[:num_outputs]],
        scratch_shapes=[pltpu.VMEM((length, n * config.width), jnp.float32)] * (num_outputs - 1),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=cost.flops, transcendentals=cost.exponentials, bytes_accessed=cost.bytes
        ),
        interpret=interpret,
        name=f"attention_{kernel.__name__}",
    )(scalars, segments, *arrays)


def tile_shape(length: int, heads: int, width: int) -> tuple[int, int]:
    """The queries and heads of one grid step: as many as MAX_SCORES allows, but at least enough
    heads to fill the lanes. Short rows take many heads at once, since even a small step costs a
    fraction of a microsecond."""
    fitting = [n for n in range(1, heads + 1) if heads % n == 0 and n * width % LANES == 0]
    min_heads = min(fitting, default=heads)  # a block may also be as wide as the array
    t = max(
        t
        for t in range(LANES, length + 1, LANES)
        if length % t == 0 and (t == LANES or t * length <= MAX_SCORES)
    )
    return t, max([n for n in fitting if n * t * length <= MAX_SCORES], default=min_heads)
