"""The parts of each global batch that a process reads: the rows on its own devices."""

from __future__ import annotations

from bert_jax.utils.types import Slices

WHOLE_BATCH: Slices = ((0, 1),)


def check_parts(batch_size: int, parts: Slices) -> None:
    """ValueError: a batch does not divide over the processes that hold its `parts`."""
    n = parts[0][1]
    if batch_size % n:
        raise ValueError(
            f"data.batch_size {batch_size} is not divisible by {n} processes: choose a multiple"
        )


def rows_of_parts(batch_size: int, parts: Slices) -> list[int]:
    """The places of the parts' rows in a batch, in order."""
    size = batch_size // parts[0][1]
    return [j for i, _ in parts for j in range(i * size, (i + 1) * size)]
