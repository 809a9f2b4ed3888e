"""The interface of objectives, and helpers that several of them use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Masking
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.model import Network
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives import packing
from bert_jax.objectives.losses import Mean, cross_entropy, divide, in_chunks, weighted_mean
from bert_jax.objectives.masking import mask_tokens
from bert_jax.objectives.masking_budget import max_packed_predictions
from bert_jax.utils.types import Batch, Params

Terms = dict[str, Any]


class Objective(Protocol):
    """A network, its masking and its losses, as pure functions of parameters."""

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term in the loss."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Random parameters, float32."""
        ...

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch as the network sees it, with targets and weights: masked, for pre-training."""
        ...

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """The number of positions over which each term averages, in a corrupted batch."""
        ...

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        """The terms of the loss and other metrics of a corrupted batch, each as a `Mean` or another
        total. Dropout is active if `key` is given."""
        ...

    def encoder(self, params: Params) -> tuple[Network, Params]:
        """The network that computes features, and its parameters."""
        ...

    def mask_filler(self, params: Params) -> tuple[Network, Params]:
        """The network that predicts masked tokens, and its parameters."""
        ...


@runtime_checkable
class CoupledObjective(Objective, Protocol):
    """An objective whose loss couples the rows of a batch, through outputs that a network computes
    for each row by itself. `terms` is `coupled_terms` of `row_outputs`."""

    def row_outputs(self, params: Params, batch: Batch, key: jax.Array | None) -> Any:
        """A tree of arrays [b ...]. A row's outputs do not depend on the other rows, and its
        dropout depends on its position in the whole batch only."""
        ...

    def coupled_terms(self, params: Params, outputs: Any, batch: Batch) -> Terms:
        """The share of this device's rows in the terms of the whole batch."""
        ...


def total_loss(weights: dict[str, float], terms: Terms, counts: dict[str, jax.Array]) -> jax.Array:
    """The loss: the weighted sum of its terms, each divided by its count."""
    means = [w * divide(terms[n].total, counts[n]) for n, w in weights.items()]
    return jnp.sum(jnp.stack(means))


@dataclass(frozen=True)
class NoObjective:
    """An imported network: it can be used, but not trained without an objective."""

    network: Network
    weights: dict[str, float] = field(default_factory=dict)

    def init(self, key: jax.Array) -> Params:
        return dict(self.network.init(key, dummy_batch())["params"])

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        raise ValueError("an imported model has no objective: choose one with a config file")

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        return {}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        return {}

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.network, params

    def mask_filler(self, params: Params) -> tuple[Network, Params]:
        return with_heads(self.network, "mlm"), params


def with_heads(network: Network, *names: str) -> Network:
    """The network with these heads alone, as far as it has them. Other heads may need fields that a
    batch does not have, such as the span boundary head; their parameters may stay in the tree."""
    return network.clone(heads={name: h for name, h in network.heads.items() if name in names})


def apply_network(network: Network, params: Params, batch: Batch, key: jax.Array | None) -> Any:
    """The outputs of a network. Dropout is active if `key` is given."""
    return network.apply({"params": params}, batch, rngs={} if key is None else {"dropout": key})


def hidden_weights(vocabulary: Vocabulary | None, batch: Batch) -> jax.Array:
    """The weights of the predictions whose position shows the mask token, [b p]. The others show
    the target or a random token: there a model without any context does better than the unigram
    distribution, by copying."""
    shown = jnp.take_along_axis(batch["tokens"], batch["masked"], axis=-1)
    return jnp.where(shown == require_vocabulary(vocabulary).mask_id, batch["weights"], 0.0)


def unigram_loss(
    vocabulary: Vocabulary, masking: Masking, targets: jax.Array, weights: jax.Array
) -> Mean | None:
    """The loss of the training text's unigram distribution: what a model without context scores
    where tokens are hidden. Tokens that do not occur in the text count as the rarest one. None
    without token counts."""
    frequency = vocabulary.frequency(masking.mask_special_tokens, masking.mask_unknown)
    if frequency is None:
        return None
    log_p = jnp.asarray(np.log(np.maximum(frequency, frequency[frequency > 0].min())), jnp.float32)
    return weighted_mean(-log_p[targets], weights)


def hidden_terms(
    head: LMHeadOutput,
    table: jax.Array,
    chunks: int,
    vocabulary: Vocabulary,
    masking: Masking,
    batch: Batch,
) -> Terms:
    """Loss and accuracy at the positions that show the mask token, and the unigram loss there."""
    weights = hidden_weights(vocabulary, batch)
    loss, accuracy = vocabulary_loss(head, table, chunks, batch["targets"], weights)
    terms = {"mask_loss": loss, "mask_accuracy": accuracy}
    baseline = unigram_loss(vocabulary, masking, batch["targets"], weights)
    return terms if baseline is None else {**terms, "unigram_loss": baseline}


def vocabulary_loss(
    head: LMHeadOutput, table: jax.Array, chunks: int, targets: jax.Array, weights: jax.Array
) -> tuple[Mean, Mean]:
    """Cross-entropy and accuracy of a head's predictions, computed in chunks of the batch."""

    def chunk_loss(
        features: jax.Array, targets: jax.Array, weights: jax.Array
    ) -> tuple[tuple[Mean, Mean], None]:
        logits = head._replace(features=features).logits(table)
        return cross_entropy(logits, targets, weights), None

    return in_chunks(chunk_loss, chunks, head.features, targets, weights)[0]


def has_label(batch: Batch) -> jax.Array:
    """1 for every sentence pair with a label."""
    return (batch["pair"] >= 0).astype(jnp.float32)


def token_weights(batch: Batch) -> jax.Array:
    """1 for every real token, 0 for padding, [b l]."""
    if "segments" in batch:
        return (batch["segments"] > 0).astype(jnp.float32)
    at = jnp.arange(batch["tokens"].shape[-1])
    return (at < batch["size"][:, None]).astype(jnp.float32)


def corrupt_batch(
    batch: Batch, masking: Masking, vocabulary: Vocabulary | None, key: jax.Array
) -> Batch:
    """The batch with masked tokens (masking.py); in packed rows each sequence is masked as if it
    were alone."""
    if not packing.is_packed(batch):
        return mask_tokens(batch, masking, require_vocabulary(vocabulary), key)
    sequences = mask_tokens(packing.unpack(batch), masking, require_vocabulary(vocabulary), key)
    slots = max_packed_predictions(masking, batch["tokens"].shape[-1], batch["size"].shape[-1])
    return packing.pack(batch, sequences, slots)


def require_vocabulary(vocabulary: Vocabulary | None) -> Vocabulary:
    """The vocabulary, which must not be None."""
    assert vocabulary is not None, "masking needs a vocabulary, and this objective has none"
    return vocabulary


def dummy_batch() -> Batch:
    """The smallest batch that initializes every parameter; no parameter's shape depends on it."""
    one = jnp.ones(1, jnp.int32)
    slots = {k: jnp.zeros((1, 1), jnp.int32) for k in ("masked", "left", "right", "offset")}
    sizes = dict.fromkeys(("size", "first", "start", "context"), one)
    return {"tokens": jnp.zeros((1, 2), jnp.int32), **sizes, **slots}
