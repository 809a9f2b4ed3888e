"""SQuAD's scores, against those of the official scripts."""

import json
from typing import Any

import pytest

from bert_jax import tasks
from bert_jax.tasks import Answer, EncodedExamples, QuestionExample
from bert_jax.tasks.squad_metrics import squad_scores
from tests.helpers.labeled_rows import make_question, perfect_outputs, trained_tokenizer
from tests.helpers.paths import FIXTURES

CASES = FIXTURES / "squad_scores.json"


def encode(examples: Any) -> EncodedExamples:
    return tasks.encode_examples("qa", examples, trained_tokenizer("wordpiece"), 100)


def questions(rows: list[dict[str, Any]]) -> list[QuestionExample]:
    answers = [tuple(Answer(text, 0) for text in row["gold"]) for row in rows]
    return [QuestionExample("", "", "", some, not some) for some in answers]


@pytest.mark.parametrize("case", json.loads(CASES.read_text(encoding="utf-8")))
def test_squad_metrics_equal_the_official_scripts(case: Any) -> None:
    """Recorded from ports of them: version 1.1 torchmetrics 1.x, 2.0 transformers 4.46."""
    rows = case["rows"]
    nulls = [row["null"] for row in rows] if "limit" in case else None
    metrics = squad_scores(questions(rows), [r["given"] for r in rows], nulls, case.get("limit", 0))
    assert {name: round(metrics[name], 3) for name in case["scores"]} == case["scores"]


def test_two_empty_answers_match_only_in_version_2() -> None:
    the = {"gold": ["the"], "given": "an"}
    assert squad_scores(questions([the]), ["an"]) == {"exact_match": 100, "f1": 0}
    none = {"gold": []}
    metrics = squad_scores(questions([the, none]), ["an", ""])
    assert (metrics["exact_match"], metrics["f1"]) == (100, 100)


def test_a_model_that_may_abstain_is_scored_so_where_every_question_has_an_answer() -> None:
    rows = questions([{"gold": ["a"]}, {"gold": ["b"]}])
    metrics = squad_scores(rows, ["a", "b"], [5.0, -5.0], threshold=0)
    assert (metrics["exact_match"], metrics["f1"]) == (50, 50)
    assert not {"unanswered_f1", "best_f1", "threshold"} & set(metrics)
    assert squad_scores(rows, ["a", "b"], [5.0, -5.0], threshold=6)["f1"] == 100


def test_best_null_threshold_maximizes_the_score() -> None:
    rows = questions([{"gold": ["a b"]}, {"gold": []}, {"gold": ["b"]}, {"gold": []}])
    metrics = squad_scores(rows, ["b", "x", "b", ""], [-2.0, 3.0, 1.0, 2.0])
    assert (metrics["best_f1"], metrics["threshold"]) == (100, 1)
    at = squad_scores(rows, ["b", "x", "b", ""], [-2.0, 3.0, 1.0, 2.0], metrics["threshold"])
    assert at["f1"] == metrics["best_f1"]
    wrong = squad_scores(rows, ["x"] * 4, [-2.0, 3.0, 1.0, 2.0])
    assert wrong["best_f1"] == 50
    assert wrong["threshold"] < -2


def test_model_without_unanswerable_training_questions_always_answers() -> None:
    examples = [make_question("a cat", "cat"), QuestionExample("b", "q", "cat sat", (), True)]
    encoded = encode(examples)
    outputs = perfect_outputs(encoded, ())
    metrics = tasks.compute_metrics("qa", encoded, outputs)
    assert (metrics["f1"], metrics["unanswered_f1"]) == (50, 0)
    assert "threshold" not in metrics
    metrics = tasks.compute_metrics("qa", encoded, outputs, tasks.ANSWERABLE_LABELS)
    assert (metrics["f1"], metrics["best_f1"]) == (100, 100)
    read = tasks.Dataset("qa", "qa", tasks.ANSWERABLE_LABELS, {"dev": list(examples)})
    assert tasks.main_metric("qa", read) == "best_f1"


def test_unlabeled_questions_are_left_out_of_metrics() -> None:
    encoded = encode([QuestionExample("a", "q", "the cat")])
    assert tasks.compute_metrics("qa", encoded, perfect_outputs(encoded, ())) == {}
