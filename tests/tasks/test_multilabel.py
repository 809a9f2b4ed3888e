"""Multi-label: rows with any number of labels, thresholds, metrics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.tasks import EncodedExamples, TextExample, multilabel
from tests.helpers.labeled_rows import trained_tokenizer, write_jsonl, write_task_dir

LABELS = ("a", "b", "c")


def encode(*labels: Any) -> EncodedExamples:
    examples = [TextExample("the cat", None, label) for label in labels]
    return tasks.encode_examples("multilabel", examples, trained_tokenizer("wordpiece"), 16, LABELS)


def test_a_list_makes_the_task_multilabel(tmp_path: Path) -> None:
    rows = [{"text": "t", "label": label} for label in (["b", "a"], "c", [], ["a", "a"])]
    path = write_task_dir(tmp_path, rows)
    write_jsonl(path / "test.jsonl", [{"text": "t"}, {"text": "t", "label": []}])
    read = tasks.read_dataset("classification", path)
    assert (read.task, read.task_type, read.labels) == ("multilabel", "multilabel", LABELS)
    labels = [[e.label for e in examples] for examples in read.splits.values()]  # type: ignore[union-attr]
    assert labels == [[("b", "a"), ("c",), (), ("a",)]] * 2 + [[None, ()]]
    assert any("the same label twice" in note and note.endswith(": 1") for note in read.notes)
    assert any("multi-label" in note for note in read.notes)


def test_an_explicit_multilabel_task_takes_single_labels_and_needs_one(tmp_path: Path) -> None:
    rows = [{"text": "t", "label": label} for label in ("x", 2)]
    read = tasks.read_dataset("multilabel", write_task_dir(tmp_path / "a", rows))
    assert read.labels == ("2", "x")
    with pytest.raises(ValueError, match="no row has a label"):
        tasks.read_dataset(
            "multilabel", write_task_dir(tmp_path / "b", [{"text": "t", "label": []}])
        )
    unseen = write_task_dir(tmp_path / "c", rows, [{"text": "t", "label": ["x", "y"]}])
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 1: unknown label 'y'"):
        tasks.read_dataset("classification", unseen)


def test_labels_are_a_vector_and_unknown_ones_are_minus_one() -> None:
    rows = encode(("c", "a"), (), None).rows
    assert [row["label"].tolist() for row in rows] == [[1, 0, 1], [0, 0, 0], [-1, -1, -1]]


def test_no_other_threshold_has_a_better_f1() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    for scale in (1.0, 0.0):  # distinct, and all equal
        gold, logits = rng.integers(0, 2, (40, 3)) > 0, scale * rng.normal(size=(40, 3))
        logits[:, 2] = np.round(logits[:, 2])  # ties
        encoded = encode(*(tuple(np.array(LABELS)[g]) for g in gold))
        thresholds = tasks.best_thresholds(encoded, logits)
        p = multilabel.probabilities(logits)
        for i, t in enumerate(thresholds):
            every = [f1_score(gold[:, i], p[:, i] > cut) for cut in (0, *np.unique(p[:, i]))]
            assert f1_score(gold[:, i], p[:, i] > t) == pytest.approx(max(every))


def test_a_label_without_examples_keeps_one_half() -> None:
    assert tasks.best_thresholds(encode(("a",), ("a",)), np.ones((2, 3)))[1:] == (0.5, 0.5)
    assert tasks.best_thresholds(encode(None), np.ones((1, 3))) == ()


def test_metrics_by_hand_leave_unlabeled_texts_out() -> None:
    """Decisions: 2 true and 1 false positive, 1 false negative; one text of three is right."""
    encoded = encode(("a", "b"), (), None, ("c",))
    outputs = np.array([[1, -1, -1], [-1, 1, -1], [9, 9, 9], [-1, -1, 1.0]])
    scores = tasks.compute_metrics("multilabel", encoded, outputs, LABELS)
    micro = dict(f1_micro=2 / 3, precision=2 / 3, recall=2 / 3)
    assert scores == pytest.approx(micro | dict(f1_macro=2 / 3, accuracy=1 / 3))
    by_label = tasks.label_scores(encoded, outputs, LABELS)
    assert by_label["b"] == dict(precision=0, recall=0, f1=0, support=1)
    assert by_label["c"] == dict(precision=1, recall=1, f1=1, support=1)
    # A threshold above every probability predicts nothing.
    assert (
        tasks.compute_metrics("multilabel", encoded, outputs, LABELS, 0.0, (1, 1, 1))["recall"] == 0
    )
    assert tasks.compute_metrics("multilabel", encode(None), outputs[:1], LABELS) == {}


@pytest.mark.parametrize("n", [2, 3])
def test_metrics_equal_those_of_scikit_learn_for_several_labels(n: int) -> None:
    from sklearn.metrics import precision_recall_fscore_support as scores

    gold, predicted = np.random.default_rng(n).random((2, 30, n)) < 0.3
    gold[:, 0] = predicted[:, 0] = False  # a label that no text has
    found = multilabel.multilabel_metrics(gold, predicted)
    micro = scores(gold, predicted, average="micro", zero_division=0)
    macro = scores(gold, predicted, average="macro", zero_division=0)
    values = [found[name] for name in ("precision", "recall", "f1_micro", "f1_macro")]
    assert values == pytest.approx([*micro[:3], macro[2]])


def test_a_single_label_is_scored_by_its_own_decisions() -> None:
    gold = np.zeros((100, 1), bool)
    gold[:5] = True
    none = multilabel.multilabel_metrics(gold, np.zeros_like(gold))
    assert none == dict(f1_micro=0, f1_macro=0, precision=0, recall=0, accuracy=0.95)


def test_predictions_have_all_probabilities_and_the_labels_above_their_threshold() -> None:
    encoded, outputs = encode(None), [np.array([2.0, 0.0, -2.0])]
    (plain,) = tasks.decode_predictions(encoded, outputs, LABELS)
    assert plain["labels"] == ["a"]
    assert plain["probabilities"] == pytest.approx({"a": 0.8808, "b": 0.5, "c": 0.1192}, abs=1e-4)
    thresholds = (0.9, 0.4, 0.1)
    (tuned,) = tasks.decode_predictions(encoded, outputs, LABELS, 0.0, thresholds)
    assert tuned == {**plain, "labels": ["b", "c"]}
