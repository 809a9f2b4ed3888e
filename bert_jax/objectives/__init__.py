"""Training objectives: a network, its masking and its losses, as pure functions of parameters.

    init(key)                  -> params
    corrupt(batch, key)        -> batch with targets and weights
    terms(params, batch, key)  -> {name: Mean}; the loss is their sum weighted by `weights`
    counts(batch)              -> {name: number of positions over which that term averages}

`counts` needs no parameters and is separate because a micro-batch must divide by the count of the
whole batch: the gradients of micro-batches then add up exactly, however unequal their masks
(gradient accumulation). Dropout is active if and only if `terms` is given a key.

Where the loss couples rows, as in `contrastive`, an objective also has

    row_outputs(params, batch, key)         -> a tree of arrays [b ...]
    coupled_terms(params, outputs, batch)   -> terms

and accumulation is exact, too (training/coupled_gradients.py).
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Contrastive, Experiment, Imported, Masked, ReplacedTokens, Supervised
from bert_jax.config.serialization import with_tuples
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.model import Network
from bert_jax.model.heads import HEADS, MlmHead, PairHead, Pooler, SboHead
from bert_jax.model.task_heads import task_heads
from bert_jax.objectives.base import (
    CoupledObjective,
    NoObjective,
    Objective,
    Terms,
    total_loss,
)
from bert_jax.objectives.contrastive import ContrastiveObjective
from bert_jax.objectives.distilled import DistilledObjective
from bert_jax.objectives.masked_lm import MaskedObjective
from bert_jax.objectives.replaced_token_detection import (
    DISCRIMINATOR_HEADS,
    ReplacedTokensObjective,
)
from bert_jax.objectives.supervised import SupervisedObjective

__all__ = [
    "ContrastiveObjective",
    "CoupledObjective",
    "DistilledObjective",
    "MaskedObjective",
    "NoObjective",
    "Objective",
    "ReplacedTokensObjective",
    "SupervisedObjective",
    "Terms",
    "build",
    "param_shapes",
    "total_loss",
]


def build(config: Experiment, vocabulary: Vocabulary | None = None) -> Objective:
    """The objective of a config. Without a vocabulary it cannot mask tokens, which loading and
    counting parameters do not need."""
    encoder, objective = config.encoder, config.objective
    options: dict[str, Any] = dict(
        dtype=jnp.dtype(config.run.dtype),
        attention=config.run.attention,
        remat=config.run.remat,
        unroll=config.run.unroll,
        lora=config.lora if config.lora.enabled else None,
    )
    chunks = config.run.loss_chunks
    if isinstance(objective, ReplacedTokens):
        generator = Network(objective.generator(encoder), {"mlm": MlmHead}, **options)
        heads = {h: HEADS[h] for h in DISCRIMINATOR_HEADS[objective.target]}
        discriminator = Network(encoder, heads, **options)
        return ReplacedTokensObjective(objective, generator, discriminator, vocabulary, chunks)
    if isinstance(objective, Contrastive):
        return ContrastiveObjective(objective, Network(encoder, **options), chunks)
    if isinstance(objective, Imported):
        return NoObjective(Network(encoder, {h: HEADS[h] for h in objective.heads}, **options))
    if isinstance(objective, Supervised):
        return SupervisedObjective(
            objective,
            Network(encoder, task_heads(objective), **options),
            Network(encoder, task_heads(objective, search=True), **options),
            None if config.distill.teacher is None else config.distill,
        )
    assert isinstance(objective, Masked)
    mlm_heads: dict[str, Any] = {"mlm": MlmHead}
    if objective.sentence_pair:
        mlm_heads |= {"pooler": Pooler, "pair": PairHead}
    if objective.sbo_weight:
        mlm_heads["sbo"] = partial(
            SboHead, num_offsets=objective.sbo_positions, offset_size=objective.sbo_size
        )
    return MaskedObjective(objective, Network(encoder, mlm_heads, **options), vocabulary, chunks)


def param_shapes(config: Experiment) -> Any:
    """Shapes and dtypes of what `init` of a config's objective returns."""
    same = Experiment(encoder=config.encoder, objective=config.objective, lora=config.lora)
    shapes = _param_shapes(with_tuples(same))
    return jax.tree.map(lambda leaf: leaf, shapes)  # the caller may change its tree


@lru_cache(maxsize=256)  # a trace takes .4 s, and the shapes are asked for in many places
def _param_shapes(config: Experiment) -> Any:
    return jax.eval_shape(build(config).init, jax.random.key(0))
