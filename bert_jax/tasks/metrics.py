"""Metrics of a task.

classification  accuracy  f1 precision recall (two classes: of the second; more: macro average)
                matthews; for GLUE tasks only the published metrics
multilabel      f1_micro f1_macro precision recall accuracy (multilabel.py)
regression      pearson spearman
tagging         word_accuracy word_f1 (macro average over tags); if the tags mark entities
                (tag_scheme.py), also f1 precision recall of whole entities
choice          accuracy; for RACE also accuracy_middle and accuracy_high
qa              exact_match f1, in percent (squad_metrics.py)
rerank          mrr@10 ndcg@10 recall@10 map, of the model's, the first stage's and the best order
                (rerank.py)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np

from bert_jax.config import GlueTask, TaskType
from bert_jax.tasks import decode, multilabel, squad_metrics
from bert_jax.tasks.examples import (
    Dataset,
    EncodedExamples,
    QuestionExample,
    TaggingExample,
    is_labeled,
)
from bert_jax.tasks.rerank import rerank_metrics
from bert_jax.tasks.tag_scheme import Scoring, entity_scores, recognize_scheme

GLUE_METRICS: dict[str, tuple[str, ...]] = {  # of a task, or of mnli's diagnostic set
    "cola": ("matthews", "accuracy"),
    "diagnostic": ("matthews",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    **dict.fromkeys(("sst2", "mnli", "qnli", "rte", "wnli"), ("accuracy",)),
}


def main_metric(task: TaskType | GlueTask, dataset: Dataset) -> str:
    """Name of the metric that selects the best checkpoint: GLUE's own, else the usual one. For
    SQuAD 2.0 it is the F1 at the best threshold."""
    if task == "cola":
        return "matthews"
    if task == "stsb":
        return "spearman"
    if dataset.task_type == "tagging":
        return "f1" if recognize_scheme(dataset.labels) else "word_accuracy"
    if dataset.task_type == "qa":
        impossible = any(cast(QuestionExample, e).impossible for e in dataset.splits["dev"])
        return "best_f1" if dataset.labels and impossible else "f1"
    others = {"regression": "pearson", "multilabel": "f1_micro", "rerank": "ndcg@10"}
    return others.get(dataset.task_type, "accuracy")


def compute_metrics(
    task: TaskType | GlueTask | Literal["diagnostic"],
    encoded: EncodedExamples,
    outputs: Sequence[Any],
    labels: Sequence[str] = (),
    threshold: float = 0.0,
    thresholds: Sequence[float] = (),
    tag_scoring: Scoring = "lenient",
) -> dict[str, float]:
    """The metrics of the labeled examples (see the top of this file); {} if none is labeled.

    outputs    one per row of `encoded.rows` (tasks/__init__.py)
    threshold  of no answer, for questions (decode.DecodedQuestion)
    thresholds of each label, for multi-label (multilabel.is_predicted)
    tag_scoring  whether entities that break their tag scheme count (tag_scheme.py)
    """
    if encoded.task_type == "qa":
        return _question_metrics(encoded, outputs, labels, threshold)
    if encoded.task_type == "rerank":
        return rerank_metrics(encoded, outputs)
    if encoded.task_type == "multilabel":
        truth, p = multilabel.labeled_rows(encoded, outputs)
        if not len(truth):
            return {}
        return multilabel.multilabel_metrics(truth, multilabel.is_predicted(p, thresholds))
    if encoded.task_type == "regression":
        pairs = [(e.label, float(out)) for e, out in _labeled(encoded, outputs)]
        return correlations(np.array(pairs, np.float64)) if pairs else {}
    if encoded.task_type == "tagging":
        return _tagging_metrics(encoded, outputs, labels, tag_scoring)
    gold, predicted = predicted_classes(encoded, outputs, labels)
    if not len(gold):
        return {}
    if encoded.task_type == "choice":
        return _choice_metrics(encoded, outputs, gold == predicted)
    metrics = _classification_metrics(gold, predicted, len(labels))
    return {name: metrics[name] for name in GLUE_METRICS.get(task, metrics)}


def confusion_matrix(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> np.ndarray:
    """int [n n]: number of predictions of each class (column) for each true class (row); for
    classification, and for tagging per word."""
    from sklearn import metrics

    gold, predicted = predicted_classes(encoded, outputs, labels)
    if not len(gold):
        return np.zeros((len(labels), len(labels)), np.int64)
    return metrics.confusion_matrix(gold, predicted, labels=range(len(labels)))


def _labeled(encoded: EncodedExamples, outputs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """The labeled examples and their outputs, for tasks with one row per example."""
    for i, out in zip(encoded.example_indices, outputs, strict=True):
        if is_labeled(encoded.examples[i]):
            yield encoded.examples[i], out


def predicted_classes(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes of the labeled examples as numbers; for tagging, of words."""
    if encoded.task_type == "tagging":
        return _word_classes(*_tags(encoded, outputs, labels), labels)
    numbers = {label: i for i, label in enumerate(labels)}
    if encoded.task_type == "choice":
        pairs = [(e.label, decode.chosen_option(e, out)) for e, out in _labeled(encoded, outputs)]
    else:
        pairs = [
            (numbers[str(e.label)], int(np.argmax(out))) for e, out in _labeled(encoded, outputs)
        ]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _choice_metrics(
    encoded: EncodedExamples, outputs: Sequence[Any], right: np.ndarray
) -> dict[str, float]:
    """The accuracy, and that of each group of examples (RACE: middle and high)."""
    groups = np.array([e.group or "" for e, _ in _labeled(encoded, outputs)])
    names = sorted(set(groups.tolist()) - {""})
    parts = {f"accuracy_{name}": float(np.mean(right[groups == name])) for name in names}
    return {"accuracy": float(np.mean(right)), **parts}


