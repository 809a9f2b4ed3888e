"""Splash attention, the flash attention for TPUs that comes with JAX: scores of a block of queries
and a block of keys at a time, so any length; blocks outside of a window are skipped. No dropout.

On a CPU it is interpreted, for tests; a GPU is refused, where that would be a crawl.

Axes: b batch, l tokens, h heads, k head width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from bert_jax.distributed.constraints import platform
from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.attention.shard_map import AttentionShards

LANES = 128  # of a TPU's vector unit: lengths are padded to multiples
BLOCK = 512  # queries and keys at a time, at most


def attend(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    sight: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`. ValueError: a GPU, or dropout is asked for."""
    if (found := platform()) not in ("cpu", "tpu"):
        raise ValueError(f"attention splash needs a TPU, found {found}: choose run.attention auto")
    if key is not None and rate > 0:
        raise ValueError(
            f"attention splash has no dropout, found encoder.attention_dropout {rate}: "
            "set it to 0, or choose run.attention flash or xla"
        )
    b, h, length, width = q.shape
    more = -length % LANES
    # Equal numbers see each other: padding sees padding, which keeps every softmax finite.
    segments = sight.segments if sight.packed else (sight.segments > 0).astype(jnp.int32)
    segments = jnp.pad(segments, ((0, 0), (0, more)))
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0))) for x in (q * width**-0.5, k, v))
    cut = AttentionShards.of(b, h)
    heads = P(cut.rows, cut.heads)
    f = cut.map(partial(_local, window), (heads, heads, heads, P(cut.rows)), heads)
    return f(q, k, v, segments)[:, :, :length]


def _local(
    window: int | None,
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    segments: Int[Array, "b l"],
) -> Float[Array, "b h l k"]:
    """On one device's rows and heads."""
    h, length = q.shape[1:3]
    mask = (
        masks.LocalMask((length, length), (window, window), 0)
        if window is not None
        else masks.FullMask((length, length))
    )
    block = block_of(length)
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )

    def call(interpret: bool, *args: jax.Array) -> Any:
        attend_row = kernel.make_splash_mha_single_device(
            masks.MultiHeadMask([mask] * h), block_sizes=sizes, interpret=interpret
        )
        return jax.vmap(lambda q, k, v, s: attend_row(q, k, v, kernel.SegmentIds(s, s)))(*args)

    return lax.platform_dependent(
        q, k, v, segments, tpu=partial(call, False), default=partial(call, True)
    )


def block_of(length: int) -> int:
    return max(n for n in range(LANES, BLOCK + 1, LANES) if length % n == 0)
