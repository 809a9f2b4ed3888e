"""Splash attention, the flash attention for TPUs that ships with JAX. It computes the scores of one
block of queries and one block of keys at a time, so rows may have any length, and it skips blocks
outside the window. No dropout.

On a CPU the kernel is interpreted, for tests. A GPU is rejected: interpreting would be very slow.

Axes: b batch, l tokens, h heads, k head width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from bert_jax.distributed.constraints import platform
from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.attention.shard_map import AttentionShards

LANES = 128  # width of a TPU vector register; lengths are padded to multiples
MAX_BLOCK = 512  # queries and keys per block


def attend(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    mask: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`. ValueError: on a GPU, or with dropout."""
    if (device := platform()) not in ("cpu", "tpu"):
        raise ValueError(f"attention splash needs a TPU, found {device}: choose run.attention auto")
    if key is not None and rate > 0:
        raise ValueError(
            f"attention splash has no dropout, found encoder.attention_dropout {rate}: "
            "set it to 0, or choose run.attention flash or xla"
        )
    b, h, length, width = q.shape
    pad = -length % LANES
    # Equal segment ids attend to each other, padding included, which keeps every softmax finite.
    segments = mask.segments if mask.packed else (mask.segments > 0).astype(jnp.int32)
    segments = jnp.pad(segments, ((0, 0), (0, pad)))
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, pad), (0, 0))) for x in (q * width**-0.5, k, v))
    shards = AttentionShards.of(b, h)
    heads = P(shards.rows, shards.heads)
    f = shards.map(partial(_attend_shard, window), (heads, heads, heads, P(shards.rows)), heads)
    return f(q, k, v, segments)[:, :, :length]


def _attend_shard(
    window: int | None,
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    segments: Int[Array, "b l"],
) -> Float[Array, "b h l k"]:
    """Attention over the rows and heads of one device."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    h, length = q.shape[1:3]
    mask = (
        masks.LocalMask((length, length), (window, window), 0)
        if window is not None
        else masks.FullMask((length, length))
    )
    block = block_size(length)
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


def block_size(length: int) -> int:
    """The largest block that divides `length`, a multiple of `LANES`."""
    return max(n for n in range(LANES, MAX_BLOCK + 1, LANES) if length % n == 0)
