"""The small parts: dropout, dense layers and layer norms as the five systems have them."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from bert_jax.config import Encoder


def dropout(x: Float[Array, "*s d"], rate: float, key: jax.Array | None) -> Float[Array, "*s d"]:
    """Zero a share `rate` of the entries and scale the rest up; the identity without a key.

    One random word decides four entries, which is 2.4 times cheaper than one each; so the
    rate is rounded to a 256th (0.1 becomes 0.1016) and the scale is that of the rounded rate.
    """
    if key is None or rate == 0.0:
        return x
    kept = max(1, min(255, round((1.0 - rate) * 256)))
    words = jax.random.bits(key, (*x.shape[:-1], math.ceil(x.shape[-1] / 4)), jnp.uint32)
    decisions = jax.lax.bitcast_convert_type(words, jnp.uint8)
    decisions = decisions.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    # Scaled in float32: 256 / 230 in bfloat16 would shrink the mean by four in a thousand.
    return jnp.where(decisions < kept, x.astype(jnp.float32) * (256 / kept), 0).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # erf: RoBERTa, ELECTRA, SpanBERT, HF BERT
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),  # ALBERT, google-research/bert
    "relu": jax.nn.relu,
}


def initializer(config: Encoder) -> jax.nn.initializers.Initializer:
    """Normal with `init_scale`. The truncated one is cut at two standard deviations of the
    uncut law and not rescaled, as TensorFlow's is: its real deviation is .88 of the scale."""
    if config.init == "truncated_normal":
        return jax.nn.initializers.truncated_normal(config.init_scale)
    return jax.nn.initializers.normal(config.init_scale)


def projection_initializer(config: Encoder) -> jax.nn.initializers.Initializer:
    """Of the layers that ELECTRA makes without naming an initialiser: TF 1's default, Glorot
    (electra/model/modeling.py, embeddings_project; run_pretraining.py, dense_1)."""
    if config.projection_init == "glorot":
        return jax.nn.initializers.glorot_uniform()
    return initializer(config)


def dense(
    config: Encoder,
    features: int,
    dtype: Dtype,
    name: str | None = None,
    init: jax.nn.initializers.Initializer | None = None,
) -> nn.Dense:
    """An affine map with float32 parameters, computed in `dtype`."""
    return nn.Dense(features, dtype=dtype, kernel_init=init or initializer(config), name=name)


def layer_norm(config: Encoder, dtype: Dtype, name: str | None = None) -> nn.LayerNorm:
    """Statistics in float32 and by the exact variance: the fast one, E[x^2] - E[x]^2, loses
    the digits that an epsilon of 1e-12 relies on."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name
    )
