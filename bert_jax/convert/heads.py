"""Heads by name: their modules, the parameter shapes of a network with them, new heads."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Encoder, Experiment, Supervised
from bert_jax.config.serialization import with_tuples
from bert_jax.convert import hf_config, hf_task_keys
from bert_jax.model import Network
from bert_jax.model.encoder import Head
from bert_jax.model.heads import HEADS
from bert_jax.model.task_heads import task_heads
from bert_jax.utils.pytree import flatten_with_names
from bert_jax.utils.types import Params


def head_modules(heads: Collection[str], task: Supervised | None = None) -> dict[str, Head]:
    """The modules of pre-training heads, in the order in which a network applies them. If a task
    is given, the modules of its head as they are used for prediction."""
    if task is not None:
        return task_heads(task, search=True)
    return {h: HEADS[h] for h in HEADS if h in heads}


def param_shapes(encoder: Encoder, heads: Collection[str], task: Supervised | None = None) -> Any:
    """Shapes and dtypes of the parameters of a network with these heads."""
    task = None if task is None else with_tuples(task)
    shapes = _param_shapes(encoder, frozenset(heads), task)
    return jax.tree.map(lambda leaf: leaf, shapes)  # the caller may change its tree


@lru_cache(maxsize=256)
def _param_shapes(encoder: Encoder, heads: frozenset[str], task: Supervised | None) -> Any:
    network = Network(encoder, head_modules(heads, task))
    return jax.eval_shape(network.init, jax.random.key(0), _init_batch())["params"]


def _init_batch() -> dict[str, jax.Array]:
    """The smallest batch that initializes all parameters of a network."""
    row = dict.fromkeys(("size", "first", "context"), jnp.ones(1, jnp.int32))
    zeros = jnp.zeros((1, 2), jnp.int32)
    return {"tokens": zeros, "masked": zeros[:, :1], **row}


def with_heads(
    experiment: Experiment, params: Params, heads: Collection[str]
) -> tuple[Experiment, Params, list[str]]:
    """The model with new parameters for the missing ones of `heads`, and the names of these.

    ValueError: a head that the family does not have, or a fine-tuned model.
    """
    family = hf_config.hf_family(experiment.encoder, experiment.objective)
    if isinstance(experiment.objective, Supervised):
        drop = hf_task_keys.drop_flag(family, experiment.objective.task_type)
        raise ValueError(
            f"the model is fine-tuned for {experiment.objective.task} and cannot have other heads: "
            f"leave them out, or drop its head ({drop})"
        )
    names = {*heads, *(("pooler",) if "pair" in heads else ())}
    unknown = sorted(names - set(family.heads))
    if unknown:
        raise ValueError(
            f"{family.name} has no head {unknown[0]!r}: expected {', '.join(family.heads)}"
        )
    new = sorted(names - set(params))
    all_heads = {h for h in HEADS if h in params or h in new}
    network = Network(experiment.encoder, head_modules(all_heads))
    initial = network.init(jax.random.key(0), _init_batch())["params"]
    new_params = {h: jax.tree.map(np.asarray, initial[h]) for h in new}
    new_experiment = hf_config.build_experiment(family, experiment.encoder, all_heads)
    return new_experiment, {**params, **new_params}, sorted(flatten_with_names(new_params))