def _classification_metrics(
    gold: np.ndarray, predicted: np.ndarray, classes: int
) -> dict[str, float]:
    from sklearn import metrics

    support: Any = metrics.precision_recall_fscore_support  # its type annotations are too narrow
    average = "binary" if classes == 2 else "macro"
    precision, recall, f1, _ = support(gold, predicted, average=average, zero_division=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # with one class only it is 0, as intended
        matthews = metrics.matthews_corrcoef(gold, predicted)
    return {
        "accuracy": float(metrics.accuracy_score(gold, predicted)),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "matthews": float(matthews),
    }


def correlations(pairs: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlation; 0 if one side is constant."""
    from scipy import stats

    gold, predicted = pairs.T
    if len(pairs) < 2 or np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    results = {
        "pearson": stats.pearsonr(gold, predicted),
        "spearman": stats.spearmanr(gold, predicted),
    }
    return {name: float(cast(Any, value).statistic) for name, value in results.items()}


# ---- tags


def _tags(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """True and predicted tags of the labeled words of each sentence that has some."""
    gold, predicted = [], []
    for e, logits in zip(encoded.examples, decode.word_logits(encoded, outputs), strict=True):
        tags = cast(TaggingExample, e).tags or ()
        labeled = [i for i, tag in enumerate(tags) if tag is not None]
        if labeled:
            best = logits.argmax(-1)
            gold.append([str(tags[i]) for i in labeled])
            predicted.append([labels[int(best[i])] for i in labeled])
    return gold, predicted


def _word_classes(
    gold: list[list[str]], predicted: list[list[str]], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The tags of sentences as the numbers of the classes of their words."""
    numbers = {label: i for i, label in enumerate(labels)}
    a, b = ([numbers[tag] for tags in x for tag in tags] for x in (gold, predicted))
    return np.array(a, np.int64), np.array(b, np.int64)


def _tagging_metrics(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str], scoring: Scoring
) -> dict[str, float]:
    from sklearn import metrics

    gold, predicted = _tags(encoded, outputs, labels)
    if not gold:
        return {}
    scheme = recognize_scheme(labels)
    entities = entity_scores(scheme, gold, predicted, scoring) if scheme else {}
    words = _word_classes(gold, predicted, labels)
    word_f1: Any = metrics.f1_score(*words, average="macro", zero_division=0)  # type: ignore[arg-type]
    accuracy = float(metrics.accuracy_score(*words))
    return {**entities, "word_accuracy": accuracy, "word_f1": float(word_f1)}


# ---- questions


def _question_metrics(
    encoded: EncodedExamples, outputs: Sequence[Any], labels: Sequence[str], threshold: float
) -> dict[str, float]:
    labeled = [
        (question, decoded)
        for question, decoded in decode.decode_answers(encoded, outputs)
        if is_labeled(question)
    ]
    if not labeled:
        return {}
    predicted = [decode.best_answer_text(*pair) for pair in labeled]
    nulls = [decoded.null_score for _, decoded in labeled] if labels else None
    return squad_metrics.squad_scores([e for e, _ in labeled], predicted, nulls, threshold)
