"""Gradient -> direction: Adam as each code base has it, LAMB's trust ratio, Muon."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Scalar

from bert_jax.config import Optim
from bert_jax.distributed.constraints import BATCH_AXES, constrain
from bert_jax.optim.param_groups import is_hidden, is_weight, leading_axes
from bert_jax.utils.pytree import Tree, map_with_names


class Moments(NamedTuple):
    """Running means of the gradient and of its square, float32, shaped as the parameters."""

    t: Scalar  # int32: completed updates
    m: Tree
    v: Tree  # Muon's matrices have none


def moments(config: Optim, name: str) -> int:
    """How many numbers are kept of each of a leaf's own."""
    return 1 if config.name == "muon" and is_hidden(name) else 2


def _debias(beta: float, t: Scalar) -> Array | float:
    """1 - beta^t. Written this way since 1 - .999^t loses half of float32's digits at small t."""
    return -jnp.expm1(t * math.log(beta)) if beta else 1.0


def _google(m: Array, v: Array, t: Scalar, c: Optim) -> Array:
    """No bias correction: early steps are up to (1 - b1) / sqrt(1 - b2) = 3.2 times longer."""
    return m / (jnp.sqrt(v) + c.eps)


def _fairseq(m: Array, v: Array, t: Scalar, c: Optim) -> Array:
    """Bias corrected, but eps stands beside the square root that is not."""
    return jnp.sqrt(_debias(c.b2, t)) / _debias(c.b1, t) * m / (jnp.sqrt(v) + c.eps)


def _textbook(m: Array, v: Array, t: Scalar, c: Optim) -> Array:
    """Bias corrected throughout, as in Kingma and Ba, PyTorch and optax."""
    return m / _debias(c.b1, t) / (jnp.sqrt(v / _debias(c.b2, t)) + c.eps)


_DIRECTIONS = {
    "bert_adam": _google,
    "lamb": _google,
    "fairseq_adam": _fairseq,
    "adamw": _textbook,
}


def scale_by_moments(config: Optim) -> optax.GradientTransformation:
    """Gradient -> direction of the named Adam; the state is `Moments`, m and v separate buffers."""
    direction = _DIRECTIONS[config.name]

    def init(params: Tree) -> Moments:
        m, v = (optax.tree.zeros_like(params, dtype=jnp.float32) for _ in "mv")
        return Moments(jnp.zeros((), jnp.int32), m, v)

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Moments]:
        del params
        # x + (1 - b)(y - x) and not b x + (1 - b) y: float32 rounds 1 - b finer than b
        g = optax.tree.cast(updates, jnp.float32)
        m = jax.tree.map(lambda m, g: m + (1 - config.b1) * (g - m), state.m, g)
        v = jax.tree.map(lambda v, g: v + (1 - config.b2) * (g * g - v), state.v, g)
        t = state.t + 1
        step = jax.tree.map(lambda m, v: direction(m, v, t.astype(jnp.float32), config), m, v)
        return step, Moments(t, m, v)

    return optax.GradientTransformation(init, update)


class _Part(NamedTuple):
    """Of one leaf."""

    step: Array
    m: Array
    v: Any


def scale_by_muon(config: Optim) -> optax.GradientTransformation:
    """Gradient -> direction: a matrix of the layers moves by its momentum, made orthogonal (Jordan
    et al. 2024, kellerjordan.github.io/posts/muon); every other leaf as in `adamw`.

        m <- beta m + (1 - beta) g
        direction = .2 sqrt(max(in, out)) orthogonal(beta m + (1 - beta) g)

    The factor gives the direction the root mean square that AdamW's has by experience, .2,
    whatever the shape, so that both share a rate and a decay (Liu et al. 2025, arXiv 2502.16982,
    equation 4). beta is `momentum`. Each layer of a stacked leaf is a matrix of its own.
    """

    def init(params: Tree) -> Moments:
        m = optax.tree.zeros_like(params, dtype=jnp.float32)
        v = map_with_names(
            lambda n, x: optax.MaskedNode() if is_hidden(n) else jnp.zeros_like(x), m
        )
        return Moments(jnp.zeros((), jnp.int32), m, v)

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Moments]:
        del params
        t = state.t + 1

        def part(name: str, g: Array, m: Array, v: Any) -> _Part:
            beta = config.momentum if is_hidden(name) else config.b1
            m = m + (1 - beta) * (g - m)
            if is_hidden(name):
                factor = 0.2 * math.sqrt(max(g.shape[-2:]))
                return _Part(factor * orthogonal(m + (1 - beta) * (g - m)), m, v)
            v = v + (1 - config.b2) * (g * g - v)
            return _Part(_textbook(m, v, t.astype(jnp.float32), config), m, v)

        g = optax.tree.cast(updates, jnp.float32)
        parts = map_with_names(part, g, state.m, state.v)
        step, m, v = (
            jax.tree.map(lambda p, i=i: p[i], parts, is_leaf=lambda p: isinstance(p, _Part))
            for i in range(3)
        )
        return step, Moments(t, m, v)

    return optax.GradientTransformation(init, update)


def orthogonal(x: Float[Array, "*g m n"]) -> Float[Array, "*g m n"]:
    """Of U S V^T, nearly U V^T: five steps of a quintic iteration that bring all but the smallest
    singular values to between .7 and 1.2, without a decomposition (Jordan et al. 2024). A matrix
    of zeros stays so."""
    tall = x.shape[-2] > x.shape[-1]
    y = (x.mT if tall else x).reshape(-1, *sorted(x.shape[-2:]))
    # Whole matrices, the layers shared out among the devices where their number divides.
    y = constrain(y, BATCH_AXES, None, None)
    y = y / (jnp.linalg.norm(y, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(5):
        a = y @ y.mT
        y = 3.4445 * y + (-4.7750 * a + 2.0315 * a @ a) @ y
    return (y.mT if tall else y).reshape(x.shape)


def scale_by_trust_ratio(axes: Callable = leading_axes) -> optax.GradientTransformation:
    """Each layer's update times |p| / |update|, 1 where either is zero (albert/lamb_optimizer.py).

    Biases and layer norms are left alone. `axes` tells how many leading axes of a leaf count
    layers: each of those layers has a ratio of its own; a layer shared by all is one tensor.
    """

    def scale(name: str, update: Array, p: Array) -> Array:
        if not is_weight(name):
            return update
        rest = tuple(range(axes(name), p.ndim))
        size, step = (jnp.sqrt(jnp.sum(x * x, rest, keepdims=True)) for x in (p, update))
        usable = (size > 0) & (step > 0)
        return update * jnp.where(usable, size / jnp.where(usable, step, 1.0), 1.0)

    return optax.stateless(lambda updates, params: map_with_names(scale, updates, params))
