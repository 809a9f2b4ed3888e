"""Attention compiled by XLA: any platform and any dropout rate. It stores all attention weights
for the gradient.

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
    mask: AttentionMask,
    rate: float = 0.0,
    key: jax.Array | None = None,
    window: int | Int[Array, ""] | None = None,
) -> Float[Array, "b h l k"]:
    """See `attention`. The weight of a masked key is exactly zero, and so is its gradient."""
    scale = q.shape[-1] ** -0.5
    scores = jnp.einsum("bhlk,bhsk->bhls", q * scale, k, preferred_element_type=jnp.float32)
    # The most negative finite number instead of -inf: a row without any key stays finite.
    scores = jnp.where(mask.to_bool(window)[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(scores, axis=-1), rate, key)
    return jnp.einsum("bhls,bhsk->bhlk", weights.astype(v.dtype), v)
