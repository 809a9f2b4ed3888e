"""Frozen parameters (`optim.freeze`): they keep every bit, and have no optimizer state.

A stacked leaf holds all layers, and only some may be frozen. The optimizer sees a tree without the
frozen parts: whole leaves are missing, and a stacked leaf has the rows of its other layers.

    layers frozen 0 1      encoder/layers/mlp/up/kernel [4 d f]  ->  [2 d f]
    embeddings frozen      embeddings/word [v e]                 ->  missing
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from bert_jax.config.freeze import Frozen, parse_freeze
from bert_jax.optim.param_groups import Depth, is_embedding, layers_of_sets, num_layer_axes
from bert_jax.utils.pytree import Tree, flatten_with_names, is_stacked, map_with_names


def is_frozen(frozen: Frozen, depth: Depth, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Whether a leaf is frozen: bool [], or for a stacked leaf bool with its layer axes. Of two
    towers, numbers count the discriminator's layers.

    ValueError: a layer that a network of this depth does not have, or one of several layers that
    share the leaf.
    """
    beyond = sorted(i for i in frozen.layers if i >= depth.layers)
    if beyond:
        raise ValueError(
            f"optim.freeze names layer {beyond[0]}: the model has layers 0 to {depth.layers - 1}"
        )
    if is_embedding(name):
        return np.array(frozen.embeddings)
    if frozen.encoder or not is_stacked(name) or name.startswith("generator/"):
        return np.full(shape[: num_layer_axes(name)], frozen.encoder and "/encoder/" in f"/{name}")
    lead = shape[: num_layer_axes(name)]
    sets = layers_of_sets(name, lead, depth)
    chosen = np.isin(sets, list(frozen.layers))
    partly = np.flatnonzero(chosen.any(1) & ~chosen.all(1))
    if len(partly):
        first, *_, last = sets[partly[0]]
        raise ValueError(
            f"optim.freeze names some of the layers {first} to {last}, which share their "
            "parameters: name all of them or none"
        )
    return np.asarray(chosen.all(1)).reshape(lead)


def frozen_counts(text: str, depth: Depth, params: Tree) -> tuple[int, int]:
    """The number of frozen parameters, and of all."""
    frozen = parse_freeze(text)
    sizes = {
        name: (float(is_frozen(frozen, depth, name, x.shape).mean()), x.size)
        for name, x in flatten_with_names(params).items()
    }
    return round(sum(share * n for share, n in sizes.values())), sum(n for _, n in sizes.values())


def zero_frozen(text: str | None, depth: Depth, grads: Tree) -> Tree:
    """Gradients that are 0 at frozen parameters, so that norms and clipping do not count them."""
    if text is None:
        return grads
    frozen = parse_freeze(text)

    def zero(name: str, g: Array) -> Array:
        mask = is_frozen(frozen, depth, name, g.shape)
        return jnp.where(_expanded(mask, g.ndim), 0, g)

    return map_with_names(zero, grads)


def without_frozen(
    tx: optax.GradientTransformation, text: str, depth: Depth
) -> optax.GradientTransformation:
    """`tx` on the parameters that are not frozen; the updates of the others are 0."""
    frozen = parse_freeze(text)

    def active(name: str, x: Array) -> Array | optax.MaskedNode:
        mask = is_frozen(frozen, depth, name, x.shape)
        if mask.all():
            return optax.MaskedNode()
        return x if not mask.any() else _active_rows(x, mask)

    def restore(name: str, full: Array, update: Array | optax.MaskedNode) -> Array:
        if isinstance(update, optax.MaskedNode):
            return jnp.zeros_like(full)
        if update.shape == full.shape:
            return update
        mask = is_frozen(frozen, depth, name, full.shape)
        rows = jnp.zeros((mask.size, *full.shape[mask.ndim :]), update.dtype)
        rows = rows.at[np.flatnonzero(~mask)].set(update.reshape(-1, *rows.shape[1:]))
        return rows.reshape(full.shape)

    def init(params: Tree) -> optax.OptState:
        return tx.init(map_with_names(active, params))

    def update(
        updates: Tree, state: optax.OptState, params: Tree = None
    ) -> tuple[Tree, optax.OptState]:
        fewer = map_with_names(active, updates)
        new, state = tx.update(fewer, state, map_with_names(active, params))
        return map_with_names(restore, updates, new), state

    return optax.GradientTransformation(init, update)


def _expanded(mask: np.ndarray, ndim: int) -> np.ndarray:
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


def _active_rows(x: Array, mask: np.ndarray) -> Array:
    """The rows of a stacked leaf that are not frozen; the number of its axes stays."""
    rows = x.reshape(mask.size, *x.shape[mask.ndim :])[np.flatnonzero(~mask)]
    return rows.reshape(*(1,) * (mask.ndim - 1), *rows.shape)
