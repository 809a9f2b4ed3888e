"""The data loader of fine-tuning: labeled rows in memory -> batches, a pure look-up by step.

Each epoch is shuffled by an index permutation of its own. On request rows of similar length share a
batch, which is then padded less.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from bert_jax.data.batch_parts import WHOLE_BATCH, check_parts, rows_of_parts
from bert_jax.utils.types import Batch, Slices

# Fields with one value, or one vector, per token.
PER_TOKEN = ("tokens", "tags", "teacher_tag", "teacher_start", "teacher_end")
NO_ANSWER = -1e30  # a teacher's logit of padding, which is no end of a span
PADDING = {"teacher_start": NO_ANSWER, "teacher_end": NO_ANSWER}  # others: -1
PADDED_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
MAX_GROUPED = 50  # batches whose rows are sorted by length together


def epoch_order(rows: int, seed: int) -> grain.MapDataset:
    """Position -> row number, without end; each epoch is shuffled anew."""
    return grain.MapDataset.range(rows).seed(seed).shuffle().repeat()


@dataclass(frozen=True)
class LabeledBatches:
    """Batches of `batch_size` labeled rows, shuffled by `seed`. Rows are padded to the shortest of
    `PADDED_LENGTHS` that fits (beyond, to a multiple of 512), so that short rows are cheap and few
    shapes are compiled.

    tokens [b l]  padded with pad_id   size first row epoch [b]   labels: of a row [b], or [b n]
                                                                  for each of n labels; of each
                                                                  token (`tags`) [b l], padded
                                                                  with -1
    teacher_tag [b l n]  teacher_start teacher_end [b l]  a teacher's outputs, padded like labels
    Rows of several options or windows have tokens [b c l], size and first [b c]; rows with fewer
    than others of their batch get empty ones. Of every batch a process holds
    the `parts` (i, n): the i-th of n equal ones. With `grouped_steps`, the number of steps of the
    run, rows of similar length share a batch, and the run sees the same rows equally often; a run
    with another number of steps has other batches.
    ValueError: there are no rows, or the batch does not divide over the processes.
    """

    rows: Sequence[dict[str, Any]]
    batch_size: int
    pad_id: int
    seed: int = 0
    parts: Slices = WHOLE_BATCH
    grouped_steps: int | None = None

    def __post_init__(self) -> None:
        check_parts(self.batch_size, self.parts)
        if not self.rows:
            raise ValueError("there are no labeled rows: expected at least one")

    def __getitem__(self, step: int) -> Batch:
        positions: Sequence[int] = range(step * self.batch_size, (step + 1) * self.batch_size)
        if self.grouped_steps is not None and step < self.grouped_steps:
            group, place = divmod(step, self._steps_per_group)
            positions = self._grouped_positions(group)[place]
        n, order = len(self.rows), self._order
        return self._stack([int(order[i] or 0) for i in positions], [i // n for i in positions])

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """The batches from `step` on, without end."""
        return (self[i] for i in itertools.count(step))

    def one_pass(self) -> Iterator[Batch]:
        """Every row once, short ones first. All rows of a batch have the same padded length and
        number of options or windows, and all batches are of one size: so a row runs through the
        same compiled program whatever its neighbors are, and gives the same numbers. Where rows do
        not fill a batch, the missing ones have size 0 and number -1. For evaluation and prediction.
        """
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, row in enumerate(self.rows):
            count = max(1, int(np.count_nonzero(row["size"])))
            groups[count, padded_length(_row_length(row))].append(i)
        for (count, _), group in sorted(groups.items()):
            for begin in range(0, len(group), self.batch_size):
                numbers = group[begin : begin + self.batch_size]
                numbers += [-1] * (self.batch_size - len(numbers))
                yield self._stack(numbers, [0] * len(numbers), count)

    def predict_all(self, apply: Callable[[Batch], tuple[Any, Any]], per_token: bool) -> list[Any]:
        """The output of `apply` for each row, in the order of the rows.

        `apply` maps a batch to the row numbers and the outputs of the whole global batch: [b ...],
        or a dict of such arrays. They may lie on a device: a batch is fetched while the next one is
        computed. With `per_token` the first axis of a row's output is the padded length, and is cut
        to the size of the row."""
        predictions: list[Any] = [None] * len(self.rows)

        def fetch(numbers: Any, outputs: Any) -> None:
            outputs = _to_numpy(outputs)
            for j, number in enumerate(np.asarray(numbers)):
                if number >= 0:
                    tokens = slice(_row_length(self.rows[number]) if per_token else None)
                    predictions[number] = _select_row(outputs, j, tokens)

        previous = None
        for batch in self.one_pass():
            computed = apply(batch)
            if previous is not None:
                fetch(*previous)
            previous = computed
        if previous is not None:
            fetch(*previous)
        return predictions

    @functools.cached_property
    def _order(self) -> grain.MapDataset:
        return epoch_order(len(self.rows), self.seed)

    @property
    def _steps_per_group(self) -> int:
        """Few enough for an epoch to have several groups: else each length would always meet the
        same rows."""
        return max(2, min(MAX_GROUPED, len(self.rows) // (4 * self.batch_size)))

    @functools.cached_property
    def _grouped_positions(self) -> Callable[[int], list[list[int]]]:
        """Group -> the positions of each of its batches."""
        return functools.lru_cache(maxsize=2)(self._sort_group)

    def _sort_group(self, group: int) -> list[list[int]]:
        """The positions of the group's steps, sorted by the length of their rows and cut into
        batches, which come in random order. The run's last group ends with the run."""
        assert self.grouped_steps is not None
        size, first = self.batch_size, group * self._steps_per_group
        count = min(self._steps_per_group, self.grouped_steps - first)
        positions = range(first * size, (first + count) * size)
        lengths = [_row_length(self.rows[int(self._order[i] or 0)]) for i in positions]
        by_length = [positions[i] for i in np.argsort(lengths, kind="stable")]
        shuffled = np.random.default_rng((self.seed, group)).permutation(count)
        return [by_length[i * size : (i + 1) * size] for i in shuffled]

    def _stack(
        self, numbers: Sequence[int], epochs: Sequence[int], count: int | None = None
    ) -> Batch:
        """This process's part of a batch, padded to the length of the whole batch. Rows of several
        options or windows have their first `count`, by default as many as the largest row."""
        length = padded_length(max(_row_length(self.rows[i]) for i in numbers if i >= 0))
        mine = rows_of_parts(len(numbers), self.parts)
        if count is None:
            count = max(np.size(self.rows[i]["size"]) for i in numbers)
        rows = [self._padded_row(numbers[j], numbers[0], length, count) for j in mine]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        batch["row"] = np.array([numbers[j] for j in mine], np.int32)
        batch["epoch"] = np.array([epochs[j] for j in mine], np.int32)
        return batch

    def _padded_row(self, number: int, filler: int, length: int, count: int) -> dict[str, Any]:
        """A row of the batch; a missing one is the row `filler` with size 0."""
        row = self.rows[number if number >= 0 else filler]
        several = np.ndim(row["size"]) > 0  # options or windows
        padded: dict[str, np.ndarray] = {}
        for name, value in row.items():
            pad = self.pad_id if name == "tokens" else PADDING.get(name, -1)
            if several and name == "tokens":
                missing = [np.zeros(0, np.int32)] * (count - len(value))
                padded[name] = np.stack([_pad(x, length, pad) for x in (*value, *missing)[:count]])
            elif several and name in ("size", "first"):
                padded[name] = _pad(value[:count], count, 0)
            elif several or name not in PER_TOKEN:
                padded[name] = _to_int32_or_float32(value)
            else:
                padded[name] = _pad(value, length, pad)
        return padded if number >= 0 else {**padded, "size": np.zeros_like(padded["size"])}


def padded_length(size: int) -> int:
    """The length to which a row of `size` tokens is padded."""
    return next((n for n in PADDED_LENGTHS if n >= size), -(-size // 512) * 512)


def _to_numpy(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {name: _to_numpy(output) for name, output in outputs.items()}
    return np.asarray(outputs)


def _select_row(outputs: Any, j: int, tokens: slice) -> Any:
    if isinstance(outputs, dict):
        return {name: _select_row(output, j, tokens) for name, output in outputs.items()}
    row = np.asarray(outputs[j], np.float32 if outputs.dtype.kind == "f" else None)
    return row[tokens] if row.ndim else row


def _row_length(row: dict[str, Any]) -> int:
    return int(np.max(row["size"]))


def _to_int32_or_float32(value: Any) -> np.ndarray:
    value = np.asarray(value)
    return value.astype(np.float32 if value.dtype.kind == "f" else np.int32)


def _pad(values: Any, length: int, pad: float) -> np.ndarray:
    values = _to_int32_or_float32(values)
    padded = np.full((length, *values.shape[1:]), pad, values.dtype)
    padded[: len(values)] = values
    return padded
