"""Recipes of fine-tuning are compared over the same rows and seeds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.finetune_recipes import compare, format_comparison, metric, row_scores

SEEDS = ("0", "1", "2")


def scores(rate: float, rng: np.random.Generator) -> dict[str, Any]:
    """Three seeds of 400 rows, of which a share is right."""
    return {s: {"dev": rate, "rows": (rng.random(400) < rate).astype(int).tolist()} for s in SEEDS}


def test_a_recipe_that_is_right_more_often_is_better_beyond_error_and_an_equal_one_is_not() -> None:
    rng = np.random.default_rng(0)
    a = {"sentiment": scores(0.7, rng), "entailment": scores(0.7, rng)}
    b = {"sentiment": scores(0.85, rng), "entailment": a["entailment"]}
    table = compare(a, b, samples=200)
    assert table["sentiment"]["interval"][0] > 0
    assert table["entailment"]["interval"] == [0, 0]
    assert table["mean"]["difference"] == pytest.approx(table["sentiment"]["difference"] / 2)


def test_rows_are_paired_so_that_a_small_difference_on_hard_rows_counts() -> None:
    """Unpaired, 2 % of 400 rows would be half of a standard error."""
    rng = np.random.default_rng(0)
    a = {"sentiment": scores(0.6, rng)}
    rows = {s: {"rows": [1] * 8 + v["rows"][8:]} for s, v in a["sentiment"].items()}
    wrong = {s: {"rows": [0] * 8 + v["rows"][8:]} for s, v in a["sentiment"].items()}
    low, high = compare({"sentiment": wrong}, {"sentiment": rows}, samples=500)["sentiment"][
        "interval"
    ]
    assert 0 < low < 0.02 < high


def test_only_seeds_and_tasks_of_both_count() -> None:
    rng = np.random.default_rng(0)
    a = {"sentiment": scores(0.7, rng), "qa": scores(0.7, rng)}
    table = compare(a, {"sentiment": {"1": a["sentiment"]["1"]}}, samples=2)
    assert list(table) == ["sentiment", "mean"]
    assert table["sentiment"]["seeds"] == 1


def test_dev_scores_are_medians_of_the_seeds_of_both() -> None:
    rows = [0, 1]
    a = {"sentiment": {s: {"dev": d, "rows": rows} for s, d in (("0", 0.5), ("1", 0.9))}}
    b = {"sentiment": {"0": {"dev": 0.6, "rows": rows}}}
    lines = format_comparison("a", "b", compare(a, b, samples=2), {"a": a, "b": b}).splitlines()
    assert lines[2].startswith("| sentiment | 0.5000 | 0.6000 |")
    assert lines[3].startswith("| mean |  |  |")


CLASS = {"text": "a", "label": "x"}
SCORE = {"text": "a", "label": 1.0}
TAGS = {"tokens": ["A", "B"], "tags": ["B-X", "O"]}


@pytest.mark.parametrize(
    ("task_type", "train", "example", "predicted", "rows", "value"),
    [
        ("classification", [CLASS, {**CLASS, "label": "y"}], CLASS, {"label": "y"}, [1, 0], 0.5),
        ("regression", [SCORE], SCORE, {"label": 1.5}, [[1.0, 1.0], [1.0, 1.5]], 0.0),
        ("tagging", [TAGS], TAGS, {"tags": ["B-X", "B-X"]}, [[1, 1, 1], [1, 2, 1]], 0.8),
    ],
)
def test_rows_of_a_run_give_its_metric(
    task_type: str, train: Any, example: Any, predicted: Any, rows: Any, value: float,
    tmp_path: Path,
) -> None:  # fmt: skip
    """The first of two rows is predicted as it is labeled."""
    files = {"train": train, "dev": [example], "test": [example, example]}
    files["predictions_test"] = [example, predicted]
    for name, lines in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert row_scores(task_type, tmp_path, tmp_path) == rows
    assert metric(task_type, np.array(rows, float)) == pytest.approx(value)
