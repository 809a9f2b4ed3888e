"""What is learned: a network, its corruption, and losses, as pure functions of parameters.

    init(key)                  -> params
    corrupt(batch, key)        -> batch with targets and weights
    terms(params, batch, key)  -> {name: Mean}, of which `weights` says what is minimised
    counts(batch)              -> {name: number of places that term averages over}

`counts` needs no parameters and stands apart because a micro-batch must divide by the count
of the whole batch: then gradients of micro-batches add up exactly, however unequal their
masks. Dropout is on exactly when `terms` is given a key.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp

from bert_jax.config import Experiment, Imported, Masked, ReplacedTokens, Supervised
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.model import Network
from bert_jax.model.heads import HEADS, MlmHead, PairHead, Pooler, SboHead
from bert_jax.model.task_heads import task_heads
from bert_jax.objectives.base import NoObjective, Objective, Terms, total
from bert_jax.objectives.masked_lm import MaskedObjective
from bert_jax.objectives.replaced_token_detection import DISCRIMINATOR, ReplacedTokensObjective
from bert_jax.objectives.supervised import SupervisedObjective

__all__ = [
    "MaskedObjective",
    "NoObjective",
    "Objective",
    "ReplacedTokensObjective",
    "SupervisedObjective",
    "Terms",
    "build",
    "total",
]


def build(config: Experiment, vocabulary: Vocabulary | None = None) -> Objective:
    """The functions behind `config.objective`. Without a vocabulary they cannot corrupt, which
    loading and counting parameters do not need."""
    encoder, objective = config.encoder, config.objective
    how: dict[str, Any] = dict(
        dtype=jnp.dtype(config.run.dtype), attention=config.run.attention, remat=config.run.remat
    )
    pieces = config.run.loss_chunks
    if isinstance(objective, ReplacedTokens):
        generator = Network(objective.generator(encoder), {"mlm": MlmHead}, **how)
        learned = {h: HEADS[h] for h in DISCRIMINATOR[objective.target]}
        discriminator = Network(encoder, learned, **how)
        return ReplacedTokensObjective(objective, generator, discriminator, vocabulary, pieces)
    if isinstance(objective, Imported):
        return NoObjective(Network(encoder, {h: HEADS[h] for h in objective.heads}, **how))
    if isinstance(objective, Supervised):
        return SupervisedObjective(
            objective,
            Network(encoder, task_heads(objective), **how),
            Network(encoder, task_heads(objective, search=True), **how),
        )
    assert isinstance(objective, Masked)
    heads: dict[str, Any] = {"mlm": MlmHead}
    if objective.sentence_pair:
        heads |= {"pooler": Pooler, "pair": PairHead}
    if objective.sbo_weight:
        heads["sbo"] = partial(SboHead, rows=objective.sbo_positions, size=objective.sbo_size)
    return MaskedObjective(objective, Network(encoder, heads, **how), vocabulary, pieces)
