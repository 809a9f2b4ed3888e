"""Numbers that would spoil a model: such an update is left out, inside the step.

An update is usable when its loss is finite and so is the norm of its gradient. The norm sums
squares, so a finite gradient above 1.8e19 is left out as well, and on purpose: clipping would
divide it by infinity, and Adam keeps its square for ever. Left out means that parameters,
optimiser and schedule stay bit for bit as they were, while the step's number goes on: the
batch is used up. After `guard.max_skipped_updates` in a row no update is made any more, and the run
stops.

A spike is a loss above the median of the last losses by many of their deviations (1.4826 times
the median distance from the median: a normal law's standard deviation).
"""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Guard
from bert_jax.utils import pytree

logger = logging.getLogger(__name__)

LEAST = 0.01  # of the median: losses that hardly vary make no spike of every difference


class LossHistory(NamedTuple):
    """What the guard remembers, as part of the state: a run that goes on judges alike."""

    losses: jax.Array  # float32 [spike_window] of the last updates, NaN before there were any
    row: jax.Array  # int32: updates left out in a row, up to now
    skipped: jax.Array  # int32: updates left out in all
    spikes: jax.Array  # int32: spikes in all


def init(config: Guard) -> LossHistory:
    counts = (jnp.zeros((), jnp.int32) for _ in range(3))
    return LossHistory(jnp.full(config.spike_window, jnp.nan, jnp.float32), *counts)


def check_update(
    config: Guard, history: LossHistory, loss: jax.Array, norm: jax.Array
) -> tuple[jax.Array, LossHistory]:
    """Whether an update of this loss and gradient norm shall be made; and the history with it."""
    usable = jnp.isfinite(loss) & jnp.isfinite(norm)
    spike = usable & _spiked(config, history.losses, loss)
    good = usable & (history.row < config.max_skipped_updates)
    if config.spike == "skip":
        good &= ~spike
    shifted = jnp.append(history.losses[1:], loss.astype(jnp.float32))
    return good, LossHistory(
        losses=jnp.where(good, shifted, history.losses),
        row=jnp.where(good, 0, history.row + 1),
        skipped=history.skipped + ~good,
        spikes=history.spikes + spike,
    )


def _spiked(config: Guard, losses: jax.Array, loss: jax.Array) -> jax.Array:
    """Never before the window is full: the median of a NaN is NaN, and nothing is above it."""
    if config.spike == "off":
        return jnp.zeros((), bool)
    middle = jnp.median(losses)
    deviation = 1.4826 * jnp.median(jnp.abs(losses - middle))
    deviation = jnp.maximum(deviation, LEAST * jnp.abs(middle))
    return loss > middle + config.spike_factor * deviation


class SkipMonitor:
    """The host's account of the steps' numbers, read one step late so that the device never
    waits. It tells of every update that was left out, and of every spike."""

    def __init__(self, config: Guard, history: LossHistory, step: int) -> None:
        row, skipped, spikes = jax.device_get(history[1:])
        self._most = config.max_skipped_updates
        self._row, self._seen = int(row), {"skipped": int(skipped), "spikes": int(spikes)}
        self._waiting: tuple[int, dict[str, Any]] | None = None
        self.step = step  # the last one that was read; of a halted run the one that halted it

    @property
    def halted(self) -> bool:
        return self._row >= self._most

    def update(self, step: int, metrics: dict[str, Any]) -> None:
        """Take in a step that was just dispatched; the one before is over then."""
        self.finish()
        self._waiting = step, metrics

    def finish(self) -> None:
        """Wait for the last step and read its counts."""
        if self._waiting is None or self.halted:
            return
        (self.step, metrics), self._waiting = self._waiting, None
        seen = {k: int(v) for k, v in jax.device_get({k: metrics[k] for k in self._seen}).items()}
        fresh = {name for name in self._seen if seen[name] > self._seen[name]}
        self._row = self._row + 1 if "skipped" in fresh else 0
        if fresh:
            self._tell(metrics, "skipped" in fresh)
        self._seen = seen

    def _tell(self, metrics: dict[str, Any], skipped: bool) -> None:
        loss, norm = (float(metrics[name]) for name in ("loss", "gradient_norm"))
        what = f"the update is left out, {self._row} in a row" if skipped else "a spike"
        logger.warning(f"step {self.step}: {what}: loss {loss:g}, gradient norm {norm:g}")


# ---- which number it was, outside of the hot path


def gradient_norms(terms: dict[str, Any], grads: Any, params: Any) -> dict[str, Any]:
    """What a person looks at, small enough to fetch: `terms`, and by leaf `gradient` and
    `parameter` (norms that do not overflow) and `bad` (numbers that are not finite, of each
    layer where layers are stacked)."""
    return {
        "terms": {name: term.value for name, term in terms.items()},
        "gradient": pytree.flatten_with_names(jax.tree.map(_norm, grads)),
        "parameter": pytree.flatten_with_names(jax.tree.map(_norm, params)),
        "bad": pytree.flatten_with_names(pytree.map_with_names(_count_bad, grads)),
    }


def _norm(x: jax.Array) -> jax.Array:
    most = jnp.max(jnp.abs(x)).astype(jnp.float32)
    scaled = x / jnp.where(most > 0, most, 1.0)
    return most * jnp.sqrt(jnp.sum(scaled * scaled))


def _count_bad(name: str, x: jax.Array) -> jax.Array:
    layers = (1,) if pytree.is_stacked(name) else ()
    return jnp.sum(~jnp.isfinite(x), axis=tuple(range(len(layers), x.ndim)))


def first_nonfinite(found: dict[str, Any]) -> str:
    """The first loss and the first leaf of `measure` whose numbers cannot be used, in words."""
    losses = {n: float(v) for n, v in found["terms"].items() if n.endswith("loss")}
    term = next((n for n, v in losses.items() if not math.isfinite(v)), None)
    listed = " and ".join(f"{n} is {v:g}" for n, v in losses.items())
    said = listed if term is None else f"{term} is {losses[term]:g}"
    leaf = next((n for n, bad in found["bad"].items() if np.any(bad)), None)
    if leaf is not None:
        bad = np.asarray(found["bad"][leaf])
        layer = f"[{np.flatnonzero(bad)[0]}]" if bad.ndim else ""
        return f"{said}, and the first gradient that is not finite is that of {leaf}{layer}"
    largest = max(found["gradient"], key=lambda n: found["gradient"][n])
    norm = float(found["gradient"][largest])
    wide = norm > math.sqrt(np.finfo(np.float32).max) / 2
    beyond = ", whose square is beyond float32" if wide else ""
    return f"{said}, every gradient is finite, the largest that of {largest}: {norm:g}{beyond}"
