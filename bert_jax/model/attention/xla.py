"""Attention as XLA compiles it: every platform, any rate of dropout; all weights are kept for
the gradient.

Axes: b batch, l queries, s keys, h heads, k head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_jax.model.attention.mask import AttentionMask
from bert_jax.model.layers import dropout


def attend(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h s k"],
    v: Float[Array, "b h s k"],
    sight: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | Int[Array, ""] | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`. A hidden key has a weight of exactly zero, so its gradient is zero too."""
    scale = q.shape[-1] ** -0.5
    scores = jnp.einsum("bhlk,bhsk->bhls", q * scale, k, preferred_element_type=jnp.float32)
    # The most negative finite number, not -inf: a row with no key at all stays finite.
    scores = jnp.where(sight.mask(window)[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(scores, axis=-1), rate, key)
    return jnp.einsum("bhls,bhsk->bhlk", weights.astype(v.dtype), v)
