"""Outputs to metrics.

classification  accuracy  f1 precision recall (two classes: of the second; more: the mean
                over classes)  matthews; of GLUE's tasks the published ones
regression      pearson spearman
tagging         f1 precision recall of entities and accuracy of tags where tags are chunks
                (BIO, BIOES, BILOU), else as classification, over words
choice          accuracy
qa              exact_match f1, in per cent (squad_score.py)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from bert_jax.config import GlueTask, TaskType
from bert_jax.tasks import answers, squad_metrics
from bert_jax.tasks.examples import (
    ChoiceExample,
    Dataset,
    EncodedExamples,
    QuestionExample,
    TaggingExample,
    TextExample,
    WordPositions,
)

GLUE_METRICS: dict[str, tuple[str, ...]] = {
    "cola": ("matthews", "accuracy"),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    **dict.fromkeys(("sst2", "mnli", "qnli", "rte", "wnli"), ("accuracy",)),
}


def main_metric(task: TaskType | GlueTask, dataset: Dataset) -> str:
    """The metric by which the best checkpoint is chosen: GLUE's own, else the usual one. For
    SQuAD 2.0 it is the F1 of the best threshold."""
    if task == "cola":
        return "matthews"
    if task == "stsb":
        return "spearman"
    if dataset.task_type == "tagging":
        return "f1" if is_entity_scheme(dataset.labels) else "accuracy"
    if dataset.task_type == "qa":
        impossible = any(cast(QuestionExample, e).impossible for e in dataset.splits["dev"])
        return "best_f1" if dataset.labels and impossible else "f1"
    return "pearson" if dataset.task_type == "regression" else "accuracy"


def is_entity_scheme(labels: Sequence[str]) -> bool:
    """Whether tags say where entities begin and go on: B-PER I-PER O, perhaps E- S- or L- U-."""
    parts = [label.partition("-") for label in labels if label != "O"]
    return bool(parts) and all(first in set("BIESLU") and rest for first, _, rest in parts)


def compute_metrics(
    task: TaskType | GlueTask,
    encoded: EncodedExamples,
    outputs: Sequence[Any],
    labels: Sequence[str] = (),
    threshold: float = 0.0,
) -> dict[str, float]:
    """Metrics over the examples with a label, {} where none has one; see the head of the file.

    outputs   per row, in the order of `encoded.rows` (tasks/__init__.py)
    threshold of no answer, for questions (answers.Decoded)
    """
    if encoded.task_type == "qa":
        return _score_questions(encoded, outputs, labels, threshold)
    if encoded.task_type == "regression":
        pairs = [(e.label, float(out)) for e, out in _known(encoded, outputs)]
        return _correlations(np.array(pairs, np.float64)) if pairs else {}
    if encoded.task_type == "tagging":
        return _score_tags(encoded, outputs, labels)
    gold, given = _classes(encoded, outputs, labels)
    if not len(gold):
        return {}
    if encoded.task_type == "choice":
        return {"accuracy": float(np.mean(gold == given))}
    found = _score_classes(gold, given, len(labels))
    return {name: found[name] for name in GLUE_METRICS.get(task, found)}


def confusion_matrix(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> np.ndarray:
    """int [n n]: how often each class (row) was taken for each (column); classification, and
    tagging by word."""
    from sklearn import metrics

    gold, given = _classes(encoded, outputs, labels)
    if not len(gold):
        return np.zeros((len(labels), len(labels)), np.int64)
    return metrics.confusion_matrix(gold, given, labels=range(len(labels)))


def _known(encoded: EncodedExamples, outputs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Examples that have a label, and their outputs; one row an example."""
    for i, out in zip(encoded.example_indices, outputs, strict=True):
        e = cast(TextExample | ChoiceExample, encoded.examples[i])
        if e.label is not None:
            yield e, out


