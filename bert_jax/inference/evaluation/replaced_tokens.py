"""How well ELECTRA's discriminator finds the tokens that its generator replaced.

The generator fills the places that show the mask token (masked_places.py) with samples. A token
counts as replaced if it differs from the original. Special and unknown tokens are left out: they
are never replaced, so they would be right for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from bert_jax.distributed import constraints
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.masked_places import SEED, MaskedRows
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds, neighbors
from bert_jax.inference.evaluation.token_rows import TokenRows, map_rows
from bert_jax.inference.model import Model
from bert_jax.objectives import ReplacedTokensObjective
from bert_jax.utils.types import Batch


@dataclass(frozen=True)
class ReplacedScores:
    """The scored tokens of text, in rows with the generator's samples."""

    tokens: int
    replaced_share: float
    auc: float  # probability that a replaced token has a larger logit than an original one
    recall: float  # share of the replaced tokens with a positive logit
    precision: float | None  # share of the replaced among those; None if there is none
    bigram_auc: float  # of -log p(token | its two neighbors) under the counts, on the same rows
    shuffled_auc: float  # of the discriminator where each row's tokens stand in random order


def replaced_scores(
    model: Model,
    counts: CountsByRow,
    masked: MaskedRows,
    kinds: TokenKinds,
    seed: int = SEED,
    places: np.ndarray | None = None,
) -> ReplacedScores | None:
    """The scores of a discriminator at all tokens of text, or at those among `places` (bool
    [kn l]); None for a model whose objective does not detect replaced tokens, or if all of these
    tokens or none were replaced. A discriminator that was trained at the hidden places alone is
    scored there."""
    objective = model.objective
    if not detects_replaced_tokens(objective):
        return None
    if objective.config.target == "rtd_masked":
        hidden = np.zeros(masked.labels.shape, bool)
        hidden[masked.places] = True
        places = hidden if places is None else hidden & places
    rows = replace(masked.rows, tokens=sample_replacements(model, objective, masked, seed))
    is_text = ~kinds.excluded[masked.labels]
    row, position = np.nonzero(is_text if places is None else is_text & places)
    replaced = (rows.tokens != masked.labels)[row, position]
    if replaced.all() or not replaced.any():
        return None
    discriminator_logits = _discriminator_logits(model)
    logits = discriminator_logits(rows)[row, position]
    left, right = neighbors(rows.tokens, kinds, row, position)
    surprise = counts.loss(masked.row_number(row), left, right, rows.tokens[row, position])
    order = _shuffle_text(is_text, seed)
    shuffled = replace(rows, tokens=np.take_along_axis(rows.tokens, order, axis=1))
    shuffled_logits = np.zeros(rows.tokens.shape, np.float32)
    np.put_along_axis(shuffled_logits, order, discriminator_logits(shuffled), axis=1)
    positive = logits > 0
    return ReplacedScores(
        tokens=len(replaced),
        replaced_share=float(replaced.mean()),
        auc=area_under_roc(logits, replaced),
        recall=float(positive[replaced].mean()),
        precision=float(replaced[positive].mean()) if positive.any() else None,
        bigram_auc=area_under_roc(surprise, replaced),
        shuffled_auc=area_under_roc(shuffled_logits[row, position], replaced),
    )


def detects_replaced_tokens(objective: Any) -> TypeGuard[ReplacedTokensObjective]:
    """Whether a positive logit of the objective's discriminator means that a token was replaced.
    With other targets it restores tokens, and what it calls `rtd` is the gate of a copy."""
    return isinstance(objective, ReplacedTokensObjective) and objective.config.target.startswith(
        "rtd"
    )


def sample_replacements(
    model: Model, objective: ReplacedTokensObjective, masked: MaskedRows, seed: int = SEED
) -> np.ndarray:
    """The original rows with the generator's samples at the hidden places, int32 [kn l]."""
    _, params = objective.mask_filler(model.params)
    key = jax.random.key(seed, impl=constraints.PRNG)

    @jax.jit
    def sample(params: Any, batch: Batch) -> tuple[jax.Array]:
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(batch["number"])
        return (objective.sample(model.mask_logits(params, batch), jax.random.key_data(keys)),)

    (sampled,) = map_rows(
        lambda batch: sample(params, batch),
        masked.rows,
        model.config.encoder,
        row_logits=masked.masked.shape[1] * model.config.encoder.vocab_size,
        masked=masked.masked,
        number=np.arange(len(masked.rows), dtype=np.int32),
    )
    tokens = masked.labels.copy()
    tokens[masked.places] = sampled[masked.used]
    return tokens


def _discriminator_logits(model: Model) -> Callable[[TokenRows], np.ndarray]:
    """A function, compiled once, from rows to the logits [n l] of their tokens."""
    network, params = model.objective.encoder(model.params)

    @jax.jit
    def apply(params: Any, batch: Batch) -> tuple[jax.Array]:
        batch = {**batch, "masked": jnp.zeros((len(batch["size"]), 1), jnp.int32)}
        out: Any = network.apply({"params": params}, batch)
        return (out["rtd"],)

    def logits(rows: TokenRows) -> np.ndarray:
        return map_rows(
            lambda batch: apply(params, batch), rows, model.config.encoder, per_token=True
        )[0]

    return logits


def _shuffle_text(is_text: np.ndarray, seed: int) -> np.ndarray:
    """A random order [n l] of the text tokens of each row; special tokens stay where they are."""
    u = np.random.default_rng(seed).random(is_text.shape)
    order = np.tile(np.arange(is_text.shape[1]), (len(is_text), 1))
    for i, text in enumerate(is_text):
        at = np.flatnonzero(text)
        order[i, at] = at[np.argsort(u[i, at])]
    return order


def area_under_roc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive has a larger score than a negative; ties count one half."""
    ranks, n = rankdata(scores), int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))
