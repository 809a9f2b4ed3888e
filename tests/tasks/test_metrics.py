"""Metrics of every task type."""

from typing import Any

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.tasks import ChoiceExample, Dataset, EncodedExamples, TaggingExample, TextExample
from tests.helpers.labeled_rows import trained_tokenizer

LABELS = ("a", "b", "c", "d", "e")


def encode(task_type: Any, examples: Any) -> EncodedExamples:
    return tasks.encode_examples(task_type, examples, trained_tokenizer("wordpiece"), 24, LABELS)


def scores(task: Any, gold: list[Any], outputs: list[Any], labels: tuple[str, ...]) -> Any:
    kind = tasks.task_type_of(task)
    words = kind == "tagging"
    some = [
        TaggingExample(("a",) * len(g), g) if words else TextExample("a", None, g) for g in gold
    ]
    encoded = tasks.encode_examples(kind, some, trained_tokenizer("wordpiece"), 24, labels)
    return tasks.compute_metrics(task, encoded, outputs, labels)


def hot(label: int, n: int) -> np.ndarray:
    return np.eye(n, dtype=np.float32)[label]


def test_classification_metrics() -> None:
    """True and false positives 2 1, negatives 1 1 by hand."""
    gold, predicted = ["1", "1", "1", "0", "0"], [1, 1, 0, 1, 0]
    metrics = scores("classification", gold, [hot(g, 2) for g in predicted], ("0", "1"))
    mcc = (2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2)
    right = {"accuracy": 0.6, "f1": 2 / 3, "precision": 2 / 3, "recall": 2 / 3, "matthews": mcc}
    assert metrics == pytest.approx(right)
    alike = scores("classification", gold, [hot(0, 2)] * 5, ("0", "1"))
    assert (alike["matthews"], alike["f1"], alike["accuracy"]) == (0, 0, 0.4)
    zeros = scores("classification", ["0", "0"], [hot(0, 2)] * 2, ("0", "1"))
    assert (zeros["matthews"], zeros["f1"], zeros["accuracy"]) == (0, 0, 1)


def test_accuracy_of_race_is_also_given_for_middle_and_high() -> None:
    groups = ["middle", "high", "high", "high"]
    some = [ChoiceExample("a", "b", ("c", "d"), 0, group) for group in groups]
    encoded = tasks.encode_examples("choice", some, trained_tokenizer("wordpiece"), 24)
    outputs = [hot(right, 2) for right in (1, 0, 0, 1)]
    expected = {"accuracy": 0.5, "accuracy_middle": 0, "accuracy_high": pytest.approx(2 / 3)}
    assert tasks.compute_metrics("choice", encoded, outputs) == expected


def test_glue_tasks_have_only_their_published_metrics() -> None:
    outputs = [hot(0, 2), hot(1, 2)]

    def names(task: str) -> set[str]:
        labels = ("entailment", "not_entailment") if task == "rte" else ("0", "1")
        return set(scores(task, list(labels), outputs, labels))

    assert names("cola") == {"matthews", "accuracy"}
    assert names("mrpc") == names("qqp") == {"accuracy", "f1"}
    assert names("sst2") == names("wnli") == names("rte") == {"accuracy"}
    assert set(scores("stsb", [0.0, 1.0], [1.0, 2.0], ())) == {"pearson", "spearman"}


def test_correlation_of_a_constant_is_zero() -> None:
    assert scores("regression", [1.0, 2.0], [3.0, 3.0], ()) == {"pearson": 0, "spearman": 0}
    assert scores("regression", [1.0, 2.0, 9.0], [1.0, 3.0, 4.0], ())["spearman"] == 1


def test_unlabeled_examples_are_left_out_of_metrics() -> None:
    assert scores("classification", ["1", None], [hot(1, 2)] * 2, ("0", "1"))["accuracy"] == 1
    assert scores("classification", [None], [hot(1, 2)], ("0", "1")) == {}
    encoded = encode("tagging", [TaggingExample(("a",))])
    assert tasks.compute_metrics("tagging", encoded, [np.zeros((3, 5), np.float32)], LABELS) == {}


CHUNKS = ("B-X", "B-Y", "E-X", "I-X", "L-X", "O", "S-Y", "U-Y")


def tagged(gold: list[str], predicted: list[str], labels: tuple[str, ...] = CHUNKS) -> Any:
    outputs = np.stack(
        [hot(0, len(labels))] + [hot(labels.index(t), len(labels)) for t in predicted]
    )
    outputs = np.concatenate([outputs, outputs[:1]])
    return scores("tagging", [tuple(gold)], [outputs], labels)


def test_tagging_metrics_count_whole_entities() -> None:
    gold = ["B-X", "I-X", "O", "B-Y"]
    metrics = tagged(gold, ["B-X", "O", "O", "B-Y"])
    entities = {"f1": 0.5, "precision": 0.5, "recall": 0.5}
    words = {"word_accuracy": 0.75, "word_f1": pytest.approx((1 + 0 + 2 / 3 + 1) / 4)}
    assert metrics == {**entities, **words}
    assert tagged(gold, ["O"] * 4)["f1"] == 0
    metrics = tagged(["B-X", "E-X", "O", "S-Y"], ["B-X", "E-X", "O", "O"])
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics == tagged(["B-X", "L-X", "O", "U-Y"], ["B-X", "L-X", "O", "O"])


def test_tags_without_entity_scheme_count_by_word() -> None:
    metrics = tagged(["N", "V", "N"], ["N", "N", "N"], ("N", "V"))
    assert metrics == {"word_accuracy": pytest.approx(2 / 3), "word_f1": pytest.approx(0.4)}


def test_confusion_matrix_counts_true_by_predicted_labels() -> None:
    encoded = encode("classification", [TextExample("a", None, x) for x in "aab"])
    outputs = [hot(0, 5), hot(1, 5), hot(1, 5)]
    counts = tasks.confusion_matrix(encoded, outputs, LABELS)
    assert counts[:2, :2].tolist() == [[1, 1], [0, 1]]
    assert counts.sum() == 3
    unlabelled = encode("classification", [TextExample("a")])
    assert not tasks.confusion_matrix(unlabelled, outputs[:1], LABELS).any()


@pytest.mark.parametrize(
    ("task", "labels", "metric"),
    [
        ("cola", (), "matthews"),
        ("stsb", (), "spearman"),
        ("mnli", (), "accuracy"),
        ("classification", ("a", "b"), "accuracy"),
        ("regression", (), "pearson"),
        ("choice", (), "accuracy"),
        ("qa", (), "f1"),
        ("tagging", ("B-X", "I-X", "O"), "f1"),
        ("tagging", ("N", "V"), "word_accuracy"),
    ],
)
def test_main_metric_of_each_task(task: Any, labels: tuple[str, ...], metric: str) -> None:
    read = Dataset(task, tasks.task_type_of(task), labels, {"train": [], "dev": []})
    assert tasks.main_metric(task, read) == metric
