"""Rerankers: rows are checked, candidates are encoded, and three orders are scored."""

import json
import math
from typing import Any

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.tasks import Location, RerankExample, rerank
from bert_jax.tasks.fields import Fields
from bert_jax.tasks.results import render_results
from bert_jax.tasks.retrieval import ranking_metrics
from tests.helpers.labeled_rows import trained_tokenizer, write_task_dir

ROW = {"text": "q", "documents": ["a", "b", "c"], "labels": [0, 2, 1]}
NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": []}, "line 1: `documents` is empty: expected at least one candidate"),
        ({"documents": ["a", "b"]}, "line 1: 2 documents and 3 labels: expected one label per"),
        ({"documents": ["a", None, "b"]}, "line 1: an entry of `documents` is null: expected a st"),
        ({"documents": "a"}, "line 1: `documents` is not a list: expected a list of strings"),
        ({"labels": [0, 0, 0]}, "line 1: no label is above 0: expected a relevant document"),
        ({"labels": [0, NAN, 1]}, "line 1: `labels` has nan: expected finite numbers from 0 to"),
        ({"labels": [0, -1, 1]}, "line 1: `labels` has -1: expected finite numbers"),
        ({"labels": [0, True, 1]}, "line 1: `labels` has True: expected finite numbers"),
        ({"labels": 1}, "line 1: `labels` is 1: expected a list"),
        ({"labels": None}, "line 1: `labels` is null: expected a list with a grade of each"),
        ({"missing": ["x"]}, "line 1: `missing` has 'x': expected finite numbers"),
        ({"missing": None}, "line 1: `missing` is null: expected a list"),
        ({"labels": [0, 10**400, 1]}, "line 1: `labels` has 1000"),
    ],
)
def test_invalid_rows_are_refused_with_their_line(changes: dict, message: str) -> None:
    fields = Fields(ROW | changes, Location("train.jsonl", "line 1"))
    with pytest.raises(ValueError, match=message):
        rerank.parse_candidates(fields, labeled=True)


def test_relevant_documents_may_be_missing_and_test_rows_unlabeled(tmp_path: Any) -> None:
    missing = {"text": "q", "documents": ["a"], "labels": [0], "missing": [1]}
    folder = write_task_dir(tmp_path, [ROW, missing], [missing])
    dataset = tasks.read_dataset("rerank", folder)
    assert dataset.splits["dev"] == [RerankExample("q", ("a",), (0.0,), (1.0,))]
    (tmp_path / "new.jsonl").write_text('{"text": "q", "documents": ["a", "b"]}\n')
    (example,) = tasks.iter_unlabeled_examples("rerank", tmp_path / "new.jsonl")
    assert example == RerankExample("q", ("a", "b"))
    assert tasks.max_grade(dataset.splits["train"]) == 2
    hidden = {"text": "q", "documents": ["a", "b"], "labels": [-1, -1]}
    (tmp_path / "test.jsonl").write_text(f"{json.dumps(hidden)}\n")
    assert tasks.read_dataset("rerank", folder).splits["test"] == [RerankExample("q", ("a", "b"))]


def encode(examples: list[RerankExample], **more: Any) -> tasks.EncodedExamples:
    options = dict(train=False, max_documents=2, highest=2.0) | more
    return rerank.encode_candidates(examples, trained_tokenizer("wordpiece"), 12, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [2, 3, 8, 50])
