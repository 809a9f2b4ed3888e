"""Building blocks: dropout, activations, dense layers, norms (norm.py) and rotary positions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from bert_jax.config import Encoder, Lora
from bert_jax.distributed.constraints import constrain, random_words
from bert_jax.model import lora
from bert_jax.model.norm import Norm


def dropout(x: Float[Array, "*s d"], rate: float, key: jax.Array | None) -> Float[Array, "*s d"]:
    """`x` with a share `rate` of the entries set to zero and the others scaled up; `x` itself
    without a key.

    One random word decides four entries, which is 2.4 times cheaper than one word each. The rate
    is therefore rounded to a 256th (0.1 becomes 0.1016), and the scale follows the rounded rate.
    """
    if key is None or rate == 0.0:
        return x
    return drop_by_words(x, rate, random_words(key, (*x.shape[:-1], math.ceil(x.shape[-1] / 4))))


def drop_by_words(
    x: Float[Array, "*s d"], rate: float, words: UInt32[Array, "*s w"]
) -> Float[Array, "*s d"]:
    """`dropout` by given random words, one for each four entries of the last axis."""
    threshold = keep_threshold_u8(rate)
    decisions = jax.lax.bitcast_convert_type(words, jnp.uint8)
    decisions = decisions.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    # Scale in float32: 256 / 230 rounded to bfloat16 would shrink the mean by 0.4 %.
    scaled = x.astype(jnp.float32) * (256 / threshold)
    return jnp.where(decisions < threshold, scaled, 0).astype(x.dtype)


def keep_threshold_u8(rate: float) -> int:
    """How many of 256 entries a dropout rate keeps, from 1 to 255."""
    return max(1, min(255, round((1.0 - rate) * 256)))


def dropout_key(module: nn.Module) -> jax.Array | None:
    """A fresh dropout key, or None if `apply` was given none: then nothing is dropped."""
    return module.make_rng("dropout") if module.has_rng("dropout") else None


def positionwise(
    module: nn.Module, name: str, init: jax.nn.initializers.Initializer, shape: tuple[int, ...]
) -> jax.Array:
    """A parameter with one row per token of the vocabulary, shape[0] of them. If the vocabulary is
    sharded it may have a few more rows, which are padding (`sharding.pad_vocab`).

    ValueError: the given parameter has fewer rows or another width.
    """
    if not module.has_variable("params", name):
        return module.param(name, init, shape)
    param = module.get_variable("params", name)
    if param.shape[0] < shape[0] or param.shape[1:] != shape[1:]:
        raise ValueError(f"{name} has shape {list(param.shape)}: expected {list(shape)}")
    return jnp.asarray(param)


def _activation(f: Callable[..., jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """`f` in float32, recomputed for its gradient, so that only its argument is stored: storing and
    loading the intermediate values of every layer costs more than computing them."""

    def apply(x: jax.Array) -> jax.Array:
        return f(x.astype(jnp.float32)).astype(x.dtype)

    return jax.checkpoint(apply, prevent_cse=False)  # type: ignore[return-value]


def _gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution's cumulative function. By erf, not erfc as in jax.nn.gelu:
    XLA for GPUs stores what it needs for erfc, half as much again as the layer's own arrays."""
    return 0.5 * x * (1 + lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": _activation(_gelu),  # RoBERTa, ELECTRA, SpanBERT, HF BERT
    "gelu_tanh": _activation(partial(jax.nn.gelu, approximate=True)),  # ALBERT, google-research
    "relu": _activation(jax.nn.relu),
    "silu": _activation(jax.nn.silu),  # gated MLP: SwiGLU with silu, GeGLU with gelu (Shazeer 2020)
}


def initializer(config: Encoder) -> jax.nn.initializers.Initializer:
    """A normal distribution with standard deviation `initializer_range`. The truncated one is cut
    at two standard deviations and not rescaled, as in TensorFlow: its actual standard deviation
    is .88 of `initializer_range`."""
    if config.init == "truncated_normal":
        return jax.nn.initializers.truncated_normal(config.initializer_range)
    return jax.nn.initializers.normal(config.initializer_range)


def residual_initializer(config: Encoder) -> jax.nn.initializers.Initializer:
    """The initializer of the layers whose output is added to the hidden states: `initializer`, or
    with `residual_init` scaled one whose deviation is smaller by sqrt(2 layers), so that the sum of
    all of them does not grow with depth (Megatron; ModernBERT, section 2.2.2)."""
    if config.residual_init == "same":
        return initializer(config)
    scaled = config.initializer_range / math.sqrt(2 * config.layers)
    return initializer(dataclasses.replace(config, initializer_range=scaled))


def projection_initializer(config: Encoder) -> jax.nn.initializers.Initializer:
    """The initializer of layers for which ELECTRA names none: TensorFlow 1's default, Glorot
    (electra/model/modeling.py, embeddings_project; run_pretraining.py, dense_1)."""
    if config.projection_init == "glorot":
        return jax.nn.initializers.glorot_uniform()
    return initializer(config)


@jax.custom_vjp
def matmul(x: Float[Array, "*s i"], kernel: Float[Array, "i o"]) -> Float[Array, "*s o"]:
    """`x @ kernel`, with gradients that are products of rows: JAX's own rule transposes
    activations, which takes an eighth of a training step on a CPU."""
    return x @ kernel


def _matmul_bwd(residuals: tuple[Any, Any], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    rows, d_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = jax.lax.dot_general(d_rows, kernel, (((1,), (1,)), ((), ()))).reshape(x.shape)
    return dx, jax.lax.dot_general(rows, d_rows, (((0,), (0,)), ((), ())))


matmul.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _matmul_bwd)


