"""Losses, returned as means that add up.

Every average stays a total and a count until it is logged, so that masks, micro-batches, devices
and evaluation batches of unequal sizes add up exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_jax.distributed.constraints import row_shards
from bert_jax.utils.pytree import join_rows, split_rows


def divide(total: Any, count: Any) -> jax.Array:
    """total / count, and 0 where nothing was counted. A count of weighted terms may be below 1."""
    return total / jnp.where(count > 0, count, 1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean:
    """A sum and the number of its terms."""

    total: Any  # float32 scalars; Any, because jax also builds trees of shapes and of None
    count: Any

    @property
    def value(self) -> jax.Array:
        """The mean; 0 if nothing was scored."""
        return divide(self.total, self.count)

    @property
    def is_empty(self) -> jax.Array:
        """Whether nothing was scored: `value` is then no figure, and not a perfect loss of 0."""
        return jnp.equal(self.count, 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ClassMeans:
    """A sum and a count for each of two classes, float32 [2]. The value is the mean over classes of
    each class's mean: a balanced accuracy, which is .5 for every constant answer."""

    totals: Any
    counts: Any

    @classmethod
    def of(
        cls, values: Float[Array, "*s"], labels: Int[Array, "*s"], weights: Float[Array, "*s"]
    ) -> ClassMeans:
        """The sums and counts of `values` for the labels 0 and 1. Weights are 0 or 1."""
        parts = [weights * (labels == c) for c in (0, 1)]
        totals = jnp.stack([(values * part).sum() for part in parts])
        return cls(totals, jnp.stack([part.sum() for part in parts]))

    @property
    def value(self) -> jax.Array:
        """The mean over classes of each class's mean."""
        return divide(self.totals, self.counts).mean()

    @property
    def is_empty(self) -> jax.Array:
        """Whether a class was not scored."""
        return jnp.equal(self.counts, 0).any()


def weighted_mean(values: Float[Array, "*s"], weights: Float[Array, "*s"]) -> Mean:
    """The mean of the values whose weight is 1; weights are 0 or 1."""
    return Mean((values * weights).sum(), weights.sum())


def in_chunks(f: Callable[..., tuple[Any, Any]], chunks: int, *rows: Any) -> tuple[Any, Any]:
    """`f(*rows)`, computed in chunks of rows: the first results of `f` are added up, the second
    ones are concatenated row by row.

    Intermediate values of `f` are recomputed for its gradient and never stored, so logits over
    the vocabulary exist for one chunk at a time. `rows` are trees of arrays [b ...]. The number
    of chunks is the largest divisor of each device's rows up to `chunks`: a chunk with fewer rows
    than devices would be computed by all of them.
    """
    b = jax.tree.leaves(rows)[0].shape[0]
    shards = row_shards()
    rows_per_shard = b // shards if b % shards == 0 else b
    n = next(i for i in range(min(chunks, rows_per_shard), 0, -1) if rows_per_shard % i == 0)
    if n == 1:
        return f(*rows)
    remat = jax.checkpoint(f, prevent_cse=False)
    sums, parts = jax.lax.scan(lambda _, chunk: (None, remat(*chunk)), None, split_rows(rows, n))[1]
    return jax.tree.map(lambda x: x.sum(0), sums), join_rows(parts)


def cross_entropy(
    logits: Float[Array, "*s c"], targets: Int[Array, "*s"], weights: Float[Array, "*s"]
) -> tuple[Mean, Mean]:
    """Softmax cross-entropy in nat, and accuracy, over the positions whose weight is 1."""
    losses, correct = token_cross_entropy(logits, targets)
    return weighted_mean(losses, weights), weighted_mean(correct, weights)


def token_cross_entropy(
    logits: Float[Array, "*s c"], targets: Int[Array, "*s"]
) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """Softmax cross-entropy in nat, and 1 where the largest logit is the target's. It uses sums
    and maxima only: a look-up or an argmax would gather logits that are sharded along the
    vocabulary."""
    logits = logits.astype(jnp.float32)
    at = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    target_logits = jnp.where(at == targets[..., None], logits, 0.0).sum(-1)
    loss = jax.nn.logsumexp(logits, axis=-1) - target_logits
    largest = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    argmax = jnp.where(logits == largest, at, logits.shape[-1]).min(-1)
    return loss, (argmax == targets).astype(jnp.float32)


def sigmoid_cross_entropy(
    logits: Float[Array, "*s"], labels: Float[Array, "*s"], weights: Float[Array, "*s"]
) -> Mean:
    """Binary cross-entropy in nat over the positions whose weight is 1; labels are 0 or 1."""
    loss = jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return weighted_mean(loss, weights)


def share_loss(share: float, predicted: float) -> float:
    """Cross-entropy in nat of pairs of which a `share` has label 1, under the constant probability
    `predicted`."""
    parts = ((share, predicted), (1 - share, 1 - predicted))
    return -sum(p * math.log(max(q, 1e-9)) for p, q in parts if p > 0)


def squared_error(
    outputs: Float[Array, "*s"], labels: Float[Array, "*s"], weights: Float[Array, "*s"]
) -> Mean:
    """Squared error over the positions whose weight is 1."""
    return weighted_mean((outputs - labels) ** 2, weights)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Histogram:
    """The numbers of negatives and positives whose logit is in each of `BINS` equal bins from
    -`MAX_LOGIT` to `MAX_LOGIT`; larger logits are in the outermost bins. The area under the ROC
    curve is not a mean, but histograms add up. Logits closer than .006 may count as equal; with
    bins of probabilities all rare events would."""

    negatives: Any  # float32 [bins]
    positives: Any

    BINS: ClassVar[int] = 4096
    MAX_LOGIT: ClassVar[float] = 12.0

    @classmethod
    def from_logits(
        cls, logits: Float[Array, "*s"], labels: Float[Array, "*s"], weights: Float[Array, "*s"]
    ) -> Histogram:
        """The histogram of logits with labels 0 or 1, where weights are 1."""
        share = (logits + cls.MAX_LOGIT) / (2 * cls.MAX_LOGIT)
        bins = jnp.clip(share * cls.BINS, 0, cls.BINS - 1).astype(jnp.int32).ravel()
        empty = jnp.zeros(cls.BINS)
        parts = (weights * (1 - labels), weights * labels)
        return cls(*(empty.at[bins].add(part.ravel()) for part in parts))

    @property
    def value(self) -> jax.Array:
        """The area under the ROC curve: the probability that a positive has a larger logit than a
        negative, where two in the same bin count one half."""
        below = jnp.cumsum(self.negatives) - self.negatives / 2
        pairs = self.negatives.sum() * self.positives.sum()
        return jnp.where(pairs > 0, (self.positives * below).sum() / jnp.maximum(pairs, 1.0), 0.5)

    @property
    def is_empty(self) -> jax.Array:
        """Whether there are no negatives or no positives."""
        return jnp.equal(self.negatives.sum(), 0) | jnp.equal(self.positives.sum(), 0)
