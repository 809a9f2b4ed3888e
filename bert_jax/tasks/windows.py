"""Long texts as overlapping windows."""

from __future__ import annotations

import numpy as np


def sliding_windows(size: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(begin, length) of windows of at most `room` pieces that cover `size` pieces; each begins
    `stride` after the one before (bert, run_squad.py). An empty text has one empty window."""
    found = [(0, min(size, room))]
    while sum(found[-1]) < size:
        begin = found[-1][0] + min(found[-1][1], stride)
        found.append((begin, min(room, size - begin)))
    return found


def max_context_windows(size: int, found: list[tuple[int, int]]) -> np.ndarray:
    """int [size]: the window in which each piece has the most context, counted on its poorer
    side plus a hundredth of the window's length; the first of equals (bert, run_squad.py)."""
    at = np.arange(size)
    best = np.zeros(size, np.int32)
    most = np.full(size, -np.inf)
    for number, (begin, length) in enumerate(found):
        inside = (at >= begin) & (at < begin + length)
        context = np.minimum(at - begin, begin + length - 1 - at) + 0.01 * length
        better = inside & (context > most)
        best[better], most[better] = number, context[better]
    return best
