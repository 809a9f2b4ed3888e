"""What every objective is, and what several of them need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Masking
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.model import Network
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives import packing
from bert_jax.objectives.losses import Mean, cross_entropy, in_chunks, project, weighted_mean
from bert_jax.objectives.masking import mask_tokens, max_packed_predictions
from bert_jax.utils.types import Batch, Params

Terms = dict[str, Any]


class Objective(Protocol):
    @property
    def weights(self) -> dict[str, float]: ...
    def init(self, key: jax.Array) -> Params: ...
    def corrupt(self, batch: Batch, key: jax.Array) -> Batch: ...
    def counts(self, batch: Batch) -> dict[str, jax.Array]: ...
    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms: ...
    def encoder(self, params: Params) -> tuple[Network, Params]:
        """The network that features come from, and its parameters."""
        ...

    def filler(self, params: Params) -> tuple[Network, Params]:
        """The network that fills masks, and its parameters."""
        ...


def total(weights: dict[str, float], terms: Terms, counts: dict[str, jax.Array]) -> jax.Array:
    """The loss: the weighted sum of its terms, each divided by the count given for it."""
    parts = [w * terms[n].total / jnp.maximum(counts[n], 1.0) for n, w in weights.items()]
    return jnp.sum(jnp.stack(parts))


@dataclass(frozen=True)
class NoObjective:
    """A network that was read from elsewhere: it can be used, not trained further as it is."""

    network: Network
    weights: dict[str, float] = field(default_factory=dict)

    def init(self, key: jax.Array) -> Params:
        return dict(self.network.init(key, example())["params"])

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        raise ValueError("an imported network has no objective: name one with a config")

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        return {}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        return {}

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.network, params

    filler = encoder


def apply_network(network: Network, params: Params, batch: Batch, key: jax.Array | None) -> Any:
    return network.apply({"params": params}, batch, rngs={} if key is None else {"dropout": key})


def baseline(vocabulary: Vocabulary | None, masking: Masking, batch: Batch) -> Terms:
    """What the training text's unigram distribution alone would score on the same masked
    tokens: a model that has learned anything of context lies below. A piece that the text
    never shows counts as the rarest that it does."""
    frequency = None if vocabulary is None else vocabulary.frequency(masking.mask_special_tokens)
    if frequency is None:
        return {}
    log_p = jnp.asarray(np.log(np.maximum(frequency, frequency[frequency > 0].min())), jnp.float32)
    return {"unigram_loss": weighted_mean(-log_p[batch["targets"]], batch["weights"])}


def vocabulary_loss(
    head: LMHeadOutput, table: jax.Array, pieces: int, targets: jax.Array, weights: jax.Array
) -> tuple[Mean, Mean]:
    """Cross-entropy and accuracy of a head's predictions, in pieces of the batch."""

    def some(features: jax.Array, *of: jax.Array) -> tuple[tuple[Mean, Mean], None]:
        return cross_entropy(project(features, head.bias, table), *of), None

    return in_chunks(some, pieces, head.features, targets, weights)[0]


def labelled(batch: Batch) -> jax.Array:
    return (batch["pair"] >= 0).astype(jnp.float32)


def real_tokens(batch: Batch) -> jax.Array:
    if "segments" in batch:
        return (batch["segments"] > 0).astype(jnp.float32)
    at = jnp.arange(batch["tokens"].shape[-1])
    return (at < batch["size"][:, None]).astype(jnp.float32)


def corrupted(
    batch: Batch, masking: Masking, vocabulary: Vocabulary | None, key: jax.Array
) -> Batch:
    """A batch with tokens hidden (corruption/); in packed rows as if each sequence were alone."""
    if not packing.is_packed(batch):
        return mask_tokens(batch, masking, required(vocabulary), key)
    rows = mask_tokens(packing.unpack(batch), masking, required(vocabulary), key)
    slots = max_packed_predictions(masking, batch["tokens"].shape[-1], batch["size"].shape[-1])
    return packing.pack(batch, rows, slots)


def required(vocabulary: Vocabulary | None) -> Vocabulary:
    assert vocabulary is not None, "built without a vocabulary, so it cannot corrupt"
    return vocabulary


def example() -> Batch:
    """The smallest batch that reaches every parameter; no shape depends on its sizes."""
    one = jnp.ones(1, jnp.int32)
    slots = {k: jnp.zeros((1, 1), jnp.int32) for k in ("masked", "left", "right", "offset")}
    row = dict.fromkeys(("size", "first", "start", "context"), one)
    return {"tokens": jnp.zeros((1, 2), jnp.int32), **row, **slots}
