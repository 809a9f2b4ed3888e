"""Rerankers: a query with its candidates, in the order of a first stage that found them.

    {"text", "documents": [...], "labels": [...], "missing": [...]}

A label is a grade, 0 if the candidate is not relevant. `missing`, which may be absent, has the
grades of relevant documents that the first stage did not find: they count in the metrics, and no
order of the candidates has them.

A candidate is read as [CLS] query [SEP] document [SEP], of which the longer text is truncated.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, cast

import numpy as np
from scipy import special

from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks import retrieval
from bert_jax.tasks.examples import EncodedExamples, RerankExample
from bert_jax.tasks.fields import Fields, is_marker, shown
from bert_jax.tasks.long_texts import cut_text
from bert_jax.tasks.retrieval import Judged
from bert_jax.tasks.rows import one_row, rows_in_one

RankLoss = Literal["pointwise", "listwise"]
METRICS = tuple(name for name in retrieval.METRICS if name != "recall@100")
ORDERS = ("first_stage_", "", "best_")  # prefixes of the metrics of an order
MAX_GRADE = 1e6

# ---- reading


def parse_candidates(fields: Fields, labeled: bool, markers: Collection[str] = ()) -> RerankExample:
    """A query whose labels are all among `markers` has none.

    ValueError: no documents, another number of labels than documents, a label that is no grade,
    no relevant document.
    """
    text, documents, where = fields.text("text"), fields.texts("documents"), fields.location
    if not documents:
        raise ValueError(f"{where}: `documents` is empty: expected at least one candidate")
    if fields.value("labels", labeled, "a list with a grade of each document") is None:
        return RerankExample(text, documents)
    values = fields.record["labels"]
    if isinstance(values, list) and values and all(is_marker(x, markers) for x in values):
        return RerankExample(text, documents)
    labels, missing = _grades(fields, "labels"), ()
    if len(labels) != len(documents):
        raise ValueError(
            f"{where}: {len(documents)} documents and {len(labels)} labels: expected one label per "
            "document"
        )
    if "missing" in fields.record:
        missing = _grades(fields, "missing")
    if not any((*labels, *missing)):
        raise ValueError(
            f"{where}: no label is above 0: expected a relevant document, or its grade in "
            "`missing` if the first stage did not find it; remove queries without any"
        )
    return RerankExample(text, documents, labels, missing)


def _grades(fields: Fields, name: str) -> tuple[float, ...]:
    grades = fields.record[name]
    expected = f"expected finite numbers from 0 to {MAX_GRADE:.0e}"
    if not isinstance(grades, list):
        raise ValueError(f"{fields.location}: `{name}` is {shown(grades)}: expected a list")
    for x in grades:
        number = isinstance(x, int | float) and not isinstance(x, bool)
        if not number or not 0 <= x <= MAX_GRADE:
            raise ValueError(f"{fields.location}: `{name}` has {shown(x)}: {expected}")
    return tuple(map(float, grades))


def max_grade(examples: Sequence[Any]) -> float:
    """The highest grade of a candidate; 1 if all are lower."""
    return max([1.0, *(x for e in examples for x in cast(RerankExample, e).labels or ())])


# ---- encoding


def encode_candidates(
    examples: Sequence[RerankExample],
    tokenizer: Tokenizer,
    length: int,
    *,
    train: bool,
    max_documents: int,
    highest: float,
) -> EncodedExamples:
    """One row per candidate; with `train` one row per query, of up to `max_documents` candidates:
    see `choose_candidates`. A training query without a relevant candidate has no row."""
    capacity = tokenizer.special_tokens.text_capacity(length, 2)
    rows: list[dict[str, Any]] = []
    indices: list[int] = []
    cut_queries = truncated = num_candidates = left_out = without = 0
    chosen = [
        choose_candidates(e.labels or (0.0,) * len(e.documents), max_documents)
        if train
        else range(len(e.documents))
        for e in examples
    ]
    width = max(map(len, chosen), default=0)
    for i, (e, numbers) in enumerate(zip(examples, chosen, strict=True)):
        if train and not any(e.labels or ()):
            without += 1
            continue
        query, *documents = tokenizer.encode_batch(
            [e.text.strip(), *(e.documents[n].strip() for n in numbers)]
        )
        cut = [cut_text(query, d, capacity, "truncate", 1) for d in documents]
        built = [tokenizer.build_row(*parts[0]) for parts, _ in cut]
        grades = [-1.0 if e.labels is None else e.labels[n] / highest for n in numbers]
        truncated += sum(bool(lost) for _, lost in cut)
        cut_queries += any(lost for _, lost in cut)
        num_candidates += len(built)
        left_out += len(e.documents) - len(built)
        if train:
            empty = width - len(built)
            row = rows_in_one([*built, *[((), 0)] * empty], len(rows))
            rows.append(row | {"label": np.array(grades + [-1.0] * empty, np.float32)})
            indices.append(i)
            continue
        for candidate, grade in zip(built, grades, strict=True):
            rows.append(one_row(*candidate, len(rows)) | {"label": np.float32(grade)})
            indices.append(i)
    if train and not rows:
        raise ValueError(
            "no training query has a relevant document among its candidates: add the documents "
            "that `missing` counts"
        )
    counts = {
        f"candidates longer than {length} tokens, truncated, of {num_candidates}": truncated,
        f"candidates beyond objective.max_documents {max_documents}, left out": left_out,
        "queries whose relevant documents are all missing, left out": without,
    }
    notes = [f"{what}: {n}" for what, n in counts.items() if n]
    return EncodedExamples(
        "rerank", rows, indices, examples, num_truncated=cut_queries, notes=notes
    )


def choose_candidates(labels: Sequence[float], most: int) -> list[int]:
    """The numbers of at most `most` candidates to train on, in the order of the file: the relevant
    ones, for half of the room the first others, and for the rest of it others at even distances.
    Of the first ones alone a reranker would not learn that later ones are worse. Where relevant
    ones would leave no room, those with the highest grades stay, and a quarter is for others."""
    others = [n for n, label in enumerate(labels) if label <= 0]
    most_relevant = most - min(len(others), most // 4 or 1) if most > 1 else 1
    by_grade = sorted((n for n, label in enumerate(labels) if label > 0), key=lambda n: -labels[n])
    relevant = by_grade[:most_relevant]
    room = min(most - len(relevant), len(others))
    first, later = others[: (room + 1) // 2], others[(room + 1) // 2 :]
    spread = np.linspace(0, len(later) - 1, room - len(first)).round().astype(int)
    return sorted([*relevant, *first, *(later[i] for i in spread)])


# ---- scores


def scores_of(encoded: EncodedExamples, outputs: Sequence[Any]) -> list[np.ndarray]:
    """The scores [c] of the candidates of each query, from outputs of one row per candidate."""
    scores: list[list[float]] = [[] for _ in encoded.examples]
    for i, out in zip(encoded.example_indices, outputs, strict=True):
        scores[i].append(float(out))
    return [np.array(x, np.float32) for x in scores]


def ranks_of(scores: np.ndarray) -> list[int]:
    """The rank of each candidate, from 1; of equal scores the earlier one is first."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.empty(len(scores), np.int64)
    ranks[order] = np.arange(1, len(scores) + 1)
    return ranks.tolist()


