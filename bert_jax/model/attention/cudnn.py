"""cuDNN's flash attention on NVIDIA GPUs, through jax.nn: 16-bit, without dropout.

Padded rows are told by their lengths. Packed rows and windows go in as a mask of [b, 1, l, l],
which is memory of that size, since jax.nn hands cuDNN no segments and windows to the left alone:
with lengths only, packed texts would see each other.

What cuDNN leaves undefined must reach no gradient: one NaN at padding, and a sum over all places,
such as the gradient of the projection to the keys, is NaN.

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
    sight: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`. Padding stands at the end of a row that is not packed.

    ValueError: no GPU, float32, dropout, or heads of a width that cuDNN does not take.
    """
    b, h, length, width = q.shape
    if said := refusal(platform(), q.dtype, width, rate if key is not None else 0.0):
        raise ValueError(said)
    more = length % 2  # a mask's gradient needs an even length
    segments = jnp.pad(sight.segments, ((0, 0), (0, more)))
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0))) for x in (q, k, v))
    cut = AttentionShards.of(b, h)
    heads = P(cut.rows, cut.heads)
    f = cut.map(partial(_local, sight.packed, window), (heads, heads, heads, P(cut.rows)), heads)
    return f(q, k, v, segments)[:, :, :length]


def refusal(platform: str, dtype: jnp.dtype, width: int, rate: float) -> str | None:
    """Why heads of this width and type cannot go this way, and what to change; None: they can."""
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
            f"attention cudnn takes heads of a width that 8 divides, up to 128, found {width}: "
            "change encoder.heads, or choose run.attention xla"
        )
    return None


def _local(
    packed: bool,
    window: int | None,
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l k"],
    segments: Int[Array, "b l"],
) -> Float[Array, "b h l k"]:
    """On one device's rows and heads."""
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    cudnn = partial(jax.nn.dot_product_attention, implementation="cudnn")
    if packed or window is not None:
        # At some lengths (l % 128 == 64, on Hopper) the gradient of a query that sees nothing is
        # NaN (pytorch/pytorch#196678): padding sees padding, and so at least itself.
        mask = AttentionMask(segments, packed).with_padding().mask(window)
        out = cudnn(q, k, v, mask=mask[:, None])
    else:
        # The gradients of keys and values behind a row's end are never written: they are whatever
        # that memory held (openxla/xla#44867). `where` lets none of it through.
        real = segments > 0
        k, v = (jnp.where(real[..., None, None], x, 0) for x in (k, v))
        # Every query is computed, and an empty row sees its first place: no result is undefined.
        sizes = jnp.maximum(1, jnp.sum(real, axis=-1, dtype=jnp.int32))
        out = cudnn(q, k, v, key_value_seq_lengths=sizes)
    return out.swapaxes(1, 2)
