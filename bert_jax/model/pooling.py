"""Pooling: the hidden states of a text's tokens to one vector, in the six ways of
sentence-transformers.

Axes: b texts, l tokens, d hidden size, m pooling modes times d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)


def pool_tokens(
    hidden: Float[Array, "b l d"],
    size: Int[Array, " b"],
    modes: Sequence[PoolingMode],
    skip: Int[Array, " b"] | None = None,
) -> Float[Array, "b m"]:
    """One vector per text, float32; several modes are concatenated.

        cls                    the first token         lasttoken   the last token
        mean                   sum / n                 max         the maximum of each feature
        mean_sqrt_len_tokens   sum / sqrt(n)
        weightedmean           sum of i x_i / sum of i, with i = 1, 2, ... the position

    `size` counts the tokens of each text, `skip` those at its beginning that are left out, such as
    a prompt's; positions still count from the beginning. A row without tokens has finite vectors.
    Source: sentence-transformers 6.2, sentence_transformer/modules/pooling.py.
    """
    x = hidden.astype(jnp.float32)
    at = jnp.arange(x.shape[1])
    first = jnp.zeros_like(size) if skip is None else jnp.minimum(skip, jnp.maximum(size - 1, 0))
    kept = (at >= first[:, None]) & (at < size[:, None])
    return jnp.concatenate([_pool(x, size, first, kept, mode) for mode in modes], axis=-1)


def _pool(
    x: jax.Array, size: jax.Array, first: jax.Array, kept: jax.Array, mode: PoolingMode
) -> jax.Array:
    if mode in ("cls", "lasttoken"):
        at = first if mode == "cls" else jnp.maximum(size - 1, 0)
        return jnp.take_along_axis(x, at[:, None, None], axis=1)[:, 0]
    if mode == "max":
        return jnp.where(kept[..., None], x, jnp.finfo(x.dtype).min).max(axis=1)
    weights = kept.astype(x.dtype)
    if mode == "weightedmean":
        weights *= jnp.arange(1, x.shape[1] + 1)
    count = jnp.maximum(weights.sum(axis=1), 1.0)[:, None]
    total = jnp.where(kept[..., None], x * weights[..., None], 0.0).sum(axis=1)
    return total / (jnp.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)


def normalize_l2(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    """The vectors with length 1; a zero vector stays zero, and its gradient is finite."""
    squared = (x * x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
