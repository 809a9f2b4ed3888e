"""Losses of distillation: equal to a rendering in PyTorch, with their gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config
from bert_jax.objectives import distillation

T = 2.5
KINDS = ("classification", "multilabel", "regression", "tagging", "choice", "qa", "joint")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


def case(kind: str) -> tuple[Any, dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """A task, a student's outputs, a teacher's, and the weights of rows or words."""
    b, n, length = 4, 3, 5
    weights = np.array([1, 1, 0, 1], np.float32)
    task_type: Any = "qa" if kind == "joint" else kind
    task = config.Supervised(task=task_type, span="joint" if kind == "joint" else "linear")
    if task_type == "qa":
        names = ("start", "end", *(["answerable"] if kind == "joint" else []))
        shapes = {k: (b,) if k == "answerable" else (b, length) for k in names}
        out = {"span": {k: random(*s, seed=len(k)) for k, s in shapes.items()}}
        soft = {f"teacher_{k}": random(*s, seed=9 + len(k)) for k, s in shapes.items()}
        for end in ("start", "end"):
            out["span"][end][1, -1] = soft[f"teacher_{end}"][1, -1] = -1e30  # padding
        return task, out, soft, weights
    if kind == "tagging":
        soft = {"teacher_tag": random(b, length, n, seed=1)}
        weights = (np.arange(length) < np.array([5, 3, 0, 1])[:, None]).astype(np.float32)
        return task, {"tag": random(b, length, n)}, soft, weights
    if kind == "regression":
        return task, {"label": random(b, 1)}, {"teacher_label": random(b, seed=1)}, weights
    logits, soft = random(b, n), random(b, n, seed=1)
    if kind == "choice":
        logits[0, 2] = soft[0, 2] = -np.inf  # an option that is missing
    return task, {"label": logits}, {"teacher_label": soft}, weights


def torch_loss(kind: str, out: Any, soft: Any, weights: Any) -> Any:
    """The same loss, written with PyTorch's own functions."""
    import torch
    from torch.nn import functional as F

    def kl(student: Any, teacher: Any) -> Any:
        mask = torch.isfinite(teacher)
        both = [torch.where(mask, x, torch.tensor(-1e30)) / T for x in (student, teacher)]
        log_q, log_p = (F.log_softmax(x, dim=-1) for x in both)
        return T**2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)

    def binary(student: Any, teacher: Any) -> Any:
        p = torch.sigmoid(teacher / T)
        cross = F.binary_cross_entropy_with_logits(student / T, p, reduction="none")
        own = F.binary_cross_entropy_with_logits(teacher / T, p, reduction="none")
        return T**2 * (cross - own)

    if kind in ("qa", "joint"):
        losses = sum(kl(out["span"][k], soft[f"teacher_{k}"]) for k in ("start", "end"))
        if kind == "joint":
            losses = losses + binary(out["span"]["answerable"], soft["teacher_answerable"])
        losses = losses / 2
    elif kind == "regression":
        losses = (out["label"][:, 0] - soft["teacher_label"]) ** 2
    elif kind == "multilabel":
        losses = binary(out["label"], soft["teacher_label"]).mean(1)
    else:
        name = "tag" if kind == "tagging" else "label"
        losses = kl(out[name], soft[f"teacher_{name}"])
    return (losses * weights).sum() / weights.sum()


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
def test_soft_label_losses_and_gradients_are_those_of_torch(kind: str) -> None:
    import torch

    task, out, soft, weights = case(kind)

    def loss(out: Any) -> Any:
        on_device = jax.tree.map(jnp.asarray, (soft, weights))
        return distillation.soft_label_loss(task, out, *on_device, T).value

    value, gradient = jax.value_and_grad(loss)(jax.tree.map(jnp.asarray, out))
    tensors = jax.tree.map(lambda x: torch.tensor(x, requires_grad=True), out)
    expected = torch_loss(kind, tensors, jax.tree.map(torch.tensor, soft), torch.tensor(weights))
    expected.backward()
    assert np.allclose(value, expected.item(), rtol=1e-5)
    leaves = zip(jax.tree.leaves(gradient), jax.tree.leaves(tensors), strict=True)
    for mine, tensor in leaves:
        assert np.allclose(mine, tensor.grad.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(kind: str) -> None:
    """Nor does a gradient reach the teacher."""
    task, out, soft, weights = case(kind)
    same = out["span"] if task.task_type == "qa" else out
    equal = {f"teacher_{name}": x[:, 0] if kind == "regression" else x for name, x in same.items()}

    def loss(out: Any, soft: Any) -> Any:
        on_device = jax.tree.map(jnp.asarray, (soft, weights))
        return distillation.soft_label_loss(task, out, *on_device, T).value

    value, gradient = jax.value_and_grad(loss)(*jax.tree.map(jnp.asarray, (out, equal)))
    assert abs(value) <= 1e-5
    assert all(np.abs(g).max() <= 1e-5 for g in jax.tree.leaves(gradient))
    if kind != "regression":
        assert not any(np.any(g) for g in jax.tree.leaves(jax.grad(loss, 1)(out, soft)))


def test_the_gradient_keeps_its_size_at_every_temperature() -> None:
    """At high temperatures T^2 KL tends to the squared difference of centered logits."""
    student, teacher = random(1, 4), random(1, 4, seed=1)
    gradient = jax.grad(lambda x: distillation.softened_kl(x, teacher, 1e3).sum())(student)
    centered = (student - student.mean()) - (teacher - teacher.mean())
    assert np.allclose(gradient, centered / 4, rtol=0.02, atol=0.02)
