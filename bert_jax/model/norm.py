"""Layer norm and RMS norm, with a gradient that stores two numbers per token beside the input."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float


class Norm(nn.Module):
    """Layer norm, with statistics in float32 and the exact variance: the fast one, E[x^2] - E[x]^2,
    loses the digits that an epsilon of 1e-12 needs."""

    epsilon: float
    center: bool = True  # subtract the mean
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,)) if self.use_bias else None
        y: jax.Array = _normalize(self.epsilon, self.center, jnp.dtype(self.dtype), x, scale, bias)
        return y


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _normalize(
    epsilon: float, center: bool, dtype: Any, x: jax.Array, scale: jax.Array, bias: Any
) -> Any:
    return _normalize_fwd(epsilon, center, dtype, x, scale, bias)[0]


def _normalize_fwd(
    epsilon: float, center: bool, dtype: Any, x: jax.Array, scale: jax.Array, bias: Any
) -> tuple[jax.Array, tuple[Any, ...]]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True) if center else jnp.zeros((), jnp.float32)
    centered = wide - mean
    factor = lax.rsqrt((centered * centered).mean(-1, keepdims=True) + epsilon)
    y = centered * (factor * scale)
    y = y if bias is None else y + bias
    return y.astype(dtype), (x, mean, factor, scale, bias)


def _normalize_bwd(
    _: float, center: bool, __: Any, residuals: tuple[Any, ...], d_y: jax.Array
) -> tuple[Any, ...]:
    """Of what the forward pass computes, the input and two statistics per token are stored. XLA for
    GPUs would compute the statistics again within each kernel that needs them, and then write an
    array of the input's size in float32 for the gradient of `scale`; the barrier prevents that."""
    x, mean, factor, scale, bias = residuals
    mean, factor = lax.optimization_barrier((mean, factor))
    d_y = d_y.astype(jnp.float32)
    normal = (x.astype(jnp.float32) - mean) * factor
    tokens = tuple(range(x.ndim - 1))
    d_scale = (d_y * normal).sum(tokens).astype(scale.dtype)
    d_bias = None if bias is None else d_y.sum(tokens).astype(bias.dtype)
    d_normal = d_y * scale
    d_x = d_normal - normal * (d_normal * normal).mean(-1, keepdims=True)
    if center:
        d_x = d_x - d_normal.mean(-1, keepdims=True)
    return (d_x * factor).astype(x.dtype), d_scale, d_bias


_normalize.defvjp(_normalize_fwd, _normalize_bwd)
