"""Test a trained run on the validation rows of any corpus of its tokenizer.

The masks of a row follow from (seed, row), so all runs that are compared on a corpus see the same
masks on the same rows, whatever their batch size.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bert_jax
from bert_jax import config, objectives
from bert_jax.data import mixture
from bert_jax.data.corpus import open_corpus
from bert_jax.data.loader import Batch
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.inference.evaluation.evaluate import count_corpus, evaluate_corpus
from bert_jax.inference.evaluation.masked_places import paired_difference
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.pair_scores import swap_segments
from bert_jax.inference.evaluation.token_rows import TokenRows

SEED = 0  # of the masks, for all runs
BATCH_SIZE = 32
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
    """Balanced accuracies of the pair head, whatever its training objective: 0.5 is chance; None
    means that a class is missing.

    nsp   is segment B the next one, or from another document? Rows of the corpus `nsp`.
    sop   are the segments in order? The rows of both corpora whose segments follow each other,
          in both orders. The swapped rows of a SOP corpus are not used: some have a random
          segment (data/segments.py), which a model finds by its topic.
    """
    model = bert_jax.load(run)
    predict = _pair_predictor(model, nsp)
    special_tokens = model.tokenizer.special_tokens
    next_sentence: list[tuple[int, int]] = []  # (label, prediction)
    in_order: list[int] = []
    exchanged: list[int] = []
    for corpus in (nsp, sop):
        for batch in _open(model, corpus)[1].one_pass(-(-max_rows // BATCH_SIZE)):
            real = batch["size"] > 0
            predictions = predict(batch)
            if corpus == nsp:
                labeled = real & (batch["pair"] >= 0)
                next_sentence += zip(batch["pair"][labeled], predictions[labeled], strict=True)
            neighbors = real & (batch["pair"] == 0)
            in_order += list(predictions[neighbors])
            exchanged += list(predict(_swapped(batch, special_tokens))[neighbors])
    order = [(0, p) for p in in_order] + [(1, p) for p in exchanged]
    return {
        "nsp": balanced_accuracy(next_sentence),
        "sop": balanced_accuracy(order),
        "nsp_rows": len(next_sentence),
        "sop_rows": len(in_order),
    }


def _swapped(batch: Batch, special_tokens: SpecialTokens) -> Batch:
    rows = TokenRows(batch["tokens"], batch["size"], batch["first"], batch["pair"])
    rows = swap_segments(rows, special_tokens)
    return {**batch, "tokens": rows.tokens, "first": rows.first}


def balanced_accuracy(answers: Iterable[tuple[int, int]]) -> float | None:
    """The accuracy of (label, prediction), averaged over both classes; None: one is missing."""
    correct: dict[int, list[bool]] = {0: [], 1: []}
    for label, prediction in answers:
        correct[int(label)].append(bool(prediction == label))
    if not all(correct.values()):
        return None
    return float(np.mean([np.mean(of_class) for of_class in correct.values()]))


def _pair_predictor(model: bert_jax.Model, corpus: Path) -> Any:
    """A function from a batch to the pair head's prediction for each row."""
    network, params = _open(model, corpus)[0].encoder(model.params)

    @jax.jit
    def logits(params: Any, batch: Any) -> jax.Array:
        slots = dict.fromkeys(("masked", "left", "right", "offset"), batch["tokens"][:, :1] * 0)
        return network.apply({"params": params}, {**batch, **slots})["pair"]  # type: ignore[index]

    return lambda batch: np.argmax(logits(params, batch), axis=-1)


def _open(model: bert_jax.Model, corpus: Path) -> tuple[Any, Any]:
    """The model's objective, and the loader of the corpus's validation rows."""
    experiment = config.replace(
        model.config, data=dict(path=str(corpus), corpus=None, batch_size=BATCH_SIZE)
    )
    stages = mixture.open_stages(experiment)
    objective = objectives.build(experiment, mixture.corpus_vocabulary(stages[-1]))
    return objective, mixture.evaluation_loader(experiment, stages)
