"""ELECTRA's replaced-token detection, and the variants that its paper compares it with."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bert_jax.config import ReplacedTokens
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.distributed import constraints
from bert_jax.model import Network, electra
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives import denoising
from bert_jax.objectives.base import (
    Terms,
    apply_network,
    baseline,
    corrupted,
    example,
    real_tokens,
    vocabulary_loss,
)
from bert_jax.objectives.losses import (
    Histogram,
    Mean,
    cross_entropy,
    in_chunks,
    project,
    sigmoid_cross_entropy,
    weighted_mean,
)
from bert_jax.utils.types import Batch, Params

DISCRIMINATOR = {  # ReplacedTokens.target -> its heads
    "rtd": ("rtd",),
    "rtd_masked": ("rtd",),
    "replace_mlm": ("mlm",),
    "all_tokens_mlm": ("mlm", "rtd"),
}


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
        return electra.split_towers(generator, discriminator, self.config.tied)

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        batch = corrupted(batch, self.config.masking, self.vocabulary, key)
        sampling = jax.random.fold_in(key, 1)
        keys = jax.vmap(lambda r, e: jax.random.fold_in(jax.random.fold_in(sampling, r), e))
        return {**batch, "sampling": jax.random.key_data(keys(batch["row"], batch["epoch"]))}

    @property
    def weights(self) -> dict[str, float]:
        return {"mlm_loss": 1.0, self._learned: self.config.weight}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        return {"mlm_loss": batch["weights"].sum(), self._learned: self._places(batch).sum()}

    @property
    def _learned(self) -> str:
        return "rtd_loss" if self.config.target.startswith("rtd") else "restored_loss"

    def _places(self, batch: Batch) -> jax.Array:
        """1 for every token that the discriminator's loss is made of, [b l]."""
        if self.config.target in ("rtd", "all_tokens_mlm"):
            return real_tokens(batch)
        return denoising.at_masked(batch)

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        keys = (None, None) if key is None else jax.random.split(key)
        generator, tower = self.filler(params)
        out = apply_network(generator, tower, batch, keys[0])
        terms: Terms = {}
        (terms["mlm_loss"], terms["mlm_accuracy"]), sampled = self._generate(
            out["mlm"], tower["embeddings"]["word"], batch
        )
        tokens = self.replace(batch, sampled)

        terms |= self._discriminate(params, {**batch, "tokens": tokens}, keys[1])
        if key is None:
            terms |= baseline(self.vocabulary, self.config.masking, batch)
        return terms

    def _discriminate(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        """What the discriminator makes of the row with the generator's samples in it."""
        discriminator, tower = self.encoder(params)
        table, learn = tower["embeddings"]["word"], self.config.target
        if learn == "replace_mlm":
            head = apply_network(discriminator, tower, batch, key)["mlm"]
            loss, right = vocabulary_loss(
                head, table, self.pieces, batch["targets"], batch["weights"]
            )
            return {"restored_loss": loss, "restored_accuracy": right}
        if learn == "all_tokens_mlm":
            out = apply_network(discriminator, tower, denoising.everywhere(batch), key)
            loss, right = denoising.with_copies(
                out["mlm"], out["rtd"], table, self.pieces, batch, self._places(batch)
            )
            return {"restored_loss": loss, "restored_accuracy": right}
        rtd = apply_network(discriminator, tower, batch, key)["rtd"]
        terms: Terms = {}
        # a right guess of the generator is an original
        labels = (batch["tokens"] != batch["labels"]).astype(jnp.float32)
        real = self._places(batch)
        guesses = (rtd > 0).astype(jnp.float32)
        found = (guesses * labels * real).sum()
        terms["rtd_loss"] = sigmoid_cross_entropy(rtd, labels, real)
        terms["rtd_accuracy"] = weighted_mean((guesses == labels).astype(jnp.float32), real)
        terms["rtd_precision"] = Mean(found, (guesses * real).sum())
        terms["rtd_recall"] = Mean(found, (labels * real).sum())
        if key is None:
            terms["rtd_auc"] = Histogram.of(rtd, labels, real)
        return terms

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.discriminator, electra.merge_tower(params, "discriminator")

    def filler(self, params: Params) -> tuple[Network, Params]:
        return self.generator, electra.merge_tower(params, "generator")

    def _generate(
        self, head: LMHeadOutput, table: jax.Array, batch: Batch
    ) -> tuple[tuple[Mean, Mean], jax.Array]:
        """The generator's loss and accuracy, and its samples [b p]."""

        def some(
            features: jax.Array, targets: jax.Array, weights: jax.Array, keys: jax.Array
        ) -> tuple[tuple[Mean, Mean], jax.Array]:
            logits = project(features, head.bias, table)
            sampled = self.sample(jax.lax.stop_gradient(logits), keys)
            return cross_entropy(logits, targets, weights), sampled

        given = (batch["targets"], batch["weights"], batch["sampling"])
        return in_chunks(some, self.pieces, head.features, *given)

    def sample(self, logits: jax.Array, keys: jax.Array) -> jax.Array:
        """Tokens [b p] by the law of logits [b p v]; each row's from a key of its own [b k], and
        each place's from one of its own, so that padding of the vocabulary moves no draw."""
        keys = jax.random.wrap_key_data(keys, impl=constraints.PRNG)
        keys = jax.vmap(lambda key: jax.random.split(key, logits.shape[1]))(keys)
        draw = jax.vmap(jax.vmap(jax.random.categorical))
        return draw(keys, logits / self.config.temperature)

    def replace(self, batch: Batch, sampled: jax.Array) -> jax.Array:
        """The row as it was, with the generator's samples at the masked positions."""
        length = batch["labels"].shape[-1]
        at = jnp.where(batch["weights"] > 0, batch["masked"], length)
        write = jax.vmap(lambda row, i, new: row.at[i].set(new, mode="drop"))
        return write(batch["labels"], at, sampled.astype(batch["labels"].dtype))
