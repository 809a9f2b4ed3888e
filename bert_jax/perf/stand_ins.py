"""What stands in for data where a step is only compiled, or fed with rows of random ids."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Experiment
from bert_jax.data.tokenization.words import WordEdges
from bert_jax.data.vocabulary import Vocabulary

NUM_SPECIAL = 5  # special tokens of the vocabulary; the last one is the mask


@dataclass(frozen=True)
class ShapesOnly:
    """Data without batches for `assemble`: compiling needs shapes alone."""

    config: Experiment

    warm_start = None

    @property
    def vocabulary(self) -> Vocabulary:
        """`stand_in_vocabulary` of the config."""
        return stand_in_vocabulary(self.config)


def stand_in_vocabulary(config: Experiment) -> Vocabulary:
    """A vocabulary of the config's size; its contents change no shape. The id after the special
    tokens is no word either, and in no random row: RoBERTa's padding is 1."""
    special = np.arange(config.encoder.vocab_size) <= NUM_SPECIAL
    edges = WordEdges.marked(~special)
    return Vocabulary(NUM_SPECIAL - 1, special, edges, np.where(special, 0, 1))


def batch_shape(config: Experiment) -> tuple[int, int]:
    """Rows, and tokens per row, of the config's stage with the most tokens per step, of equals the
    one with longer rows."""
    shapes = [(s.batch_size, s.length or config.encoder.max_length) for s in config.stages]
    return max(shapes, key=lambda shape: (math.prod(shape), shape[1]))


def abstract_batch(config: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch of data.loader, of `batch_shape`."""
    n, length = batch_shape(config)
    per_row = jax.ShapeDtypeStruct((n,), jnp.int32)
    batch = dict.fromkeys(("size", "first", "pair", "row", "epoch"), per_row)
    return {"tokens": jax.ShapeDtypeStruct((n, length), jnp.int32), **batch}