def _classes(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Gold and predicted classes as numbers, of words for tagging."""
    numbers = {label: i for i, label in enumerate(labels)}
    if encoded.task_type == "tagging":
        gold, given = _tags(encoded, outputs, labels)
        pairs = [
            (numbers[a], numbers[b])
            for g, t in zip(gold, given, strict=True)
            for a, b in zip(g, t, strict=True)
        ]
    elif encoded.task_type == "choice":
        pairs = [(e.label, chosen_option(e, out)) for e, out in _known(encoded, outputs)]
    else:
        pairs = [
            (numbers[str(e.label)], int(np.argmax(out))) for e, out in _known(encoded, outputs)
        ]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def chosen_option(e: ChoiceExample, out: np.ndarray) -> int:
    return int(np.argmax(out[: len(e.options)]))


def _score_classes(gold: np.ndarray, given: np.ndarray, classes: int) -> dict[str, float]:
    from sklearn import metrics

    support: Any = metrics.precision_recall_fscore_support  # its annotations forbid what it asks
    average = "binary" if classes == 2 else "macro"
    precision, recall, f1, _ = support(gold, given, average=average, zero_division=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one class only: 0, which is what we want of it
        matthews = metrics.matthews_corrcoef(gold, given)
    return {
        "accuracy": float(metrics.accuracy_score(gold, given)),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "matthews": float(matthews),
    }


def _correlations(pairs: np.ndarray) -> dict[str, float]:
    """0 where one side is constant, which has no correlation."""
    from scipy import stats

    gold, given = pairs.T
    if len(pairs) < 2 or np.ptp(gold) == 0 or np.ptp(given) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    found = {"pearson": stats.pearsonr(gold, given), "spearman": stats.spearmanr(gold, given)}
    return {name: float(cast(Any, value).statistic) for name, value in found.items()}


# ---- tags


def word_logits(encoded: EncodedExamples, outputs: Sequence[Any]) -> list[np.ndarray]:
    """Per example, the logits of its words [w n], from whichever rows they come."""
    found: list[list[tuple[int, np.ndarray]]] = [[] for _ in encoded.examples]
    for i, place, out in zip(encoded.example_indices, encoded.alignments, outputs, strict=True):
        words, at = cast(WordPositions, place)
        found[i] += zip(words.tolist(), np.asarray(out)[at], strict=True)
    return [np.array([x for _, x in sorted(some, key=lambda p: p[0])]) for some in found]


def _tags(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags of the sentences that have some."""
    gold, given = [], []
    for e, logits in zip(encoded.examples, word_logits(encoded, outputs), strict=True):
        tags = cast(TaggingExample, e).tags
        if tags:
            gold.append(list(tags))
            given.append([labels[int(k)] for k in logits.argmax(-1)])
    return gold, given


def _score_tags(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> dict[str, float]:
    gold, given = _tags(encoded, outputs, labels)
    if not gold:
        return {}
    if not is_entity_scheme(labels):
        return _score_classes(*_classes(encoded, outputs, labels), len(labels))
    from seqeval import metrics

    sides: Any = (_as_bioes(gold), _as_bioes(given))
    measures: dict[str, Any] = {
        "f1": metrics.f1_score,
        "precision": metrics.precision_score,
        "recall": metrics.recall_score,
        "accuracy": metrics.accuracy_score,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no entity found: 0
        return {name: float(measure(*sides)) for name, measure in measures.items()}


def _as_bioes(sentences: list[list[str]]) -> list[list[str]]:
    """BILOU's letters in BIOES, which seqeval reads beside BIO."""
    last = {"L": "E", "U": "S"}
    return [[last.get(tag[0], tag[0]) + tag[1:] for tag in tags] for tags in sentences]


# ---- questions


def _score_questions(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str], threshold: float
) -> dict[str, float]:
    known = [
        (question, decoded)
        for question, decoded in answers.decode_answers(encoded, outputs)
        if question.impossible or question.answers
    ]
    if not known:
        return {}
    given = [answers.best_answer_text(*pair) for pair in known]
    nulls = [decoded.null_score for _, decoded in known] if labels else None
    return squad_metrics.squad_scores([e for e, _ in known], given, nulls, threshold)