@pytest.mark.parametrize("relevant", [(0,), (9,), (0, 20, 49), tuple(range(10))])
def test_training_has_relevant_candidates_close_ones_and_some_of_all_others(
    most: int, relevant: tuple[int, ...]
) -> None:
    labels = [float(n in relevant) * (1 + n) for n in range(50)]  # later ones are more relevant
    chosen = rerank.choose_candidates(labels, most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == most
    others = [n for n in chosen if not labels[n]]
    assert set(chosen) - set(others) == set(relevant[-(most - len(others)) :])
    assert len(others) == max(most - len(relevant), most // 4 or 1)
    close = [n for n in range(50) if not labels[n]][: (len(others) + 1) // 2]
    assert others[: len(close)] == close
    if len(others) >= 4:
        assert others[-1] >= 48  # the last of all, or of those before a relevant one
        gaps = np.diff(others[len(close) :])
        assert max(gaps) - min(gaps) <= 3


def test_training_rows_have_relevant_candidates_first_and_say_what_they_leave_out() -> None:
    long = "the cat sat on a mat " * 3
    examples = [
        RerankExample("the cat", ("sat", "on", long), (0.0, 0.0, 2.0)),
        RerankExample("a mat", ("sat",), (0.0,), (1.0,)),
        RerankExample("the", ("sat",), (1.0,)),
    ]
    train = encode(examples, train=True)
    assert train.example_indices == [0, 2]
    assert [row["label"].tolist() for row in train.rows] == [[0.0, 1.0], [0.5, -1.0]]
    assert [row["size"].tolist()[1] for row in train.rows] == [12, 0]
    assert train.notes == [
        "candidates longer than 12 tokens, truncated, of 3: 1",
        "candidates beyond objective.max_documents 2, left out: 1",
        "queries whose relevant documents are all missing, left out: 1",
    ]
    every = encode(examples)
    assert every.example_indices == [0, 0, 0, 1, 2]
    assert [float(row["label"]) for row in every.rows] == [0, 0, 1, 0, 0.5]
    assert np.array_equal(every.rows[0]["tokens"], train.rows[0]["tokens"][0])
    with pytest.raises(ValueError, match="no training query has a relevant document among"):
        encode(examples[1:2], train=True)


def test_three_orders_are_scored_with_the_documents_that_the_first_stage_did_not_find() -> None:
    examples = [
        RerankExample("q", ("a", "b", "c"), (0.0, 0.0, 1.0)),
        RerankExample("q", ("a", "b"), (1.0, 0.0), (1.0,)),
        RerankExample("q", ("a",)),  # not labeled
    ]
    encoded = encode(examples)
    scores = [0.1, 0.1, 0.3, -1.0, 2.0, 0.0]
    metrics = tasks.compute_metrics("rerank", encoded, scores)
    half = 1 / math.log2(3)  # nDCG of a document in the second place
    both = 1 + half
    assert metrics["ndcg@10"] == pytest.approx((1 + half / both) / 2)
    assert metrics["first_stage_ndcg@10"] == pytest.approx((0.5 + 1 / both) / 2)
    assert metrics["best_ndcg@10"] == pytest.approx((1 + 1 / both) / 2)
    assert metrics["mrr@10"] == pytest.approx(0.75)
    assert metrics["first_stage_mrr@10"] == pytest.approx((1 / 3 + 1) / 2)
    assert metrics["best_recall@10"] == pytest.approx(0.75)
    assert metrics["map"] == pytest.approx((1 + 0.25) / 2)
    assert tasks.decode_predictions(encoded, scores)[0] == {
        "scores": pytest.approx([0.1, 0.1, 0.3]),
        "ranks": [2, 3, 1],  # equal scores keep the order of the first stage
    }
    assert ranking_metrics([]) == {}
    table = render_results(
        {"task_type": "rerank", "metric": "ndcg@10", "best_step": 1, "steps": 1, "dev": metrics}
    )
    assert [line.split("  ")[0] for line in table.splitlines()[1:4]] == [
        "dev, first stage",
        "dev, reranked",
        "dev, best order",
    ]


def test_the_loss_of_a_split_is_that_of_all_candidates() -> None:
    examples = [RerankExample("q", ("a", "b"), (2.0, 0.0)), RerankExample("q", ("a",), (1.0,))]
    encoded, x = encode(examples), [0.5, -0.25, 1.5]
    p = [1 / (1 + math.exp(-value)) for value in x]
    pointwise = -(math.log(p[0]) + math.log(1 - p[1]) + 0.5 * math.log(p[2] * (1 - p[2]))) / 3
    assert tasks.rank_loss(encoded, x, "pointwise", 2.0) == pytest.approx(pointwise)
    assert tasks.rank_loss(encoded, x, "listwise", 2.0) == pytest.approx(
        math.log(1 + math.exp(-0.75)) / 2
    )


def test_the_worst_queries_are_those_with_the_lowest_ndcg() -> None:
    from bert_jax.tasks.error_analysis import worst_rows

    examples = [
        RerankExample("good", ("a", "b"), (1.0, 0.0)),
        RerankExample("bad", ("a", "b"), (0.0, 1.0)),
        RerankExample("unlabeled", ("a",)),
    ]
    encoded, scores = encode(examples), [1.0, 0.0, 1.0, 0.0, 0.0]
    predictions = tasks.decode_predictions(encoded, scores)
    rows = worst_rows(encoded, scores, predictions, ())
    assert [(row["text"], row["label"], row["predicted"]) for row in rows] == [
        ("bad", "b", "a"),
        ("good", "a", "a"),
    ]