@jax.custom_vjp
def add_bias(y: Float[Array, "*s o"], bias: Float[Array, " o"]) -> Float[Array, "*s o"]:
    """`y + bias` in the type of `y`. The gradient of the bias is summed in float32: JAX's own rule
    sums it over all tokens in the type of `y`, and GPUs from Hopper on keep bfloat16 there."""
    return y + bias.astype(y.dtype)


def _add_bias_bwd(bias: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    summed = dy.astype(jnp.float32).sum(axis=tuple(range(dy.ndim - 1)))
    return dy, summed.astype(bias.dtype)


add_bias.defvjp(lambda y, bias: (add_bias(y, bias), bias), _add_bias_bwd)


# Layers whose input is sharded along `tensor`; see distributed/sharding.py.
ROW_PARALLEL = ("out", "down", "second")
LORA = (lora.A, lora.B)  # the leaves of an adapter beside its kernel


class Dense(nn.Module):
    """`nn.Dense` with the gradients of `matmul` and `add_bias`. With `lora` it adds
    scale dropout(x) a b  where its parameters have an adapter (model/lora.py). The product a b is
    never formed: merged with the kernel it would be as large, in each layer and step, and its
    gradient would cost as much as the kernel's."""

    features: int
    use_bias: bool
    dtype: Dtype
    kernel_init: jax.nn.initializers.Initializer
    axes: tuple[str | None, str | None]  # of the kernel
    lora: Lora | None

    @nn.compact
    def __call__(self, inputs: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        x, shape = jnp.asarray(inputs, self.dtype), (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = matmul(x, constrain(jnp.asarray(kernel, self.dtype), *self.axes))
        if self.use_bias:
            bias = self.param("bias", jax.nn.initializers.zeros, shape[1:])
            y = add_bias(y, bias)
        if self.lora is None or not self.has_variable("params", LORA[0]):
            return y
        a, b = (jnp.asarray(self.get_variable("params", name), self.dtype) for name in LORA)
        x = dropout(x, self.lora.dropout, dropout_key(self))
        low_rank = matmul(x, constrain(a, self.axes[0], None))
        return y + self.lora.scale * matmul(low_rank, constrain(b, None, self.axes[1]))


def dense(
    config: Encoder,
    features: int,
    dtype: Dtype,
    name: str | None = None,
    init: jax.nn.initializers.Initializer | None = None,
    logits: bool = False,
    part: Literal["attention", "mlp", "head"] | None = None,
    lora: Lora | None = None,
) -> Dense:
    """A dense layer with float32 parameters, computed in `dtype`. Its kernel is gathered along
    `fsdp` here, one layer at a time and in `dtype`, and stays sharded along `tensor`. A layer that
    returns `logits` has a bias in any case; whether the layers of a `part` have one may differ from
    `config.biases`. With `lora` the layer may have an adapter."""
    axes = ("tensor", None) if name in ROW_PARALLEL else (None, "tensor")
    use_bias, init = logits or _has_bias(config, part), init or initializer(config)
    return Dense(features, use_bias, dtype, init, axes, lora, name=name)


def _has_bias(config: Encoder, part: str | None) -> bool:
    own = None if part is None else getattr(config, f"{part}_biases")
    return config.biases if own is None else own


def layer_norm(config: Encoder, dtype: Dtype, name: str | None = None) -> nn.Module:
    """A norm over the last axis; see `Norm`. `rms` (Zhang and Sennrich 2019) subtracts no mean and
    adds no bias: x / sqrt(E[x^2] + eps) * scale."""
    is_rms = config.norm == "rms"
    use_bias = _has_bias(config, "norm") and not is_rms
    return Norm(config.layer_norm_eps, not is_rms, use_bias, dtype, name=name)


# ---- rotary positions

CosSin = tuple[Float[Array, "#b 1 l r"], Float[Array, "#b 1 l r"]]


class RotaryCosSin(NamedTuple):
    """Cosines and sines of the layers that attend to all tokens, and of local layers, if those
    have a base of their own; r is half the head width."""

    in_global: CosSin
    in_local: CosSin | None = None

    def of_layer(self, is_global: Bool[Array, ""] | None) -> CosSin:
        """Those of one layer. `is_global` None: no layer is local."""
        if is_global is None or self.in_local is None:
            return self.in_global
        a, b = self.in_global, self.in_local
        return jnp.where(is_global, a[0], b[0]), jnp.where(is_global, a[1], b[1])


def rotary_cos_sin(config: Encoder, positions: Int[Array, "#b l"]) -> RotaryCosSin | None:
    """The cosines and sines of rotary positions, float32; None for learned positions.

    Pair i at position p is rotated by p theta^(-2i / width) (Su et al. 2021, section 3.2.2).
    """
    if config.positions != "rotary":
        return None

    def tables(theta: float) -> CosSin:
        rates = theta ** (-np.arange(0, config.head_size, 2) / config.head_size)
        angles = positions[:, None, :, None] * jnp.asarray(rates, jnp.float32)
        return jnp.cos(angles), jnp.sin(angles)

    local = config.local_rotary_theta
    has_local = config.window is not None and local not in (None, config.rotary_theta)
    return RotaryCosSin(tables(config.rotary_theta), tables(float(local)) if has_local else None)  # type: ignore[arg-type]


def apply_rotary(x: Float[Array, "b h l k"], rotary: CosSin) -> Float[Array, "b h l k"]:
    """Queries or keys, rotated in float32. Their product then depends on their distance, not on
    their positions. Entry i of a head is paired with entry i + k/2, as in GPT-NeoX and ModernBERT;
    the paper pairs neighbors, which is the same up to the order of a kernel's columns."""
    cos, sin = rotary
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
