"""A run that starts from some of a model's layers (`run.init_layers`): evenly spaced ones.

Layer i of the m layers of the run is layer ceil(i n / m) of the n layers of the model, counted from
1, so that the last one is always among them:

    6 to 3     2 4 6            12 to 5     3 5 8 10 12

Where one set of parameters serves all layers (ALBERT), only the depth changes. Which layers have a
window follows from their new numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bert_jax.config import Encoder, Experiment, ReplacedTokens
from bert_jax.utils.pytree import map_with_names


def spaced_layers(n: int, m: int) -> list[int]:
    """The numbers, from 1, of m evenly spaced layers of n."""
    return [-(-i * n // m) for i in range(1, m + 1)]


def with_layers(encoder: Encoder, layers: int | None, path: str) -> Encoder:
    """The encoder of the model at `path` with fewer layers; None keeps them all.

    ValueError: more layers than it has, or layers that share parameters in several groups.
    """
    if layers is None or layers == encoder.layers:
        return encoder
    n, groups = encoder.layers, encoder.num_groups
    if layers > n:
        raise ValueError(
            f"{layers} layers are asked for (--encoder.layers, run.init_layers), but {path} has "
            f"{n}: expected at most {n}"
        )
    if groups not in (1, n):
        raise ValueError(
            f"the {n} layers of {path} share {groups} sets of parameters: expected one set for all "
            "layers or one per layer to choose layers from (leave out --encoder.layers)"
        )
    return dataclasses.replace(encoder, layers=layers, groups=1 if groups == 1 < n else None)


def select_layers(params: Any, encoder: Encoder, layers: int) -> Any:
    """The parameters of a network with the evenly spaced layers alone. Leaves of the encoder's
    stack have the layers on axis 0, or with one set for all (`own`) on axis 1."""
    if layers == encoder.layers:
        return params
    chosen = np.array(spaced_layers(encoder.layers, layers)) - 1
    shared = encoder.num_groups == 1 < encoder.layers

    def leaf(name: str, x: Any) -> Any:
        if not name.startswith("encoder/layers/"):
            return x
        if shared:
            return x[:, chosen] if name.startswith("encoder/layers/own/") else x
        if not encoder.first_norm and name.startswith("encoder/layers/attention/norm/"):
            return x[chosen[1:] - 1]  # the first layer has no norm, nor a row for one
        return x[chosen]

    return map_with_names(leaf, params)


def select_model_layers(params: Any, model: Experiment, run: Experiment) -> Any:
    """The parameters of a model with the `run.init_layers` that the run starts from. Of two
    networks (ELECTRA) each has its own depth; a generator that the run does not have is left as it
    is."""
    layers = run.run.init_layers
    if layers is None:
        return params
    if not isinstance(model.objective, ReplacedTokens):
        return select_layers(params, model.encoder, layers)
    depths = {"discriminator": (model.encoder, layers)}
    if isinstance(run.objective, ReplacedTokens):
        fewer = with_layers(model.encoder, layers, "the model")
        generator = model.objective.generator(model.encoder)
        depths["generator"] = (generator, run.objective.generator(fewer).layers)
    return params | {name: select_layers(params[name], *depth) for name, depth in depths.items()}


def describe_layers(model: Encoder, layers: int, path: str) -> str:
    """Which layers of the model at `path` the run starts from, if not all, in words."""
    if layers == model.layers:
        return ""
    chosen = ", ".join(map(str, spaced_layers(model.layers, layers)))
    return f"layers 1 to {layers} start as layers {chosen} of the {model.layers} of {path}"
