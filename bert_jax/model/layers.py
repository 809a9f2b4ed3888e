"""The small parts: dropout, dense layers, norms and rotary positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jaxtyping import Array, Float, Int

from bert_jax.config import Encoder
from bert_jax.distributed.constraints import constrain, random_words


def dropout(x: Float[Array, "*s d"], rate: float, key: jax.Array | None) -> Float[Array, "*s d"]:
    """Zero a share `rate` of the entries and scale the rest up; the identity without a key.

    One random word decides four entries, which is 2.4 times cheaper than one each; so the
    rate is rounded to a 256th (0.1 becomes 0.1016) and the scale is that of the rounded rate.
    """
    if key is None or rate == 0.0:
        return x
    kept = keep_threshold_u8(rate)
    words = random_words(key, (*x.shape[:-1], math.ceil(x.shape[-1] / 4)))
    decisions = jax.lax.bitcast_convert_type(words, jnp.uint8)
    decisions = decisions.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    # Scaled in float32: 256 / 230 in bfloat16 would shrink the mean by four in a thousand.
    return jnp.where(decisions < kept, x.astype(jnp.float32) * (256 / kept), 0).astype(x.dtype)


def keep_threshold_u8(rate: float) -> int:
    """Of 256 entries, how many stay at a rate of dropout; never none and never all."""
    return max(1, min(255, round((1.0 - rate) * 256)))


def dropout_key(module: nn.Module) -> jax.Array | None:
    """None where `apply` was given no key: then nothing is dropped."""
    return module.make_rng("dropout") if module.has_rng("dropout") else None


def positionwise(
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


def _once_more(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`f` made again for its gradient, which then keeps its argument alone: what lies between
    costs more to store and load, for every layer, than to compute."""
    return jax.checkpoint(f, prevent_cse=False)  # type: ignore[return-value]


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # erf: RoBERTa, ELECTRA, SpanBERT, HF BERT
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),  # ALBERT, google-research/bert
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,  # a gated MLP with it is SwiGLU, with gelu GeGLU (Shazeer 2020)
}
ACTIVATIONS = {name: _once_more(f) for name, f in ACTIVATIONS.items()}


def initializer(config: Encoder) -> jax.nn.initializers.Initializer:
    """Normal with `initializer_range`. The truncated one is cut at two standard deviations of the
    uncut law and not rescaled, as TensorFlow's is: its real deviation is .88 of the scale."""
    if config.init == "truncated_normal":
        return jax.nn.initializers.truncated_normal(config.initializer_range)
    return jax.nn.initializers.normal(config.initializer_range)


def projection_initializer(config: Encoder) -> jax.nn.initializers.Initializer:
    """Of the layers that ELECTRA makes without naming an initialiser: TF 1's default, Glorot
    (electra/model/modeling.py, embeddings_project; run_pretraining.py, dense_1)."""
    if config.projection_init == "glorot":
        return jax.nn.initializers.glorot_uniform()
    return initializer(config)


@jax.custom_vjp
def product(x: Float[Array, "*s i"], kernel: Float[Array, "i o"]) -> Float[Array, "*s o"]:
    """`x @ kernel`, whose gradients are products of rows: JAX's own rule transposes activations
    on the way, which on a CPU takes an eighth of a step."""
    return x @ kernel


def _product_bwd(kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    rows, d_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = jax.lax.dot_general(d_rows, kernel, (((1,), (1,)), ((), ()))).reshape(x.shape)
    return dx, jax.lax.dot_general(rows, d_rows, (((0,), (0,)), ((), ())))


product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_bwd)

NARROWING = ("out", "down", "second")  # layers whose input is cut along `tensor`; see sharding.py


def dense(
    config: Encoder,
    features: int,
    dtype: Dtype,
    name: str | None = None,
    init: jax.nn.initializers.Initializer | None = None,
    logits: bool = False,
) -> nn.Dense:
    """An affine map with float32 parameters, computed in `dtype`. Its kernel is brought together
    from `fsdp` here, one layer at a time and in `dtype`, and stays cut along `tensor`. One that
    gives `logits` has a bias in any encoder."""
    axes = ("tensor", None) if name in NARROWING else (None, "tensor")

    def dot(x: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        return product(x, constrain(kernel, *axes))

    return nn.Dense(
        features,
        use_bias=config.biases or logits,
        dtype=dtype,
        kernel_init=init or initializer(config),
        dot_general=dot,
        name=name,
    )


def layer_norm(config: Encoder, dtype: Dtype, name: str | None = None) -> nn.LayerNorm | nn.RMSNorm:
    """Statistics in float32 and by the exact variance: the fast one, E[x^2] - E[x]^2, loses
    the digits that an epsilon of 1e-12 relies on. `rms` (Zhang and Sennrich 2019) takes away no
    mean and adds no bias: x / sqrt(E[x^2] + eps) * scale."""
    how: dict[str, Any] = dict(epsilon=config.layer_norm_eps, dtype=dtype, name=name)
    if config.norm == "rms":
        return nn.remat(nn.RMSNorm, prevent_cse=False)(use_fast_variance=False, **how)
    norm = nn.remat(nn.LayerNorm, prevent_cse=False)
    return norm(use_fast_variance=False, use_bias=config.biases, **how)


# ---- rotary positions

RotaryCosSin = tuple[Float[Array, "b 1 l r"], Float[Array, "b 1 l r"]]
"""Cosines and sines, r being half a head's width."""


def rotary_cos_sin(config: Encoder, positions: Int[Array, "b l"]) -> RotaryCosSin | None:
    """By how much rotary positions turn the pairs of a head, float32; None where they are learned.

    Pair i of position p is turned by p theta^(-2i / width) (Su et al. 2021, section 3.2.2).
    """
    if config.positions != "rotary":
        return None
    rates = config.rotary_theta ** (-np.arange(0, config.head_size, 2) / config.head_size)
    angles = positions[:, None, :, None] * jnp.asarray(rates, jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)


def apply_rotary(x: Float[Array, "b h l k"], by: RotaryCosSin) -> Float[Array, "b h l k"]:
    """Queries or keys, turned in float32: their product then depends on how far apart they are,
    not on where. Number i of a head makes a pair with number i + k/2, as in GPT-NeoX and
    ModernBERT; the paper's neighbours would be the same up to the order of a kernel's columns."""
    cos, sin = by
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
