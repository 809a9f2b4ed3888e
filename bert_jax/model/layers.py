"""The small parts: dropout, dense layers and layer norms as the five systems have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from bert_jax.config import Encoder
from bert_jax.layout import constrain


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


def dropout_key(module: nn.Module) -> jax.Array | None:
    """None where `apply` was given no key: then nothing is dropped."""
    return module.make_rng("dropout") if module.has_rng("dropout") else None


def by_token(
    module: nn.Module, name: str, init: jax.nn.initializers.Initializer, shape: tuple[int, ...]
) -> jax.Array:
    """A parameter with one row per token of the vocabulary, shape[0] of them. In a state that is
    cut along the vocabulary it may have a few more, which stand for nothing (sharding.padded)."""
    if not module.has_variable("params", name):
        return module.param(name, init, shape)
    given = module.get_variable("params", name)
    if given.shape[0] < shape[0] or given.shape[1:] != shape[1:]:
        raise ValueError(f"{name} is {list(given.shape)}: expected {list(shape)}")
    return jnp.asarray(given)


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


NARROWING = ("out", "down", "second")  # layers whose input is cut along `tensor`; see sharding.py


def dense(
    config: Encoder,
    features: int,
    dtype: Dtype,
    name: str | None = None,
    init: jax.nn.initializers.Initializer | None = None,
) -> nn.Dense:
    """An affine map with float32 parameters, computed in `dtype`. Its kernel is brought together
    from `fsdp` here, one layer at a time and in `dtype`, and stays cut along `tensor`."""
    axes = ("tensor", None) if name in NARROWING else (None, "tensor")

    def dot(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        return jax.lax.dot_general(x, constrain(kernel, *axes), *args, **kwargs)

    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=init or initializer(config),
        dot_general=dot,
        name=name,
    )


def layer_norm(config: Encoder, dtype: Dtype, name: str | None = None) -> nn.LayerNorm:
    """Statistics in float32 and by the exact variance: the fast one, E[x^2] - E[x]^2, loses
    the digits that an epsilon of 1e-12 relies on."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name
    )
