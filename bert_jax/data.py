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

Batch = dict[str, np.ndarray]


class Source(Protocol):
    """Random access to prepared rows: `tokens` [l], `size`, `first`, `pair`."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Batches:
    """Batches of `batch_size` rows of `length` tokens.

    tokens [b l]   padded with pad_id      size [b]   tokens that are real
    first  [b]     tokens of segment 0     pair [b]   its label, -1 where there is none
    row    [b]     number of the row       epoch [b]  how often it was seen before

    A row's number is modulo 2^32, as its key is.
    """

    sources: Sequence[Source]
    batch_size: int
    length: int
    pad_id: int
    seed: int = 0
    weights: Sequence[float] | None = None  # of the sources; None: one source
    process: tuple[int, int] = (0, 1)
    threads: int = 8

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

    def start(self, step: int = 0) -> Iterator[Batch]:
        """The batches from a step on, read ahead by threads."""
        i, n = self.process
        ahead = grain.ReadOptions(self.threads, prefetch_buffer_size=self.threads)
        return iter(self._dataset()[step * n + i :: n].to_iter_dataset(ahead))

    def once(self, most: int) -> Iterator[Batch]:
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
            yield self._stack([self._read((k, row, 0)) for k, row in mine])

    def _place(self, number: int) -> tuple[int, int]:
        """Source and row of a row's number over all sources."""
        for k, source in enumerate(self.sources):
            if number < len(source):
                return k, number
            number -= len(source)
        raise AssertionError(number)

    def _dataset(self) -> grain.MapDataset:
        """(source, row, epoch) of every position, then rows, then this process's batches."""
        numbers = [self._numbers(k, source) for k, source in enumerate(self.sources)]
        if len(numbers) == 1:
            mixed = numbers[0]
        else:
            mixed = grain.MapDataset.mix(numbers, weights=self.weights)
        rows = mixed.map(self._read)
        return rows.batch(self.batch_size // self.process[1], batch_fn=self._stack)

    def _numbers(self, k: int, source: Source) -> grain.MapDataset:
        n = len(source)
        shuffled = grain.MapDataset.range(n).seed(self.seed + k).shuffle().repeat()
        return shuffled.map_with_index(lambda i, row: (k, row, i // n))

    def _read(self, number: tuple[int, int, int]) -> dict[str, Any]:
        k, row, epoch = number
        if row < 0:
            tokens, size, first, pair = np.zeros(0, np.int32), 0, 0, -1
        else:
            r = self.sources[k][row]
            tokens, size, first, pair = r["tokens"], int(r["size"]), int(r["first"]), int(r["pair"])
        padded = np.full(self.length, self.pad_id, np.int32)
        padded[:size] = tokens[:size]
        row += sum(len(s) for s in self.sources[:k])
        return {
            "tokens": padded,
            "size": size,
            "first": first,
            "pair": pair,
            "row": row,
            "epoch": epoch,
        }

    @staticmethod
    def _stack(rows: Sequence[dict[str, Any]]) -> Batch:
        return {k: np.stack([np.asarray(r[k]).astype(np.int32) for r in rows]) for k in rows[0]}


@dataclass(frozen=True)
class Staged:
    """Batches of one shape after another: (the step before its first, the batches) each, the
    first from 0 on; the last go on for ever."""

    stages: Sequence[tuple[int, Batches | Joined]]

    def __getitem__(self, step: int) -> Batch:
        begin, batches = [s for s in self.stages if s[0] <= step][-1]
        return batches[step - begin]

    def start(self, step: int = 0) -> Iterator[Batch]:
        """The batches from a step on, read ahead by threads."""
        ends = [*(begin for begin, _ in self.stages[1:]), None]
        for (begin, batches), end in zip(self.stages, ends, strict=True):
            place = max(step, begin)
            if end is None or place < end:
                count = None if end is None else end - place
                yield from itertools.islice(batches.start(place - begin), count)


@dataclass(frozen=True)
class Joined:
    """Several parts of the same batches, one behind the other: those of a process whose devices
    hold rows that are not next to each other."""

    parts: Sequence[Batches]

    def __getitem__(self, step: int) -> Batch:
        return _behind([part[step] for part in self.parts])

    def start(self, step: int = 0) -> Iterator[Batch]:
        return map(_behind, zip(*(part.start(step) for part in self.parts), strict=True))

    def once(self, most: int) -> Iterator[Batch]:
        return map(_behind, zip(*(part.once(most) for part in self.parts), strict=True))


def _behind(batches: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
