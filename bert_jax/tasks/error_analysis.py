"""Where a model is wrong: the rows with the largest loss, and whether its probabilities can be
trusted.

Everything is computed from the outputs on labeled examples; unlabeled ones are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from scipy import special

from bert_jax.tasks import decode, multilabel
from bert_jax.tasks.examples import (
    ChoiceExample,
    EncodedExamples,
    Example,
    QuestionExample,
    RerankExample,
    TaggingExample,
    TextExample,
    is_labeled,
)
from bert_jax.tasks.rerank import query_ndcg, scores_of
from bert_jax.tasks.squad_metrics import token_f1

WORST_ROWS = 20
CALIBRATION_BINS = 10
MAX_TEXT = 300  # characters of a row's text that are shown
NO_LABEL = "(none)"


def worst_rows(
    encoded: EncodedExamples,
    outputs: Sequence[Any],
    predictions: Sequence[dict[str, Any]],
    labels: Sequence[str],
) -> list[dict[str, Any]]:
    """The `WORST_ROWS` labeled examples with the largest loss, largest first: line (in the file of
    predictions, from 1), loss, text, label and predicted, the last three as texts. For tagging
    label and predicted name the words that are wrong.

    predictions  of every example (decode.decode_predictions)
    """
    losses = example_losses(encoded, outputs, predictions, labels)
    known = [(x, i) for i, x in enumerate(losses) if x is not None and math.isfinite(x)]
    known.sort(key=lambda pair: (-pair[0], pair[1]))
    words = _word_labels(encoded, outputs, labels) if encoded.task_type == "tagging" else {}
    rows = []
    for loss, i in known[:WORST_ROWS]:
        example = encoded.examples[i]
        label, predicted = words.get(i) or _label_texts(example, predictions[i])
        rows.append(
            {"line": i + 1, "loss": loss, "text": _text(example)}
            | {"label": label, "predicted": predicted}
        )
    return rows


def example_losses(
    encoded: EncodedExamples,
    outputs: Sequence[Any],
    predictions: Sequence[dict[str, Any]],
    labels: Sequence[str],
) -> list[float | None]:
    """The loss of each example, None if it has no label: cross-entropy in nat (tagging: averaged
    over words; multi-label: over labels), squared error, for questions 1 minus the F1 of the
    answer, for rerankers 1 minus nDCG@10. Class weights and label smoothing do not count."""
    if encoded.task_type == "qa":
        pairs = zip(encoded.examples, predictions, strict=True)
        return [_question_loss(cast(QuestionExample, e), p) for e, p in pairs]
    if encoded.task_type == "regression":
        pairs = zip(encoded.examples, predictions, strict=True)
        gold = [(cast(TextExample, e).label, p["label"]) for e, p in pairs]
        return [None if y is None else (float(cast(float, y)) - out) ** 2 for y, out in gold]
    losses: list[float | None] = [None] * len(encoded.examples)
    if encoded.task_type == "rerank":
        scores = zip(encoded.examples, scores_of(encoded, outputs), strict=True)
        queries = ((cast(RerankExample, e), x) for e, x in scores)
        return [1 - query_ndcg(e, x) if is_labeled(e) else None for e, x in queries]
    for i, p, truth in _decisions(encoded, outputs, labels):
        if encoded.task_type == "multilabel":
            right = np.where(truth, p, 1 - p)
        else:
            right = p[np.arange(len(p)), truth]
        losses[i] = float(-np.log(np.maximum(right, 1e-38)).mean())
    return losses


def calibration(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> dict[str, Any] | None:
    """How often predictions of a given probability are right: `ece`, the expected calibration error
    (Guo et al. 2017, arXiv 1706.04599), and `bins` of equal width with their mean confidence,
    their accuracy and count. A decision is a text, a word, or for multi-label a label of a text,
    with its probability and how often it is there. None for other tasks or without labels."""
    confidence, correct = [], []
    for _, p, truth in _decisions(encoded, outputs, labels):
        if encoded.task_type == "multilabel":
            confidence.append(p)
            correct.append(truth)
        else:
            confidence.append(p.max(-1))
            correct.append(p.argmax(-1) == truth)
    if not confidence:
        return None
    p, is_right = np.concatenate(confidence), np.concatenate(correct).astype(float)
    p, is_right = p[np.isfinite(p)], is_right[np.isfinite(p)]
    if not len(p):
        return None
    bin_of = np.minimum((p * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for b in np.unique(bin_of):
        inside = bin_of == b
        values = {"confidence": p[inside].mean(), "accuracy": is_right[inside].mean()}
        bins.append({k: float(v) for k, v in values.items()} | {"count": int(inside.sum())})
    gaps = sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins)
    return {"ece": gaps / len(p), "bins": bins}


def _decisions(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Per labeled example with classes: its index, probabilities [k n] and true classes [k] of its
    k decisions; for multi-label probabilities [n] and bool [n]."""
    numbers = {label: i for i, label in enumerate(labels)}
    if encoded.task_type == "tagging":
        logits = decode.word_logits(encoded, outputs)
        for i, (e, x) in enumerate(zip(encoded.examples, logits, strict=True)):
            tags = cast(TaggingExample, e).tags or ()
            known = {w: numbers[tag] for w, tag in enumerate(tags) if tag is not None}
            if known:
                p = special.softmax(x[list(known)].astype(np.float64), axis=-1)
                yield i, p, np.array(list(known.values()))
    elif encoded.task_type in ("classification", "choice", "multilabel"):
        rows = zip(encoded.example_indices, encoded.rows, outputs, strict=True)
        for i, row, out in rows:
            e = cast(TextExample | ChoiceExample, encoded.examples[i])
            if not is_labeled(e):
                continue
            if encoded.task_type == "multilabel":
                yield i, multilabel.probabilities(out), np.asarray(row["label"]) > 0
                continue
            x = np.asarray(out, np.float64)
            x = x[: len(e.options)] if isinstance(e, ChoiceExample) else x
            yield i, special.softmax(x)[None], np.array([row["label"]])


