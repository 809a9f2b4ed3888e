"""What the tasks of a folder give without pre-training: the yardstick of fine-tuned scores.

    python -m study.task_baselines TASKS

Texts: logistic regression (labels) or ridge regression (numbers) on a bag of words: TF-IDF of the
words of each text; of a pair also of the second text's words that the first has, and of those that
it lacks. In scripts without spaces every character is a word. Whether pairs of neighboring words
count too, whether the logarithm of a count is taken, and how strong regularization is, is chosen by
cross-validation on train. Tags: the tag that a word has most often in train; new words have the
most frequent tag. Scored on test or, where it has no labels, on dev.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.tasks.entities import word_spans
from bert_jax.tasks.metrics import correlations
from bert_jax.tasks.tag_scheme import entity_scores, recognize_scheme
from study.datasets import has_labels, read_rows

Rows = Sequence[dict[str, Any]]
STRENGTHS = (1.0, 10.0, 100.0)
FOLDS = 3


def task_baseline(train: Rows, test: Rows, word_f1: bool = False) -> float | None:
    """Accuracy, Pearson correlation, or F1 of entities (where tags mark none: their accuracy, or
    with `word_f1` the mean of each tag's F1) of the test rows, from 0 to 1; None for other kinds of
    rows, and where all have one label.

    ValueError: there are too few rows, a text or a label is missing, or a test label is new."""
    predicted = predict_baseline(train, test)
    if predicted is None:
        return None
    if "tags" in train[0]:
        return _tag_score([row["tags"] for row in test], predicted, word_f1)
    gold = np.array([row["label"] for row in test])
    if is_numeric([row["label"] for row in (*train, *test)]):
        return correlations(np.column_stack([gold, predicted]))["pearson"]
    return float(np.mean(np.asarray(predicted) == gold))


def predict_baseline(train: Rows, test: Rows) -> Sequence[Any] | None:
    """The label or the tags of each test row; None and errors as for `task_baseline`."""
    if len(train) < 2 * FOLDS or not test:
        raise ValueError(f"{len(train)} training rows and {len(test)} test rows are too few")
    if "tags" in train[0]:
        return _most_frequent_tags(train, test)
    labels = [row.get("label") for row in (*train, *test)]
    other = "options" in train[0] or not {"text", "label"} <= train[0].keys()
    if other or any(isinstance(label, list) for label in labels):
        return None
    bad = [row for row in (*train, *test) if not isinstance(row.get("text"), str)]
    if bad or None in labels:
        raise ValueError("a row has no text or no label")
    if len(set(labels[: len(train)])) < 2:
        return None
    unknown = set(labels[len(train) :]) - set(labels[: len(train)])
    if not is_numeric(labels) and unknown:
        raise ValueError(
            f"{sorted(map(repr, unknown))[0]} is a test label that no training row has"
        )
    return _bag_of_words(train, test)


def is_numeric(labels: Sequence[Any]) -> bool:
    """Whether labels are numbers to predict: one is a float. Integers alone are classes."""
    return any(isinstance(label, float) for label in labels)


def metric_name(train: Rows) -> str:
    if "tags" in train[0]:
        scheme = recognize_scheme(sorted({tag for row in train for tag in row["tags"]}))
        return "F1 of entities" if scheme else "accuracy of tags"
    return "Pearson" if is_numeric([row.get("label") for row in train]) else "accuracy"


def _bag_of_words(train: Rows, test: Rows) -> Sequence[Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

    labels = [row["label"] for row in train]
    model, strength = LogisticRegression(tol=1e-3, max_iter=300), {"model__C": STRENGTHS}
    if is_numeric([row["label"] for row in (*train, *test)]):
        model, strength = Ridge(), {"model__alpha": [1 / c for c in STRENGTHS]}
    analyzers = [_single_words, _words_and_pairs]
    grid = {**strength, "words__analyzer": analyzers, "words__sublinear_tf": [False, True]}
    pipeline = Pipeline([("words", TfidfVectorizer()), ("model", model)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that few rows have
        return GridSearchCV(pipeline, grid, cv=FOLDS).fit(train, labels).predict(test).tolist()


def text_features(row: dict[str, Any], neighbors: bool) -> list[str]:
    """The features of a row's texts, with pairs of `neighbors` or without."""
    texts = [row["text"], *([row["text_pair"]] if row.get("text_pair") else [])]
    words = [_words(text.lower()) for text in texts]
    features = []
    for i, of_text in enumerate(words):
        features += [f"{i} {word}" for word in of_text]
        if neighbors:
            features += [f"{i} {a} {b}" for a, b in pairwise(of_text)]
    if len(words) == 2:
        features += [f"{'both' if w in words[0] else 'new'} {w}" for w in words[1]]
    return features


def _words(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


_single_words = partial(text_features, neighbors=False)
_words_and_pairs = partial(text_features, neighbors=True)


def _most_frequent_tags(train: Rows, test: Rows) -> list[list[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in train:
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            counts[token][tag] += 1
    tags = {token: of_token.most_common(1)[0][0] for token, of_token in counts.items()}
    everywhere = sum(counts.values(), Counter()).most_common(1)[0][0]
    return [[tags.get(token, everywhere) for token in row["tokens"]] for row in test]


def _tag_score(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], word_f1: bool
) -> float:
    from sklearn.metrics import f1_score

    scheme = recognize_scheme(sorted({t for tags in (*gold, *predicted) for t in tags}))
    if scheme is not None:
        return entity_scores(scheme, gold, predicted)["f1"]
    words = np.concatenate(gold), np.concatenate(predicted)
    if word_f1:
        return float(f1_score(*words, average="macro", zero_division=0))  # type: ignore[arg-type]
    return float(np.mean(words[0] == words[1]))


def describe_baseline(folder: Path) -> str:
    """The baseline of a folder with train.jsonl and test.jsonl or dev.jsonl, its metric, and what
    was scored; or why there is none."""
    if not (folder / "train.jsonl").is_file():
        return "no baseline: no train.jsonl"
    split = "test" if has_labels(folder / "test.jsonl") else "dev"
    try:
        train, scored = (list(read_rows(folder / f"{name}.jsonl")) for name in ("train", split))
        score = task_baseline(train, scored)
    except (OSError, ValueError, KeyError) as e:
        return f"no baseline: {' '.join(str(e).split())[:200]}"
    if score is None or np.isnan(score):
        return "no baseline: one label alone, or another kind of rows"
    return f"{score:.3f} {metric_name(train)} ({split}, {len(scored):,} rows)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m study.task_baselines")
    parser.add_argument("tasks", type=Path, help="folder of task folders with JSONL files")
    tasks = parser.parse_args().tasks
    folders = sorted(p for p in tasks.glob("*") if p.is_dir() and not p.name.startswith("."))
    if not folders:
        parser.error(f"{tasks} has no folders: expected one for each task")
    for folder in folders:
        print(f"{folder.name}: {describe_baseline(folder)}", flush=True)


if __name__ == "__main__":
    main()
