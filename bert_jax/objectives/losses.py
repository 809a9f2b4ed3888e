"""Means that add up, and the losses that return them.

Every averaged number stays a total and a count until it is logged, so that masks,
micro-batches, devices and evaluation batches of unequal sizes add up exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_jax.distributed.constraints import BATCH_AXES, constrain


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean:
    """A sum and the number of things summed."""

    total: Any  # float32 scalars; Any, since jax also builds trees of shapes and of None
    count: Any

    @property
    def value(self) -> jax.Array:
        return self.total / jnp.maximum(self.count, 1.0)


def weighted_mean(values: Float[Array, "*s"], weights: Float[Array, "*s"]) -> Mean:
    """The mean of the values whose weight is 1."""
    return Mean((values * weights).sum(), weights.sum())


def project(
    features: Float[Array, "*s e"], bias: Float[Array, " v"], table: Float[Array, "v e"]
) -> Float[Array, "*s v"]:
    """Logits over the vocabulary from a tied table, in float32; cut up as the table is."""
    table = constrain(table, "tensor", None).astype(features.dtype)
    logits = jnp.einsum("...e,ve->...v", features, table, preferred_element_type=jnp.float32)
    return constrain(logits + bias, BATCH_AXES, *[None] * (logits.ndim - 2), "tensor")


def in_chunks(f: Callable[..., tuple[Any, Any]], pieces: int, *rows: Any) -> tuple[Any, Any]:
    """`f(*rows)`, some of the rows at a time: of what it returns the first part adds up, the
    second is put together row by row.

    What `f` makes on its way is made again for its gradient, never kept; so logits over the
    vocabulary are there for one piece at a time. `rows` are trees of arrays [b ...]; there are
    as many pieces as asked for, or the next smaller number that divides b.
    """
    b = jax.tree.leaves(rows)[0].shape[0]
    n = next(i for i in range(min(pieces, b), 0, -1) if b % i == 0)
    if n == 1:
        return f(*rows)
    # Every n-th row: each device has its share of each piece.
    cut = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), rows)
    once = jax.checkpoint(f, prevent_cse=False)
    sums, parts = jax.lax.scan(lambda _, some: (None, once(*some)), None, cut)[1]
    join = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)
    return jax.tree.map(lambda x: x.sum(0), sums), join


def cross_entropy(
    logits: Float[Array, "*s c"], targets: Int[Array, "*s"], weights: Float[Array, "*s"]
) -> tuple[Mean, Mean]:
    """Softmax cross-entropy in nat, and accuracy, over the places whose weight is 1. By sums and
    maxima alone: whole logits would have to be gathered for a look-up or an argmax."""
    logits = logits.astype(jnp.float32)
    at = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    chosen = jnp.where(at == targets[..., None], logits, 0.0).sum(-1)
    loss = jax.nn.logsumexp(logits, axis=-1) - chosen
    best = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    first = jnp.where(logits == best, at, logits.shape[-1]).min(-1)
    correct = (first == targets).astype(jnp.float32)
    return weighted_mean(loss, weights), weighted_mean(correct, weights)


def sigmoid_cross_entropy(
    logits: Float[Array, "*s"], labels: Float[Array, "*s"], weights: Float[Array, "*s"]
) -> Mean:
    """Binary cross-entropy in nat over the places whose weight is 1; labels are 0 or 1."""
    loss = jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return weighted_mean(loss, weights)


def squared_error(
    answers: Float[Array, "*s"], labels: Float[Array, "*s"], weights: Float[Array, "*s"]
) -> Mean:
    """Squared difference over the places whose weight is 1."""
    return weighted_mean((answers - labels) ** 2, weights)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Histogram:
    """How many negatives and positives have a logit in each of `BINS` equal bins from -`FAR` to
    `FAR`, with what lies beyond in the outermost. An area under a curve is no mean, but the
    histograms that it is made of add up. Logits nearer to each other than .006 may be taken for
    equal; bins of probabilities would do so with all that are rare."""

    negatives: Any  # float32 [bins]
    positives: Any

    BINS: ClassVar[int] = 4096
    FAR: ClassVar[float] = 12.0

    @classmethod
    def of(
        cls, logits: Float[Array, "*s"], labels: Float[Array, "*s"], weights: Float[Array, "*s"]
    ) -> Histogram:
        share = (logits + cls.FAR) / (2 * cls.FAR)
        bins = jnp.clip(share * cls.BINS, 0, cls.BINS - 1).astype(jnp.int32).ravel()
        empty = jnp.zeros(cls.BINS)
        parts = (weights * (1 - labels), weights * labels)
        return cls(*(empty.at[bins].add(part.ravel()) for part in parts))

    @property
    def value(self) -> jax.Array:
        """Area under the ROC curve: the chance that a positive lies above a negative, where
        two in one bin count a half."""
        below = jnp.cumsum(self.negatives) - self.negatives / 2
        pairs = self.negatives.sum() * self.positives.sum()
        return jnp.where(pairs > 0, (self.positives * below).sum() / jnp.maximum(pairs, 1.0), 0.5)
