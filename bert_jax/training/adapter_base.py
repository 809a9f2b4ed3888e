"""The base of a run with adapters: recorded at the start, found again when the run resumes."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np

from bert_jax.config import Experiment, replace
from bert_jax.distributed import sharding
from bert_jax.inference.adapter import checked_base
from bert_jax.inference.model import load
from bert_jax.model import lora
from bert_jax.training.compiled_steps import CompiledSteps
from bert_jax.utils import hub
from bert_jax.utils.pytree import map_with_names


def pin_base(config: Experiment) -> Experiment:
    """The config with the hash of the base of its adapters, and with that model's absolute path, so
    that the run can be loaded from anywhere; the config itself without adapters.

    ValueError: no model to adapt, adapters that do not fit it, another base than recorded.
    """
    run = config.run
    if not config.lora.enabled:
        return config
    if run.init is None:
        raise ValueError(
            f"lora.rank is {config.lora.rank}, and there is no model to adapt: give --init MODEL"
        )
    model = load(hub.at_commit(run.init, run.init_commit))
    base, found = checked_base(config, jax.device_get(model.params), model.config)
    lora.adapter_shapes(config.lora, base)
    init = run.init if run.init_commit is not None else os.path.abspath(run.init)
    return replace(config, lora=dict(base=found), run=dict(init=init))


def with_base(
    steps: CompiledSteps, params: dict[str, Any], config: Experiment, path: str
) -> CompiledSteps:
    """`steps` with the base of the run's adapters on its devices. `params` are those of the model
    at `path`, by the objective's names. ValueError: it is not the base that the run recorded."""
    like = steps.fixed["base"]
    base = map_with_names(lambda name, _: params[name], like)
    lora.check_base(base, config.encoder.vocab_size, str(config.lora.base), path)

    def put(value: Any, like: Any) -> jax.Array:
        return sharding.put(np.array(value, like.dtype), like.sharding)

    return steps.with_fixed(base=jax.tree.map(put, base, like))
