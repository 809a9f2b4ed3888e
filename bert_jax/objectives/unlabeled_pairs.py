"""Pairs of texts made of rows of plain text, for a sentence encoder without labels.

    simcse      a row and itself: only their dropout differs (Gao et al. 2021, section 3)
    neighbors   two spans of a row that follow each other, each with [CLS] and [SEP]

A row of several sentences of one document gives neighbors that speak of one thing. The boundary
between the two spans is drawn anew in each epoch, between a quarter and three quarters of the row.

Axes: b rows, l tokens of a row, m tokens of a span.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.distributed.constraints import row_positions
from bert_jax.utils.types import Batch

LOW, HIGH = 0.25, 0.75  # of a row, where its second span begins


def make_pairs(task: Literal["simcse", "neighbors"], batch: Batch, key: jax.Array) -> Batch:
    """The rows `tokens` [b l] of `size` [b] as the batch of a ranking loss (contrastive.py): each
    is a query and one document. Equal texts have equal numbers, so none is ranked as wrong. A row
    of size 0 gives texts of size 0."""
    tokens, size = batch["tokens"], batch["size"]
    if task == "simcse":
        spans = (tokens, size), (tokens, size)
    else:
        keys = jax.vmap(lambda row, epoch: jax.random.fold_in(jax.random.fold_in(key, row), epoch))
        spans = _adjacent_spans(tokens, size, keys(batch["row"], batch["epoch"]))
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


def _adjacent_spans(
    tokens: jax.Array, size: jax.Array, keys: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], ...]:
    """The tokens [b m] and the sizes [b] of the first and of the second span."""
    length = tokens.shape[1]
    width = min(length, int(np.ceil(HIGH * length)) + 2)
    text = jnp.maximum(size - 2, 0)  # without [CLS] and [SEP]
    share = jax.vmap(lambda k: jax.random.uniform(k, minval=LOW, maxval=HIGH))(keys)
    cut = jnp.clip((text * share).astype(jnp.int32), 1, jnp.maximum(text - 1, 1))
    cut = jnp.minimum(cut, text)
    second = jnp.minimum(cut, jnp.maximum(text - 1, 0))  # a text of one token is both spans

    def span(begin: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
        at = jnp.arange(width)
        place = begin[:, None] + at
        place = jnp.where(at == 0, 0, jnp.minimum(place, length - 1))
        place = jnp.where(at == count[:, None] + 1, jnp.maximum(size - 1, 0)[:, None], place)
        total = jnp.where(size > 0, count + 2, 0)
        inside = at < total[:, None]
        return jnp.where(inside, jnp.take_along_axis(tokens, place, axis=1), 0), total

    return span(jnp.zeros_like(cut), cut), span(second, text - second)


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
