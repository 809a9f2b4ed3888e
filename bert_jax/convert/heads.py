"""Networks by the names of their heads: shapes to check tensors against, fresh heads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Encoder, Experiment, Supervised
from bert_jax.convert import hf_config
from bert_jax.model import Network
from bert_jax.model.encoder import Head
from bert_jax.model.heads import HEADS
from bert_jax.model.task_heads import task_heads
from bert_jax.utils.pytree import flatten_with_names
from bert_jax.utils.types import Params


def head_modules(heads: Collection[str], task: Supervised | None = None) -> dict[str, Head]:
    """The modules of heads that theirs may have too, in the order in which a network applies
    them; those of a task, where it is given, as they answer without labels."""
    if task is not None:
        return task_heads(task, search=True)
    return {h: HEADS[h] for h in HEADS if h in heads}


def param_shapes(encoder: Encoder, heads: Collection[str], task: Supervised | None = None) -> Any:
    """Shapes and types of the parameters of a network with these heads."""
    network = Network(encoder, head_modules(heads, task))
    return jax.eval_shape(network.init, jax.random.key(0), _example())["params"]


def _example() -> dict[str, jax.Array]:
    """The smallest batch that reaches all of a network's parameters."""
    row = dict.fromkeys(("size", "first", "context"), jnp.ones(1, jnp.int32))
    zeros = jnp.zeros((1, 2), jnp.int32)
    return {"tokens": zeros, "masked": zeros[:, :1], **row}


def with_heads(
    experiment: Experiment, params: Params, heads: Collection[str], seed: int = 0
) -> tuple[Experiment, Params, list[str]]:
    """The model with fresh parameters for the heads that it lacks, and the names of those.

    ValueError: a head that the family does not have, or a fine-tuned model.
    """
    if isinstance(experiment.objective, Supervised):
        raise ValueError(
            f"the model is fine-tuned for {experiment.objective.task}, other heads have no place "
            "beside that: leave them out, or its head (--drop classifier)"
        )
    family = hf_config.hf_family(experiment.encoder, experiment.objective)
    asked = {*heads, *(("pooler",) if "pair" in heads else ())}
    unknown = sorted(asked - set(family.heads))
    if unknown:
        raise ValueError(
            f"{family.name} has no head {unknown[0]!r}: expected {', '.join(family.heads)}"
        )
    new = sorted(asked - set(params))
    held = {h for h in HEADS if h in params or h in new}
    network = Network(experiment.encoder, head_modules(held))
    drawn = network.init(jax.random.key(seed), _example())["params"]
    fresh = {h: jax.tree.map(np.asarray, drawn[h]) for h in new}
    grown = hf_config.build_experiment(family, experiment.encoder, held)
    return grown, {**params, **fresh}, sorted(flatten_with_names(fresh))