def rerank_metrics(encoded: EncodedExamples, outputs: Sequence[Any]) -> dict[str, float]:
    """The metrics of `retrieval.ranking_metrics` for the model's order; with the prefix
    `first_stage_` for the order of the file, and with `best_` for the best order that the
    candidates can have. {} if no query has labels."""
    judged: dict[str, list[Judged]] = {order: [] for order in ORDERS}
    for e, scores in zip(encoded.examples, scores_of(encoded, outputs), strict=True):
        e = cast(RerankExample, e)
        if e.labels is None:
            continue
        orders = (-np.arange(len(scores)), scores, np.array(e.labels))
        for order, values in zip(ORDERS, orders, strict=True):
            judged[order].append(judge(e.labels, e.missing, values))
    values = {order: retrieval.ranking_metrics(j) for order, j in judged.items()}
    if not values[""]:
        return {}
    return {
        f"{order}{name}": values[order][name] for order in ("", *ORDERS[::2]) for name in METRICS
    }


def judge(labels: Sequence[float], missing: Sequence[float], scores: np.ndarray) -> Judged:
    """The ranks of a query's candidates by their scores, and their grades; documents that are not
    among the candidates are never found."""
    grades, never = np.array([*labels, *missing]), [math.inf] * len(missing)
    return Judged(np.array([*ranks_of(scores), *never]), grades)


def query_ndcg(e: RerankExample, scores: np.ndarray) -> float:
    """The nDCG@10 of one query with labels."""
    return retrieval.ranking_metrics([judge(e.labels or (), e.missing, scores)])["ndcg@10"]


def rank_loss(
    encoded: EncodedExamples, outputs: Sequence[Any], kind: RankLoss, highest: float
) -> float:
    """The training loss over all candidates of the labeled queries; NaN if there are none."""
    losses: list[float] = []
    for e, x in zip(encoded.examples, scores_of(encoded, outputs), strict=True):
        labels = np.array(cast(RerankExample, e).labels or (), np.float64)
        if not len(labels) or (kind == "listwise" and not labels.any()):
            continue
        if kind == "listwise":
            losses.append(float(-(labels / labels.sum() * special.log_softmax(x)).sum()))
        else:
            losses += (np.logaddexp(0, x) - x * np.minimum(labels / highest, 1)).tolist()
    return float(np.mean(losses)) if losses else math.nan


def candidates_json(encoded: EncodedExamples, outputs: Sequence[Any]) -> list[dict[str, Any]]:
    """The prediction of each query: `scores` (logits) and `ranks` (from 1) of its candidates, both
    in their order."""
    return [
        {"scores": scores.tolist(), "ranks": ranks_of(scores)}
        for scores in scores_of(encoded, outputs)
    ]
