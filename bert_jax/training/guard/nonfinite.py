"""Skip updates whose numbers would damage the model, inside the train step.

An update is usable when its loss and the norm of its gradient are finite. The norm sums
squares, so a finite gradient above 1.8e19 is skipped too, on purpose: clipping would divide it
by infinity, and Adam would keep its square forever. A skipped update leaves parameters,
optimizer and schedule bit for bit as they were, and the step counter advances: the batch is
used up. After `guard.max_skipped_updates` consecutive skips no update is made, and the run
stops.

A loss spikes when it is above the median of the last losses by many of their deviations. The
deviation is 1.4826 times the median distance from the median, the standard deviation of a
normal distribution.
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

MIN_DEVIATION = 0.01  # of the median: where losses hardly vary, small differences are no spike


class LossHistory(NamedTuple):
    """The guard's part of the train state, so that a resumed run decides in the same way."""

    losses: jax.Array  # float32 [spike_window]: losses of the last updates; NaN until it is full
    consecutive: jax.Array  # int32: updates skipped since the last one that was made
    skipped: jax.Array  # int32: updates skipped in total
    spikes: jax.Array  # int32: spikes in total


def init(config: Guard) -> LossHistory:
    """The history of a run that has made no step."""
    counts = (jnp.zeros((), jnp.int32) for _ in range(3))
    return LossHistory(jnp.full(config.spike_window, jnp.nan, jnp.float32), *counts)


def check_update(
    config: Guard, history: LossHistory, loss: jax.Array, norm: jax.Array
) -> tuple[jax.Array, LossHistory]:
    """Decide whether to make an update with this loss and gradient norm (scalars); returns the
    decision and the new history."""
    usable = jnp.isfinite(loss) & jnp.isfinite(norm)
    spike = usable & _spiked(config, history.losses, loss)
    good = usable & (history.consecutive < config.max_skipped_updates)
    if config.spike == "skip":
        good &= ~spike
    shifted = jnp.append(history.losses[1:], loss.astype(jnp.float32))
    return good, LossHistory(
        losses=jnp.where(good, shifted, history.losses),
        consecutive=jnp.where(good, 0, history.consecutive + 1),
        skipped=history.skipped + ~good,
        spikes=history.spikes + spike,
    )


def _spiked(config: Guard, losses: jax.Array, loss: jax.Array) -> jax.Array:
    """Always False until the window is full: the median is NaN, and no loss is above it."""
    if config.spike == "off":
        return jnp.zeros((), bool)
    middle = jnp.median(losses)
    deviation = 1.4826 * jnp.median(jnp.abs(losses - middle))
    deviation = jnp.maximum(deviation, MIN_DEVIATION * jnp.abs(middle))
    return loss > middle + config.spike_factor * deviation


class SkipMonitor:
    """Logs skipped updates and spikes. It reads a step's counts one step late, so that the device
    never waits for the host."""

    def __init__(self, config: Guard, history: LossHistory, step: int) -> None:
        consecutive, skipped, spikes = jax.device_get(history[1:])
        self._limit = config.max_skipped_updates
        self._skips_spikes, self._consecutive = config.spike == "skip", int(consecutive)
        self._counts = {"skipped": int(skipped), "spikes": int(spikes)}
        self._pending: tuple[int, dict[str, Any]] | None = None
        # The last step whose counts were read; the step at which a halted run halted.
        self.step = step
        self.is_spike = False  # whether the update of `step` was skipped as a spike

    @property
    def halted(self) -> bool:
        """Whether too many consecutive updates were skipped."""
        return self._consecutive >= self._limit

    def update(self, step: int, metrics: dict[str, Any]) -> None:
        """Register the step that was just dispatched, and read the counts of the step before."""
        self.finish()
        self._pending = step, metrics

    def finish(self) -> None:
        """Wait for the registered step and read its counts."""
        if self._pending is None or self.halted:
            return
        (self.step, metrics), self._pending = self._pending, None
        counts = {
            k: int(v) for k, v in jax.device_get({k: metrics[k] for k in self._counts}).items()
        }
        increased = {name for name in counts if counts[name] > self._counts[name]}
        self._consecutive = self._consecutive + 1 if "skipped" in increased else 0
        self.is_spike = self._skips_spikes and increased >= {"skipped", "spikes"}
        if increased:
            self._log(metrics, "skipped" in increased)
        self._counts = counts

    def _log(self, metrics: dict[str, Any], skipped: bool) -> None:
        loss, norm = (float(metrics[name]) for name in ("loss", "gradient_norm"))
        what = f"update skipped ({self._consecutive} in a row)" if skipped else "loss spike"
        logger.warning(f"step {self.step}: {what}: loss {loss:g}, gradient norm {norm:g}")


# ---- which number is not finite; outside of the hot path


def gradient_norms(terms: dict[str, Any], grads: Any, params: Any) -> dict[str, Any]:
    """A report small enough to fetch: values of `terms`; and for each leaf the norms `gradient` and
    `parameter`, which do not overflow, and the count `nonfinite`, per layer where layers are
    stacked."""
    return {
        "terms": {name: term.value for name, term in terms.items()},
        "gradient": pytree.flatten_with_names(jax.tree.map(_norm, grads)),
        "parameter": pytree.flatten_with_names(jax.tree.map(_norm, params)),
        "nonfinite": pytree.flatten_with_names(pytree.map_with_names(_count_nonfinite, grads)),
    }


def _norm(x: jax.Array) -> jax.Array:
    largest = jnp.max(jnp.abs(x)).astype(jnp.float32)
    scaled = x / jnp.where(largest > 0, largest, 1.0)
    return largest * jnp.sqrt(jnp.sum(scaled * scaled))


def _count_nonfinite(name: str, x: jax.Array) -> jax.Array:
    layers = (1,) if pytree.is_stacked(name) else ()
    return jnp.sum(~jnp.isfinite(x), axis=tuple(range(len(layers), x.ndim)))


def first_nonfinite(report: dict[str, Any]) -> str:
    """The first loss and the first gradient of a report that are not finite, in words."""
    losses = {n: float(v) for n, v in report["terms"].items() if n.endswith("loss")}
    term = next((n for n, v in losses.items() if not math.isfinite(v)), None)
    listed = " and ".join(f"{n} is {v:g}" for n, v in losses.items())
    losses_text = listed if term is None else f"{term} is {losses[term]:g}"
    leaf = next((n for n, count in report["nonfinite"].items() if np.any(count)), None)
    if leaf is not None:
        counts = np.asarray(report["nonfinite"][leaf])
        layer = f"[{np.flatnonzero(counts)[0]}]" if counts.ndim else ""
        return f"{losses_text}, and the first gradient that is not finite is that of {leaf}{layer}"
    largest = max(report["gradient"], key=lambda n: report["gradient"][n])
    norm = float(report["gradient"][largest])
    wide = norm > math.sqrt(np.finfo(np.float32).max) / 2
    beyond = ", whose square is beyond float32" if wide else ""
    return (
        f"{losses_text}, every gradient is finite, the largest that of {largest}: {norm:g}{beyond}"
    )
