"""Error analysis: the rows with the largest loss, and the calibration of probabilities."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.tasks import ChoiceExample, TaggingExample, TextExample, errors_file
from bert_jax.tasks.error_analysis import calibration, example_losses, worst_rows
from tests.helpers.labeled_rows import make_question, perfect_outputs, trained_tokenizer

LABELS = ("a", "b", "c")


def encode(task: Any, *examples: Any) -> tasks.EncodedExamples:
    labels = LABELS if task in ("classification", "multilabel", "tagging") else ()
    return tasks.encode_examples(task, examples, trained_tokenizer("wordpiece"), 32, labels)


def analyze(task: Any, outputs: Any, *examples: Any) -> tuple[list[Any], list[Any], Any]:
    encoded = encode(task, *examples)
    predictions = tasks.decode_predictions(encoded, outputs, LABELS)
    args = encoded, outputs, predictions, LABELS
    return example_losses(*args), worst_rows(*args), calibration(encoded, outputs, LABELS)


def logits(*p: float) -> np.ndarray:
    return np.log(np.array(p))


def test_texts_by_cross_entropy_and_unlabeled_ones_are_left_out() -> None:
    labels = {("one", "two"): "a", ("x", None): None, ("y", None): "c"}
    texts = [TextExample(a, b, label) for (a, b), label in labels.items()]
    outputs = [logits(0.9, 0.05, 0.05), logits(1, 1e-9, 1e-9), logits(0.2, 0.7, 0.1)]
    losses, worst, curve = analyze("classification", outputs, *texts)
    assert losses == [pytest.approx(-math.log(0.9)), None, pytest.approx(-math.log(0.1))]
    shown = [(r["line"], r["label"], r["predicted"]) for r in worst]
    assert shown == [(3, "c", "b"), (1, "a", "a")]
    assert worst[1]["text"] == "one | two"
    assert curve["ece"] == pytest.approx((0.7 + 0.1) / 2)
    assert [b["count"] for b in curve["bins"]] == [1, 1]


def test_a_bin_whose_share_equals_its_probability_adds_nothing_to_the_error() -> None:
    """Ten answers of .7, of which seven are right."""
    texts = [TextExample("t", None, "a" if i < 7 else "b") for i in range(10)]
    outputs = [logits(0.7, 0.2, 0.1)] * 10
    curve = analyze("classification", outputs, *texts)[2]
    assert curve["ece"] == pytest.approx(0, abs=1e-9)
    assert curve["bins"] == [
        {"confidence": pytest.approx(0.7), "accuracy": pytest.approx(0.7), "count": 10}
    ]


def test_several_labels_are_decisions_of_their_own() -> None:
    losses, worst, curve = analyze(
        "multilabel", [np.array([0.0, 0.0, 50.0])], TextExample("t", None, ("a", "c"))
    )
    assert losses == [pytest.approx(2 / 3 * math.log(2))]
    assert (worst[0]["label"], worst[0]["predicted"]) == ("a, c", "c")
    assert sum(b["count"] for b in curve["bins"]) == 3


def test_words_numbers_options_and_answers_have_losses() -> None:
    tagged = TaggingExample(("the", "cat"), ("a", "b"))
    encoded = encode("tagging", tagged)
    outputs: Any = perfect_outputs(encoded, LABELS)
    outputs[0][encoded.rows[0]["tags"] == 1] = [50, 0, 0]  # the second word is taken for an a
    losses, worst, curve = analyze("tagging", outputs, tagged)
    assert losses[0] == pytest.approx((50 + math.log(1 + 2 * math.exp(-1))) / 2, rel=1e-2)
    assert (worst[0]["label"], worst[0]["predicted"]) == ("cat b", "cat a")
    assert sum(b["count"] for b in curve["bins"]) == 2
    losses, worst, curve = analyze("regression", [np.float32(2.5)], TextExample("t", None, 1.0))
    assert (losses, worst[0]["predicted"], curve) == ([2.25], "2.5", None)
    choice = ChoiceExample("text", "which", ("x", "y"), 1)
    losses, worst, _ = analyze("choice", [np.array([0.0, 0.0, -np.inf])], choice)
    assert losses == [pytest.approx(math.log(2))]
    assert (worst[0]["label"], worst[0]["predicted"]) == ("y", "x")
    question = make_question("the cat sat", "cat")
    right = perfect_outputs(encode("qa", question), ())
    assert analyze("qa", right, question)[0] == [0]


def test_what_is_written_is_read_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert errors_file.read_errors(tmp_path) == {}
    encoded = encode("classification", TextExample("text", None, "a"))
    outputs = [logits(0.5, 0.3, 0.2)]
    predictions = tasks.decode_predictions(encoded, outputs, LABELS)
    errors = {"dev": errors_file.split_errors(encoded, outputs, predictions, LABELS)}
    errors_file.write_errors(tmp_path, errors)
    read = errors_file.read_errors(tmp_path)
    assert read["dev"]["calibration"] == errors["dev"]["calibration"]
    for broken in ("[", "[]", '{"dev": {}}', json.dumps({"dev": {"worst": [{"line": "1"}]}})):
        (tmp_path / "errors.json").write_text(broken)
        with pytest.raises(ValueError, match="no valid error analysis: remove it"):
            errors_file.read_errors(tmp_path)
