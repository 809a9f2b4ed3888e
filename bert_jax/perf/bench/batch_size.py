"""Search the largest batch whose step fits the device's memory, by compiling without running."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from bert_jax.distributed import constraints
from bert_jax.perf.bench import device
from bert_jax.perf.bench.inputs import BenchInputs
from bert_jax.perf.bench.train_step import compile_for_batch_size

MAX_ROWS = 1 << 20  # no larger batch is tried


class MaxBatch(NamedTuple):
    """The largest batch that fits: `unit` more rows do not. Bytes are those of one device."""

    batch_size: int  # 0: not even `unit` rows fit
    peak: int
    limit: int
    unit: int
    compiled: int  # number of steps that were compiled


def find_max_batch_size(inputs: BenchInputs, mesh: jax.sharding.Mesh) -> MaxBatch:
    """The largest batch of the inputs' config on a mesh. A batch that runs out of memory while
    it is compiled does not fit."""
    devices = list(mesh.devices.flat)
    batch_axes = constraints.axis_size(mesh, constraints.BATCH_AXES)

    def peak_of(batch_size: int) -> int | None:
        try:
            compiled = compile_for_batch_size(inputs, devices, batch_size)
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e):
                raise
            return None
        return device.step_memory(compiled)["peak"]

    limit = device.memory_limit(devices[0])
    return max_batch_size(peak_of, limit, batch_axes * inputs.config.optim.accumulate, MAX_ROWS)


def max_batch_size(
    peak_of: Callable[[int], int | None], limit: int, unit: int, max_rows: int
) -> MaxBatch:
    """The largest multiple of `unit` up to `max_rows` whose peak is at most `limit` bytes.

    `peak_of` returns the bytes of a batch, or None if it cannot be compiled. Memory is almost
    linear in the batch. So each guess extrapolates the last two sizes to the limit, clamped to
    the range that is still open; every other guess bisects that range.
    """
    peaks: dict[int, int | None] = {}  # units -> bytes

    def fits(units: int) -> bool:
        peaks[units] = peak = peak_of(units * unit)
        return peak is not None and peak <= limit

    low, high = 0, max_rows // unit + 1  # low fits, or is 0; high does not fit, or is too many
    guess, bisect = 1, False
    while high - low > 1:
        if fits(guess):
            low = guess
        else:
            high = guess
        linear = None if bisect else _extrapolate(peaks, limit)
        bisect = not bisect and len(peaks) > 2
        middle = (low + high) // 2 if high <= max_rows // unit else min(high - 1, 2 * max(low, 1))
        guess = min(max(linear if linear is not None else middle, low + 1), high - 1)
    return MaxBatch(low * unit, peaks.get(low) or 0, limit, unit, len(peaks))


def _extrapolate(peaks: dict[int, int | None], limit: int) -> int | None:
    """Units at which the line through the two largest compiled sizes reaches the limit; None
    without two sizes, or where memory does not grow."""
    points = sorted((units, peak) for units, peak in peaks.items() if peak is not None)[-2:]
    if len(points) < 2:
        return None
    (a, p), (b, q) = points
    return int(a + (limit - p) * (b - a) / (q - p)) if q > p else None