def _question_loss(e: QuestionExample, prediction: dict[str, Any]) -> float | None:
    golds = [a.text for a in e.answers] or ([""] if e.impossible else [])
    if not golds:
        return None
    return 1 - max(token_f1(gold, prediction["answer"]) for gold in golds)


def _word_labels(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> dict[int, tuple[str, str]]:
    """Per example the words with a wrong tag: their true tags, and the predicted ones."""
    texts = {}
    for i, logits in enumerate(decode.word_logits(encoded, outputs)):
        e = cast(TaggingExample, encoded.examples[i])
        predicted = [labels[int(k)] for k in logits.argmax(-1)] if len(logits) else []
        wrong = [
            (f"{word} {gold}", f"{word} {tag}")
            for word, gold, tag in zip(e.tokens, e.tags or (), predicted, strict=False)
            if gold is not None and gold != tag
        ]
        texts[i] = (
            ", ".join(gold for gold, _ in wrong) or NO_LABEL,
            ", ".join(tag for _, tag in wrong) or NO_LABEL,
        )
    return texts


def _label_texts(example: Example, prediction: dict[str, Any]) -> tuple[str, str]:
    """The true and the predicted label of an example in words."""
    if isinstance(example, ChoiceExample):
        assert example.label is not None
        return example.options[example.label], prediction["option"]
    if isinstance(example, QuestionExample):
        golds = " / ".join(dict.fromkeys(a.text for a in example.answers))
        return golds or NO_LABEL, prediction["answer"] or NO_LABEL
    if isinstance(example, RerankExample):
        best = int(np.argmax(example.labels or ()))
        found = any(example.labels or ())
        return (
            _one_line(example.documents[best]) if found else NO_LABEL,
            _one_line(example.documents[prediction["ranks"].index(1)]),
        )
    label = cast(TextExample, example).label
    if isinstance(label, tuple):
        return ", ".join(label) or NO_LABEL, ", ".join(prediction["labels"]) or NO_LABEL
    predicted = prediction["label"]
    is_number = isinstance(predicted, float)
    return str(label), f"{predicted:.4g}" if is_number else str(predicted)


def _text(example: Example) -> str:
    """The text of an example on one line, cut to `MAX_TEXT` characters."""
    if isinstance(example, TaggingExample):
        parts = [" ".join(example.tokens)]
    elif isinstance(example, QuestionExample):
        parts = [example.question, example.context]
    elif isinstance(example, ChoiceExample):
        parts = [example.question, example.text]
    elif isinstance(example, RerankExample):
        parts = [example.text]
    else:
        parts = [example.text, *([] if example.text_pair is None else [example.text_pair])]
    return _one_line(" | ".join(parts))


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
