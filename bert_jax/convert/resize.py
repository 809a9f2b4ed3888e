"""A model with a longer vocabulary, or for longer texts; what it computed, it still computes."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from bert_jax import config
from bert_jax.config import Encoder, Experiment
from bert_jax.model.layers import initializer
from bert_jax.utils.pytree import map_with_names
from bert_jax.utils.types import Params

VOCAB_BIASES = ("mlm/bias", "sbo/bias")  # those with an entry per piece


def resize_token_embeddings(
    experiment: Experiment, params: Params, old: int, new: int, seed: int = 0
) -> tuple[Experiment, Params]:
    """The model for a vocabulary of `new` pieces instead of `old`: rows of the word table drawn
    as the model's own were before training, and zeros for them in the biases.

    Rows behind the old pieces, where a table was padded to a round size, are taken first.
    """
    draw = initializer(experiment.encoder)
    key = jax.random.key(seed)

    def grown(name: str, leaf: np.ndarray) -> np.ndarray:
        leaf = np.asarray(leaf)
        if name.endswith("embeddings/word"):
            rows = np.asarray(draw(key, (new - old, leaf.shape[1])))
        elif name.endswith(VOCAB_BIASES):
            rows = np.zeros(new - old, leaf.dtype)
        else:
            return leaf
        return np.concatenate([leaf[:old], rows.astype(leaf.dtype), leaf[new:]])

    rows = max(experiment.encoder.vocab_size, new)
    return _resized(experiment, params, grown, vocab_size=rows)


def resize_position_embeddings(
    experiment: Experiment, params: Params, most: int
) -> tuple[Experiment, Params]:
    """The model for texts of up to `most` tokens: its learned positions again and again, in
    order, as long-document models are begun (Longformer, section 5).

        learned 0 1 2 3     most 10     0 1 2 3 0 1 2 3 0 1

    ValueError: no more than it has.
    """
    encoder = experiment.encoder
    if most <= encoder.max_length:
        raise ValueError(
            f"--positions is {most}, the model has {encoder.max_length}: expected more; shorter "
            "texts need no change"
        )
    at = np.arange(encoder.max_length, most) % encoder.max_length + encoder.position_offset

    def grown(name: str, leaf: np.ndarray) -> np.ndarray:
        leaf = np.asarray(leaf)
        if not name.endswith("embeddings/position"):
            return leaf
        return np.concatenate([leaf, leaf[at]])

    return _resized(experiment, params, grown, max_length=most)


def _resized(
    experiment: Experiment,
    params: Params,
    grown: Callable[[str, np.ndarray], np.ndarray],
    **sizes: int,
) -> tuple[Experiment, Params]:
    encoder: Encoder = config.replace(experiment.encoder, **sizes)
    return config.replace(experiment, encoder=encoder), map_with_names(grown, params)
