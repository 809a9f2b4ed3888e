"""Features of texts that are longer than the model: windows, and the mean of their vectors.

    [CLS] a b c d e f g [SEP]      ->      [CLS] a b c d [SEP]      [CLS] e f g [SEP]

Windows do not overlap, so that every piece counts once. A text that fits is one window, and keeps
the features that it has without windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from bert_jax.convert import SentenceHead
from bert_jax.inference import features
from bert_jax.inference.features import FeatureRow, Pool
from bert_jax.inference.sentence_vectors import unit_length

LongPool = Literal["mean"] | None


def check_long(long: Any, pool: Pool, truncate: bool) -> None:
    """ValueError: a way that there is not, vectors that cannot be averaged, or `truncate` too."""
    if long not in (None, "mean"):
        raise ValueError(f"long is {long!r}: expected 'mean' or None")
    if long is not None and truncate:
        raise ValueError("long and truncate are both given: leave one of them out")
    if long is not None and pool not in features.ONE_VECTOR:
        expected = " or ".join(map(repr, features.ONE_VECTOR))
        raise ValueError(
            f"long='mean' averages vectors of texts, not pool {pool!r}: use {expected}"
        )


def text_vectors(
    compute: Callable[[Sequence[FeatureRow]], Iterable[tuple[int, np.ndarray]]],
    rows: Sequence[FeatureRow],
    pool: Pool,
    head: SentenceHead | None,
    max_length: int | None,
) -> list[np.ndarray]:
    """The features of each row, like `Model.encode`; `compute` gives those of rows, each with its
    index. A row of more than `max_length` tokens is split into windows, whose features are
    averaged; with None none is split."""
    windows, owners = list(rows), list(range(len(rows)))
    if max_length is not None:
        windows, owners = split_rows(rows, max_length)
    vectors: list[Any] = [None] * len(windows)
    for i, x in compute(windows):
        vectors[i] = x
    if max_length is None:
        return vectors
    normalized = pool == "sentence" and head is not None and head.normalized
    return mean_of_windows(vectors, windows, owners, pool, normalized)


def split_rows(rows: Sequence[FeatureRow], max_length: int) -> tuple[list[FeatureRow], list[int]]:
    """Rows of at most `max_length` tokens, each with the index of its text; the special tokens
    around a text are around each of its windows. A prompt is in the first window alone."""
    windows, owners = [], []
    for i, row in enumerate(rows):
        parts = [row] if len(row.tokens) <= max_length else _split(row, max_length)
        windows += parts
        owners += [i] * len(parts)
    return windows, owners


def _split(row: FeatureRow, max_length: int) -> list[FeatureRow]:
    before, inner, after = row.tokens[:1], row.tokens[1:-1], row.tokens[-1:]
    parts = np.array_split(inner, -(-len(inner) // (max_length - 2)))  # sizes differ by at most one
    tokens = [np.concatenate([before, part, after]) for part in parts]
    skips = [min(row.skip, len(tokens[0]) - 1)] + [0] * (len(tokens) - 1)
    return [FeatureRow(t, len(t), None, skip) for t, skip in zip(tokens, skips, strict=True)]


def mean_of_windows(
    vectors: Sequence[np.ndarray],
    windows: Sequence[FeatureRow],
    owners: Sequence[int],
    pool: Pool,
    normalized: bool,
) -> list[np.ndarray]:
    """The vectors of each text: the mean of those of its windows, weighted by their tokens; with
    pool `cls` each window counts once. With `normalized` the mean is scaled to length 1, as a
    sentence head scales the vector of one window."""
    by_text: dict[int, list[int]] = {}
    for window, owner in enumerate(owners):
        by_text.setdefault(owner, []).append(window)
    means = []
    for indices in by_text.values():
        if len(indices) == 1:
            means.append(vectors[indices[0]])
            continue
        sizes = [1 if pool == "cls" else len(windows[i].tokens) - windows[i].skip for i in indices]
        stacked = np.stack([vectors[i] for i in indices]).astype(np.float64)
        mean = np.average(stacked, axis=0, weights=sizes)
        if normalized:
            mean = unit_length(mean)
        means.append(mean.astype(np.float32))
    return means
