"""Losses of knowledge distillation: what a student learns from a teacher's outputs.

    softened_kl          soft labels with temperature (Hinton et al. 2015, section 2)
    softened_binary_kl   the same for independent yes-or-no decisions
    soft_label_loss      the term of a fine-tuning task

The teacher's outputs take no gradient.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Supervised
from bert_jax.objectives.losses import Mean, squared_error, weighted_mean
from bert_jax.utils.types import Batch

NO_CLASS = -1e30  # replaces a logit of -inf, that of a missing option
TEACHER = "teacher_"  # prefix of the fields of a batch that hold the teacher's outputs


def softened_kl(logits: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """T^2 KL(softmax(teacher / T) || softmax(logits / T)) in nat over the last axis, [*s].

    A class that neither has (logits of -inf) counts nowhere. The gradient is that of the
    cross-entropy with soft targets, since the teacher's entropy is constant.
    """
    exists = jnp.isfinite(teacher)
    both = (jnp.where(exists, x.astype(jnp.float32), NO_CLASS) for x in (logits, teacher))
    log_q, log_p = (jax.nn.log_softmax(x / temperature) for x in both)
    log_p = jax.lax.stop_gradient(log_p)
    return temperature**2 * jnp.where(exists, jnp.exp(log_p) * (log_p - log_q), 0.0).sum(-1)


def softened_binary_kl(logits: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """T^2 KL between the Bernoulli distributions with probability sigmoid(x / T), elementwise."""
    student, teacher = logits / temperature, jax.lax.stop_gradient(teacher / temperature)
    p = jax.nn.sigmoid(teacher)
    log_odds = p * (teacher - student)  # of log p - log q and log (1 - p) - log (1 - q)
    return temperature**2 * (log_odds + jax.nn.softplus(student) - jax.nn.softplus(teacher))


def has_soft_labels(batch: Batch) -> bool:
    """Whether the rows of a batch have a teacher's outputs."""
    return any(name.startswith(TEACHER) for name in batch)


def soft_label_loss(
    task: Supervised, out: dict[str, Any], batch: Batch, weights: jax.Array, temperature: float
) -> Mean:
    """The loss of a student's head outputs against the teacher's, averaged as `task_loss` is.

    classification, tagging, choice   softened_kl of the classes
    multilabel                        softened_binary_kl, averaged over labels
    regression                        (output - teacher / scale)^2; a number has no temperature
    qa                                half the sum of both ends' softened_kl; with joint spans plus
                                      half of `answerable`'s softened_binary_kl. The end is that
                                      given the true start

    The teacher's are the fields `teacher_label` [b n] or [b], `teacher_tag` [b l n],
    `teacher_start` and `teacher_end` [b l], `teacher_answerable` [b].
    """
    kind = task.task_type
    if kind == "qa":
        span = out["span"]
        loss = jnp.zeros(())
        for end in ("start", "end"):
            loss += softened_kl(span[end], batch[f"{TEACHER}{end}"], temperature)
        if task.span == "joint":
            answerable = batch[f"{TEACHER}answerable"]
            loss += softened_binary_kl(span["answerable"], answerable, temperature)
        return weighted_mean(loss / 2, weights)
    name = "tag" if kind == "tagging" else "label"
    logits, teacher = out[name], batch[f"{TEACHER}{name}"]
    if kind == "regression":
        return squared_error(logits[:, 0], teacher / task.scale, weights)
    if kind == "multilabel":
        losses = softened_binary_kl(logits, teacher, temperature).mean(axis=1)
        return weighted_mean(losses, weights)
    return weighted_mean(softened_kl(logits, teacher, temperature), weights)
