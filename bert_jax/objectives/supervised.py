"""Fine-tuning: one head over an encoder, trained on labeled rows.

    classification   label [b], -1: unknown      tagging   tags [b l], -1: ignored
    multilabel       label [b n], -1: unknown
    regression       label [b] float             choice    label [b]; tokens [b c l], size [b c]
    qa               start, end, impossible, context [b]
    rerank           label [b c] float, -1: unknown; tokens [b c l], size [b c]; or a candidate per
                     row, label [b]

A long text may have several windows: tokens [b w l], size [b w].

A row of size 0 pads its batch and counts nowhere; so does an option or a candidate of size 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Distill, Supervised
from bert_jax.model import Network
from bert_jax.objectives.base import Terms, apply_network, dummy_batch
from bert_jax.objectives.distillation import has_soft_labels, soft_label_loss
from bert_jax.objectives.losses import (
    Mean,
    cross_entropy,
    sigmoid_cross_entropy,
    squared_error,
    token_cross_entropy,
    weighted_mean,
)
from bert_jax.utils.types import Batch, Params


@dataclass(frozen=True)
class SupervisedObjective:
    """One head. Its loss is averaged over rows, for tagging over words. `task_loss` is

    classification, choice, tagging   softmax cross-entropy
    multilabel                        sigmoid cross-entropy, averaged over labels
    regression                        (output - label / scale)^2
    rerank, pointwise                 sigmoid cross-entropy, averaged over candidates
    rerank, listwise                  softmax cross-entropy over the candidates of a query, whose
                                      targets are proportional to the labels; undefined, and of
                                      count 0, where a row is one candidate
    qa, linear                        half the sum of both ends' cross-entropies, over real tokens
    qa, joint                         the same, plus half of `answerable`'s binary cross-entropy

    Class weights and label smoothing are those of PyTorch: a softmax loss is divided by the sum of
    the weights of the true classes, and a multi-label weight multiplies the loss of the texts that
    have the label (`pos_weight`). A smoothed multi-label target is s/2 or 1 - s/2.

    With `distill` there is a second term, `distill_loss`, for rows that have a teacher's outputs
    (distillation.py).
    """

    config: Supervised
    network: Network
    search_network: Network  # the same parameters; searches for spans, as there are no labels
    distill: Distill | None = None

    def init(self, key: jax.Array) -> Params:
        return dict(self.network.init(key, dummy_batch())["params"])

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        return batch

    @property
    def weights(self) -> dict[str, float]:
        if self.distill is None:
            return {"task_loss": 1.0}
        return {"task_loss": 1.0 - self.distill.weight, "distill_loss": self.distill.weight}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        weights = self._label_weights(batch)
        counts = {"task_loss": self._loss_weights(batch, weights).sum()}
        return counts if self.distill is None else {**counts, "distill_loss": weights.sum()}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        weights = self._label_weights(batch)
        out = self._apply(self.network, params, batch, key)
        terms = self._task_terms(out, batch, weights)
        if self.distill is not None and has_soft_labels(batch):
            temperature = self.distill.temperature
            loss = soft_label_loss(self.config, out, batch, weights, temperature)
            terms["distill_loss"] = loss
        return terms

    def _task_terms(self, out: dict[str, Any], batch: Batch, weights: jax.Array) -> Terms:
        """The terms of the true labels."""
        kind = self.config.task_type
        if kind == "qa":
            return {"task_loss": self._span_loss(out["span"], batch, weights)}
        if kind == "regression":
            label = jnp.where(weights > 0, batch["label"], 0.0) / self.config.scale
            return {"task_loss": squared_error(out["label"][:, 0], label, weights)}
        if kind == "rerank":
            return self._rerank_terms(out["label"], batch, weights)
        if kind == "multilabel":
            return self._multilabel_terms(out["label"], batch["label"], weights)
        logits = out["tag" if kind == "tagging" else "label"]
        targets = jnp.maximum(batch["tags" if kind == "tagging" else "label"], 0)
        loss, accuracy = cross_entropy(logits, targets, weights)
        if self.config.label_weights or self.config.label_smoothing:
            loss = self._weighted_loss(logits, targets, weights, self._loss_weights(batch, weights))
        return {"task_loss": loss, "task_accuracy": accuracy}

    def outputs(self, params: Params, batch: Batch) -> Any:
        """The model's outputs without labels or dropout; float32, with padded rows and lengths.

        classification, multilabel
                        [b n] logits       regression  [b] in the unit of labels
        choice, rerank  [b c] logits, -inf for missing options; [b] of a candidate per row
        tagging         [b l n] logits     qa          see `SpanHead` and `JointSpanHead`
        """
        return self._head_outputs(self._apply(self.search_network, params, batch, None), batch)

    def soft_labels(self, params: Params, batch: Batch) -> Any:
        """`outputs` of a teacher. Joint spans are logits [b l], not a search: the end is that given
        the start in the batch."""
        return self._head_outputs(self._apply(self.network, params, batch, None), batch)

    def _head_outputs(self, out: dict[str, Any], batch: Batch) -> Any:
        if self.config.task_type == "regression":
            return out["label"][:, 0] * self.config.scale
        if self.config.task_type == "rerank" and batch["tokens"].ndim == 2:
            return out["label"][:, 0]
        return out[{"qa": "span", "tagging": "tag"}.get(self.config.task_type, "label")]

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.network, params

    mask_filler = encoder

    def _apply(self, network: Network, params: Params, batch: Batch, key: Any) -> Any:
        if batch["tokens"].ndim == 2:
            return apply_network(network, params, batch, key)
        rows = {k: batch[k] for k in ("tokens", "size", "first")}
        flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in rows.items()}
        out = apply_network(network, params, flat, key)
        is_option = batch["size"] > 0
        is_option |= ~is_option.any(axis=1, keepdims=True)  # keeps the softmax of padding finite
        if self.config.task_type not in ("choice", "rerank"):
            logits = out["label"].reshape(*is_option.shape, -1)
            return {**out, "label": _pool(logits, is_option, self.config.window_pool)}
        scores = out["label"].reshape(is_option.shape)
        return {**out, "label": jnp.where(is_option, scores, -jnp.inf)}

    def _label_weights(self, batch: Batch) -> jax.Array:
        """1 for every label in the loss, [b] or for tagging [b l], for rerankers [b c]."""
        kind, size = self.config.task_type, batch["size"]
        if kind == "rerank":
            return ((size > 0) & (batch["label"] >= 0)).astype(jnp.float32)
        counts = (size if size.ndim == 1 else size.max(axis=1)) > 0
        if kind == "tagging":
            counts = counts[:, None] & (batch["tags"] >= 0)
        elif kind in ("classification", "choice"):
            counts &= batch["label"] >= 0
        elif kind == "multilabel":
            counts &= (batch["label"] >= 0).all(axis=1)
        elif kind == "regression":
            counts &= ~jnp.isnan(batch["label"])
        elif kind == "qa":
            counts &= batch["start"] >= 0
        return counts.astype(jnp.float32)

    def _loss_weights(self, batch: Batch, weights: jax.Array) -> jax.Array:
        """What each label counts in the loss: its weight times that of its class."""
        kind, by_class = self.config.task_type, self.config.label_weights
        if kind == "rerank" and self.config.rank_loss == "listwise":
            return self._has_target(batch, weights)
        if not by_class or kind == "multilabel":
            return weights
        targets = jnp.maximum(batch["tags" if kind == "tagging" else "label"], 0)
        return weights * jnp.asarray(by_class)[targets]

    def _weighted_loss(
        self, logits: jax.Array, targets: jax.Array, weights: jax.Array, loss_weights: jax.Array
    ) -> Mean:
        """Softmax cross-entropy with class weights and smoothed targets. An option that is missing
        (logit -inf) gets no share of the target."""
        smoothing = self.config.label_smoothing
        exists = jnp.isfinite(logits)
        by_class = jnp.asarray(self.config.label_weights or 1.0)
        losses, _ = token_cross_entropy(logits, targets)
        every = jnp.where(exists, -jax.nn.log_softmax(logits) * by_class, 0.0).sum(-1)
        total = (1 - smoothing) * losses * loss_weights
        total += smoothing * every / exists.sum(-1) * weights
        return Mean(total.sum(), loss_weights.sum())

    def _rerank_terms(self, scores: jax.Array, batch: Batch, weights: jax.Array) -> Terms:
        """Loss [b c], and how often the best candidate of a query has its highest label; of several
        best ones, the one with the lowest label counts."""
        label = batch["label"] * weights
        if batch["tokens"].ndim == 2:
            scores, label, weights = (x.reshape(-1, 1) for x in (scores, label, weights))
        known = jnp.where(weights > 0, scores, -jnp.inf)
        some = weights.any(-1, keepdims=True)
        known = jnp.where(some, known, 0.0)  # keeps the softmax of padding finite
        queries = self._has_target(batch, weights)
        if self.config.rank_loss == "pointwise":
            loss = sigmoid_cross_entropy(jnp.where(weights > 0, scores, 0.0), label, weights)
        else:
            log_p = jnp.where(weights > 0, jax.nn.log_softmax(known), 0.0)
            total = jnp.maximum(label.sum(-1, keepdims=True), 1e-9)
            loss = weighted_mean(-(label / total * log_p).sum(-1), queries)
        best = jnp.where(known == known.max(-1, keepdims=True), label, jnp.inf).min(-1)
        accuracy = weighted_mean((best >= label.max(-1)).astype(jnp.float32), queries)
        return {"task_loss": loss, "task_accuracy": accuracy}

    def _has_target(self, batch: Batch, weights: jax.Array) -> jax.Array:
        """1 for every query with a relevant candidate, [b]; 0 where a row is one candidate."""
        if batch["tokens"].ndim == 2:
            return jnp.zeros(len(weights), jnp.float32)
        return (batch["label"] * weights > 0).any(-1).astype(jnp.float32)

    def _multilabel_terms(self, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> Terms:
        """Loss and accuracy of [b n] decisions; a row counts once."""
        smoothing = self.config.label_smoothing
        is_positive = jnp.maximum(labels, 0).astype(jnp.float32)
        targets = is_positive * (1 - smoothing) + smoothing / 2
        positive = jnp.asarray(self.config.label_weights or 1.0) * targets
        losses = positive * jax.nn.softplus(-logits) + (1 - targets) * jax.nn.softplus(logits)
        correct = ((logits > 0) == (is_positive > 0)).astype(jnp.float32)
        return {
            "task_loss": weighted_mean(losses.mean(axis=1), weights),
            "task_accuracy": weighted_mean(correct.mean(axis=1), weights),
        }

    def _span_loss(self, out: Any, batch: Batch, weights: jax.Array) -> Mean:
        ends = [
            cross_entropy(out[end], jnp.maximum(batch[end], 0), weights)[0]
            for end in ("start", "end")
        ]
        loss = (ends[0].total + ends[1].total) / 2
        if self.config.span == "joint":
            impossible = batch["impossible"]
            if self.config.family == "albert":  # of the window; in ELECTRA of the question
                impossible = impossible | (batch["start"] == 0)
            impossible = impossible.astype(jnp.float32)
            loss += sigmoid_cross_entropy(out["answerable"], impossible, weights).total / 2
        return Mean(loss, weights.sum())


def _pool(logits: jax.Array, exists: jax.Array, pool: str) -> jax.Array:
    """[b w n] to [b n]: the mean or the maximum over the windows that exist, [b w]."""
    exists = exists[..., None]
    if pool == "max":
        return jnp.where(exists, logits, -jnp.inf).max(axis=1)
    return jnp.where(exists, logits, 0.0).sum(axis=1) / exists.sum(axis=1)
