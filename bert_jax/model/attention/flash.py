"""Attention in one Pallas kernel for TPUs, with dropout: all scores of a tile of queries lie in
VMEM at once, so the softmax needs one pass and nothing of the size [l, l] reaches memory.

    grid            row of the batch, a few heads, a tile of queries
    forward         q k v -> out
    backward        q k v and out's cotangent -> dq dk dv; the probabilities are made again, with
                    the same dropout, since that is a function of the place and no state

Heads lie side by side, [b, l, h k], as the dense layers make them: an array whose last axis is
one head, 64 wide, would fill half of a TPU's 128 lanes. On a CPU the same kernel is interpreted,
for tests; a GPU is refused, where that would be a crawl.

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
from bert_jax.model.attention.flash_kernel import KernelConfig, backward, forward
from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.attention.shard_map import AttentionShards, KernelCost
from bert_jax.model.layers import keep_threshold_u8

LONGEST = 1024  # tokens; above, tiles of few queries make splash the better kernel
LANES = 128  # of a TPU's vector unit: lengths and tiles are multiples
# Of one grid step, in each of a few float32 arrays. At 1,024 tokens v5e's compiler schedules a
# fifth fewer instructions of the backward kernel for this many than for half of them.
SCORES = 512 * 1024


def attend(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    sight: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | Int[Array, ""] | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`; the window may be traced. Zero at padding. Rates are rounded to a 256th,
    as in layers.dropout. ValueError: a GPU, or rows of more than 1,024 tokens."""
    if (found := platform()) not in ("cpu", "tpu"):
        raise ValueError(f"attention flash needs a TPU, found {found}: choose run.attention auto")
    b, h, length, width = q.shape
    if length > LONGEST:
        raise ValueError(
            f"attention flash takes rows of up to {LONGEST} tokens, found {length}: "
            "choose run.attention splash (without dropout) or xla"
        )
    if key is None or rate == 0.0:
        kept, seed = 256, jnp.zeros(2, jnp.uint32)
    else:
        kept, seed = keep_threshold_u8(rate), jax.random.bits(key, (2,), jnp.uint32)
    law = KernelConfig(h, width, sight.packed, window is not None, kept)
    far = jnp.asarray(0 if window is None else window, jnp.uint32)
    more = -length % LANES

    def flat(x: jax.Array) -> jax.Array:
        x = x.swapaxes(1, 2).reshape(b, length, h * width)
        return jnp.pad(x, ((0, 0), (0, more), (0, 0)))

    segments = jnp.pad(sight.segments, ((0, 0), (0, more)))
    out: jax.Array = _attend(law, flat(q), flat(k), flat(v), segments, jnp.append(seed, far))
    return out[:, :length].reshape(b, length, h, width).swapaxes(1, 2)


def cost(
    b: int, h: int, length: int, k: int, itemsize: int = 2, backward: bool = False
) -> KernelCost:
    """Of one call, as the kernel tells XLA, whose cost analysis counts it. Two matrix products of
    l x l x k forward, five backward, two of which repeat the forward's. Forward reads q k v and
    the segments and writes out; backward reads them and out's cotangent and writes dq dk dv."""
    arrays, products = (7, 5) if backward else (4, 2)
    return KernelCost(
        flops=2 * products * b * h * length**2 * k,
        bytes=arrays * b * h * length * k * itemsize + 4 * b * length,
        exponentials=b * h * length**2,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    law: KernelConfig,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array,
    numbers: jax.Array,
) -> Any:
    return _on_shards(law, forward, 1, (q, k, v), segments, numbers)[0]


def _attend_fwd(law: KernelConfig, *args: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _attend(law, *args), args


def _attend_bwd(
    law: KernelConfig, kept: tuple[jax.Array, ...], d_out: jax.Array
) -> tuple[Any, ...]:
    *qkv, segments, numbers = kept
    return *_on_shards(law, backward, 3, (*qkv, d_out), segments, numbers), None, None


_attend.defvjp(_attend_fwd, _attend_bwd)


def _on_shards(
    law: KernelConfig,
    kernel: Callable[..., None],
    results: int,
    arrays: tuple[jax.Array, ...],
    segments: jax.Array,
    numbers: jax.Array,
) -> tuple[jax.Array, ...]:
    """The kernel on each device's rows and heads, which it counts as the whole batch does:
    dropout is then the same on every mesh."""
    cut = AttentionShards.of(segments.shape[0], law.heads)

    def local(segments: jax.Array, numbers: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        b, _, width = arrays[0].shape
        row, head = cut.first(b, width // law.width)
        first = jnp.array([row, head], jnp.uint32)
        call = partial(_call, law, kernel, results)
        return lax.platform_dependent(
            jnp.concatenate([numbers[:2], first, numbers[2:]]),
            segments[:, None],
            *arrays,
            tpu=partial(call, False),
            default=partial(call, True),
        )

    wide = P(cut.rows, None, cut.heads)
    specs = (P(cut.rows, None), P(None), *[wide] * len(arrays))
    return cut.map(local, specs, (wide,) * results)(segments, numbers, *arrays)


def _call(
    law: KernelConfig,
    kernel: Callable[..., None],
    results: int,
    interpret: bool,
    numbers: UInt32[Array, "5"],
    segments: Int[Array, "b 1 l"],
    *arrays: Float[Array, "b l hk"],
) -> tuple[jax.Array, ...]:
    b, length, width = arrays[0].shape
    heads = width // law.width
    t, n = tile(length, heads, law.width)
    whole = pl.BlockSpec((1, length, n * law.width), lambda row, at, _: (row, 0, at))
    part = pl.BlockSpec((1, t, n * law.width), lambda row, at, i: (row, i, at))
    spent = cost(b, heads, length, law.width, arrays[0].dtype.itemsize, results == 3)
    return pl.pallas_call(
        partial(kernel, law),
        grid=(b, heads // n, length // t),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            pl.BlockSpec((1, 1, length), lambda row, *_: (row, 0, 0)),
            *([part, whole, whole, part][: len(arrays)]),
        ],
        out_specs=[part, whole, whole][:results],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays[:results]],
        scratch_shapes=[pltpu.VMEM((length, n * law.width), jnp.float32)] * (results - 1),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=spent.flops, transcendentals=spent.exponentials, bytes_accessed=spent.bytes
        ),
        interpret=interpret,
        name=f"attention_{kernel.__name__}",
    )(numbers, segments, *arrays)


def tile(length: int, heads: int, width: int) -> tuple[int, int]:
    """Queries and heads of one grid step: as many as SCORES allows, of heads no fewer than fill
    the lanes. Short rows take many heads at once, since a step costs a fraction of a microsecond
    however small it is."""
    fitting = [n for n in range(1, heads + 1) if heads % n == 0 and n * width % LANES == 0]
    least = min(fitting, default=heads)  # a block may also be as wide as the array
    t = max(
        t
        for t in range(LANES, length + 1, LANES)
        if length % t == 0 and (t == LANES or t * length <= SCORES)
    )
    return t, max([n for n in fitting if n * t * length <= SCORES], default=least)
