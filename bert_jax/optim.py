"""Schedules and optimisers, as the original code bases ran them.

Every optimiser is the same chain; only the parts in brackets come and go:

    gradient -> [clip] -> direction(m, v) -> [+ decay * p] -> [* trust ratio] -> [* layer rate]
             -> * -learning rate

Whatever a step treats by leaf (decay, trust ratios, layer rates) is decided by the leaf's *name*,
never by its rank: the biases of stacked layers are two-dimensional, and one stacked leaf holds
many layers, each a tensor of its own to LAMB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Scalar

from bert_jax.config import Optim
from bert_jax.trees import Tree, is_stacked, map_named

Multiplier = Callable[[str, tuple[int, ...]], ArrayLike]
"""Leaf name and shape -> a factor of its update: a number, or what broadcasts to that shape."""


# ---- what a leaf's name says


def is_weight(name: str) -> bool:
    """Whether a leaf is a kernel or a table: neither a bias nor part of a layer norm.

    The originals search variable names for `LayerNorm`, `layer_norm` and `bias`
    (bert/optimization.py); embedding tables are weights, the heads' output biases are not.
    """
    return re.search(r"norm[^/]*/|(^|/)bias$", name) is None


def _weights(params: Tree) -> Tree:
    return map_named(lambda name, _: is_weight(name), params)


def leading_axes(name: str) -> int:
    """How many of a leaf's first axes count layers rather than belong to one layer's tensor.

    embeddings/word                  v e      0
    encoder/layers/mlp/up/kernel     g d f    1   groups
    encoder/layers/own/up/kernel     g n d f  2   groups, layers of a group
    """
    if not is_stacked(name):
        return 0
    return 2 if "/layers/own/" in f"/{name}" else 1


# ---- schedules


def _fall(t: Array, total: int, start: int = 0) -> Array:
    """1 at `start`, 0 from `total` on; whole numbers are subtracted, so nothing cancels."""
    return jnp.maximum(total - t, 0) / max(total - start, 1)


# (completed updates, warm-up >= 1, length) -> share of the peak
_SCHEDULES: dict[str, Callable[[Array, int, int], Array]] = {
    "bert": lambda t, w, T: jnp.where(t < w, t / w, _fall(t, T)),
    "electra": lambda t, w, T: jnp.minimum(t / w, 1) * _fall(t, T),
    "roberta": lambda t, w, T: jnp.where(t <= w, t / w, _fall(t, T, w)),
    "spanbert": lambda t, w, T: jnp.where(t <= w, t / w, _fall(t, T)),
}


def schedule(config: Optim, steps: int) -> optax.Schedule:
    """The learning rate as a function of completed updates t; `Optim.decay_steps` beats `steps`.

    With warm-up w (0: none), length T and a peak of 1; from T on the rate is 0:

    bert      t < w: t/w   then 1 - t/T            drops at w, since the line starts at 0
    electra   min(1, t/w) (1 - t/T)                a product: the peak is never reached
    roberta   t <= w: t/w  then 1 - (t-w)/(T-w)    continuous
    spanbert  t <= w: t/w  then 1 - t/T            reaches the peak, then drops

    The first update of a warm-up has rate 0. Sources: bert/optimization.py,
    electra/model/optimization.py, fairseq's polynomial_decay_schedule.py, and SpanBERT's copy of
    it without its two slips (a first update at the full peak, and the warm-up's last rate once
    more at each epoch). Where w exceeds T the warm-up runs on as written. `t` may be traced, and
    of any shape; the result is float32. A schedule shorter than one step or a negative warm-up
    is a ValueError.
    """
    total, warmup = config.decay_steps or steps, config.warmup_steps
    if config.warmup_share is not None:
        warmup = round(config.warmup_share * total)
    _check(total >= 1, "decay_steps", total, "at least 1")
    _check(warmup >= 0, "warmup_steps", warmup, "at least 0")
    share = _SCHEDULES[config.schedule]
    if not warmup:
        return lambda t: config.peak_lr * _fall(jnp.asarray(t), total)
    return lambda t: config.peak_lr * share(jnp.asarray(t), warmup, total)


# ---- directions


class Moments(NamedTuple):
    """Running means of the gradient and of its square, float32, shaped as the parameters."""

    t: Scalar  # int32: completed updates
    m: Tree
    v: Tree


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


# ---- what is done to a direction, by name


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

    return optax.stateless(lambda updates, params: map_named(scale, updates, params))


def layerwise(decay: float, layers: int) -> Multiplier:
    """ELECTRA's layer rates, decay^(layers + 2 - depth) (electra/model/optimization.py).

    depth   0: embeddings and their projection   1 .. layers: the layers   layers + 2: heads

    The gap below the heads is the original's: the top layer gets decay^2. For stacked leaves the
    factor has the leading axes, (groups, 1, 1); layers with common parameters take the depth of
    the topmost, which is our choice (ELECTRA shares none). A decay outside (0, 1], or a stack
    that `layers` is no multiple of, is a ValueError.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer decay is {decay}: expected 0 < x <= 1")

    def multiplier(name: str, shape: tuple[int, ...]) -> ArrayLike:
        if is_stacked(name):
            lead = shape[: leading_axes(name)]
            sets = math.prod(lead)
            if layers % sets:
                raise ValueError(
                    f"{name} holds {sets} sets of layers: expected a divisor of the {layers} "
                    "layers that the layer decay was given"
                )
            depth = np.arange(1, sets + 1) * (layers // sets)
            factor = (decay ** (layers + 2 - depth)).astype(np.float32)
            return factor.reshape(lead + (1,) * (len(shape) - len(lead)))
        low = re.search(r"(^|/)embeddings/|(^|/)encoder/projection/", name)
        return decay ** (layers + 2) if low else 1.0

    return multiplier


# ---- optimisers


def optimizer(
    config: Optim, steps: int, multipliers: Multiplier | None = None
) -> optax.GradientTransformation:
    """The optimiser that a config names, with its schedule, clipping and decay.

    bert_adam     AdamWeightDecay of bert/optimization.py, as in ALBERT and ELECTRA
    lamb          albert/lamb_optimizer.py: the same direction and decay, then trust ratios
    fairseq_adam  fairseq/optim/adam.py; it shrinks the parameters before the step, which is the
                  same sum here since the direction does not read them
    adamw         textbook; optax's own rounds its first update by 7e-6, ours by 1e-7

    Decay is decoupled and multiplied by the learning rate. Clipping is of the global norm (PyTorch
    and fairseq add 1e-6 to it; Google's clips on each core, which one global batch cannot).
    `multipliers` scales the finished update, decay included; a factor of 0 freezes a leaf.
    The state is a tuple of NamedTuples. The schedule counts updates for itself, equal to
    `updates_done`. A constant outside its range is a ValueError.
    """
    for name in ("b1", "b2"):
        _check(0 <= getattr(config, name) < 1, name, getattr(config, name), "0 <= x < 1")
    _check(config.eps > 0, "eps", config.eps, "more than 0")
    _check(config.weight_decay >= 0, "weight_decay", config.weight_decay, "at least 0")
    chain = [scale_by_moments(config)]
    if config.clip_norm is not None:
        _check(config.clip_norm > 0, "clip_norm", config.clip_norm, "more than 0, or None")
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay:
        mask = _weights if config.decay == "weights" else None
        chain.append(optax.add_decayed_weights(config.weight_decay, mask))
    if config.name == "lamb":
        chain.append(scale_by_trust_ratio())
    if multipliers is not None:
        chain.append(_scale_by_name(multipliers))
    return optax.chain(*chain, optax.scale_by_learning_rate(schedule(config, steps)))


def _scale_by_name(factor: Multiplier) -> optax.GradientTransformation:
    return optax.stateless(lambda u, _: map_named(lambda name, x: x * factor(name, x.shape), u))


def updates_done(state: Any) -> Scalar:
    """Completed updates of an `optimizer` state: what its schedule reads for the next one."""
    return next(part.t for part in state if isinstance(part, Moments))


def _check(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ValueError(f"optim.{name} is {value}: expected {expected}")
