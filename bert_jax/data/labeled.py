"""The labelled rows of a task -> batches, where the batch of a step is a pure look-up.

Rows are held in memory. An epoch's order is an index permutation, another one each time.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from bert_jax.utils.types import Batch

PADDED_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class LabeledBatches:
    """Batches of labelled rows that are held in memory: `batch_size` of them, in the order of
    `seed`, padded to the shortest of `LENGTHS` that holds them (in multiples of 512 beyond), so
    that short rows are cheap and few shapes are compiled.

    tokens [b l]  padded with pad_id   size first row epoch [b]   labels: of a row [b]; of each
                                                                  token [b l], padded with -1
    Rows of options (multiple choice) have tokens [b c l], size and first [b c]. A step's batch
    is a pure look-up. Of every batch a process holds the `parts` (i, n): the i-th of n equal ones.
    """

    rows: Sequence[dict[str, Any]]
    batch_size: int
    pad_id: int
    seed: int = 0
    parts: Sequence[tuple[int, int]] = ((0, 1),)

    def __post_init__(self) -> None:
        n = self.parts[0][1]
        if self.batch_size % n:
            raise ValueError(
                f"data.batch_size {self.batch_size} does not divide over {n} processes: choose a "
                "multiple"
            )
        if not self.rows:
            raise ValueError("there are no labelled rows: expected at least one")

    def __getitem__(self, step: int) -> Batch:
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        n, order = len(self.rows), self._order
        return self._stack([int(order[i] or 0) for i in places], [i // n for i in places])

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """The batches from a step on, without end."""
        return (self[i] for i in itertools.count(step))

    def one_pass(self) -> Iterator[Batch]:
        """Every row once, short ones first; rows that are missing at the end have size 0 and
        the number -1. For evaluation."""
        order = sorted(range(len(self.rows)), key=lambda i: (_row_length(self.rows[i]), i))
        for begin in range(0, len(order), self.batch_size):
            some = order[begin : begin + self.batch_size]
            some += [-1] * (self.batch_size - len(some))
            yield self._stack(some, [0] * len(some))

    def predict_all(self, apply: Callable[[Batch], tuple[Any, Any]], by_token: bool) -> list[Any]:
        """What `apply` makes of the rows, one per row and in their order.

        `apply` turns a batch into the whole batch's row numbers and outputs: [b ...], or a dict
        of such. With `by_token` an output's first axis is the row's length, and is cut to its
        size."""
        made: list[Any] = [None] * len(self.rows)
        for batch in self.one_pass():
            numbers, outputs = apply(batch)
            for j, number in enumerate(numbers):
                if number >= 0:
                    cut = slice(_row_length(self.rows[number]) if by_token else None)
                    made[number] = _select_row(outputs, j, cut)
        return made

    @functools.cached_property
    def _order(self) -> grain.MapDataset:
        """Position -> number of a row; each epoch in an order of its own."""
        return grain.MapDataset.range(len(self.rows)).seed(self.seed).shuffle().repeat()

    def _stack(self, numbers: Sequence[int], epochs: Sequence[int]) -> Batch:
        """This process's part of a batch; the length is that of the whole batch."""
        longest = max(_row_length(self.rows[i]) for i in numbers if i >= 0)
        length = next((n for n in PADDED_LENGTHS if n >= longest), -(-longest // 512) * 512)
        part = len(numbers) // self.parts[0][1]
        mine = [j for i, _ in self.parts for j in range(i * part, (i + 1) * part)]
        made = [self._padded(numbers[j], length) for j in mine]
        batch = {k: np.stack([r[k] for r in made]) for k in made[0]}
        batch["row"] = np.array([numbers[j] for j in mine], np.int32)
        batch["epoch"] = np.array([epochs[j] for j in mine], np.int32)
        return batch

    def _padded(self, number: int, length: int) -> dict[str, Any]:
        row = self.rows[max(number, 0)]
        options = np.ndim(row["size"]) > 0
        made: dict[str, np.ndarray] = {}
        for name, value in row.items():
            pad = self.pad_id if name == "tokens" else -1
            if options and name == "tokens":
                made[name] = np.stack([_pad(part, length, pad) for part in value])
            else:
                value = _to_int32_or_float32(value)
                made[name] = value if options or not value.ndim else _pad(value, length, pad)
        return made if number >= 0 else {**made, "size": np.zeros_like(made["size"])}


def _select_row(outputs: Any, j: int, cut: slice) -> Any:
    if isinstance(outputs, dict):
        return {k: _select_row(v, j, cut) for k, v in outputs.items()}
    one = np.asarray(outputs[j], np.float32 if outputs.dtype.kind == "f" else None)
    return one[cut] if one.ndim else one


def _row_length(row: dict[str, Any]) -> int:
    return int(np.max(row["size"]))


def _to_int32_or_float32(value: Any) -> np.ndarray:
    value = np.asarray(value)
    return value.astype(np.float32 if value.dtype.kind == "f" else np.int32)


def _pad(values: Any, length: int, pad: int) -> np.ndarray:
    values = _to_int32_or_float32(values)
    padded = np.full(length, pad, values.dtype)
    padded[: len(values)] = values
    return padded
