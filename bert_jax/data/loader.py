"""Prepared corpora -> batches, where the batch of a step is a pure look-up.

`Batches[step]` depends on (corpora, seed, step) and nothing else: no position to save, no rows
to skip after a restart. Rows are shuffled anew each epoch by an index permutation, so memory
does not grow with the corpus. Process i of n reads the i-th of n equal parts of every batch,
so the global batch does not depend on how many processes there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grain
import numpy as np

from bert_jax.utils.types import Batch

RowRef = tuple[int, int, int]  # of a row: its source, its place there (-1: none), its epoch


class Source(Protocol):
    """Random access to prepared rows: `tokens` [l], and `size` `first` `pair`, numbers, or [n]
    where it is packed."""

    def __len__(self) -> int: ...
    def __getitems__(self, numbers: Sequence[int]) -> Sequence[dict[str, Any]]: ...


@dataclass(frozen=True)
class Loader:
    """Batches of `batch_size` rows of `length` tokens.

    tokens [b l]   padded with pad_id      size [b]   tokens that are real
    first  [b]     tokens of segment 0     pair [b]   its label, -1 where there is none
    row    [b]     number of the row       epoch [b]  how often it was seen before

    A row's number is modulo 2^32, as its key is. Packed rows hold up to n sequences one behind
    the other, and `size` `first` `pair` are [b n]: 0 0 -1 where there are fewer.
    """

    sources: Sequence[Source]
    batch_size: int
    length: int
    pad_id: int
    seed: int = 0
    weights: Sequence[float] | None = None  # of the sources; None: one source
    process: tuple[int, int] = (0, 1)
    threads: int = 8
    packed: int = 0  # n of packed rows

    def __post_init__(self) -> None:
        n = self.process[1]
        if self.batch_size % n:
            raise ValueError(
                f"data.batch_size {self.batch_size} does not divide over {n} processes: "
                "choose a multiple"
            )
        for source in self.sources:
            if not len(source):
                raise ValueError("a corpus has no rows: prepare more text")

    def __getitem__(self, step: int) -> Batch:
        i, n = self.process
        batch = self._dataset()[step * n + i]
        assert batch is not None, "rows are never filtered out"
        return batch

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """The batches from a step on, read ahead by threads."""
        i, n = self.process
        ahead = grain.ReadOptions(self.threads, prefetch_buffer_size=self.threads)
        return iter(self._dataset()[step * n + i :: n].to_iter_dataset(ahead))

    def one_pass(self, most: int) -> Iterator[Batch]:
        """Up to `most` batches over all sources, in one fixed order, each row once; rows that
        are missing at the end have size 0 and count nowhere. For evaluation."""
        i, n = self.process
        counts = [len(source) for source in self.sources]
        rows = grain.MapDataset.range(sum(counts)).seed(0).shuffle()
        part = self.batch_size // n
        for begin in range(0, min(len(rows), most * self.batch_size), self.batch_size):
            end = min(begin + self.batch_size, len(rows))
            numbers = [self._place(int(rows[j] or 0)) for j in range(begin, end)]
            numbers += [(0, -1)] * (self.batch_size - len(numbers))
            mine = numbers[i * part : (i + 1) * part]
            yield self._read([(k, row, 0) for k, row in mine])

    def _place(self, number: int) -> tuple[int, int]:
        """Source and row of a row's number over all sources."""
        for k, source in enumerate(self.sources):
            if number < len(source):
                return k, number
            number -= len(source)
        raise AssertionError(number)

    def _dataset(self) -> grain.MapDataset:
        """The number of every position, then this process's batches."""
        numbers = [self._numbers(k, source) for k, source in enumerate(self.sources)]
        if len(numbers) == 1:
            mixed = numbers[0]
        else:
            mixed = grain.MapDataset.mix(numbers, weights=self.weights)
        return mixed.batch(self.batch_size // self.process[1], batch_fn=self._read)

    def _numbers(self, k: int, source: Source) -> grain.MapDataset:
        n = len(source)
        shuffled = grain.MapDataset.range(n).seed(self.seed + k).shuffle().repeat()
        return shuffled.map_with_index(lambda i, row: (k, row, i // n))

    def _read(self, numbers: Sequence[RowRef]) -> Batch:
        """The rows of these numbers, one batch of them."""
        n = max(self.packed, 1)
        tokens = np.full((len(numbers), self.length), self.pad_id, np.int32)
        of_each = np.zeros((3, len(numbers), n), np.int32)  # size first pair
        of_each[2] = -1
        for k, source in enumerate(self.sources):
            at = [i for i, (of, row, _) in enumerate(numbers) if of == k and row >= 0]
            rows = source.__getitems__([numbers[i][1] for i in at]) if at else []
            for i, row in zip(at, rows, strict=True):
                size, first, pair = row["size"], row["first"], row["pair"]
                real = int(np.sum(size))
                tokens[i, :real] = row["tokens"][:real]
                of_each[:, i, : np.size(size)] = np.reshape((size, first, pair), (3, -1))
        size, first, pair = of_each if self.packed else of_each[..., 0]
        before = np.cumsum([0, *(len(s) for s in self.sources)])
        row = np.array([before[k] + row for k, row, _ in numbers], np.int64).astype(np.int32)
        epoch = np.array([epoch for *_, epoch in numbers], np.int32)
        return dict(tokens=tokens, size=size, first=first, pair=pair, row=row, epoch=epoch)


@dataclass(frozen=True)
class StagedLoader:
    """Batches of one shape after another: (the step before its first, the batches) each, the
    first from 0 on; the last go on for ever."""

    stages: Sequence[tuple[int, Loader | ConcatLoader]]

    def __getitem__(self, step: int) -> Batch:
        begin, batches = [s for s in self.stages if s[0] <= step][-1]
        return batches[step - begin]

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """The batches from a step on, read ahead by threads."""
        ends = [*(begin for begin, _ in self.stages[1:]), None]
        for (begin, batches), end in zip(self.stages, ends, strict=True):
            place = max(step, begin)
            if end is None or place < end:
                count = None if end is None else end - place
                yield from itertools.islice(batches.iterate(place - begin), count)


@dataclass(frozen=True)
class ConcatLoader:
    """Several parts of the same batches, one behind the other: those of a process whose devices
    hold rows that are not next to each other."""

    parts: Sequence[Loader]

    def __getitem__(self, step: int) -> Batch:
        return _concatenate([part[step] for part in self.parts])

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        return map(_concatenate, zip(*(part.iterate(step) for part in self.parts), strict=True))

    def one_pass(self, most: int) -> Iterator[Batch]:
        return map(_concatenate, zip(*(part.one_pass(most) for part in self.parts), strict=True))


def _concatenate(batches: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
