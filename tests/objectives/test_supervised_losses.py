"""Class weights and label smoothing: losses and gradients equal PyTorch's. Pooled windows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import Supervised
from bert_jax.objectives import SupervisedObjective, total_loss

LABELS, WEIGHTS = ("a", "b", "c"), (0.5, 2.0, 1.25)
OPTIONS = [((), 0.0), (WEIGHTS, 0.0), ((), 0.2), (WEIGHTS, 0.2)]


class Logits:
    """A network whose parameters are its logits."""

    def apply(self, params: Any, batch: Any, rngs: Any = None) -> Any:
        return params["params"]


def loss_and_gradient(logits: np.ndarray, batch: Any, task: Any, **fields: Any) -> Any:
    labels = LABELS if task != "choice" else ()
    config = Supervised(task=task, labels=labels, **fields)
    objective = SupervisedObjective(config, Logits(), Logits())  # type: ignore[arg-type]
    batch = {k: jnp.asarray(v) for k, v in {"tokens": np.zeros((4, 5)), **batch}.items()}

    def loss(x: jax.Array) -> jax.Array:
        out = {"tag" if task == "tagging" else "label": x}
        terms = objective.terms(out, batch, None)
        return total_loss(objective.weights, terms, objective.counts(batch))

    return jax.value_and_grad(loss)(jnp.asarray(logits, jnp.float32))


def assert_equal(ours: Any, torch_loss: Any, torch_logits: Any) -> None:
    torch_loss.backward()
    np.testing.assert_allclose(ours[0], torch_loss.item(), rtol=1e-5)
    gradient = torch_logits.grad.numpy().reshape(ours[1].shape)
    np.testing.assert_allclose(ours[1], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.peer
@pytest.mark.parametrize(("weights", "smoothing"), OPTIONS)
@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_softmax_loss_equals_pytorch(task: str, weights: Any, smoothing: float) -> None:
    """One label is unknown there and here."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    shape = (4, 5) if task == "tagging" else (4,)
    logits, labels = rng.normal(size=(*shape, 3)), rng.integers(0, 3, shape)
    labels[1] = -1
    batch = {"size": np.full(4, 5), "tags" if task == "tagging" else "label": labels}
    fields = dict(label_weights=weights, label_smoothing=smoothing)
    ours = loss_and_gradient(logits, batch, task, **fields)
    x = torch.tensor(logits.reshape(-1, 3), dtype=torch.float32, requires_grad=True)
    weight = torch.tensor(weights) if weights else None
    loss = torch.nn.functional.cross_entropy(
        x, torch.tensor(labels.ravel()), weight, ignore_index=-1, label_smoothing=smoothing
    )
    assert_equal(ours, loss, x)


@pytest.mark.peer
@pytest.mark.parametrize(("weights", "smoothing"), OPTIONS)
def test_sigmoid_loss_equals_pytorch(weights: Any, smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    logits, labels = 3 * rng.normal(size=(4, 3)), rng.integers(0, 2, (4, 3))
    batch = {"size": np.full(4, 5), "label": labels}
    fields = dict(label_weights=weights, label_smoothing=smoothing)
    ours = loss_and_gradient(logits, batch, "multilabel", **fields)
    x = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    targets = torch.tensor(labels).float() * (1 - smoothing) + smoothing / 2
    weight = torch.tensor(weights) if weights else None
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x, targets, pos_weight=weight)
    assert_equal(ours, loss, x)


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_only_the_ratio_of_class_weights_counts(task: Any) -> None:
    """Also where the weights of a batch add up to less than 1; and rows without labels cost 0."""
    rng = np.random.default_rng(2)
    shape = (4, 5) if task == "tagging" else (4,)
    logits, name = rng.normal(size=(*shape, 3)), "tags" if task == "tagging" else "label"
    batch = {"size": np.full(4, 5), name: rng.integers(0, 3, shape)}
    large, small = (
        loss_and_gradient(logits, batch, task, label_weights=tuple(scale * w for w in WEIGHTS))
        for scale in (1.0, 1e-3)
    )
    for a, b in zip(small, large, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
    none = loss_and_gradient(logits, batch | {name: np.full(shape, -1)}, task)
    assert none[0] == 0


def test_a_missing_option_gets_no_share_of_a_smoothed_target() -> None:
    """The loss and the gradient of a row with two options do not change if a third is missing."""

    def run(*logits: float) -> Any:
        size = np.array([[3, 3, 0]])[:, : len(logits)]
        batch = {"tokens": size[..., None], "size": size, "first": size, "label": np.array([1])}
        return loss_and_gradient(np.array(logits)[:, None], batch, "choice", label_smoothing=0.3)

    two, three = run(0.3, -1.0), run(0.3, -1.0, 7.0)
    np.testing.assert_allclose(three[0], two[0], rtol=1e-6)
    np.testing.assert_allclose(three[1][:2], two[1], rtol=1e-6)
    assert three[1][2] == 0


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_windows_are_pooled_and_missing_ones_count_nowhere(pool: Any) -> None:
    config = Supervised(labels=LABELS, window_pool=pool)
    objective = SupervisedObjective(config, Logits(), Logits())  # type: ignore[arg-type]
    logits = np.array([[1, 2, 3], [3, 0, 5], [-2, -3, -1], [9, 9, 9]], np.float32)
    size = jnp.array([[4, 4], [4, 0]])
    batch = {"tokens": jnp.zeros((2, 2, 4)), "size": size, "first": size}
    pooled = objective.outputs({"label": jnp.asarray(logits)}, batch)
    both = {"mean": [2, 1, 4], "max": [3, 2, 5]}[pool]
    np.testing.assert_array_equal(pooled, [both, logits[2]])


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("regression", dict(label_smoothing=0.1)),
        ("qa", dict(label_smoothing=0.1)),
        ("choice", dict(class_weights="balanced")),
        ("stsb", dict(class_weights="balanced")),
    ],
)
def test_tasks_without_classes_refuse_them(task: Any, fields: Any) -> None:
    with pytest.raises(ValueError, match=rf"objective\.{next(iter(fields))} is .*: leave it out"):
        Supervised(task=task, **fields)
