"""Means add up, and losses equal their definitions in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives.losses import Histogram, Mean, cross_entropy, sigmoid_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 5, 7)) * 3
TARGETS = RNG.integers(0, 7, (4, 5))
WEIGHTS = (RNG.random((4, 5)) < 0.6).astype(np.float32)


def test_cross_entropy_and_accuracy() -> None:
    loss, accuracy = cross_entropy(jnp.float32(LOGITS), jnp.asarray(TARGETS), jnp.asarray(WEIGHTS))
    losses = -np.take_along_axis(log_softmax(LOGITS, -1), TARGETS[..., None], -1)[..., 0]
    assert np.isclose(loss.total, (losses * WEIGHTS).sum(), rtol=1e-6)
    assert loss.count == accuracy.count == WEIGHTS.sum()
    assert accuracy.total == ((LOGITS.argmax(-1) == TARGETS) * WEIGHTS).sum()


def test_losses_of_micro_batches_add_up_to_the_batch() -> None:
    whole = cross_entropy(jnp.float32(LOGITS), jnp.asarray(TARGETS), jnp.asarray(WEIGHTS))
    parts = [
        cross_entropy(jnp.float32(x), jnp.asarray(t), jnp.asarray(w))
        for x, t, w in zip(LOGITS, TARGETS, WEIGHTS, strict=True)
    ]
    for total, added in zip(
        jax.tree.leaves(whole),
        jax.tree.leaves(jax.tree.map(lambda *x: sum(x), *parts)),
        strict=True,
    ):
        assert np.isclose(total, added, rtol=1e-6)


def test_a_mean_over_nothing_is_zero() -> None:
    assert Mean(jnp.float32(0), jnp.float32(0)).value == 0


def test_sigmoid_cross_entropy_stays_finite() -> None:
    logits, labels = np.float32([-90, -1, 2, 90]), np.float32([0, 1, 0, 0])
    loss = sigmoid_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(4))
    p = expit(logits[1:3].astype(float))
    assert np.isclose(loss.total, -np.log(p[0]) - np.log(1 - p[1]) + 90, rtol=1e-6)


def test_vocabulary_logits_are_the_product_with_the_tied_table() -> None:
    x, table, bias = (RNG.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (7, 4), (7,)))
    logits = LMHeadOutput(jnp.asarray(x), jnp.asarray(bias)).logits(jnp.asarray(table))
    assert np.allclose(logits, x @ table.T + bias, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_histograms_add_up_to_the_area_under_the_curve(shift: float) -> None:
    """Against the definition: the fraction of (negative, positive) pairs in the right order."""
    labels = (RNG.random((2, 400)) < 0.2).astype(np.float32)
    logits = (RNG.normal(size=labels.shape) + shift * labels).astype(np.float32) - 4  # rare
    parts = [
        Histogram.from_logits(*map(jnp.asarray, (x, y, np.ones_like(y))))
        for x, y in zip(logits, labels, strict=True)
    ]
    auc = jax.tree.map(jnp.add, *parts).value
    positives, negatives = logits[labels == 1], logits[labels == 0]
    assert abs(auc - (positives[:, None] > negatives).mean()) < 0.001
