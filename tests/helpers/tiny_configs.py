"""Tiny configs and synthetic rows, for tests that need no text."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import objectives
from bert_jax.config import (
    ALBERT,
    BERT,
    DROPOUT_RATES,
    ELECTRA,
    MODERNBERT,
    ROBERTA,
    SPANBERT,
    Experiment,
    ReplacedTokens,
    replace,
)
from bert_jax.data.tokenization.words import WordEdges
from bert_jax.data.vocabulary import Vocabulary

V, LENGTH = 64, 32
SPECIAL = np.arange(V) < 4
VOCABULARY = Vocabulary(3, SPECIAL, WordEdges.marked(np.arange(V) < 45), np.where(SPECIAL, 0, 1))

ENCODER = dict(layers=2, hidden_size=24, heads=2, vocab_size=V, max_length=LENGTH)
RUN = dict(steps=6, log_every=1, save_every=3, eval_every=3, eval_batches=2)
FAMILIES: dict[str, Experiment] = {
    name: replace(
        base,
        encoder=ENCODER | extra,
        data=dict(batch_size=8, length=LENGTH),
        optim=dict(warmup_steps=2, peak_lr=1e-3),
        run=RUN,
    )
    for name, (base, extra) in {
        "bert": (BERT, {}),
        "albert": (ALBERT, dict(embedding_size=12)),
        "roberta": (ROBERTA, {}),
        "electra": (ELECTRA, dict(embedding_size=12)),
        "spanbert": (SPANBERT, {}),
    }.items()
}

MODERN = dict(layers=4, mlp_size=20, pad_id=0, window=4, attention_output_dropout=0.1)
LATER: dict[str, Experiment] = {  # than the five papers
    "modernbert": replace(
        MODERNBERT,
        encoder=ENCODER | MODERN,
        data=dict(batch_size=8, length=LENGTH),
        optim=dict(warmup_steps=2, peak_lr=1e-3, decay_steps=6),
        run=RUN,
    ),
    "disentangled": replace(
        FAMILIES["electra"], objective=dict(tied="gradient_disentangled", generator_size=0.5)
    ),
}
LATER["modern_electra"] = replace(
    LATER["modernbert"],
    objective=ReplacedTokens(
        generator_size=1.0,
        generator_layers=0.5,
        generator_mlp="proportional",
        tied="gradient_disentangled",
    ),
)
ALL = FAMILIES | LATER


def without_dropout(config: Experiment) -> Experiment:
    rates = dict.fromkeys(DROPOUT_RATES, 0.0)
    return replace(config, encoder=rates)


class Rows:
    """A data source whose rows are a function of their index."""

    def __init__(self, n: int = 40) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [self[i] for i in numbers]

    def __getitem__(self, i: int) -> dict[str, Any]:
        rng = np.random.default_rng(int(i))
        size = int(rng.integers(10, LENGTH + 1))
        tokens = np.zeros(LENGTH, np.uint16)
        tokens[:size] = rng.integers(4, V, size)
        split = size // 2
        tokens[[0, split - 1, size - 1]] = 1, 2, 2
        return {"tokens": tokens, "size": size, "first": split, "pair": i % 2}


def build(config: Experiment) -> objectives.Objective:
    return objectives.build(config, VOCABULARY)


@functools.lru_cache(maxsize=64)
def initial_params(config: Experiment) -> Any:
    """Much as a model draws them, but by NumPy: its program takes two seconds to compile."""
    rng = np.random.default_rng(0)

    def draw(path: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
        constant = {"bias": 0.0, "scale": 1.0}.get(path[-1].key)
        deviation = config.encoder.initializer_range if constant is None else 0.0
        drawn = rng.normal(constant or 0.0, deviation, like.shape)
        return jax.device_put(drawn.astype(like.dtype))

    return jax.tree_util.tree_map_with_path(draw, objectives.param_shapes(config))


def corrupted_batch(config: Experiment, rows: int = 8, seed: int = 0) -> dict[str, Any]:
    return jax.jit(build(config).corrupt)(batch(rows), jax.random.key(seed))


def batch(rows: int = 8, start: int = 0) -> dict[str, Any]:
    sampled = [Rows()[i] for i in range(start, start + rows)]
    stacked = {k: np.stack([np.int32(r[k]) for r in sampled]) for k in sampled[0]}
    stacked |= {"row": np.arange(start, start + rows), "epoch": np.zeros(rows)}
    return {k: jnp.asarray(v, jnp.int32) for k, v in stacked.items()}
