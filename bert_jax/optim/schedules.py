"""Learning rates as functions of completed updates."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array

from bert_jax.config import Optim


def _fall(t: Array, total: int, start: int = 0) -> Array:
    """1 at `start`, 0 from `total` on; whole numbers are subtracted, so nothing cancels."""
    return jnp.maximum(total - t, 0) / max(total - start, 1)


def _trapezoid(t: Array, warmup: int, total: int, cooldown: int) -> Array:
    up = t / warmup if warmup else 1.0
    return jnp.minimum(jnp.minimum(up, 1.0), _fall(t, total, total - cooldown))


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
    trapezoid min(t/w, 1, (T-t)/c)                 up, level, down over the last c steps

    c is `cooldown_ratio` of T (Haegele et al. 2024, section 3, who also try other falls than a
    line); from the level part a run can go on for longer, or cool down at any step. The first
    update of a warm-up has rate 0. Sources of the others: bert/optimization.py,
    electra/model/optimization.py, fairseq's polynomial_decay_schedule.py, and SpanBERT's copy of
    it without its two slips (a first update at the full peak, and the warm-up's last rate once
    more at each epoch). Where w exceeds T the warm-up runs on as written. `t` may be traced, and
    of any shape; the result is float32.
    """
    total, warmup = config.decay_steps or steps, config.warmup_steps
    if config.warmup_ratio is not None:
        warmup = round(config.warmup_ratio * total)
    if config.schedule == "trapezoid":
        cooldown = round(config.cooldown_ratio * total)
        return lambda t: config.peak_lr * _trapezoid(jnp.asarray(t), warmup, total, cooldown)
    share = _SCHEDULES[config.schedule]
    if not warmup:
        return lambda t: config.peak_lr * _fall(jnp.asarray(t), total)
    return lambda t: config.peak_lr * share(jnp.asarray(t), warmup, total)
