"""The largest batch whose step fits the device's memory, by compiling and not running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Fit(NamedTuple):
    """A batch that fits where one of `unit` rows more does not."""

    batch_size: int  # 0: not even `unit` rows
    peak: int  # bytes on one device
    limit: int
    unit: int
    compiled: int  # steps that it took to find out


def max_batch_size(peak_of: Callable[[int], int | None], limit: int, unit: int, most: int) -> Fit:
    """The largest multiple of `unit` up to `most` whose peak is within `limit`.

    `peak_of` gives the bytes of a batch, None where it cannot even be compiled. Memory is nearly a
    line in the batch, so the next guess is where the line through the last two sizes meets the
    limit, held between what fits and what does not; at worst this bisects.
    """
    known: dict[int, int | None] = {}

    def fits(units: int) -> bool:
        known[units] = peak_of(units * unit)
        return known[units] is not None and known[units] <= limit  # type: ignore[operator]

    low, high = 0, most // unit + 1  # low fits, or is nothing; high does not, or is too many
    guess, halve = 1, False
    while high - low > 1:
        if fits(guess):
            low = guess
        else:
            high = guess
        line = None if halve else _line(known, limit)
        halve = not halve and len(known) > 2  # every other guess from then on
        middle = (low + high) // 2 if high <= most // unit else min(high - 1, 2 * max(low, 1))
        guess = min(max(line if line is not None else middle, low + 1), high - 1)
    return Fit(low * unit, known.get(low) or 0, limit, unit, len(known))


def _line(known: dict[int, int | None], limit: int) -> int | None:
    """Units at which the line through the two largest known sizes meets the limit."""
    sizes = sorted(u for u, peak in known.items() if peak is not None)[-2:]
    if len(sizes) < 2:
        return None
    (a, b), (p, q) = sizes, [known[u] for u in sizes]
    assert p is not None
    assert q is not None
    return int(a + (limit - p) * (b - a) / (q - p)) if q > p else None
