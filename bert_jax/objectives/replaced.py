"""ELECTRA's replaced-token detection."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bert_jax.config import ReplacedTokens
from bert_jax.corruption import Vocabulary
from bert_jax.losses import (
    Histogram,
    Mean,
    cross_entropy,
    in_pieces,
    project,
    sigmoid_cross_entropy,
    weighted,
)
from bert_jax.model import Network, towers
from bert_jax.model.heads import Vocabular
from bert_jax.objectives.base import (
    Batch,
    Params,
    Terms,
    apply_network,
    baseline,
    corrupted,
    example,
    real_tokens,
)


@dataclass(frozen=True)
class ReplacedTokensObjective:
    """ELECTRA: the generator fills masks, the discriminator tells which tokens were replaced.

    Parameters: `embeddings`, which neither tower owns, then `generator` and `discriminator`.
    One leaf exists of what is shared, so optimiser, decay and checkpoints see it once, and
    its gradient is the sum of both towers'. What is not tied lies in each tower's own
    `embeddings`.
    """

    config: ReplacedTokens
    generator: Network
    discriminator: Network
    vocabulary: Vocabulary | None = None
    pieces: int = 1  # of a batch, for its logits over the vocabulary

    def init(self, key: jax.Array) -> Params:
        networks = (self.generator, self.discriminator)
        generator, discriminator = (
            dict(network.init(jax.random.fold_in(key, i), example())["params"])
            for i, network in enumerate(networks)
        )
        return towers.parted(generator, discriminator, self.config.tied)

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        batch = corrupted(batch, self.config.masking, self.vocabulary, key)
        sampling = jax.random.fold_in(key, 1)
        keys = jax.vmap(lambda r, e: jax.random.fold_in(jax.random.fold_in(sampling, r), e))
        return {**batch, "sampling": jax.random.key_data(keys(batch["row"], batch["epoch"]))}

    @property
    def weights(self) -> dict[str, float]:
        return {"mlm_loss": 1.0, "rtd_loss": self.config.weight}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        return {"mlm_loss": batch["weights"].sum(), "rtd_loss": real_tokens(batch).sum()}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        keys = (None, None) if key is None else jax.random.split(key)
        generator, tower = self.filler(params)
        out = apply_network(generator, tower, batch, keys[0])
        terms: Terms = {}
        (terms["mlm_loss"], terms["mlm_accuracy"]), sampled = self._generate(
            out["mlm"], tower["embeddings"]["word"], batch
        )
        tokens = self.replace(batch, sampled)

        labels = (tokens != batch["labels"]).astype(jnp.float32)  # a right guess is an original
        real = real_tokens(batch)
        discriminator, tower = self.encoder(params)
        rtd = apply_network(discriminator, tower, {**batch, "tokens": tokens}, keys[1])["rtd"]
        guesses = (rtd > 0).astype(jnp.float32)
        found = (guesses * labels * real).sum()
        terms["rtd_loss"] = sigmoid_cross_entropy(rtd, labels, real)
        terms["rtd_accuracy"] = weighted((guesses == labels).astype(jnp.float32), real)
        terms["rtd_precision"] = Mean(found, (guesses * real).sum())
        terms["rtd_recall"] = Mean(found, (labels * real).sum())
        if key is None:
            terms["rtd_auc"] = Histogram.of(rtd, labels, real)
            terms |= baseline(self.vocabulary, self.config.masking, batch)
        return terms

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.discriminator, towers.whole(params, "discriminator")

    def filler(self, params: Params) -> tuple[Network, Params]:
        return self.generator, towers.whole(params, "generator")

    def _generate(
        self, head: Vocabular, table: jax.Array, batch: Batch
    ) -> tuple[tuple[Mean, Mean], jax.Array]:
        """The generator's loss and accuracy, and its samples [b p]."""

        def some(
            features: jax.Array, targets: jax.Array, weights: jax.Array, keys: jax.Array
        ) -> tuple[tuple[Mean, Mean], jax.Array]:
            logits = project(features, head.bias, table)
            sampled = self.sample(jax.lax.stop_gradient(logits), keys)
            return cross_entropy(logits, targets, weights), sampled

        given = (batch["targets"], batch["weights"], batch["sampling"])
        return in_pieces(some, self.pieces, head.features, *given)

    def sample(self, logits: jax.Array, keys: jax.Array) -> jax.Array:
        """Tokens [b p] by the law of logits [b p v]; each row's from a key of its own [b k]."""
        keys = jax.random.wrap_key_data(keys)
        return jax.vmap(jax.random.categorical)(keys, logits / self.config.temperature)

    def replace(self, batch: Batch, sampled: jax.Array) -> jax.Array:
        """The row as it was, with the generator's samples at the masked positions."""
        length = batch["labels"].shape[-1]
        at = jnp.where(batch["weights"] > 0, batch["masked"], length)
        write = jax.vmap(lambda row, i, new: row.at[i].set(new, mode="drop"))
        return write(batch["labels"], at, sampled.astype(batch["labels"].dtype))
