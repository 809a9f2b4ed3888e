"""ELECTRA's replaced-token detection, and the variants that its paper compares with it (Clark et
al. 2020, section 3.4). A generator fills masks with samples; the discriminator sees the result.

    labels    the cat sat on the mat
    tokens    the dog sat on the mat

    rtd             classify every token as original or replaced
    rtd_masked      the same, at the masked positions only
    replace_mlm     predict the original token, dog -> cat, at the masked positions
    all_tokens_mlm  predict it at every position; a copy gate may choose the token that is there
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bert_jax.config import ReplacedTokens
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.distributed import constraints
from bert_jax.model import Network, electra
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives.base import (
    Terms,
    apply_network,
    corrupt_batch,
    dummy_batch,
    hidden_terms,
    token_weights,
    vocabulary_loss,
)
from bert_jax.objectives.losses import (
    Histogram,
    Mean,
    cross_entropy,
    in_chunks,
    sigmoid_cross_entropy,
    weighted_mean,
)
from bert_jax.objectives.masking import row_keys
from bert_jax.utils.types import Batch, Params

DISCRIMINATOR_HEADS = {  # ReplacedTokens.target -> the discriminator's heads
    "rtd": ("rtd",),
    "rtd_masked": ("rtd",),
    "replace_mlm": ("mlm",),
    "all_tokens_mlm": ("mlm", "rtd"),
}


@dataclass(frozen=True)
class ReplacedTokensObjective:
    """ELECTRA: the generator fills masks, the discriminator detects replaced tokens.

    Parameters: shared `embeddings`, `generator` and `discriminator` (model/electra.py). A shared
    table is one leaf, so optimizer, decay and checkpoints see it once, and its gradient is the
    sum of both towers'. Tables that are not tied are in the `embeddings` of each tower.
    """

    config: ReplacedTokens
    generator: Network
    discriminator: Network
    vocabulary: Vocabulary | None = None
    loss_chunks: int = 1  # chunks of a batch in which vocabulary logits are computed

    def init(self, key: jax.Array) -> Params:
        networks = (self.generator, self.discriminator)
        generator, discriminator = (
            dict(network.init(jax.random.fold_in(key, i), dummy_batch())["params"])
            for i, network in enumerate(networks)
        )
        if self.config.tied == "gradient_disentangled":
            tables = {**discriminator["embeddings"], **electra.tables(generator)}
            discriminator["embeddings"] = tables
        return electra.split_towers(generator, discriminator, self.config.tied)

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        batch = corrupt_batch(batch, self.config.masking, self.vocabulary, key)
        keys = row_keys(jax.random.fold_in(key, 1), batch)
        return {**batch, "sampling": jax.random.key_data(keys)}

    @property
    def weights(self) -> dict[str, float]:
        return {"mlm_loss": 1.0, self._loss_name: self.config.weight}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        return {
            "mlm_loss": batch["weights"].sum(),
            self._loss_name: self._loss_weights(batch).sum(),
        }

    @property
    def _loss_name(self) -> str:
        return "rtd_loss" if self.config.target.startswith("rtd") else "restored_loss"

    def _loss_weights(self, batch: Batch) -> jax.Array:
        """1 for every token in the discriminator's loss, [b l]."""
        if self.config.target in ("rtd", "all_tokens_mlm"):
            return token_weights(batch)
        return masked_positions(batch)

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        keys = (None, None) if key is None else jax.random.split(key)
        generator, tower = self.mask_filler(params)
        out = apply_network(generator, tower, batch, keys[0])
        terms: Terms = {}
        (terms["mlm_loss"], terms["mlm_accuracy"]), sampled = self._generate(
            out["mlm"], tower["embeddings"]["word"], batch
        )
        tokens = self.replace(batch, sampled)

        terms |= self._discriminate(params, {**batch, "tokens": tokens}, keys[1])
        if key is None and self.vocabulary is not None:
            table, masking = tower["embeddings"]["word"], self.config.masking
            terms |= hidden_terms(
                out["mlm"], table, self.loss_chunks, self.vocabulary, masking, batch
            )
        return terms

    def _discriminate(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        """The discriminator's terms on rows with the generator's samples."""
        discriminator, tower = self.encoder(params)
        table, target = tower["embeddings"]["word"], self.config.target
        if target == "replace_mlm":
            head = apply_network(discriminator, tower, batch, key)["mlm"]
            loss, accuracy = vocabulary_loss(
                head, table, self.loss_chunks, batch["targets"], batch["weights"]
            )
            return {"restored_loss": loss, "restored_accuracy": accuracy}
        if target == "all_tokens_mlm":
            out = apply_network(discriminator, tower, at_all_positions(batch), key)
            loss, accuracy = copy_gated_loss(
                out["mlm"], out["rtd"], table, self.loss_chunks, batch, self._loss_weights(batch)
            )
            return {"restored_loss": loss, "restored_accuracy": accuracy}
        rtd = apply_network(discriminator, tower, batch, key)["rtd"]
        terms: Terms = {}
        # a sample that equals the original token counts as original
        labels = (batch["tokens"] != batch["labels"]).astype(jnp.float32)
        weights = self._loss_weights(batch)
        predicted = (rtd > 0).astype(jnp.float32)
        true_positives = (predicted * labels * weights).sum()
        terms["rtd_loss"] = sigmoid_cross_entropy(rtd, labels, weights)
        terms["rtd_accuracy"] = weighted_mean((predicted == labels).astype(jnp.float32), weights)
        terms["rtd_precision"] = Mean(true_positives, (predicted * weights).sum())
        terms["rtd_recall"] = Mean(true_positives, (labels * weights).sum())
        if key is None:
            terms["rtd_auc"] = Histogram.from_logits(rtd, labels, self._word_weights(batch))
        return terms

    def _word_weights(self, batch: Batch) -> jax.Array:
        """The loss weights without special and unknown tokens, which are never replaced: to know
        them takes no context, so they do not count in the AUC."""
        weights, masking = self._loss_weights(batch), self.config.masking
        if self.vocabulary is None:
            return weights
        if not masking.mask_special_tokens:
            special = jnp.asarray(self.vocabulary.special)[batch["labels"]]
            weights = jnp.where(special, 0.0, weights)
        if self.vocabulary.unk_id is not None and not masking.mask_unknown:
            weights = jnp.where(batch["labels"] == self.vocabulary.unk_id, 0.0, weights)
        return weights

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.discriminator, electra.merge_tower(params, "discriminator")

    def mask_filler(self, params: Params) -> tuple[Network, Params]:
        return self.generator, electra.merge_tower(params, "generator")

    def _generate(
        self, head: LMHeadOutput, table: jax.Array, batch: Batch
    ) -> tuple[tuple[Mean, Mean], jax.Array]:
        """The generator's loss and accuracy, and its samples [b p]."""

        def chunk_loss(
            features: jax.Array, targets: jax.Array, weights: jax.Array, keys: jax.Array
        ) -> tuple[tuple[Mean, Mean], jax.Array]:
            logits = head._replace(features=features).logits(table)
            sampled = self.sample(jax.lax.stop_gradient(logits), keys)
            return cross_entropy(logits, targets, weights), sampled

        rows = (head.features, batch["targets"], batch["weights"], batch["sampling"])
        return in_chunks(chunk_loss, self.loss_chunks, *rows)

    def sample(self, logits: jax.Array, keys: jax.Array) -> jax.Array:
        """Tokens [b p] sampled from logits [b p v] with one key per row [b k]. Each position has a
        key of its own, so that padding of the vocabulary changes no sample."""
        keys = jax.random.wrap_key_data(keys, impl=constraints.PRNG)
        keys = jax.vmap(lambda key: jax.random.split(key, logits.shape[1]))(keys)
        sample = jax.vmap(jax.vmap(jax.random.categorical))
        return sample(keys, logits / self.config.temperature)

    def replace(self, batch: Batch, sampled: jax.Array) -> jax.Array:
        """The original rows with the generator's samples at the masked positions."""
        length = batch["labels"].shape[-1]
        at = jnp.where(batch["weights"] > 0, batch["masked"], length)
        write = jax.vmap(lambda row, i, new: row.at[i].set(new, mode="drop"))
        return write(batch["labels"], at, sampled.astype(batch["labels"].dtype))


def masked_positions(batch: Batch) -> Float[Array, "b l"]:
    """1 at the masked positions, 0 elsewhere."""
    b, length = batch["labels"].shape
    at = jnp.where(batch["weights"] > 0, batch["masked"], length)
    return jax.vmap(lambda row, i: row.at[i].set(1.0, mode="drop"))(jnp.zeros((b, length)), at)


def at_all_positions(batch: Batch) -> Batch:
    """The batch with a prediction at every position."""
    positions = jnp.broadcast_to(jnp.arange(batch["labels"].shape[-1]), batch["labels"].shape)
    return {**batch, "masked": positions}


def copy_gated_loss(
    head: LMHeadOutput,
    copy: Float[Array, "b l"],
    table: Float[Array, "v e"],
    chunks: int,
    batch: Batch,
    weights: Float[Array, "b l"],
) -> tuple[Mean, Mean]:
    """Cross-entropy in nat and accuracy of the original tokens under All-Tokens MLM:

    p(x) = D [x is the input token] + (1 - D) softmax(x),   D = sigmoid(copy)
    """

    def chunk_loss(
        features: jax.Array, copy: jax.Array, tokens: jax.Array, labels: jax.Array, weights: Any
    ) -> tuple[tuple[Mean, Mean], None]:
        logits = head._replace(features=features).logits(table).astype(jnp.float32)
        log_p = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        log_p += jax.nn.log_sigmoid(-copy)[..., None]
        at = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        copied = jnp.logaddexp(log_p, jax.nn.log_sigmoid(copy)[..., None])
        log_p = jnp.where(at == tokens[..., None], copied, log_p)
        label_log_p = jnp.where(at == labels[..., None], log_p, 0.0).sum(-1)
        correct = (jnp.argmax(jax.lax.stop_gradient(log_p), axis=-1) == labels).astype(jnp.float32)
        return (weighted_mean(-label_log_p, weights), weighted_mean(correct, weights)), None

    rows = (head.features, copy, batch["tokens"], batch["labels"], weights)
    return in_chunks(chunk_loss, chunks, *rows)[0]
