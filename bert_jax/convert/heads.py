"""Networks by the names of their heads: shapes to check tensors against, fresh heads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Encoder, Experiment
from bert_jax.convert import configs
from bert_jax.model import Network
from bert_jax.model.heads import HEADS
from bert_jax.trees import named_leaves

Params = dict[str, Any]

# those that theirs may have too; a network applies them in this order


def shapes_of(encoder: Encoder, heads: Collection[str]) -> Any:
    """Shapes and types of the parameters of a network with these heads."""
    network, batch = _network(encoder, heads)
    return jax.eval_shape(network.init, jax.random.key(0), batch)["params"]


def _network(encoder: Encoder, heads: Collection[str]) -> tuple[Network, dict[str, jax.Array]]:
    """The network, and the smallest batch that reaches all of its parameters."""
    one = jnp.ones(1, jnp.int32)
    batch = {
        "tokens": jnp.zeros((1, 2), jnp.int32),
        "size": one,
        "first": one,
        "masked": jnp.zeros((1, 1), jnp.int32),
    }
    return Network(encoder, {h: HEADS[h] for h in HEADS if h in heads}), batch


def with_heads(
    experiment: Experiment, params: Params, heads: Collection[str], seed: int = 0
) -> tuple[Experiment, Params, list[str]]:
    """The model with fresh parameters for the heads that it lacks, and the names of those.

    ValueError: a head that the family does not have.
    """
    family = configs.family_for(experiment.encoder, experiment.objective)
    asked = {*heads, *(("pooler",) if "pair" in heads else ())}
    unknown = sorted(asked - set(family.heads))
    if unknown:
        raise ValueError(
            f"{family.name} has no head {unknown[0]!r}: expected {', '.join(family.heads)}"
        )
    new = sorted(asked - set(params))
    held = {h for h in HEADS if h in params or h in new}
    network, batch = _network(experiment.encoder, held)
    drawn = network.init(jax.random.key(seed), batch)["params"]
    fresh = {h: jax.tree.map(np.asarray, drawn[h]) for h in new}
    grown = configs.experiment(family, experiment.encoder, held)
    return grown, {**params, **fresh}, sorted(named_leaves(fresh))
