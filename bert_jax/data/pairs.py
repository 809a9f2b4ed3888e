"""The data loader of sentence encoders: encoded pairs in memory -> batches, a look-up by step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from bert_jax.data.batch_parts import WHOLE_BATCH, check_parts, rows_of_parts
from bert_jax.data.labeled import epoch_order, padded_length
from bert_jax.utils.types import Batch, Slices


@dataclass(frozen=True)
class PairBatches:
    """Batches of `batch_size` encoded pairs (tasks/encode_pairs.py), shuffled anew in each epoch by
    `seed`; objectives/contrastive.py lists their fields. Queries and documents are padded
    separately, each to the shortest usual length that fits the whole batch.

    Of every batch a process holds the `parts` (i, n): the i-th of n equal ones. ValueError: fewer
    rows than a batch has, so that a row would be its own negative; a batch that does not divide.
    """

    rows: Sequence[dict[str, Any]]
    batch_size: int
    pad_id: int
    seed: int = 0
    parts: Slices = WHOLE_BATCH

    def __post_init__(self) -> None:
        check_parts(self.batch_size, self.parts)
        check_fills_a_batch(self.rows, self.batch_size)

    def iterate(self, step: int = 0) -> Iterator[Batch]:
        """The batches from `step` on, without end."""
        return (self[i] for i in itertools.count(step))

    def __getitem__(self, step: int) -> Batch:
        n, begin = len(self.rows), step * self.batch_size
        positions = range(begin, begin + self.batch_size)
        order = self._order
        numbers = [int(order[i] or 0) for i in positions]
        rows = [self.rows[i] for i in numbers]
        query = padded_length(max(len(row["query"]) for row in rows))
        documents = padded_length(max(len(d) for row in rows for d in row["documents"]))
        mine = rows_of_parts(self.batch_size, self.parts)
        padded = [self._pad(rows[j], query, documents) for j in mine]
        batch: Batch = {name: np.stack([row[name] for row in padded]) for name in padded[0]}
        batch["position"] = np.array(mine, np.int32)
        batch["row"] = np.array([numbers[j] for j in mine], np.int32)
        batch["epoch"] = np.array([positions[j] // n for j in mine], np.int32)
        return batch

    @functools.cached_property
    def _order(self) -> grain.MapDataset:
        return epoch_order(len(self.rows), self.seed)

    @functools.cached_property
    def _most(self) -> tuple[int, int]:
        """The most documents of a row, and the most positives of a query."""
        return tuple(
            max(len(row[name]) for row in self.rows) for name in ("documents", "positives")
        )  # type: ignore[return-value]

    def _pad(self, row: dict[str, Any], query: int, documents: int) -> dict[str, np.ndarray]:
        c, p = self._most
        tokens = np.full((1 + c, max(query, documents)), self.pad_id, np.int32)
        size = np.zeros(1 + c, np.int32)
        for i, ids in enumerate((row["query"], *row["documents"])):
            tokens[i, : len(ids)], size[i] = ids, len(ids)
        texts = np.full(1 + c, -1, np.int32)
        texts[: len(row["texts"])] = row["texts"]
        positives = np.full(p, -1, np.int32)
        positives[: len(row["positives"])] = row["positives"]
        return {
            "query": tokens[0, :query],
            "query_size": size[0],
            "query_text": texts[0],
            "documents": tokens[1:, :documents],
            "document_size": size[1:],
            "document_text": texts[1:],
            "positives": positives,
            "score": row["score"],
            "size": size.sum(dtype=np.int32),
        }


def check_fills_a_batch(rows: Sequence[Any], batch_size: int) -> None:
    """ValueError: fewer rows than a batch has."""
    if len(rows) < batch_size:
        raise ValueError(
            f"there are {len(rows)} pairs and data.batch_size is {batch_size}: choose a smaller "
            "batch"
        )
