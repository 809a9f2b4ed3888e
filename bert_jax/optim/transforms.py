"""Gradient -> direction: the Adam of each code base, LAMB's trust ratio, Muon.

optax's own do not fit. `optax.scale_by_adam` loses digits of 1 - b2^t (first update off by up to
7e-6, here 1e-7) and always corrects bias, `optax.scale_by_trust_ratio` takes a stacked leaf as one
tensor, and `optax.contrib.scale_by_muon` corrects the bias of momentum and gradient separately,
which changes the direction of early steps; its orthogonalization is not public.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Scalar

from bert_jax.config import Optim
from bert_jax.distributed.constraints import BATCH_AXES, constrain, row_shards
from bert_jax.optim.param_groups import is_hidden_kernel, is_weight, num_layer_axes
from bert_jax.utils.pytree import Tree, map_with_names


class Moments(NamedTuple):
    """Running means of the gradient and of its square, float32, shaped as the parameters."""

    t: Scalar  # int32: completed updates
    m: Tree
    v: Tree  # empty for Muon's matrices


def num_moments(config: Optim, name: str) -> int:
    """How many moments per parameter the optimizer stores for a leaf."""
    return 1 if config.name == "muon" and is_hidden_kernel(name) else 2


def _debias(beta: float, t: Scalar) -> Array | float:
    """1 - beta^t by expm1, since 1 - .999^t loses half of float32's digits at small t."""
    return -jnp.expm1(t * math.log(beta)) if beta else 1.0


def _bert_adam(m: Array, v: Array, t: Scalar, c: Optim) -> Array:
    """No bias correction: early steps are up to (1 - b1) / sqrt(1 - b2) = 3.2 times longer."""
    return m / (jnp.sqrt(v) + c.eps)


def _fairseq_adam(m: Array, v: Array, t: Scalar, c: Optim) -> Array:
    """Bias-corrected, but eps is added to the uncorrected square root."""
    return jnp.sqrt(_debias(c.b2, t)) / _debias(c.b1, t) * m / (jnp.sqrt(v) + c.eps)


def _adamw(m: Array, v: Array, t: Scalar, c: Optim) -> Array:
    """Fully bias-corrected, as in Kingma and Ba, PyTorch and optax."""
    return m / _debias(c.b1, t) / (jnp.sqrt(v / _debias(c.b2, t)) + c.eps)


_DIRECTIONS = {
    "bert_adam": _bert_adam,
    "lamb": _bert_adam,
    "fairseq_adam": _fairseq_adam,
    "adamw": _adamw,
    "stable_adamw": _adamw,
}


def scale_by_moments(config: Optim) -> optax.GradientTransformation:
    """Gradient -> direction of the named Adam. The state is `Moments`; m and v are separate
    buffers, so that they can be donated."""
    direction = _DIRECTIONS[config.name]

    def init(params: Tree) -> Moments:
        m, v = (optax.tree.zeros_like(params, dtype=jnp.float32) for _ in "mv")
        return Moments(jnp.zeros((), jnp.int32), m, v)

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Moments]:
        del params
        # x + (1 - b)(y - x) instead of b x + (1 - b) y: float32 rounds 1 - b finer than b
        g = optax.tree.cast(updates, jnp.float32)
        m = jax.tree.map(lambda m, g: m + (1 - config.b1) * (g - m), state.m, g)
        v = jax.tree.map(lambda v, g: v + (1 - config.b2) * (g * g - v), state.v, g)
        t = state.t + 1
        step = jax.tree.map(lambda m, v: direction(m, v, t.astype(jnp.float32), config), m, v)
        return step, Moments(t, m, v)

    return optax.GradientTransformation(init, update)


def with_update_clipping(
    inner: optax.GradientTransformation, config: Optim
) -> optax.GradientTransformation:
    """The updates of `inner`, a chain that begins with `scale_by_moments`, divided by
    max(1, RMS), with RMS = sqrt(mean(g^2 / max(v, eps^2))) and v without its bias.

    This is StableAdamW's learning rate for each tensor, weight decay included (Wortsman et al.
    2023, arXiv 2304.13013, algorithm 2): a gradient far larger than its running mean makes a
    shorter step. Each layer of a stacked leaf is a tensor of its own.
    """

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        steps, state = inner.update(updates, state, params)
        moments: Moments = state[0]
        bias = _debias(config.b2, moments.t.astype(jnp.float32))

        def clip(name: str, step: Array, g: Array, v: Array) -> Array:
            axes = tuple(range(num_layer_axes(name), g.ndim))
            ratio = jnp.square(g.astype(jnp.float32)) / jnp.maximum(v / bias, config.eps**2)
            rms = jnp.sqrt(ratio.mean(axes, keepdims=True))
            return step / jnp.maximum(rms, 1.0)

        return map_with_names(clip, steps, updates, moments.v), state

    return optax.GradientTransformation(inner.init, update)


