"""What is learned: a network, its corruption, and losses, as pure functions of parameters.

    init(key)                  -> params
    corrupt(batch, key)        -> batch with targets and weights
    terms(params, batch, key)  -> {name: Mean}, of which `weights` says what is minimised
    counts(batch)              -> {name: number of places that term averages over}

`counts` needs no parameters and stands apart because a micro-batch must divide by the count
of the whole batch: then gradients of micro-batches add up exactly, however unequal their
masks. Dropout is on exactly when `terms` is given a key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Experiment, Imported, Masked, Masking, ReplacedTokens
from bert_jax.corruption import Vocabulary, corrupt
from bert_jax.losses import (
    Histogram,
    Mean,
    cross_entropy,
    project,
    sigmoid_cross_entropy,
    weighted,
)
from bert_jax.model import Network
from bert_jax.model.heads import HEADS, MlmHead, PairHead, Pooler, RtdHead, SboHead, Vocabular

Batch = dict[str, Any]
Params = dict[str, Any]
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
class MaskedObjective:
    """Masked language model with the pair and span boundary terms that its config asks for.

    Parameters: those of one `Network`.
    """

    config: Masked
    network: Network
    vocabulary: Vocabulary | None = None

    def init(self, key: jax.Array) -> Params:
        return dict(self.network.init(key, _example())["params"])

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        return corrupt(batch, self.config.masking, _required(self.vocabulary), key)

    @property
    def weights(self) -> dict[str, float]:
        weights = {"mlm_loss": 1.0}
        if self.config.pair:
            weights["pair_loss"] = 1.0
        if self.config.sbo_weight:
            weights["sbo_loss"] = self.config.sbo_weight
        return weights

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        counts = {
            "mlm_loss": batch["weights"].sum(),
            "pair_loss": _labelled(batch).sum(),
            "sbo_loss": self._sbo_weights(batch).sum(),
        }
        return {name: counts[name] for name in self.weights}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        out = _apply(self.network, params, batch, key)
        table = params["embeddings"]["word"]
        terms: Terms = {}
        terms["mlm_loss"], terms["mlm_accuracy"] = cross_entropy(
            _project(out["mlm"], table), batch["targets"], batch["weights"]
        )
        if self.config.pair:
            labels, labelled = jnp.maximum(batch["pair"], 0), _labelled(batch)
            terms["pair_loss"], terms["pair_accuracy"] = cross_entropy(
                out["pair"], labels, labelled
            )
            if key is None:  # what always answering with one class would score
                terms["pair_share"] = weighted(labels.astype(jnp.float32), labelled)
        if self.config.sbo_weight:
            logits = _project(out["sbo"], table)
            terms["sbo_loss"], _ = cross_entropy(logits, batch["targets"], self._sbo_weights(batch))
        if key is None:
            terms |= _baseline(self.vocabulary, self.config.masking, batch)
        return terms

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.network, params

    filler = encoder

    def _sbo_weights(self, batch: Batch) -> jax.Array:
        """Tokens past the last row of the position table are not predicted."""
        return jnp.where(batch["offset"] < self.config.sbo_positions, batch["sbo_weights"], 0.0)


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

    def init(self, key: jax.Array) -> Params:
        towers = {}
        for name in ("generator", "discriminator"):
            network: Network = getattr(self, name)
            k = jax.random.fold_in(key, len(towers))
            towers[name] = dict(network.init(k, _example())["params"])
        shared = SHARED[self.config.tied]
        embeddings = {k: v for k, v in towers["discriminator"]["embeddings"].items() if shared(k)}
        for tower in towers.values():
            own = {k: v for k, v in tower.pop("embeddings").items() if not shared(k)}
            tower.update({"embeddings": own} if own else {})
        return {"embeddings": embeddings, **towers} if embeddings else towers

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        batch = corrupt(batch, self.config.masking, _required(self.vocabulary), key)
        sampling = jax.random.fold_in(key, 1)
        keys = jax.vmap(lambda r, e: jax.random.fold_in(jax.random.fold_in(sampling, r), e))
        return {**batch, "sampling": jax.random.key_data(keys(batch["row"], batch["epoch"]))}

    @property
    def weights(self) -> dict[str, float]:
        return {"mlm_loss": 1.0, "rtd_loss": self.config.weight}

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        return {"mlm_loss": batch["weights"].sum(), "rtd_loss": _real(batch).sum()}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        keys = (None, None) if key is None else jax.random.split(key)
        generator, tower = self.filler(params)
        out = _apply(generator, tower, batch, keys[0])
        logits = _project(out["mlm"], tower["embeddings"]["word"])
        terms: Terms = {}
        terms["mlm_loss"], terms["mlm_accuracy"] = cross_entropy(
            logits, batch["targets"], batch["weights"]
        )
        tokens = self.replace(batch, jax.lax.stop_gradient(logits))

        labels = (tokens != batch["labels"]).astype(jnp.float32)  # a right guess is an original
        real = _real(batch)
        discriminator, tower = self.encoder(params)
        rtd = _apply(discriminator, tower, {**batch, "tokens": tokens}, keys[1])["rtd"]
        guesses = (rtd > 0).astype(jnp.float32)
        found = (guesses * labels * real).sum()
        terms["rtd_loss"] = sigmoid_cross_entropy(rtd, labels, real)
        terms["rtd_accuracy"] = weighted((guesses == labels).astype(jnp.float32), real)
        terms["rtd_precision"] = Mean(found, (guesses * real).sum())
        terms["rtd_recall"] = Mean(found, (labels * real).sum())
        if key is None:
            terms["rtd_auc"] = Histogram.of(rtd, labels, real)
            terms |= _baseline(self.vocabulary, self.config.masking, batch)
        return terms

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.discriminator, self._tower(params, "discriminator")

    def filler(self, params: Params) -> tuple[Network, Params]:
        return self.generator, self._tower(params, "generator")

    def _tower(self, params: Params, name: str) -> Params:
        """One network's parameters, the shared embeddings put back."""
        tower = params[name]
        shared, own = params.get("embeddings", {}), tower.get("embeddings", {})
        return {**tower, "embeddings": {**shared, **own}}

    def replace(self, batch: Batch, logits: jax.Array) -> jax.Array:
        """The row as it was, with the generator's samples at the masked positions; each row's
        from a key of its own."""
        logits = logits / self.config.temperature
        keys = jax.random.wrap_key_data(batch["sampling"])
        sampled = jax.vmap(jax.random.categorical)(keys, logits)
        length = batch["labels"].shape[-1]
        at = jnp.where(batch["weights"] > 0, batch["masked"], length)
        write = jax.vmap(lambda row, i, new: row.at[i].set(new, mode="drop"))
        return write(batch["labels"], at, sampled.astype(batch["labels"].dtype))


