"""Pairs of texts made of rows of plain text, for a sentence encoder without labels.

    simcse      a row and itself: only their dropout differs (Gao et al. 2021, section 3)
    neighbors   two spans of a row that follow each other
    crops       two spans of a row that are drawn independently (Izacard et al. 2022, section 3.2)

A row of several sentences of one document gives spans that speak of one thing. The boundary between
neighbors lies between a quarter and three quarters of the row. A crop has 5 to 50 % of a row and
may overlap the other, which teaches that equal words count; neighbors teach what goes together.
Spans are drawn anew in each epoch, and each has [CLS] and [SEP].

Axes: b rows, l tokens of a row, m tokens of a span.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Contrastive
from bert_jax.config.contrastive import LATEST_NEIGHBOR, LEAST_WORDS, LONGEST_CROP
from bert_jax.distributed.constraints import row_positions
from bert_jax.objectives.masking import row_keys
from bert_jax.utils.types import Batch

EARLIEST_NEIGHBOR = 0.25  # of a row, where its second neighbor begins at the earliest
SHORTEST_CROP = 0.05  # of a row

Span = tuple[jax.Array, jax.Array]  # of rows: the first token after [CLS] is 0, and the count


def make_pairs(
    task: Literal["simcse", "neighbors", "crops"], batch: Batch, key: jax.Array
) -> Batch:
    """The rows `tokens` [b l] of `size` [b] as the batch of a ranking loss (contrastive.py): each
    is a query and one document. Equal texts have equal numbers, so none is ranked as wrong. A row
    of size 0 gives texts of size 0."""
    tokens, size = batch["tokens"], batch["size"]
    if task == "simcse":
        spans = (tokens, size), (tokens, size)
    else:
        keys = row_keys(key, batch)
        words = jnp.maximum(size - 2, 0)  # tokens without [CLS] and [SEP]
        two = draw_neighbors(words, keys) if task == "neighbors" else draw_crops(words, keys)
        width = Contrastive(task).text_length(tokens.shape[1])
        spans = tuple(cut_span(tokens, size, span, width) for span in two)
    (query, query_size), (document, document_size) = spans
    number = text_numbers(document, document_size)[:, None]
    return batch | {
        "query": query,
        "query_size": query_size,
        "query_text": text_numbers(query, query_size),
        "documents": document[:, None],
        "document_size": document_size[:, None],
        "document_text": number,
        "positives": number,
        "position": row_positions(len(size)),
    }


def draw_neighbors(words: jax.Array, keys: jax.Array) -> tuple[Span, Span]:
    """Two spans of rows with `words` [b] tokens that follow each other and leave nothing out. A row
    of one token is both spans."""
    low, high = EARLIEST_NEIGHBOR, LATEST_NEIGHBOR
    share = jax.vmap(lambda k: jax.random.uniform(k, minval=low, maxval=high))(keys)
    cut = jnp.clip((words * share).astype(jnp.int32), 1, jnp.maximum(words - 1, 1))
    cut = jnp.minimum(cut, words)
    second = jnp.minimum(cut, jnp.maximum(words - 1, 0))
    return (jnp.zeros_like(cut), cut), (second, words - second)


def draw_crops(words: jax.Array, keys: jax.Array) -> tuple[Span, Span]:
    """Two spans of rows with `words` [b] tokens, whose lengths and places are independent."""

    def draw(key: jax.Array, n: jax.Array) -> Span:
        length_key, place_key = jax.random.split(key)
        share = jax.random.uniform(length_key, minval=SHORTEST_CROP, maxval=LONGEST_CROP)
        count = jnp.maximum((n * share).astype(jnp.int32), jnp.minimum(LEAST_WORDS, n))
        return jax.random.randint(place_key, (), 0, n - count + 1), count

    one, two = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
    return jax.vmap(draw)(one, words), jax.vmap(draw)(two, words)


def cut_span(
    tokens: jax.Array, size: jax.Array, span: Span, width: int
) -> tuple[jax.Array, jax.Array]:
    """The span of rows [b l] of `size` [b], with the row's first and last token: tokens [b m] and
    sizes [b]; `width` is m. A row of size 0 gives size 0."""
    begin, count = span
    at = jnp.arange(width)
    place = begin[:, None] + at
    place = jnp.where(at == 0, 0, jnp.minimum(place, tokens.shape[1] - 1))
    place = jnp.where(at == count[:, None] + 1, jnp.maximum(size - 1, 0)[:, None], place)
    total = jnp.where(size > 0, count + 2, 0)
    inside = at < total[:, None]
    return jnp.where(inside, jnp.take_along_axis(tokens, place, axis=1), 0), total


def text_numbers(tokens: jax.Array, size: jax.Array) -> jax.Array:
    """A number from 0 to 2^31 for each row of tokens [b l]: a hash of its first `size` ones. Two
    different rows have the same with a probability of 2^-31, and are then no negatives of each
    other."""
    words = jax.random.bits(jax.random.key(0), (2, tokens.shape[1]), jnp.uint32)
    real = jnp.arange(tokens.shape[1]) < size[:, None]
    x = (tokens.astype(jnp.uint32) + 1) * (words[0] | 1)
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = jnp.where(real, x ^ words[1] ^ (x >> 13), 0).sum(axis=1, dtype=jnp.uint32)
    x = (x ^ (x >> 16)) * np.uint32(0xC2B2AE35)
    return (x >> 1).astype(jnp.int32)
