"""Scaled dot-product attention over whole heads.

Axes: b batch, l queries, s keys, h heads, k head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bert_jax.model.layers import dropout


def attention(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h s k"],
    v: Float[Array, "b h s k"],
    mask: Bool[Array, "b #l s"],
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> Float[Array, "b h l k"]:
    """Attention in which query l sees key s exactly where `mask[b, l, s]`.

    The softmax is float32 whatever the inputs are; a hidden key has a weight of exactly
    zero, so its gradient is zero too. `rate` of the probabilities is dropped when `key`
    is given (Vaswani et al. 2017, section 3.2; bert/modeling.py attention_layer).
    """
    scale = q.shape[-1] ** -0.5
    scores = jnp.einsum("bhlk,bhsk->bhls", q * scale, k, preferred_element_type=jnp.float32)
    # The most negative finite number, not -inf: a row with no key at all stays finite.
    scores = jnp.where(mask[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(scores, axis=-1), rate, key)
    return jnp.einsum("bhls,bhsk->bhlk", weights.astype(v.dtype), v)
