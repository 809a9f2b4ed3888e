"""cuDNN's flash attention on NVIDIA GPUs, called through jax.nn: 16-bit, no dropout.

Padded rows are passed as lengths. Packed rows and windows are passed as a mask of [b, 1, l, l],
which takes that much memory: jax.nn passes no segment ids to cuDNN, and windows to the left only.
With lengths alone, packed texts would attend to each other.

Values that cuDNN leaves undefined must reach no gradient. A single NaN at padding turns every sum
over positions into NaN, for instance the gradient of the key projection.

Axes: b batch, l tokens, h heads, k head width.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from bert_jax.distributed.constraints import platform
from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.attention.shard_map import AttentionShards


def attend(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    mask: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`. In rows that are not packed, padding must be at the end.

    ValueError: no GPU, float32, dropout, or a head width that cuDNN does not support.
    """
    b, h, length, width = q.shape
    if reason := unsupported_reason(platform(), q.dtype, width, rate if key is not None else 0.0):
        raise ValueError(reason)
    pad = length % 2  # the gradient of a mask needs an even length
    segments = jnp.pad(mask.segments, ((0, 0), (0, pad)))
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, pad), (0, 0))) for x in (q, k, v))
    shards = AttentionShards.of(b, h)
    heads = P(shards.rows, shards.heads)
    f = shards.map(
        partial(_attend_shard, mask.packed, window), (heads, heads, heads, P(shards.rows)), heads
    )
    return f(q, k, v, segments)[:, :, :length]


def unsupported_reason(platform: str, dtype: jnp.dtype, width: int, rate: float) -> str | None:
    """Why cuDNN does not support such heads, and what to change; None if it does."""
    if platform not in ("gpu", "cuda"):
        return f"attention cudnn needs an NVIDIA GPU, found {platform}: choose run.attention auto"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return (
            f"attention cudnn takes bfloat16, found {dtype}: set run.dtype bfloat16, "
            "or choose run.attention xla"
        )
    if rate:
        return (
            f"attention cudnn has no dropout, found encoder.attention_dropout {rate}: "
            "set it to 0, or choose run.attention xla"
        )
    if width % 8 or width > 128:
        return (
            f"attention cudnn takes head widths that are multiples of 8 up to 128, found {width}: "
            "change encoder.heads, or choose run.attention xla"
        )
    return None


def _attend_shard(
    packed: bool,
    window: int | None,
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    segments: Int[Array, "b l"],
) -> Float[Array, "b h l k"]:
    """Attention over the rows and heads of one device."""
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    cudnn = partial(jax.nn.dot_product_attention, implementation="cudnn")
    if packed or window is not None:
        # At some lengths (l % 128 == 64, on Hopper) the gradient of a query without any key is
        # NaN (pytorch/pytorch#196678). With a padding segment every token has a key: itself.
        mask = AttentionMask(segments, packed).with_padding_segment().to_bool(window)
        out = cudnn(q, k, v, mask=mask[:, None])
    else:
        # cuDNN never writes the gradients of keys and values after the end of a row: they hold
        # whatever was in that memory (openxla/xla#44867). `where` blocks them.
        is_real = segments > 0
        k, v = (jnp.where(is_real[..., None, None], x, 0) for x in (k, v))
        # Every query is computed, and an empty row attends to its first token, so that no result
        # is undefined.
        sizes = jnp.maximum(1, jnp.sum(is_real, axis=-1, dtype=jnp.int32))
        out = cudnn(q, k, v, key_value_seq_lengths=sizes)
    return out.swapaxes(1, 2)
