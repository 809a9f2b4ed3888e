"""Fine-tuning: one head over an encoder, from labelled rows.

    classification   label [b], -1: unknown      tagging   tags [b l], -1: not asked
    regression       label [b] float             choice    label [b]; tokens [b c l], size [b c]
    qa               start, end, impossible, context [b]

A row of size 0 fills its batch up and counts nowhere; so does an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Supervised
from bert_jax.model import Network
from bert_jax.objectives.base import Terms, apply_network, example
from bert_jax.objectives.losses import Mean, cross_entropy, sigmoid_cross_entropy, squared_error
from bert_jax.utils.types import Batch, Params


@dataclass(frozen=True)
class SupervisedObjective:
    """One head, its loss averaged over rows, or over words for tagging. `task_loss` is

    classification, choice, tagging   softmax cross-entropy
    regression                        (answer - label / scale)^2
    qa, linear                        half the sum of both ends' cross-entropies, over real tokens
    qa, joint                         the same, plus half of `answerable`'s binary cross-entropy
    """

    config: Supervised
    network: Network
    searching: Network  # the same parameters; spans are looked for, as labels are not there

    def init(self, key: jax.Array) -> Params:
        return dict(self.network.init(key, example())["params"])

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        return batch

    @property
    def weights(self) -> dict[str, float]:
        return {"task_loss": 1.0}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        return {"task_loss": self._counted(batch).sum()}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        kind, counted = self.config.task_type, self._counted(batch)
        out = self._apply(self.network, params, batch, key)
        if kind == "qa":
            return {"task_loss": self._span_loss(out["span"], batch, counted)}
        if kind == "regression":
            label = batch["label"] / self.config.scale
            return {"task_loss": squared_error(out["label"][:, 0], label, counted)}
        logits = out["tag" if kind == "tagging" else "label"]
        targets = jnp.maximum(batch["tags" if kind == "tagging" else "label"], 0)
        loss, accuracy = cross_entropy(logits, targets, counted)
        return {"task_loss": loss, "task_accuracy": accuracy}

    def outputs(self, params: Params, batch: Batch) -> Any:
        """What rows say, labels unseen and dropout off; float32, rows and lengths padded.

        classification  [b n] logits       regression  [b] in the labels' unit
        choice          [b c] logits, -inf where there is no option
        tagging         [b l n] logits     qa          see `SpanHead` and `JointSpanHead`
        """
        out = self._apply(self.searching, params, batch, None)
        if self.config.task_type == "regression":
            return out["label"][:, 0] * self.config.scale
        return out[{"qa": "span", "tagging": "tag"}.get(self.config.task_type, "label")]

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.network, params

    filler = encoder

    def _apply(self, network: Network, params: Params, batch: Batch, key: Any) -> Any:
        if self.config.task_type != "choice":
            return apply_network(network, params, batch, key)
        rows = {k: batch[k] for k in ("tokens", "size", "first")}
        flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in rows.items()}
        out = apply_network(network, params, flat, key)
        there = batch["size"] > 0
        there |= ~there.any(axis=1, keepdims=True)  # in a row that only fills up any number does
        scores = out["label"].reshape(there.shape)
        return {**out, "label": jnp.where(there, scores, -jnp.inf)}

    def _counted(self, batch: Batch) -> jax.Array:
        """1 for every label that the loss is made of, [b] or, tagging, [b l]."""
        kind, size = self.config.task_type, batch["size"]
        real = (size if size.ndim == 1 else size.max(axis=1)) > 0
        if kind == "tagging":
            real = real[:, None] & (batch["tags"] >= 0)
        elif kind in ("classification", "choice"):
            real &= batch["label"] >= 0
        return real.astype(jnp.float32)

    def _span_loss(self, out: Any, batch: Batch, counted: jax.Array) -> Mean:
        ends = [cross_entropy(out[end], batch[end], counted)[0] for end in ("start", "end")]
        loss = (ends[0].total + ends[1].total) / 2
        if self.config.span == "joint":
            none = batch["impossible"]
            if self.config.family == "albert":  # of a window; ELECTRA asks it of the question
                none = none | (batch["start"] == 0)
            none = none.astype(jnp.float32)
            loss += sigmoid_cross_entropy(out["answerable"], none, counted).total / 2
        return Mean(loss, counted.sum())
