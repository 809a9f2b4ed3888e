"""How well a model predicts masked tokens, beside baselines made of counts.

All models get the same task, whatever they were trained with: 15 % of the tokens of each row,
drawn one by one, and each of them shows the mask token. So nothing can be copied from the position
itself, as it can where training leaves a tenth of the predicted tokens unchanged.

Axes: n rows, k maskings of each, l tokens of a row, p predictions, m hidden tokens in all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np

from bert_jax.config import Masking
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.distributed import constraints
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.neighbor_counts import PlaceScores
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds, neighbors
from bert_jax.inference.evaluation.token_rows import TokenRows, map_rows
from bert_jax.inference.model import Model
from bert_jax.objectives.masking import mask_tokens

MASKING = Masking(mask_prob=1.0, random_prob=0.0)  # single tokens, 15 %
MASKINGS = 3  # of each row
SEED = 0
ROWS_PER_BATCH = 256


class MaskedRows(NamedTuple):
    """k masked copies of n rows, copy after copy: row i of copy j is at j n + i."""

    rows: TokenRows  # [kn l]: their tokens are masked
    labels: np.ndarray  # int32 [kn l]: the tokens before they were masked
    masked: np.ndarray  # int32 [kn p]: the hidden positions, 0 where `used` is not set
    used: np.ndarray  # bool [kn p]
    maskings: int  # k

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The copy's row and the position of each hidden token: [m], [m]."""
        row, slot = np.nonzero(self.used)
        return row, self.masked[row, slot]

    def row_number(self, copy: np.ndarray) -> np.ndarray:
        """The numbers of the rows, 0 to n - 1, that copies are of."""
        return copy % (len(self.rows) // self.maskings)

    @property
    def targets(self) -> np.ndarray:
        """The hidden tokens, [m]."""
        return self.labels[self.places]


def mask_rows(
    rows: TokenRows,
    vocabulary: Vocabulary,
    maskings: int = MASKINGS,
    seed: int = SEED,
) -> MaskedRows:
    """The rows, masked `maskings` times. The masks of a row follow from the seed and its number."""
    mask = jax.jit(lambda batch, key: mask_tokens(batch, MASKING, vocabulary, key))
    key = jax.random.key(seed, impl=constraints.PRNG)
    parts: list[dict[str, np.ndarray]] = []
    for epoch in range(maskings):
        for begin in range(0, len(rows), ROWS_PER_BATCH):
            number = np.arange(begin, begin + ROWS_PER_BATCH)
            filled = min(ROWS_PER_BATCH, len(rows) - begin)
            source = np.minimum(number, len(rows) - 1)
            batch = {
                "tokens": rows.tokens[source],
                "size": rows.size[source],
                "row": number.astype(np.int32),
                "epoch": np.full(ROWS_PER_BATCH, epoch, np.int32),
            }
            masked = jax.device_get(mask(batch, key))
            names = ("tokens", "labels", "masked", "weights")
            parts.append({name: masked[name][:filled] for name in names})
    tokens, labels, positions, weights = (
        np.concatenate([part[name] for part in parts])
        for name in ("tokens", "labels", "masked", "weights")
    )
    copies = rows.take(np.tile(np.arange(len(rows)), maskings))
    copies = replace(copies, tokens=tokens)
    return MaskedRows(copies, labels, positions, weights > 0, maskings)


def check_mask_filler(model: Model) -> None:
    """Raise ValueError if the model has no masked-word head."""
    if not model.fills_masks:
        raise ValueError(
            "the model has no masked-word head, so it cannot predict masked tokens: evaluate a "
            "pre-trained model"
        )


def model_scores(model: Model, masked: MaskedRows) -> PlaceScores:
    """Loss and rank of the hidden tokens under a model, [m]. ELECTRA's generator restores them.

    The model has the head for it (`check_mask_filler`). ValueError: its numbers are not finite.
    """
    _, params = model.objective.mask_filler(model.params)
    loss, rank = map_rows(
        lambda batch: model.mask_losses(params, batch),
        masked.rows,
        model.config.encoder,
        row_logits=masked.masked.shape[1] * model.config.encoder.vocab_size,
        masked=masked.masked,
        targets=np.take_along_axis(masked.labels, masked.masked, axis=1),
    )
    loss, rank = loss[masked.used].astype(float), rank[masked.used]
    if not np.isfinite(loss).all():  # NaN is above no logit, so every answer would be right
        raise ValueError(
            f"the model's loss is not finite at {(~np.isfinite(loss)).sum():,} of {len(loss):,} "
            "masked tokens: evaluate an earlier checkpoint"
        )
    return PlaceScores(loss, rank)


@dataclass(frozen=True)
class MaskedScores:
    """Scores at the same hidden tokens: the model's, and what would score without it."""

    row: np.ndarray  # int [m]: the row of each hidden token, of n
    num_rows: int  # n
    model: PlaceScores
    unigram: PlaceScores  # the frequencies of tokens
    bigram: PlaceScores  # counts of both neighbors

    def difference(self) -> tuple[float, float]:
        """Mean loss of the model minus that of the counts in nat, and its standard error. Rows are
        independent, the maskings of a row are not, so a row with its maskings is one sample."""
        return paired_difference(self.row, self.model.loss, self.bigram.loss, self.num_rows)

    def accuracy_difference(self, k: int = 1) -> tuple[float, float]:
        """The share of tokens among the model's top k minus that of the counts, and its standard
        error, as in `difference`."""
        model, counts = (s.in_top(k).astype(float) for s in (self.model, self.bigram))
        return paired_difference(self.row, model, counts, self.num_rows)


def masked_scores(
    model: Model, counts: CountsByRow, masked: MaskedRows, kinds: TokenKinds
) -> MaskedScores:
    """The scores of a model, of unigram and of neighbor counts at the same hidden tokens.

    The model has the head for it (`check_mask_filler`). ValueError: no token was hidden.
    """
    if not masked.used.any():
        raise ValueError(
            "no token could be hidden: all pieces are special, or unknown to the "
            "model's tokenizer; give text that it knows"
        )
    row, position = masked.places
    left, right = neighbors(masked.rows.tokens, kinds, row, position)
    number, targets = masked.row_number(row), masked.targets
    return MaskedScores(
        number,
        len(masked.rows) // masked.maskings,
        model_scores(model, masked),
        counts.unigram_scores(number, targets),
        counts.scores(number, left, right, targets),
    )


def paired_difference(
    row: np.ndarray, a: np.ndarray, b: np.ndarray, num_rows: int
) -> tuple[float, float]:
    """The mean of a - b over all places, and its standard error over rows."""
    places = np.bincount(row, minlength=num_rows)
    sums = np.bincount(row, a - b, minlength=num_rows)
    return ratio(sums[places > 0], places[places > 0])


def ratio(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The sum of `sums` over the sum of `counts`, and its standard error over samples, which have
    different counts (a ratio estimate); NaN for fewer than two samples."""
    mean, n = sums.sum() / counts.sum(), len(sums)
    if n < 2:
        return float(mean), float("nan")
    variance = ((sums - mean * counts) ** 2).sum() * n / (n - 1)
    return float(mean), float(np.sqrt(variance) / counts.sum())
