"""SpanBERT's boundary head and loss against a float64 implementation of the published module
(SpanBERT, pretraining/fairseq/models/pair_bert.py and criterions/spanbert_loss.py)."""

from __future__ import annotations

from math import erf, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import SPANBERT, replace
from bert_jax.model.heads import SboHead
from bert_jax.objectives.losses import cross_entropy
from bert_jax.utils.pytree import flatten_with_names, map_with_names

B, L, D, V, ROWS, WIDTH = 3, 13, 4, 17, 4, 3
CONFIG = replace(
    SPANBERT,
    encoder=dict(layers=1, hidden_size=D, heads=2, vocab_size=V, max_length=L),
    objective=dict(sbo_positions=ROWS, sbo_size=WIDTH, sbo_weight=0.7),
)
RNG = np.random.default_rng(0)


def random_params() -> dict[str, np.ndarray]:
    head = SboHead(CONFIG.encoder, ROWS, WIDTH)
    shapes = jax.eval_shape(head.init, jax.random.key(0), {"hidden": jnp.zeros((B, L, D))}, BATCH)
    params = {
        k: 0.4 * RNG.normal(size=s.shape) for k, s in flatten_with_names(shapes["params"]).items()
    }
    return {**params, "table": 0.4 * RNG.normal(size=(V, D)), "hidden": RNG.normal(size=(B, L, D))}


# spans [3 4 5] and [8] in row 0, [2 .. 6] in row 1 (no offset for the fifth token), row 2 empty
BATCH = {
    "left": jnp.array([[2, 2, 2, 7, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]),
    "right": jnp.array([[6, 6, 6, 9, 0], [7, 7, 7, 7, 7], [0, 0, 0, 0, 0]]),
    "offset": jnp.array([[0, 1, 2, 0, 0], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]]),
    "targets": jnp.array([[3, 5, 8, 13, 0], [16, 1, 2, 9, 4], [0, 0, 0, 0, 0]]),
    "sbo_weights": jnp.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], jnp.float32),
}
gelu = np.vectorize(lambda x: x * (1 + erf(x / sqrt(2))) / 2)


def norm(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    x = x - x.mean()
    return x / np.sqrt((x * x).mean() + 1e-12) * p[f"{name}/scale"] + p[f"{name}/bias"]


def reference(p: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The logits of every slot, and the weighted loss over those that count, one by one."""
    logits, losses = np.zeros((B, 5, V)), []
    for b, i in np.ndindex(B, 5):
        left, right, offset, target = (
            int(BATCH[k][b, i]) for k in ("left", "right", "offset", "targets")
        )
        h = np.concatenate(
            [p["hidden"][b, left], p["hidden"][b, right], p["position"][min(offset, ROWS - 1)]]
        )
        h = norm(p, "first_norm", gelu(h @ p["first/kernel"] + p["first/bias"]))
        h = norm(p, "second_norm", gelu(h @ p["second/kernel"] + p["second/bias"]))
        logits[b, i] = p["table"] @ h + p["bias"]
        if BATCH["sbo_weights"][b, i] and offset < ROWS:
            losses.append(np.log(np.exp(logits[b, i]).sum()) - logits[b, i, target])
    return logits, 0.7 * float(np.mean(losses))


def native(p: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The same by `SboHead` and the objective's weights."""
    objective = objectives.build(CONFIG)
    assert isinstance(objective, objectives.MaskedObjective)
    like = jax.eval_shape(objective.init, jax.random.key(0))["sbo"]
    tree = map_with_names(lambda name, _: p[name], like)
    head = SboHead(CONFIG.encoder, ROWS, WIDTH)
    logits = head.apply({"params": tree}, {"hidden": p["hidden"]}, BATCH).logits(p["table"])
    term, _ = cross_entropy(logits, BATCH["targets"], objective._sbo_weights(BATCH))
    return objective.weights["sbo_loss"] * term.value, logits


def numerical_gradient(p: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The gradient of `reference` by central differences."""
    out = np.zeros_like(p[name])
    for at in np.ndindex(out.shape):
        sides = []
        for step in (1e-5, -1e-5):
            shifted = p[name].copy()
            shifted[at] += step
            sides.append(reference({**p, name: shifted})[1])
        out[at] = (sides[0] - sides[1]) / 2e-5
    return out


@pytest.mark.slow
def test_the_span_boundary_head_equals_the_published_one() -> None:
    params = random_params()
    single = {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}
    (loss, logits), grads = jax.jit(jax.value_and_grad(native, has_aux=True))(single)
    expected, mean = reference(params)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert abs(loss - mean) <= 1e-5 * mean
    for name in params:
        slope = numerical_gradient(params, name)
        assert np.abs(grads[name] - slope).max() <= 1e-5 * np.abs(slope).max(), name
