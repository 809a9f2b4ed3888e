"""Attention compiled by XLA: any platform and any dropout rate. It stores all attention weights
for the gradient.

Axes: b batch, l queries, s keys, h heads, k head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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
    drop = partial(dropout, rate=rate, key=key)
    return weighted_values(q, k, v, mask.to_bool(window)[:, None], drop)


def weighted_values(
    q: Float[Array, "b h *n l k"],
    k: Float[Array, "b h *n s k"],
    v: Float[Array, "b h *n s k"],
    visible: Bool[Array, "b 1 *n #l s"],
    drop: Callable[[jax.Array], jax.Array],
) -> Float[Array, "b h *n l k"]:
    """The mean of the values that each query sees, by its softmax; `drop` is applied to the
    probabilities."""
    scale = q.shape[-1] ** -0.5
    scores = jnp.einsum("...lk,...sk->...ls", q * scale, k, preferred_element_type=jnp.float32)
    # The most negative finite number instead of -inf: a row without any key stays finite.
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    weights = drop(jax.nn.softmax(scores, axis=-1))
    return jnp.einsum("...ls,...sk->...lk", weights.astype(v.dtype), v)
