"""Optimizers and learning rate schedules, as in the original code bases.

Every optimizer is the same chain; the steps in brackets are optional:

    gradient -> [clip] -> direction(m, v) -> [+ decay * p] -> [* trust ratio] -> [* layer rate]
             -> * -learning rate

What differs between parameters (decay, trust ratios, layer rates, Muon or AdamW) is decided by
their *names*, not by their ranks; see param_groups.py.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from jaxtyping import Scalar

from bert_jax.config import Optim
from bert_jax.optim.freeze import frozen_counts, is_frozen, without_frozen, zero_frozen
from bert_jax.optim.param_groups import (
    Depth,
    LrMultiplier,
    is_hidden_kernel,
    is_weight,
    layerwise_lr_decay,
    network_depth,
    num_layer_axes,
    weight_mask,
)
from bert_jax.optim.schedules import schedule
from bert_jax.optim.transforms import (
    Moments,
    num_moments,
    scale_by_moments,
    scale_by_muon,
    scale_by_trust_ratio,
    with_update_clipping,
)
from bert_jax.utils.pytree import map_with_names

__all__ = [
    "Depth",
    "LrMultiplier",
    "Moments",
    "frozen_counts",
    "is_frozen",
    "is_hidden_kernel",
    "is_weight",
    "layerwise_lr_decay",
    "network_depth",
    "num_layer_axes",
    "num_moments",
    "optimizer",
    "scale_by_moments",
    "scale_by_muon",
    "scale_by_trust_ratio",
    "schedule",
    "updates_done",
    "with_update_clipping",
    "without_frozen",
    "zero_frozen",
]


def optimizer(
    config: Optim,
    steps: int,
    multipliers: LrMultiplier | None = None,
    depth: Depth | None = None,
) -> optax.GradientTransformation:
    """The optimizer of a config, with its schedule, clipping and weight decay.

    bert_adam     AdamWeightDecay of bert/optimization.py, as in ALBERT and ELECTRA
    lamb          albert/lamb_optimizer.py: the same direction and decay, then trust ratios
    fairseq_adam  fairseq/optim/adam.py; it decays the parameters before the step, which gives the
                  same sum, since the direction does not depend on them
    adamw         as published
    stable_adamw  adamw with shorter steps where a gradient is unusually large, as ModernBERT
                  (`with_update_clipping`)
    muon          for the matrices of the layers, adamw for the rest, with the same learning rate
                  and weight decay (`scale_by_muon`)

    Weight decay is decoupled and multiplied by the learning rate. Gradients are clipped by their
    global norm (PyTorch and fairseq add 1e-6 to it; Google's code clips on each core, which a
    global batch cannot). `multipliers` scales the final update, decay included. The parts in
    `config.freeze` of a network of this `depth` get no update, have no state, and do not count in
    the norm. The state is a tree of NamedTuples. The schedule has a counter of its
    own, equal to `updates_done`.
    """
    chain = [scale_by_muon(config) if config.name == "muon" else scale_by_moments(config)]
    if config.weight_decay:
        mask = weight_mask if config.decay == "weights" else None
        chain.append(optax.add_decayed_weights(config.weight_decay, mask))
    if config.name == "stable_adamw":
        chain = [with_update_clipping(optax.chain(*chain), config)]
    if config.clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.name == "lamb":
        chain.append(scale_by_trust_ratio())
    if config.freeze is not None:
        assert depth is not None, "optim.freeze needs the network's depth"
        chain = [without_frozen(optax.chain(*chain), config.freeze, depth)]
    if multipliers is not None:
        chain.append(_scale_by_name(multipliers))
    return optax.chain(*chain, optax.scale_by_learning_rate(schedule(config, steps)))


def _scale_by_name(factor: LrMultiplier) -> optax.GradientTransformation:
    return optax.stateless(
        lambda u, _: map_with_names(lambda name, x: x * factor(name, x.shape), u)
    )


def updates_done(state: Any) -> Scalar:
    """The completed updates of an `optimizer` state, which its schedule takes as t."""
    leaves = jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, Moments))
    return next(s.t for s in leaves if isinstance(s, Moments))
