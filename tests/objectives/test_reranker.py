"""A reranker's losses: those of its scores, whatever the batch is made of."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config, objectives
from bert_jax.config import replace
from bert_jax.training.step import compute_gradients
from tests.helpers import tiny_configs

LABELS = np.array([[1, 0, 0.5], [0, 1, -1], [0.25, 1, 0], [1, -1, -1]], np.float32)


def experiment(loss: Any, accumulate: int = 1) -> config.Experiment:
    base = tiny_configs.without_dropout(tiny_configs.FAMILIES["bert"])
    objective = config.supervised_objective("bert", "rerank", rank_loss=loss, dropout=0.0)
    return replace(base, objective=objective, optim=dict(accumulate=accumulate))


def batch() -> dict[str, jax.Array]:
    """Four queries of up to three candidates."""
    rows = [tiny_configs.batch(4, i * 4) for i in range(3)]
    stacked = {k: jnp.stack([r[k] for r in rows], 1) for k in ("tokens", "size", "first")}
    stacked["size"] = jnp.where(LABELS >= 0, stacked["size"], 0)
    return stacked | {"label": jnp.asarray(LABELS), "row": jnp.arange(4)}


def expected_loss(scores: np.ndarray, loss: str) -> float:
    if loss == "pointwise":
        x, y = scores[LABELS >= 0], LABELS[LABELS >= 0]
        return float((np.logaddexp(0, x) - x * y).mean())
    targets = np.maximum(LABELS, 0) / np.maximum(LABELS, 0).sum(1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return float(-(targets * np.maximum(log_p, -99)).sum(1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["pointwise", "listwise"])
def test_losses_are_those_of_the_scores_and_micro_batches_add_up(loss: Any) -> None:
    one = experiment(loss)
    objective: Any = objectives.build(one)
    params = jax.tree.map(lambda p: p * 8, jax.jit(objective.init)(jax.random.key(0)))
    rows = batch()
    scores = np.asarray(jax.jit(objective.outputs)(params, rows))
    assert np.array_equal(np.isneginf(scores), LABELS < 0)
    assert np.ptp(scores[0]) > 0.01
    values = []
    for accumulate in (1, 2):
        c = experiment(loss, accumulate)
        f = jax.jit(lambda p, c=c: compute_gradients(c, objective, p, jnp.int32(0), rows, 0))
        values.append(f(params))
    for value, terms, grads in values:
        assert float(value) == pytest.approx(expected_loss(scores, loss), rel=1e-5)
        best = np.argmax(scores, 1)
        right = LABELS[np.arange(4), best] == LABELS.max(1)
        assert float(terms["task_accuracy"].value) == pytest.approx(right.mean())
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
    close = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-5), values[0][2], values[1][2])
    assert all(jax.tree.leaves(close))


def test_equal_scores_find_nothing() -> None:
    """Of several best candidates that with the lowest label counts."""
    objective: Any = objectives.build(experiment("listwise"))
    weights = jnp.asarray(LABELS >= 0, jnp.float32)
    for scores, right in ((np.zeros((4, 3)), [0, 0, 0, 1]), (LABELS, [1, 1, 1, 1])):
        terms = objective._rerank_terms(jnp.asarray(scores, jnp.float32), batch(), weights)
        assert float(terms["task_accuracy"].value) == np.mean(right)


def test_a_candidate_alone_in_its_row_has_the_same_score_and_padding_counts_nowhere() -> None:
    objective: Any = objectives.build(experiment("pointwise"))
    params, rows = jax.jit(objective.init)(jax.random.key(0)), batch()
    grouped = np.asarray(jax.jit(objective.outputs)(params, rows))
    alone = {k: v.reshape(12, *v.shape[2:]) for k, v in rows.items() if k != "row"}
    scores = np.asarray(jax.jit(objective.outputs)(params, alone))
    known = LABELS.reshape(-1) >= 0
    assert np.allclose(scores[known], grouped.reshape(-1)[known], atol=1e-6)
    mean = jax.jit(objective.terms)(params, alone, None)["task_loss"]
    assert float(mean.count) == known.sum()
    assert float(mean.value) == pytest.approx(expected_loss(grouped, "pointwise"), rel=1e-5)
