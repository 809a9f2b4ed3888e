"""Rows of tokens to evaluate on, from a corpus or a text, and a function applied to all of them.

Axes: n rows, l tokens of a row, b rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bert_jax.config import Encoder
from bert_jax.data.corpus import Corpus
from bert_jax.data.documents import Document
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference import features
from bert_jax.utils.types import Batch

ROWS_PER_READ = 8192
ROWS_PER_BLOCK = 512  # of a part of a split, in a row so that documents stay together
# Of a batch: 1 GiB in float32. 20 tokens in each of 1,024 short rows of XLM-R would have 20 GiB.
MAX_LOGITS = 2**28


@dataclass(frozen=True)
class TokenRows:
    """Rows of one sequence each, with special tokens, padded."""

    tokens: np.ndarray  # int32 [n l]
    size: np.ndarray  # int32 [n]: number of tokens, padding excluded
    first: np.ndarray  # int32 [n]: number of tokens of segment 0
    pair: np.ndarray  # int32 [n]: label of the sentence pair, or -1

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: np.ndarray) -> TokenRows:
        """The rows with these numbers, or where a mask is true."""
        return TokenRows(self.tokens[rows], self.size[rows], self.first[rows], self.pair[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """The rows of all parts, which have the same length."""
        names = ("tokens", "size", "first", "pair")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


# ---- reading


def corpus_rows(
    corpus: Corpus,
    split: str,
    max_rows: int | None = None,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> TokenRows:
    """The rows of a split: those with these `numbers`, or all, or about `max_rows`, spread evenly
    over it, since a corpus may begin with one language or kind of text. A packed row gives one row
    for each of its sequences. Of training rows only one pass over the text is read: `prepare
    --duplicates` repeats it."""
    source, info = corpus.source(split), corpus.info
    if numbers is None:
        count = len(source)
        if split == "train":
            count = -(-count // info.duplicates)
        numbers = spread_numbers(count, max_rows)
    sequences: list[TokenRows] = []
    for begin in range(0, len(numbers), ROWS_PER_READ):
        read = source.__getitems__([int(i) for i in numbers[begin : begin + ROWS_PER_READ]])
        sequences.append(_unpacked(read, info.pad_id))
    length = info.sequence_length or info.length
    if not sequences:
        return TokenRows(np.zeros((0, length), np.int32), *np.zeros((3, 0), np.int32))
    rows = TokenRows.concatenate(sequences)
    return replace(rows, tokens=rows.tokens[:, :length])


def spread_numbers(count: int, limit: int | None) -> np.ndarray:
    """0 to `count` - 1, or about `limit` of them: blocks at equal distances, ascending."""
    if limit is None or limit >= count:
        return np.arange(count)
    block = max(1, min(ROWS_PER_BLOCK, limit // 64))
    begins = np.linspace(0, count - block, limit // block).astype(int)
    return (begins[:, None] + np.arange(block)).reshape(-1)


def _unpacked(rows: Sequence[dict[str, Any]], pad_id: int) -> TokenRows:
    """Records as rows of one sequence each."""
    tokens = np.stack([row["tokens"] for row in rows]).astype(np.int32)
    size, first, pair = (
        np.array([np.atleast_1d(row[name]) for row in rows], np.int32)
        for name in ("size", "first", "pair")
    )
    at = np.arange(tokens.shape[1])
    starts = np.cumsum(size, axis=1) - size
    row, sequence = np.nonzero(size)
    sizes = size[row, sequence]
    source = np.minimum(starts[row, sequence][:, None] + at, len(at) - 1)
    unpacked = np.where(at < sizes[:, None], tokens[row[:, None], source], pad_id)
    return TokenRows(unpacked.astype(np.int32), sizes, first[row, sequence], pair[row, sequence])


def without_random_segments(rows: TokenRows, segments: str, pad_id: int) -> TokenRows:
    """The rows without the random second segments of next-sentence pairs, whose text is also in a
    row of its own: counted twice, it would look like evidence."""
    if segments != "nsp":
        return rows
    size = np.where(rows.pair == 1, rows.first, rows.size)
    tokens = np.where(np.arange(rows.tokens.shape[1]) < size[:, None], rows.tokens, pad_id)
    return replace(rows, tokens=tokens, size=size)


def spaced_lines(document: Document, tokenizer: Tokenizer) -> list[str]:
    """The lines of a document, with a space before each but the first where that has a piece, as in
    byte-level BPE."""
    lines = list(document.paragraphs)
    if tokenizer.marks_spaces:
        return [*lines[:1], *(f" {line}" for line in lines[1:])]
    return lines


def text_rows(documents: Iterable[Document], tokenizer: Tokenizer, length: int) -> list[TokenRows]:
    """The rows of each document: its tokens in pieces that fill rows of `length` tokens. A document
    without tokens has no row."""
    out = []
    for document in documents:
        lines = spaced_lines(document, tokenizer)
        ids = [i for piece in tokenizer.encode_batch(lines) for i in piece]
        room = tokenizer.special_tokens.text_capacity(length, 1)
        parts = [ids[begin : begin + room] for begin in range(0, len(ids), room)]
        tokens = np.full((len(parts), length), tokenizer.pad_id, np.int32)
        size = np.zeros(len(parts), np.int32)
        for i, part in enumerate(parts):
            row, size[i] = tokenizer.build_row(part)
            tokens[i, : size[i]] = row
        if len(parts):
            out.append(TokenRows(tokens, size, size, np.full_like(size, -1)))
    return out


# ---- computing


def map_rows(
    apply: Callable[[Batch], Any],
    rows: TokenRows,
    encoder: Encoder,
    per_token: bool = False,
    row_logits: int = 1,
    **fields: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """The arrays [b ...] that `apply(batch)` returns, of all rows [n ...], in batches of rows of
    similar length.

    A batch has the `tokens`, `size` and `first` of its rows and the `fields` [n ...]. A batch that
    rows do not fill has empty ones. With `per_token` the arrays are [b l] and padded with zeros.
    `row_logits`: how many logits `apply` computes for a row, which limits the rows of a batch.
    """
    length = rows.tokens.shape[1]
    out: list[np.ndarray] | None = None
    for indices, width, batch_size in features.length_batches(
        rows.size.tolist(), encoder.max_length, max_rows=MAX_LOGITS // row_logits
    ):
        filled = len(indices)
        source = np.array(indices + indices[:1] * (batch_size - filled))
        width = min(width, length)
        size = np.where(np.arange(batch_size) < filled, rows.size[source], 0)
        extra = {name: values[source] for name, values in fields.items()}
        tokens = rows.tokens[source, :width]
        batch = {"tokens": tokens, "size": size, "first": rows.first[source], **extra}
        parts = [part[:filled] for part in jax.device_get(apply(batch))]
        if out is None:
            shapes = [(length,) if per_token else part.shape[1:] for part in parts]
            out = [
                np.zeros((len(rows), *shape), part.dtype)
                for shape, part in zip(shapes, parts, strict=True)
            ]
        for whole, part in zip(out, parts, strict=True):
            whole[(indices, slice(width)) if per_token else indices] = part
    if out is None:
        raise ValueError("there are no rows to evaluate on: give more text")
    return tuple(out)
