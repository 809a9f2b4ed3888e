"""Resize a model for a larger vocabulary or longer texts, without changing its other outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from bert_jax import config
from bert_jax.config import Encoder, Experiment
from bert_jax.model.layers import initializer
from bert_jax.utils.pytree import map_with_names
from bert_jax.utils.types import Params

# Leaves with an entry per vocabulary piece that is zero for a new piece
ZERO_ROWS = ("embeddings/word_difference", "mlm/bias", "sbo/bias")


def resize_token_embeddings(
    experiment: Experiment,
    params: Params,
    old: int,
    new: int,
    replaced: Sequence[Sequence[int]] = (),
) -> tuple[Experiment, Params]:
    """The model for a vocabulary of `new` pieces instead of `old`. A new row of the embedding table
    is the mean of the rows of the pieces that it replaces, and so is its bias; without such pieces
    rows have the initial distribution of the model, and biases are 0.

    If the table was padded to a round size, the padding rows are replaced first.
    """
    draw = initializer(experiment.encoder)
    key = jax.random.key(0)

    def resize_leaf(name: str, leaf: np.ndarray) -> np.ndarray:
        leaf = np.asarray(leaf)
        if name.endswith("embeddings/word"):
            rows = np.array(draw(key, (new - old, leaf.shape[1])))
        elif name.endswith(ZERO_ROWS):
            rows = np.zeros((new - old, *leaf.shape[1:]), leaf.dtype)
        else:
            return leaf
        for i, ids in enumerate(replaced):
            if len(ids):
                rows[i] = leaf[np.asarray(ids)].mean(axis=0)
        return np.concatenate([leaf[:old], rows.astype(leaf.dtype), leaf[new:]])

    rows = max(experiment.encoder.vocab_size, new)
    return _resize(experiment, params, resize_leaf, vocab_size=rows)


def resize_position_embeddings(
    experiment: Experiment, params: Params, max_length: int
) -> tuple[Experiment, Params]:
    """The model for texts of up to `max_length` tokens. The learned positions are repeated in
    order, as long-document models are initialized (Longformer, section 5).

        learned 0 1 2 3     max_length 10     0 1 2 3 0 1 2 3 0 1

    ValueError: `max_length` is not larger than the model's.
    """
    encoder = experiment.encoder
    if max_length <= encoder.max_length:
        raise ValueError(
            f"--positions is {max_length}, but the model already has {encoder.max_length}: "
            "expected more; shorter texts need no change"
        )
    repeated = np.arange(encoder.max_length, max_length) % encoder.max_length
    repeated += encoder.position_offset

    def resize_leaf(name: str, leaf: np.ndarray) -> np.ndarray:
        leaf = np.asarray(leaf)
        if not name.endswith(("embeddings/position", "embeddings/position_difference")):
            return leaf
        return np.concatenate([leaf, leaf[repeated]])

    return _resize(experiment, params, resize_leaf, max_length=max_length)


def _resize(
    experiment: Experiment,
    params: Params,
    resize_leaf: Callable[[str, np.ndarray], np.ndarray],
    **sizes: int,
) -> tuple[Experiment, Params]:
    encoder: Encoder = config.replace(experiment.encoder, **sizes)
    return config.replace(experiment, encoder=encoder), map_with_names(resize_leaf, params)
