"""What the tasks give without pre-training: words count, their order does not."""

import random
from pathlib import Path
from typing import Any

import pytest

from study.task_baselines import describe_baseline, task_baseline, text_features
from tests.helpers import labeled_rows

FILLERS = ["the", "of", "and", "to", "in", "was", "that", "his", "it", "with"]


def texts(num: int, seed: int, kind: str) -> list[dict[str, Any]]:
    """Rows whose label follows from a word, as a name or a number, or from the order of two words
    with others between them."""
    rng, rows = random.Random(seed), []
    for i in range(num):
        words, second = rng.choices(FILLERS, k=6), i % 2
        if kind == "order":
            words[0], words[5] = ("red", "blue") if second else ("blue", "red")
            words = [*rng.choices(FILLERS, k=2), *words, *rng.choices(FILLERS, k=2)]
        else:
            words[rng.randrange(6)] = ("bad", "good")[second]
        label = float(second) if kind == "number" else ("no", "yes")[second]
        rows.append({"text": " ".join(words), "label": label})
    return rows


@pytest.mark.parametrize("kind", ["word", "number"])
def test_a_word_that_decides_is_found(kind: str) -> None:
    score = task_baseline(texts(80, 0, kind), texts(40, 1, kind))
    assert score is not None
    assert score > 0.95


def test_the_order_of_words_that_are_no_neighbors_is_not_found() -> None:
    score = task_baseline(texts(200, 0, "order"), texts(400, 1, "order"))
    assert score is not None
    assert abs(score - 0.5) < 0.1  # four standard errors


def test_a_pair_has_the_words_that_both_texts_have() -> None:
    row = {"text": "A red, red house", "text_pair": "a blue house"}
    assert text_features(row, neighbors=False) == [
        *("0 a", "0 red", "0 ,", "0 red", "0 house"),
        *("1 a", "1 blue", "1 house"),
        *("both a", "new blue", "both house"),
    ]
    assert {"0 red house", "1 blue house"} <= set(text_features(row, neighbors=True))


def test_characters_are_words_in_scripts_without_spaces() -> None:
    row = {"text": "東京はcool。"}
    assert text_features(row, neighbors=False) == ["0 東", "0 京", "0 は", "0 cool", "0 。"]
    assert "0 東 京" in text_features(row, neighbors=True)


def test_a_word_has_its_most_frequent_tag_and_a_new_word_the_most_frequent_of_all() -> None:
    train = [
        {"tokens": ["Paris", "is", "in", "France"], "tags": ["B-LOC", "O", "O", "B-LOC"]},
        {"tokens": ["Paris", "Hilton", "is", "here"], "tags": ["B-PER", "I-PER", "O", "O"]},
        {"tokens": ["to", "Paris"], "tags": ["O", "B-LOC"]},
    ]
    test = [
        {"tokens": ["Paris", "Hilton", "left", "Oslo"], "tags": ["B-LOC", "O", "O", "B-LOC"]},
        {"tokens": ["in", "France"], "tags": ["O", "B-LOC"]},
    ]
    # found: Paris, Hilton, France; true: Paris, Oslo, France
    nothing = [{"tokens": ["."], "tags": ["O"]}] * 3
    assert task_baseline([*train, *nothing], test) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a", "label": ["x"]},
        {"text": "a", "label": "one"},
        {"text": "a", "question": "b", "options": ["c", "d"], "label": 0},
        {"text": "a", "positive": "b"},
    ],
    ids=["several labels", "one label", "options", "pairs"],
)
def test_other_rows_have_no_baseline(row: dict[str, Any]) -> None:
    other = row | {"label": 1} if "options" in row else row
    assert task_baseline([row, other] * 4, [row]) is None


def test_labeled_test_rows_are_scored_and_else_the_dev_rows(tmp_path: Path) -> None:
    train, dev = texts(40, 0, "word"), texts(10, 1, "word")
    labeled_rows.write_jsonl(tmp_path / "train.jsonl", train)
    labeled_rows.write_jsonl(tmp_path / "dev.jsonl", dev)
    assert describe_baseline(tmp_path).endswith(" accuracy (dev, 10 rows)")
    for unlabeled in ({}, {"label": "-"}, {"label": -1}, {"label": None}):
        labeled_rows.write_jsonl(tmp_path / "test.jsonl", [{"text": "good", **unlabeled}] * 3)
        assert describe_baseline(tmp_path).endswith("(dev, 10 rows)")
    labeled_rows.write_jsonl(tmp_path / "test.jsonl", dev[:7])
    assert describe_baseline(tmp_path).endswith(" accuracy (test, 7 rows)")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda train, dev: train[:3], "3 training rows and 10 test rows are too few"),
        (lambda train, dev: [*train, {"text": None, "label": "no"}], "a row has no text"),
        (lambda train, dev: [*train, {"text": "a"}], "a row has no text or no label"),
        (lambda train, dev: [r for r in train if r["label"] == "no"], "one label alone"),
        (lambda train, dev: dev.append({"text": "a", "label": "new"}) or train, "'new' is a test"),
    ],
)
def test_what_has_no_baseline_is_said(change: Any, reason: str, tmp_path: Path) -> None:
    train, dev = texts(40, 0, "word"), texts(10, 1, "word")
    train = change(train, dev)
    labeled_rows.write_jsonl(tmp_path / "train.jsonl", train)
    labeled_rows.write_jsonl(tmp_path / "dev.jsonl", dev)
    said = describe_baseline(tmp_path)
    assert said.startswith("no baseline: ")
    assert reason in said
