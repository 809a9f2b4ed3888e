"""How a parameter is updated, decided by its name.

By name and not by rank, because the biases of stacked layers are two-dimensional, and one stacked
leaf holds many layers, each a separate tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from bert_jax.config import Experiment, ReplacedTokens
from bert_jax.utils.pytree import Tree, is_stacked, map_with_names

LrMultiplier = Callable[[str, tuple[int, ...]], ArrayLike]
"""Leaf name and shape -> a factor for its update: a number, or an array that broadcasts to it."""


def is_weight(name: str) -> bool:
    """Whether a leaf is a kernel or a table, i.e. neither a bias nor part of a layer norm.

    The originals search variable names for `LayerNorm`, `layer_norm` and `bias`
    (bert/optimization.py); embedding tables are weights, the heads' output biases are not.
    """
    return re.search(r"norm[^/]*/|(^|/)(bias|temperature)$", name) is None


def weight_mask(params: Tree) -> Tree:
    """A tree of booleans: `is_weight` of every leaf."""
    return map_with_names(lambda name, _: is_weight(name), params)


def is_hidden_kernel(name: str) -> bool:
    """Whether a leaf is a kernel of the encoder layers, in any tower. Tables, the embedding
    projection and heads are not."""
    return is_stacked(name) and name.endswith("/kernel")


def num_layer_axes(name: str) -> int:
    """The number of leading axes of a leaf that count layers.

    embeddings/word                  v e      0
    encoder/layers/mlp/up/kernel     g d f    1   groups
    encoder/layers/own/up/kernel     g n d f  2   groups, layers of a group
    """
    if not is_stacked(name):
        return 0
    return 2 if "/layers/own/" in f"/{name}" else 1


class Depth(NamedTuple):
    """The layers of a network, which the shapes of stacked leaves do not tell alone."""

    layers: int  # of two towers, the discriminator's
    generator_layers: int | None = None  # None: there is no generator
    first_norm: bool = True  # whether the first layer has a norm before its attention

    def of_leaf(self, name: str) -> int:
        """The number of layers of the tower that a leaf belongs to."""
        if self.generator_layers is not None and name.startswith("generator/"):
            return self.generator_layers
        return self.layers


def is_embedding(name: str) -> bool:
    """Whether a leaf is part of the embeddings or of their projection."""
    return re.search(r"(^|/)embeddings/|(^|/)encoder/projection/", name) is not None


def network_depth(config: Experiment) -> Depth:
    """The layers of a config's network, or of its two towers."""
    encoder, objective = config.encoder, config.objective
    pair = isinstance(objective, ReplacedTokens)
    generator_layers = objective.generator(encoder).layers if pair else None
    return Depth(encoder.layers, generator_layers, encoder.first_norm)


def layers_of_sets(name: str, lead: tuple[int, ...], depth: Depth) -> np.ndarray:
    """The layers that share each set of parameters of a stacked leaf, int [sets n].

    `lead` are its leading axes. ModernBERT's first layer has no norm before its attention, so that
    leaf has a set for each other layer. ValueError: the layers are not a multiple of the sets.
    """
    sets, layers = math.prod(lead), depth.of_leaf(name)
    if not depth.first_norm and "attention/norm/" in name and sets == layers - 1:
        return np.arange(1, layers)[:, None]
    if layers % sets:
        raise ValueError(
            f"{name} holds {sets} sets of parameters: expected a divisor of the {layers} layers"
        )
    return np.arange(layers).reshape(sets, -1)


def layerwise_lr_decay(decay: float, depth: Depth) -> LrMultiplier:
    """ELECTRA's layer rates, decay^(layers + 2 - depth) (electra/model/optimization.py).

    depth   0: embeddings and their projection   1 .. layers: the layers
            layers + 2: heads, and the norm after all layers

    The gap below the heads is in the original: the top layer gets decay^2. For stacked leaves the
    factor has the leading axes, (groups, 1, 1). Layers that share parameters use the depth of the
    topmost one, which is our choice (ELECTRA shares none). A generator's depths are its own.
    ValueError: a decay outside (0, 1], or the layers are not a multiple of the stacked sets.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer decay is {decay}: expected 0 < x <= 1")

    def multiplier(name: str, shape: tuple[int, ...]) -> ArrayLike:
        layers = depth.of_leaf(name)
        if is_stacked(name):
            lead = shape[: num_layer_axes(name)]
            topmost = layers_of_sets(name, lead, depth)[:, -1] + 1
            factor = (decay ** (layers + 2 - topmost)).astype(np.float32)
            return factor.reshape(lead + (1,) * (len(shape) - len(lead)))
        return decay ** (layers + 2) if is_embedding(name) else 1.0

    return multiplier
