"""Sentence encoders: the loss of a row depends on the vectors of all rows of the batch.

    query          [b l]    query_size     [b]      documents   [b c m]   document_size [b c]
    query_text     [b]      document_text  [b c]    numbers of texts: equal texts, equal numbers
    positives      [b p]    the query's known positives, padded with -1
    score          [b]      of the pair; only for losses of scored pairs
    position       [b]      index of the row in the whole batch

Document 0 of a row is its positive, the others are hard negatives; a missing one has size 0. On
several devices `coupled_terms` gives the share of a device's own queries, ranked among the
documents of all devices.

Axes: b rows, c documents of a row, n = b c documents, d width, r rows of a chunk, p positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Contrastive
from bert_jax.config.contrastive import MIN_LEARNED_TEMPERATURE
from bert_jax.distributed.constraints import gather_rows, num_row_shards, row_numbers
from bert_jax.model import Network
from bert_jax.model.pooling import normalize_l2, pool_tokens
from bert_jax.objectives.base import Terms, apply_network, dummy_batch
from bert_jax.objectives.losses import Mean, in_chunks
from bert_jax.objectives.unlabeled_pairs import make_pairs
from bert_jax.utils.types import Batch, Params

ROWS_PER_CHUNK = 256  # of the similarity matrix, whose gradient is not kept
MAX_LOG_SCALE = -float(np.log(MIN_LEARNED_TEMPERATURE))
HIGHEST = jax.lax.Precision.HIGHEST


@dataclass(frozen=True)
class ContrastiveObjective:
    """A sentence encoder. With a learned temperature the parameters have `temperature`, the
    logarithm of the scale of similarities."""

    config: Contrastive
    network: Network
    chunks: int = 1

    def init(self, key: jax.Array) -> Params:
        params = dict(self.network.init(key, dummy_batch())["params"])
        if self.config.learn_temperature:
            params["temperature"] = jnp.asarray(-np.log(self.config.temperature), jnp.float32)
        return params

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        task = self.config.task
        return batch if task == "pairs" else make_pairs(task, batch, key)

    @property
    def weights(self) -> dict[str, float]:
        return {"task_loss": 1.0}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of queries; `cosent` is one loss of the whole batch."""
        if self.config.loss == "cosent":
            return {"task_loss": jnp.asarray(1 / num_row_shards(), jnp.float32)}
        return {"task_loss": (batch["query_size"] > 0).sum().astype(jnp.float32)}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        return self.coupled_terms(params, self.row_outputs(params, batch, key), batch)

    def row_outputs(self, params: Params, batch: Batch, key: jax.Array | None) -> dict[str, Any]:
        """The pooled vectors of each row, float32: `query` [b d] and `documents` [b c d]. Dropout
        depends on the row's position in the whole batch alone."""
        b, c, length = batch["documents"].shape
        keys = (None, None) if key is None else jax.random.split(key)
        at = batch["position"]
        query = self._vectors(params, batch["query"], batch["query_size"], at, keys[0])
        documents = self._vectors(
            params,
            batch["documents"].reshape(b * c, length),
            batch["document_size"].reshape(-1),
            (at[:, None] * c + jnp.arange(c)).reshape(-1),
            keys[1],
        )
        return {"query": query, "documents": documents.reshape(b, c, -1)}

    def vectors(self, params: Params, batch: Batch) -> jax.Array:
        """The vectors [b d] of `tokens` [b l] of `size` [b], without dropout; of length 1 if they
        are compared by cosine."""
        x = self._vectors(params, batch["tokens"], batch["size"], None, None)
        return normalize_l2(x) if self.config.normalize else x

    def _vectors(
        self, params: Params, tokens: jax.Array, size: jax.Array, at: Any, key: jax.Array | None
    ) -> jax.Array:
        batch = {"tokens": tokens, "size": size, "first": size}
        with row_numbers(at):
            out = apply_network(self.network, params, batch, key)
        return pool_tokens(out["hidden"], size, (self.config.pooling,))

    def coupled_terms(self, params: Params, outputs: dict[str, Any], batch: Batch) -> Terms:
        """The terms of this device's rows, given the outputs of `row_outputs` for them."""
        sizes = (*self.config.dimensions, outputs["query"].shape[-1])
        if self.config.loss == "ranking" or self.config.task != "pairs":
            scale = jnp.asarray(1 / self.config.temperature, jnp.float32)
            if self.config.learn_temperature:
                log_scale = params["temperature"]
                # The limit lets the gradient through, so that the temperature can rise again.
                excess = jax.lax.stop_gradient(jnp.maximum(log_scale - MAX_LOG_SCALE, 0))
                scale = jnp.exp(log_scale - excess)
            return self._ranking_terms(outputs, batch, scale, sizes)
        totals = [self._scored_loss(outputs, batch, size) for size in sizes]
        return {"task_loss": Mean(sum(totals), self.counts(batch)["task_loss"])}

    # ---- ranking

    def _ranking_terms(
        self, outputs: dict[str, Any], batch: Batch, scale: jax.Array, sizes: tuple[int, ...]
    ) -> Terms:
        c = outputs["documents"].shape[1]
        documents = outputs["documents"].reshape(-1, outputs["documents"].shape[-1])
        exists = gather_rows(batch["document_size"].reshape(-1)) > 0
        texts = gather_rows(batch["document_text"].reshape(-1))
        columns = [self._unit(gather_rows(documents), size) for size in sizes]

        def rank(rows: jax.Array, batch: Batch) -> tuple[dict[str, jax.Array], None]:
            target = batch["position"] * c
            false = _is_positive(texts, batch) & exists
            sums = _cross_entropy_sums(
                [self._unit(rows, size) for size in sizes],
                columns,
                scale,
                target,
                exists,
                false if self.config.mask_false_negatives else None,
                batch["query_size"] > 0,
            )
            return sums, None

        names = ("position", "query_text", "positives", "document_text", "query_size")
        fields = {name: batch[name] for name in names}
        sums = self._in_chunks(rank, outputs["query"], fields)
        if self.config.symmetric:
            backward = self._backward_sums(outputs, batch, scale, sizes)
            sums["loss"] = (sums["loss"] + backward["loss"]) / 2
        count = self.counts(batch)["task_loss"]
        return {
            "task_loss": Mean(sums["loss"], count),
            "task_accuracy": Mean(sums["correct"], count),
            "false_negatives": Mean(sums["false"], count),
            "candidates": Mean(sums["candidates"], count),
        }

    def _backward_sums(
        self, outputs: dict[str, Any], batch: Batch, scale: jax.Array, sizes: tuple[int, ...]
    ) -> dict[str, jax.Array]:
        """The same for each positive, which has to find its query among all queries."""
        columns = [self._unit(gather_rows(outputs["query"]), size) for size in sizes]
        names = ("query_text", "positives", "query_size")
        queries = {name: gather_rows(batch[name]) for name in names}

        def rank(rows: jax.Array, batch: Batch) -> tuple[dict[str, jax.Array], None]:
            text = batch["document_text"][:, 0]
            false = _is_positive(text, queries).T  # of every query
            false |= queries["query_text"] == batch["query_text"][:, None]
            sums = _cross_entropy_sums(
                [self._unit(rows, size) for size in sizes],
                columns,
                scale,
                batch["position"],
                queries["query_size"] > 0,
                false if self.config.mask_false_negatives else None,
                batch["query_size"] > 0,
            )
            return sums, None

        names = ("position", "query_text", "document_text", "query_size")
        fields = {name: batch[name] for name in names}
        return self._in_chunks(rank, outputs["documents"][:, 0], fields)

    def _in_chunks(self, f: Any, rows: jax.Array, fields: Batch) -> dict[str, jax.Array]:
        return in_chunks(f, max(self.chunks, len(rows) // ROWS_PER_CHUNK), rows, fields)[0]

    def _unit(self, x: jax.Array, size: int) -> jax.Array:
        """The first `size` features, of length 1 if vectors are compared by cosine."""
        return normalize_l2(x[..., :size]) if self.config.normalize else x[..., :size]

    # ---- pairs with a score

    def _scored_loss(self, outputs: dict[str, Any], batch: Batch, size: int) -> jax.Array:
        """This device's share of the sum over rows, or for `cosent` of the batch's loss."""
        a, b = (normalize_l2(x[:, :size]) for x in (outputs["query"], outputs["documents"][:, 0]))
        cosine, score = (a * b).sum(-1), batch["score"]
        if self.config.loss == "cosine":
            return ((cosine - score) ** 2).sum()
        if self.config.loss == "margin":  # Hadsell et al. 2006, with the cosine distance
            distance = 1 - cosine
            apart = jnp.maximum(self.config.margin - distance, 0.0)
            return (score * distance**2 + (1 - score) * apart**2).sum() / 2
        cosine, score = gather_rows(cosine), gather_rows(score)
        gaps = (cosine[:, None] - cosine) / self.config.temperature  # of j over i, [i j] swapped
        wrong_order = jnp.where(score[:, None] < score, gaps, -jnp.inf)
        pairs = jnp.append(wrong_order.reshape(-1), 0.0)
        return jax.nn.logsumexp(pairs) / num_row_shards()

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.network, params

    mask_filler = encoder


def _is_positive(texts: jax.Array, queries: Batch) -> jax.Array:
    """Whether each of the documents `texts` [n] is the text of a query or one of its positives,
    [r n]."""
    same = texts == queries["query_text"][:, None]

    def add(same: jax.Array, positive: jax.Array) -> tuple[jax.Array, None]:
        return same | (texts == positive[:, None]), None

    return jax.lax.scan(add, same, queries["positives"].T)[0]


def _cross_entropy_sums(
    rows: list[jax.Array],
    columns: list[jax.Array],
    scale: jax.Array,
    target: jax.Array,
    exists: jax.Array,
    false: jax.Array | None,
    counted: jax.Array,
) -> dict[str, jax.Array]:
    """Sums over rows [r d] that are `counted`, of their cross-entropy for the column `target` among
    the columns [n d] that exist and are no `false` negative. There is one array of each for every
    size of vector; accuracy is that of the last, the whole vector."""
    own = jnp.arange(len(exists)) == target[:, None]
    masked = jnp.zeros_like(own) if false is None else false & ~own
    allowed = exists & ~masked
    loss = jnp.zeros((), jnp.float32)
    correct = loss
    for a, b in zip(rows, columns, strict=True):
        logits = jnp.where(allowed, scale * jnp.matmul(a, b.T, precision=HIGHEST), -jnp.inf)
        own_logit = jnp.where(own, logits, 0.0).sum(-1)
        losses = jax.nn.logsumexp(logits, axis=-1) - own_logit
        loss += jnp.where(counted, losses, 0.0).sum()
        others = jnp.where(own, -jnp.inf, logits).max(-1)
        correct = (counted & (own_logit > others)).sum().astype(jnp.float32)  # a tie is not right
    sums = {"false": masked & exists, "candidates": allowed}
    sums = {k: (x & counted[:, None]).sum().astype(jnp.float32) for k, x in sums.items()}
    return {"loss": loss, "correct": correct, **sums}
