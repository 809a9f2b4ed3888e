"""Learning rate schedules: functions of the completed updates."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array

from bert_jax.config import Optim


def _linear_decay(t: Array, total: int, start: int = 0) -> Array:
    """Linear from 1 at `start` to 0 at `total`; integers are subtracted, so nothing cancels."""
    return jnp.maximum(total - t, 0) / max(total - start, 1)


def _trapezoid(t: Array, warmup: int, total: int, cooldown: int, shape: str) -> Array:
    rise = t / warmup if warmup else 1.0
    decay = jnp.minimum(_linear_decay(t, total, total - cooldown), 1.0)
    if shape == "sqrt":
        decay /= 1.0 + jnp.sqrt(1.0 - decay)  # = 1 - sqrt(1 - decay), without cancellation
    return jnp.minimum(jnp.minimum(rise, 1.0), decay)


# (completed updates, warm-up >= 1, length) -> fraction of the peak
_SCHEDULES: dict[str, Callable[[Array, int, int], Array]] = {
    "bert": lambda t, w, T: jnp.where(t < w, t / w, _linear_decay(t, T)),
    "electra": lambda t, w, T: jnp.minimum(t / w, 1) * _linear_decay(t, T),
    "roberta": lambda t, w, T: jnp.where(t <= w, t / w, _linear_decay(t, T, w)),
    "spanbert": lambda t, w, T: jnp.where(t <= w, t / w, _linear_decay(t, T)),
}


def schedule(config: Optim, steps: int) -> optax.Schedule:
    """The learning rate as a function of completed updates t.

    With warm-up w (0: none), length T = `decay_steps` or `steps`, and a peak of 1 (0 after T):

    bert      t < w: t/w   then 1 - t/T            drops at w, since the line starts at 0
    electra   min(1, t/w) (1 - t/T)                a product: the peak is never reached
    roberta   t <= w: t/w  then 1 - (t-w)/(T-w)    continuous
    spanbert  t <= w: t/w  then 1 - t/T            reaches the peak, then drops
    trapezoid min(t/w, 1, (T-t)/c)                 warm-up, constant, decay over the last c steps

    c is `cooldown_ratio` times T (Haegele et al. 2024, section 3). With `cooldown_shape` sqrt the
    decay is 1 - sqrt(1 - (T-t)/c), their best one and ModernBERT's: steep at first, then flat.
    From the constant part a run can be extended, or cooled down at any step. The first update of
    a warm-up has rate 0. Sources of the others: bert/optimization.py,
    electra/model/optimization.py, fairseq's polynomial_decay_schedule.py, and SpanBERT's copy of
    it without its two bugs (a first update at the full peak, and the last warm-up rate repeated
    at each epoch). If w exceeds T, the warm-up continues past T. `t` may be traced and have any
    shape; the result is float32.
    """
    total, warmup = config.decay_steps or steps, config.warmup_steps
    if config.warmup_ratio is not None:
        warmup = round(config.warmup_ratio * total)
    if config.schedule == "trapezoid":
        cooldown = round(config.cooldown_ratio * total)
        shape = config.cooldown_shape
        return lambda t: config.peak_lr * _trapezoid(jnp.asarray(t), warmup, total, cooldown, shape)
    fraction = _SCHEDULES[config.schedule]
    if not warmup:
        return lambda t: config.peak_lr * _linear_decay(jnp.asarray(t), total)
    return lambda t: config.peak_lr * fraction(jnp.asarray(t), warmup, total)
