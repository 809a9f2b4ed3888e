"""A run with adapters (`lora.rank`): its base is found again, checked, and merged.

A checkpoint of such a run holds adapters and heads. The base is the model in `run.init`, which the
run recorded by path or by commit of the Hub, together with a hash of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import objectives
from bert_jax.config import Experiment, Lora, replace
from bert_jax.inference.transfer import base_params
from bert_jax.model import lora
from bert_jax.utils import hub, pytree
from bert_jax.utils.pytree import Tree, flatten_with_names


@dataclass(frozen=True)
class Adapter:
    """What a run with adapters has learned, beside the merged parameters of its model."""

    config: Lora
    params: Tree  # adapters and heads, NumPy
    base: str  # folder of the base, or its name on the Hub
    commit: str | None  # of a name on the Hub


def checked_base(experiment: Experiment, params: Tree, model: Experiment) -> tuple[Tree, str]:
    """The base that `experiment` takes from the `params` of the model in `run.init`, and its hash.

    ValueError: the experiment recorded another hash; what `base_params` refuses.
    """
    path = str(experiment.run.init)
    base = base_params(params, model, objectives.param_shapes(experiment), path)
    vocab_size, recorded = experiment.encoder.vocab_size, experiment.lora.base
    return base, lora.check_base(base, vocab_size, recorded, path)


def read_run(
    experiment: Experiment, read: Callable[[Tree], Tree], load: Callable[[str | Path], Any]
) -> tuple[Experiment, Tree, Adapter | None]:
    """The experiment, the parameters and the adapter of a run. `read(like)` reads its checkpoint,
    `load` loads its base, which is merged: the experiment then is that of a plain network.

    ValueError: as `checked_base`; the base is missing.
    """
    like, config = objectives.param_shapes(experiment), experiment.lora
    if not config.enabled:
        return experiment, read(_on_first_device(like)), None
    run = experiment.run
    trained = read(_on_first_device(lora.trained_shapes(config, like)))
    try:
        model = load(hub.at_commit(str(run.init), run.init_commit))
    except ValueError as e:
        raise ValueError(f"the base of the adapters in {run.dir} is needed: {e}") from None
    base, _ = checked_base(experiment, model.params, model.config)
    trained = jax.tree.map(np.asarray, trained)
    merged = jax.tree.map(jnp.asarray, lora.merge(lora.join(trained, base), config))
    adapter = Adapter(config, trained, str(run.init), run.init_commit)
    return replace(experiment, lora=Lora()), merged, adapter


def _on_first_device(like: Tree) -> Tree:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return pytree.abstract(like, jax.tree.map(lambda _: sharding, like))


def num_adapted(params: Tree) -> int:
    """The number of kernels with an adapter; a stacked kernel is one."""
    return sum(name.endswith(f"/{lora.A}") for name in flatten_with_names(params))
