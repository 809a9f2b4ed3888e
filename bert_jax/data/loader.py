"""The data loader of pre-training: prepared corpora -> batches, a pure look-up by step.

`loader[step]` depends on (corpora, seed, step) and nothing else: a resumed run has no position to
restore and no rows to skip. Each epoch is shuffled by an index permutation, so memory does not grow
with the corpus but for the indexes of its files, 8 bytes a row. Process i of n reads the i-th of n
equal parts of every batch, so the global batch does not depend on the number of processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np

from bert_jax.data.batch_parts import check_parts, rows_of_parts
from bert_jax.utils.types import Batch


class RowRef(NamedTuple):
    """Which row to read."""

    source: int
    row: int  # in the source; -1: no row, it will have size 0
    epoch: int = 0


class Source(Protocol):
    """Random access to prepared rows: `tokens` [l], and `size` `first` `pair`, which are numbers,
    or [n] if rows are packed."""

    def __len__(self) -> int: ...
    def __getitems__(self, numbers: Sequence[int]) -> Sequence[dict[str, Any]]: ...


MAX_ROWS = 2**56  # of a source, over all epochs


@dataclass(frozen=True)
class Loader:
    """Batches of `batch_size` rows of `length` tokens, shuffled by `seed`.

    tokens [b l]   padded with pad_id      size [b]   number of tokens, padding excluded
    first  [b]     tokens of segment 0     pair [b]   label of the sentence pair, or -1
    row    [b]     number of the row       epoch [b]  how often the row was read before, or more

    Row numbers are modulo 2^32, as the keys made of them are. Packed rows hold up to n sequences
    one after the other; `size` `first` `pair` are then [b n], and 0 0 -1 for missing sequences.
    ValueError: a source has no rows, or the batch does not divide over the processes.
    """

    sources: Sequence[Source]
    batch_size: int  # rows of the global batch
    length: int
    pad_id: int
    seed: int = 0
    weights: Sequence[float] | None = None  # of the sources in the mix; None: one source
    process: tuple[int, int] = (0, 1)  # (i, n): read the i-th of n equal parts
    threads: int = 8  # that read ahead
    packed: int = 0  # max sequences of a packed row; 0: rows are not packed
    words: bool = False  # rows say where their words begin: `words` [b l], bool
    first_epoch: int = 0  # of earlier stages: masks depend on the epoch, and go on from there

    def __post_init__(self) -> None:
        check_parts(self.batch_size, [self.process])
        for source in self.sources:
            if not len(source):
                raise ValueError("a corpus has no rows: prepare more text")

    def __getitem__(self, step: int) -> Batch:
        i, n = self.process
        batch = self._dataset()[step * n + i]
        assert batch is not None, "rows are never filtered out"
        return batch

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """The batches from `step` on, without end; threads read ahead."""
        i, n = self.process
        options = grain.ReadOptions(self.threads, prefetch_buffer_size=self.threads)
        return iter(self._dataset()[step * n + i :: n].to_iter_dataset(options))

    def one_pass(self, max_batches: int) -> Iterator[Batch]:
        """Up to `max_batches` batches over all sources, in one fixed order, each row once. If rows
        do not fill the last batch, the missing ones have size 0. For evaluation."""
        order = grain.MapDataset.range(sum(map(len, self.sources))).seed(0).shuffle()
        mine = rows_of_parts(self.batch_size, [self.process])
        total = min(len(order), max_batches * self.batch_size)
        for begin in range(0, total, self.batch_size):
            end = min(begin + self.batch_size, len(order))
            refs = [self._find_row(int(order[j] or 0)) for j in range(begin, end)]
            refs += [RowRef(0, -1)] * (self.batch_size - len(refs))
            yield self._read([refs[j] for j in mine])

    def _find_row(self, number: int) -> RowRef:
        """The row with this number over all sources."""
        for k, source in enumerate(self.sources):
            if number < len(source):
                return RowRef(k, number)
            number -= len(source)
        raise AssertionError(number)

    def _dataset(self) -> grain.MapDataset:
        """All parts of all batches, in order: those of process i are i, i + n, i + 2n, ..."""
        shuffled = [self._shuffled_refs(k, source) for k, source in enumerate(self.sources)]
        if len(shuffled) == 1:
            mixed = shuffled[0]
        else:
            mixed = grain.MapDataset.mix(shuffled, weights=self.weights)
        return mixed.batch(self.batch_size // self.process[1], batch_fn=self._read)

    def _shuffled_refs(self, k: int, source: Source) -> grain.MapDataset:
        n = len(source)
        # Without a number of epochs the length is the largest integer, which batches of one row
        # exceed.
        epochs = MAX_ROWS // n
        shuffled = grain.MapDataset.range(n).seed(self.seed + k).shuffle().repeat(epochs)
        first = self.first_epoch
        return shuffled.map_with_index(lambda i, row: RowRef(k, row, first + i // n))

    def _read(self, refs: Sequence[RowRef]) -> Batch:
        """Read rows and stack them to a batch."""
        tokens = np.full((len(refs), self.length), self.pad_id, np.int32)
        words = np.zeros((len(refs), self.length if self.words else 0), bool)
        fields = np.zeros((3, len(refs), max(self.packed, 1)), np.int32)  # size first pair
        fields[2] = -1
        for k, source in enumerate(self.sources):
            places = [i for i, ref in enumerate(refs) if ref.source == k and ref.row >= 0]
            rows = source.__getitems__([refs[i].row for i in places]) if places else []
            for i, row in zip(places, rows, strict=True):
                size, first, pair = row["size"], row["first"], row["pair"]
                total = int(np.sum(size))
                tokens[i, :total] = row["tokens"][:total]
                if self.words:
                    words[i, :total] = row["words"][:total]
                fields[:, i, : np.size(size)] = np.reshape((size, first, pair), (3, -1))
        size, first, pair = fields if self.packed else fields[..., 0]
        offsets = np.cumsum([0, *map(len, self.sources)])
        row = np.array([offsets[r.source] + r.row for r in refs], np.int64).astype(np.int32)
        epoch = np.array([ref.epoch for ref in refs], np.int32)
        batch = dict(tokens=tokens, size=size, first=first, pair=pair, row=row, epoch=epoch)
        return {**batch, "words": words} if self.words else batch


@dataclass(frozen=True)
class StagedLoader:
    """Batches of one shape after another. `stages` are pairs of the first step of a stage and its
    loader; the first stage starts at 0, the last one has no end."""

    stages: Sequence[tuple[int, Loader | ConcatLoader]]

    def __getitem__(self, step: int) -> Batch:
        start, loader = [stage for stage in self.stages if stage[0] <= step][-1]
        return loader[step - start]

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """The batches from `step` on, without end; threads read ahead."""
        ends = [*(start for start, _ in self.stages[1:]), None]
        for (start, loader), end in zip(self.stages, ends, strict=True):
            first = max(step, start)
            if end is None or first < end:
                count = None if end is None else end - first
                yield from itertools.islice(loader.iterate(first - start), count)


@dataclass(frozen=True)
class ConcatLoader:
    """Several parts of the same batches, concatenated: for a process whose devices hold rows that
    are not next to each other."""

    parts: Sequence[Loader]

    def __getitem__(self, step: int) -> Batch:
        return _concatenate([part[step] for part in self.parts])

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """The batches from `step` on, without end; threads read ahead."""
        return map(_concatenate, zip(*(part.iterate(step) for part in self.parts), strict=True))

    def one_pass(self, max_batches: int) -> Iterator[Batch]:
        """As `Loader.one_pass`."""
        passes = (part.one_pass(max_batches) for part in self.parts)
        return map(_concatenate, zip(*passes, strict=True))


def _concatenate(batches: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