class LeafUpdate(NamedTuple):
    """The direction and the new moments of one leaf."""

    direction: Array
    m: Array
    v: Any


def scale_by_muon(config: Optim) -> optax.GradientTransformation:
    """Gradient -> direction: the orthogonalized momentum for matrices of the layers (Jordan et al.
    2024, kellerjordan.github.io/posts/muon), that of `adamw` for every other leaf.

        m <- beta m + (1 - beta) g
        direction = .2 sqrt(max(in, out)) orthogonal(beta m + (1 - beta) g)

    The factor gives the direction a root mean square of .2 for any shape, which is typical of
    AdamW, so that both share a learning rate and a weight decay (Liu et al. 2025, arXiv
    2502.16982, equation 4). beta is `momentum`. Each layer of a stacked leaf is a separate matrix.
    """

    def init(params: Tree) -> Moments:
        m = optax.tree.zeros_like(params, dtype=jnp.float32)
        v = map_with_names(
            lambda n, x: optax.MaskedNode() if is_hidden_kernel(n) else jnp.zeros_like(x), m
        )
        return Moments(jnp.zeros((), jnp.int32), m, v)

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Moments]:
        del params
        t = state.t + 1

        def update_leaf(name: str, g: Array, m: Array, v: Any) -> LeafUpdate:
            beta = config.momentum if is_hidden_kernel(name) else config.b1
            m = m + (1 - beta) * (g - m)
            if is_hidden_kernel(name):
                factor = 0.2 * math.sqrt(max(g.shape[-2:]))
                return LeafUpdate(factor * orthogonalize(m + (1 - beta) * (g - m)), m, v)
            v = v + (1 - config.b2) * (g * g - v)
            return LeafUpdate(_adamw(m, v, t.astype(jnp.float32), config), m, v)

        g = optax.tree.cast(updates, jnp.float32)
        leaves = map_with_names(update_leaf, g, state.m, state.v)
        step, m, v = (
            jax.tree.map(lambda u, i=i: u[i], leaves, is_leaf=lambda u: isinstance(u, LeafUpdate))
            for i in range(3)
        )
        return step, Moments(t, m, v)

    return optax.GradientTransformation(init, update)


def orthogonalize(x: Float[Array, "*g m n"]) -> Float[Array, "*g m n"]:
    """Approximately U V^T for x = U S V^T: five steps of a Newton-Schulz iteration bring all but
    the smallest singular values to between .7 and 1.2, without a decomposition (Jordan et al.
    2024). A zero matrix stays zero."""
    is_tall = x.shape[-2] > x.shape[-1]
    y = (x.mT if is_tall else x).reshape(-1, *sorted(x.shape[-2:]))
    # Whole matrices, distributed over the devices; zeros make their number divide.
    count = len(y)
    y = jnp.pad(y, ((0, -count % row_shards()), (0, 0), (0, 0)))
    y = constrain(y, BATCH_AXES, None, None)
    y = y / (jnp.linalg.norm(y, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(5):
        a = y @ y.mT
        y = 3.4445 * y + (-4.7750 * a + 2.0315 * a @ a) @ y
    y = y[:count]
    return (y.mT if is_tall else y).reshape(x.shape)


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """Each layer's update times |p| / |update|, or times 1 if either is zero
    (albert/lamb_optimizer.py).

    Biases and layer norms are not scaled. Each layer of a leaf has its own ratio; a shared layer is
    one tensor.
    """

    def scale(name: str, update: Array, p: Array) -> Array:
        if not is_weight(name):
            return update
        axes = tuple(range(num_layer_axes(name), p.ndim))
        p_norm, u_norm = (jnp.sqrt(jnp.sum(x * x, axes, keepdims=True)) for x in (p, update))
        is_defined = (p_norm > 0) & (u_norm > 0)
        return update * jnp.where(is_defined, p_norm / jnp.where(is_defined, u_norm, 1.0), 1.0)

    return optax.stateless(lambda updates, params: map_with_names(scale, updates, params))
