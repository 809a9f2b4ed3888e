"""Schedules and optimisers, as the original code bases ran them.

Every optimiser is the same chain; only the parts in brackets come and go:

    gradient -> [clip] -> direction(m, v) -> [+ decay * p] -> [* trust ratio] -> [* layer rate]
             -> * -learning rate

Whatever a step treats by leaf (decay, trust ratios, layer rates, who is Muon's) is decided by the
leaf's *name*, never by its rank: the biases of stacked layers are two-dimensional, and one stacked
leaf holds many layers, each a tensor of its own to LAMB and to Muon.
"""

from __future__ import annotations

from typing import Any

import optax
from jaxtyping import Scalar

from bert_jax.config import Optim
from bert_jax.optim.param_groups import (
    Multiplier,
    is_hidden,
    is_weight,
    layerwise,
    leading_axes,
    weights,
)
from bert_jax.optim.schedules import schedule
from bert_jax.optim.transforms import (
    Moments,
    moments,
    scale_by_moments,
    scale_by_muon,
    scale_by_trust_ratio,
)
from bert_jax.utils.pytree import map_with_names

__all__ = [
    "Moments",
    "Multiplier",
    "is_hidden",
    "is_weight",
    "layerwise",
    "leading_axes",
    "moments",
    "optimizer",
    "scale_by_moments",
    "scale_by_muon",
    "scale_by_trust_ratio",
    "schedule",
    "updates_done",
]


def optimizer(
    config: Optim, steps: int, multipliers: Multiplier | None = None
) -> optax.GradientTransformation:
    """The optimiser that a config names, with its schedule, clipping and decay.

    bert_adam     AdamWeightDecay of bert/optimization.py, as in ALBERT and ELECTRA
    lamb          albert/lamb_optimizer.py: the same direction and decay, then trust ratios
    fairseq_adam  fairseq/optim/adam.py; it shrinks the parameters before the step, which is the
                  same sum here since the direction does not read them
    adamw         textbook; optax's own rounds its first update by 7e-6, ours by 1e-7
    muon          for the matrices of the layers, with adamw for the rest: one rate and one decay
                  serve both (directions.scale_by_muon)

    Decay is decoupled and multiplied by the learning rate. Clipping is of the global norm (PyTorch
    and fairseq add 1e-6 to it; Google's clips on each core, which one global batch cannot).
    `multipliers` scales the finished update, decay included; a factor of 0 freezes a leaf.
    The state is a tuple of NamedTuples. The schedule counts updates for itself, equal to
    `updates_done`.
    """
    chain = [scale_by_muon(config) if config.name == "muon" else scale_by_moments(config)]
    if config.clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay:
        mask = weights if config.decay == "weights" else None
        chain.append(optax.add_decayed_weights(config.weight_decay, mask))
    if config.name == "lamb":
        chain.append(scale_by_trust_ratio())
    if multipliers is not None:
        chain.append(_scale_by_name(multipliers))
    return optax.chain(*chain, optax.scale_by_learning_rate(schedule(config, steps)))


def _scale_by_name(factor: Multiplier) -> optax.GradientTransformation:
    return optax.stateless(
        lambda u, _: map_with_names(lambda name, x: x * factor(name, x.shape), u)
    )


def updates_done(state: Any) -> Scalar:
    """Completed updates of an `optimizer` state: what its schedule reads for the next one."""
    return next(part.t for part in state if isinstance(part, Moments))