@dataclass(frozen=True)
class NoObjective:
    """A network that was read from elsewhere: it can be used, not trained further as it is."""

    network: Network
    weights: dict[str, float] = field(default_factory=dict)

    def init(self, key: jax.Array) -> Params:
        return dict(self.network.init(key, _example())["params"])

    def corrupt(self, batch: Batch, key: jax.Array) -> Batch:
        raise ValueError("an imported network has no objective: name one with a config")

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        return {}

    def terms(self, params: Params, batch: Batch, key: jax.Array | None) -> Terms:
        return {}

    def encoder(self, params: Params) -> tuple[Network, Params]:
        return self.network, params

    filler = encoder


SHARED: dict[str, Callable[[str], bool]] = {  # ReplacedTokens.tied -> is this leaf one for both
    "all": lambda name: True,
    "words": lambda name: name == "word",
    "none": lambda name: False,
}


def build(config: Experiment, vocabulary: Vocabulary | None = None) -> Objective:
    """The functions behind `config.objective`. Without a vocabulary they cannot corrupt, which
    loading and counting parameters do not need."""
    encoder, objective = config.encoder, config.objective
    dtype = jnp.dtype(config.run.dtype)
    if isinstance(objective, ReplacedTokens):
        generator = Network(objective.generator(encoder), {"mlm": MlmHead}, dtype)
        discriminator = Network(encoder, {"rtd": RtdHead}, dtype)
        return ReplacedTokensObjective(objective, generator, discriminator, vocabulary)
    if isinstance(objective, Imported):
        return NoObjective(Network(encoder, {h: HEADS[h] for h in objective.heads}, dtype))
    assert isinstance(objective, Masked)
    heads: dict[str, Any] = {"mlm": MlmHead}
    if objective.pair:
        heads |= {"pooler": Pooler, "pair": PairHead}
    if objective.sbo_weight:
        heads["sbo"] = partial(SboHead, rows=objective.sbo_positions, size=objective.sbo_size)
    return MaskedObjective(objective, Network(encoder, heads, dtype), vocabulary)


def _apply(network: Network, params: Params, batch: Batch, key: jax.Array | None) -> Any:
    return network.apply({"params": params}, batch, rngs={} if key is None else {"dropout": key})


def _baseline(vocabulary: Vocabulary | None, masking: Masking, batch: Batch) -> Terms:
    """What the training text's unigram distribution alone would score on the same masked
    tokens: a model that has learned anything of context lies below. A piece that the text
    never shows counts as the rarest that it does."""
    frequency = None if vocabulary is None else vocabulary.frequency(masking.specials)
    if frequency is None:
        return {}
    log_p = jnp.asarray(np.log(np.maximum(frequency, frequency[frequency > 0].min())), jnp.float32)
    return {"unigram_loss": weighted(-log_p[batch["targets"]], batch["weights"])}


def _project(head: Vocabular, table: jax.Array) -> jax.Array:
    return project(head.features, head.bias, table)


def _labelled(batch: Batch) -> jax.Array:
    return (batch["pair"] >= 0).astype(jnp.float32)


def _real(batch: Batch) -> jax.Array:
    at = jnp.arange(batch["tokens"].shape[-1])
    return (at < batch["size"][:, None]).astype(jnp.float32)


def _required(vocabulary: Vocabulary | None) -> Vocabulary:
    assert vocabulary is not None, "built without a vocabulary, so it cannot corrupt"
    return vocabulary


def _example() -> Batch:
    """The smallest batch that reaches every parameter; no shape depends on its sizes."""
    one = jnp.ones(1, jnp.int32)
    slots = {k: jnp.zeros((1, 1), jnp.int32) for k in ("masked", "left", "right", "offset")}
    return {"tokens": jnp.zeros((1, 2), jnp.int32), "size": one, "first": one, **slots}
