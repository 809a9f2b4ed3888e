"""What a leaf's name says of how it is updated.

Decided by name, never by rank: the biases of stacked layers are two-dimensional, and one stacked
leaf holds many layers, each a tensor of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
from jax.typing import ArrayLike

from bert_jax.utils.pytree import Tree, is_stacked, map_with_names

Multiplier = Callable[[str, tuple[int, ...]], ArrayLike]
"""Leaf name and shape -> a factor of its update: a number, or what broadcasts to that shape."""


def is_weight(name: str) -> bool:
    """Whether a leaf is a kernel or a table: neither a bias nor part of a layer norm.

    The originals search variable names for `LayerNorm`, `layer_norm` and `bias`
    (bert/optimization.py); embedding tables are weights, the heads' output biases are not.
    """
    return re.search(r"norm[^/]*/|(^|/)bias$", name) is None


def weights(params: Tree) -> Tree:
    return map_with_names(lambda name, _: is_weight(name), params)


def is_hidden(name: str) -> bool:
    """Whether a leaf is a matrix between hidden states: a kernel of the layers, in any tower.
    Tables, the projection behind them, and heads are no such."""
    return is_stacked(name) and name.endswith("/kernel")


def leading_axes(name: str) -> int:
    """How many of a leaf's first axes count layers rather than belong to one layer's tensor.

    embeddings/word                  v e      0
    encoder/layers/mlp/up/kernel     g d f    1   groups
    encoder/layers/own/up/kernel     g n d f  2   groups, layers of a group
    """
    if not is_stacked(name):
        return 0
    return 2 if "/layers/own/" in f"/{name}" else 1


def layerwise(decay: float, layers: int) -> Multiplier:
    """ELECTRA's layer rates, decay^(layers + 2 - depth) (electra/model/optimization.py).

    depth   0: embeddings and their projection   1 .. layers: the layers
            layers + 2: heads, and the norm behind all layers

    The gap below the heads is the original's: the top layer gets decay^2. For stacked leaves the
    factor has the leading axes, (groups, 1, 1); layers with common parameters take the depth of
    the topmost, which is our choice (ELECTRA shares none). A decay outside (0, 1], or a stack
    that `layers` is no multiple of, is a ValueError.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer decay is {decay}: expected 0 < x <= 1")

    def multiplier(name: str, shape: tuple[int, ...]) -> ArrayLike:
        if is_stacked(name):
            lead = shape[: leading_axes(name)]
            sets = math.prod(lead)
            if layers % sets:
                raise ValueError(
                    f"{name} holds {sets} sets of layers: expected a divisor of the {layers} "
                    "layers that the layer decay was given"
                )
            depth = np.arange(1, sets + 1) * (layers // sets)
            factor = (decay ** (layers + 2 - depth)).astype(np.float32)
            return factor.reshape(lead + (1,) * (len(shape) - len(lead)))
        low = re.search(r"(^|/)embeddings/|(^|/)encoder/projection/", name)
        return decay ** (layers + 2) if low else 1.0

    return multiplier
