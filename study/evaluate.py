"""Test a trained run on the validation rows of any corpus of its tokenizer.

The masks of a row follow from (seed, row), so all runs that are compared on a corpus see the same
masks on the same rows, whatever their batch size.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

import bert_jax
from bert_jax.data.corpus import open_corpus
from bert_jax.inference.evaluation import token_rows
from bert_jax.inference.evaluation.evaluate import count_corpus, evaluate_corpus
from bert_jax.inference.evaluation.masked_places import paired_difference
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.pair_scores import SegmentCounts, order_scores, pair_scores
from bert_jax.inference.evaluation.token_rows import TokenRows

SEED = 0  # of the masks, for all runs
MAX_COUNT_ROWS = 50_000
HELD_OUT = (
    "rows", "masked_tokens", "mask_loss", "mask_accuracy", "mask_top5", "unigram_loss",
    "unigram_accuracy", "bigram_loss", "bigram_accuracy", "mask_minus_bigram",
    "mask_minus_bigram_se", "rtd_auc", "bigram_auc", "rtd_shuffled_auc", "rtd_recall",
    "rtd_precision",
)  # fmt: skip


@functools.lru_cache(maxsize=1)  # runs of one corpus follow each other, and counts take a minute
def _counts(corpus: Path) -> NeighborCounts:
    return count_corpus(open_corpus(corpus))[0]


def held_out_scores(run: Path, trained_on: Path, held_out: Path, max_rows: int) -> dict[str, Any]:
    """What `bert-jax evaluate` reports on at most `max_rows` validation rows of the corpus
    `held_out`: the model at places that show the mask token, beside counts of both neighbors of
    the training rows of `trained_on`, and ELECTRA's discriminator beside the same counts."""
    result = evaluate_corpus(
        bert_jax.load(run), open_corpus(held_out), max_rows, seed=SEED, counts=_counts(trained_on)
    )
    masked = result.masked
    zero = np.zeros_like(masked.model.loss)
    scores = {k: v for k, v in result.to_json().items() if k in HELD_OUT and v is not None}
    error = paired_difference(masked.row, masked.model.loss, zero, masked.num_rows)[1]
    return scores | {"mask_loss_se": error}


def pair_accuracies(run: Path, nsp: Path, sop: Path, max_rows: int) -> dict[str, float | None]:
    """Accuracies of the pair head, whatever its training objective: 0.5 is chance; None means that
    there are no such rows.

    nsp   is segment B the next one, or from another document? Rows of the corpus `nsp`.
    sop   are the segments in order? The rows of both corpora that `order_scores` leaves, which no
          topic, trimming or length gives away; `sop_counts` is that of counts of tokens.
    """
    model = bert_jax.load(run)
    corpora = [open_corpus(nsp), open_corpus(sop)]
    rows = [token_rows.corpus_rows(corpus, "validation") for corpus in corpora]
    next_sentence = pair_scores(model, rows[0].take(np.arange(len(rows[0])) < max_rows), 0.5)
    train = [token_rows.corpus_rows(corpus, "train", MAX_COUNT_ROWS) for corpus in corpora]
    tokenizer = model.tokenizer
    counts = SegmentCounts.fit(
        TokenRows.concatenate(train), tokenizer.special_tokens, tokenizer.vocab_size
    )
    order = order_scores(model, TokenRows.concatenate(rows), counts)
    return {
        "nsp": next_sentence and next_sentence.accuracy,
        "sop": order and order.accuracy,
        "sop_counts": order and order.counts_accuracy,
        "nsp_rows": next_sentence and next_sentence.pairs,
        "sop_rows": order and order.neighbors,
    }
