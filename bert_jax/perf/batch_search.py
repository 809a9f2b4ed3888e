"""Search the largest batch that fits into a memory, with few compilations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class MaxBatch(NamedTuple):
    """The largest batch that fits: `unit` more rows do not. Bytes are those of one device."""

    batch_size: int  # 0: not even `unit` rows fit
    peak: int
    limit: int
    unit: int
    compiled: int  # number of steps that were compiled


def max_batch_size(
    peak_of: Callable[[int], int | None],
    limit: int,
    unit: int,
    max_rows: int,
    known: Mapping[int, int] | None = None,
) -> MaxBatch:
    """The largest multiple of `unit` up to `max_rows` whose peak is at most `limit` bytes.

    `peak_of` returns the bytes of a batch, or None if it cannot be compiled. `known` has those of
    some batches; 0 rows may be one. Memory is almost linear in the batch. So each guess
    extrapolates the last two sizes to the limit, clamped to the range that is still open; every
    other guess bisects that range.
    """
    peaks: dict[int, int | None] = {rows // unit: peak for rows, peak in (known or {}).items()}
    num_known = len(peaks)

    def fits(units: int) -> bool:
        if units not in peaks:
            peaks[units] = peak_of(units * unit)
        peak = peaks[units]
        return peak is not None and peak <= limit

    low = max((units for units in peaks if fits(units)), default=0)
    high = min((units for units in peaks if units > low), default=max_rows // unit + 1)
    guess, bisect = _extrapolate(peaks, limit) or low + 1, False
    guess = min(max(guess, low + 1), high - 1)
    while high - low > 1:
        if fits(guess):
            low = guess
        else:
            high = guess
        linear = None if bisect else _extrapolate(peaks, limit)
        bisect = not bisect and len(peaks) - num_known > 2
        middle = (low + high) // 2 if high <= max_rows // unit else min(high - 1, 2 * max(low, 1))
        guess = min(max(linear if linear is not None else middle, low + 1), high - 1)
    return MaxBatch(low * unit, peaks.get(low) or 0, limit, unit, len(peaks) - num_known)


def _extrapolate(peaks: Mapping[int, int | None], limit: int) -> int | None:
    """Units at which the line through the two largest compiled sizes reaches the limit; None
    without two sizes, or where memory does not grow."""
    points = sorted((units, peak) for units, peak in peaks.items() if peak is not None)[-2:]
    if len(points) < 2:
        return None
    (a, p), (b, q) = points
    return int(a + (limit - p) * (b - a) / (q - p)) if q > p else None
