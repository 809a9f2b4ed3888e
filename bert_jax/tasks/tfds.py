"""TFDS datasets whose features are named like the fields of the contract's rows, or like those
of GLUE's tasks there."""

from __future__ import annotations

from typing import Any

import numpy as np

from bert_jax.config import TaskType
from bert_jax.data import tfds_folder
from bert_jax.tasks.records import IssueCounts, LocatedExample, Location, parse_example

SPLITS = {  # theirs -> ours
    "train": "train",
    "validation": "dev",
    "dev": "dev",
    "validation_matched": "dev",
    "validation_mismatched": "dev_mismatched",
    "test": "test",
    "test_matched": "test",
    "test_mismatched": "test_mismatched",
}
TEXT_FEATURES = (  # features that stand for text and text_pair
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("sentence", None),
)
LABEL_FEATURES: dict[TaskType, str] = {
    "classification": "label",
    "tagging": "tags",
}  # classes have names


def read_tfds(
    task_type: TaskType, source: str, odd: IssueCounts
) -> tuple[dict[str, list[LocatedExample]], tuple[str, ...]]:
    """The splits of `tfds:NAME`, and its labels in the order of their numbers where it says so.
    NAME may be a folder that TFDS wrote. Prepares the dataset in ArrayRecord if need be.

    ValueError: it cannot be opened, has no train or dev, or its features have other names.
    """
    builder, splits = _open(source)
    features = builder.info.features
    found: dict[str, list[LocatedExample]] = {}
    for split, rows in splits.items():
        found[split] = []
        for n in range(len(rows)):
            place = Location(f"{source}/{split}", f"example {n}")
            record = {
                k: _plain(features[k], v, task_type in LABEL_FEATURES) for k, v in rows[n].items()
            }
            record = _named(record, task_type)
            labelled = not split.startswith("test")
            found[split].append((place, parse_example(task_type, record, place, odd, labelled)))
        if not found[split]:
            raise ValueError(f"{source}/{split} is empty: expected examples in it")
    classes = (
        _innermost(features[LABEL_FEATURES[task_type]]) if task_type in LABEL_FEATURES else None
    )
    return found, tuple(getattr(classes, "names", None) or ())


def _open(source: str) -> tuple[Any, dict[str, Any]]:
    with tfds_folder.open_builder(source, source.removeprefix("tfds:"), "tfds:NAME") as builder:
        theirs = {ours: split for split, ours in SPLITS.items() if split in builder.info.splits}
        splits = {ours: builder.as_data_source(split=split) for ours, split in theirs.items()}
    if not {"train", "dev"} <= set(splits):
        there = ", ".join(sorted(builder.info.splits)) or "none"
        raise ValueError(f"{source} has the splits {there}: expected train, and validation or dev")
    return builder, splits


def _innermost(feature: Any) -> Any:
    """What a list is a list of."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature


def _plain(feature: Any, value: Any, named: bool) -> Any:
    """A value of TFDS as JSON would have it; a class by its number or, `named`, by its name;
    None where it is unknown."""
    if isinstance(value, dict):
        inner = getattr(feature, "feature", feature)
        return {k: _plain(inner[k], v, named) for k, v in value.items()}
    if isinstance(value, np.ndarray | list):
        return [_plain(feature, v, named) for v in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    value = value.item() if isinstance(value, np.generic) else value
    classes = _innermost(feature)
    if hasattr(classes, "int2str"):
        return None if value < 0 else classes.int2str(value) if named else value
    return value


def _named(record: dict[str, Any], task_type: TaskType) -> dict[str, Any]:
    """The record under the names that `records.example` knows."""
    if "text" in record or task_type not in ("classification", "regression"):
        return record
    for first, second in TEXT_FEATURES:
        if first in record and (second is None or second in record):
            pair = {} if second is None else {"text_pair": record[second]}
            return record | {"text": record[first]} | pair
    return record
