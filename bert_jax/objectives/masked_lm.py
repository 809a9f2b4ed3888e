"""Masked language modeling, with optional sentence-pair and span-boundary terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import Masked
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.model import Network
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives.base import (
    Terms,
    apply_network,
    corrupt_batch,
    dummy_batch,
    has_label,
    hidden_terms,
    hidden_weights,
    require_vocabulary,
    unigram_loss,
    vocabulary_loss,
    with_heads,
)
from bert_jax.objectives.losses import (
    ClassMeans,
    cross_entropy,
    token_cross_entropy,
    weighted_mean,
)
from bert_jax.utils.types import Batch, Params


@dataclass(frozen=True)
class MaskedObjective:
    """Masked language modeling with the sentence-pair and span-boundary terms of its config.

    Parameters: those of one `Network`.
    """

    config: Masked
    network: Network
    vocabulary: Vocabulary | None = None
    loss_chunks: int = 1  # chunks of a batch in which vocabulary logits are computed

    def init(self, key: jax.Array) -> Params:
        return dict(self.network.init(key, dummy_batch())["params"])

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        return corrupt_batch(batch, self.config.masking, self.vocabulary, key)

    @property
    def weights(self) -> dict[str, float]:
        weights = {"mlm_loss": 1.0}
        if self.config.sentence_pair:
            weights["pair_loss"] = 1.0
        if self.config.sbo_weight:
            weights["sbo_loss"] = self.config.sbo_weight
        return weights

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        counts = {
            "mlm_loss": batch["weights"].sum(),
            "pair_loss": has_label(batch).sum(),
            "sbo_loss": self._sbo_weights(batch).sum(),
        }
        return {name: counts[name] for name in self.weights}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        out = apply_network(self.network, params, batch, key)
        return self.output_terms(params, out, batch, training=key is not None)

    def output_terms(
        self, params: Params, out: dict[str, Any], batch: Batch, training: bool
    ) -> Terms:
        """`terms` of the network's outputs. Evaluation has more of them than training."""
        table = params["embeddings"]["word"]
        terms: Terms = {}
        predict = partial(vocabulary_loss, table=table, chunks=self.loss_chunks)
        terms["mlm_loss"], terms["mlm_accuracy"] = predict(
            out["mlm"], targets=batch["targets"], weights=batch["weights"]
        )
        if self.config.sentence_pair:
            labels, weights = jnp.maximum(batch["pair"], 0), has_label(batch)
            terms["pair_loss"], terms["pair_accuracy"] = cross_entropy(out["pair"], labels, weights)
            if not training:
                _, correct = token_cross_entropy(out["pair"], labels)
                terms["pair_accuracy"] = ClassMeans.of(correct, labels, weights)  # balanced
                terms["pair_share"] = weighted_mean(labels.astype(jnp.float32), weights)
        if self.config.sbo_weight:
            terms["sbo_loss"], _ = predict(
                out["sbo"], targets=batch["targets"], weights=self._sbo_weights(batch)
            )
        if not training and self.vocabulary is not None:
            vocabulary, masking = self.vocabulary, self.config.masking
            terms |= hidden_terms(out["mlm"], table, self.loss_chunks, vocabulary, masking, batch)
            if self.config.sbo_weight:
                terms |= self._hidden_sbo_terms(out["sbo"], table, batch)
        return terms

    def _hidden_sbo_terms(self, head: LMHeadOutput, table: jax.Array, batch: Batch) -> Terms:
        """The span boundary loss where the mask token is shown, and the unigram loss there. The
        term sees the positions beside the span alone, so copying does not help it."""
        weights = jnp.where(hidden_weights(self.vocabulary, batch) > 0, self._sbo_weights(batch), 0)
        targets, chunks = batch["targets"], self.loss_chunks
        terms = {"sbo_mask_loss": vocabulary_loss(head, table, chunks, targets, weights)[0]}
        vocabulary = require_vocabulary(self.vocabulary)
        baseline = unigram_loss(vocabulary, self.config.masking, targets, weights)
        return terms if baseline is None else {**terms, "sbo_unigram_loss": baseline}

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.network, params

    def mask_filler(self, params: Params) -> tuple[Network, Params]:
        return with_heads(self.network, "mlm"), params

    def _sbo_weights(self, batch: Batch) -> jax.Array:
        """Tokens beyond the last row of the offset table are not predicted."""
        return jnp.where(batch["offset"] < self.config.sbo_positions, batch["sbo_weights"], 0.0)
