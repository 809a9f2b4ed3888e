"""TFDS datasets whose features have the names of our rows' fields, or of TFDS's GLUE tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.config import TaskType
from bert_jax.data import tfds_folder
from bert_jax.tasks.fields import IssueCounts, Location
from bert_jax.tasks.records import LocatedExample, parse_records
from bert_jax.tasks.text_files import LocatedRecord

SPLITS = {  # TFDS split -> our split
    "train": "train",
    "validation": "dev",
    "dev": "dev",
    "validation_matched": "dev",
    "validation_mismatched": "dev_mismatched",
    "test": "test",
    "test_matched": "test",
    "test_mismatched": "test_mismatched",
}
TEXT_FEATURES = (  # features that are read as text and text_pair
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("sentence", None),
)
LABEL_FEATURES: dict[TaskType, str] = {
    "classification": "label",
    "multilabel": "label",
    "tagging": "tags",
}  # features with class names


def no_label_markers(names: Sequence[str], markers: Sequence[str]) -> tuple[str, ...]:
    """The user's markers and, where classes have names, -1, the number of a class that is not
    known. A class may have that name."""
    return (*markers, *(("-1",) if names and "-1" not in names else ()))


def read_tfds(
    task_type: TaskType, source: str, issues: IssueCounts, markers: Sequence[str] = ()
) -> tuple[dict[str, list[LocatedExample]], tuple[str, ...]]:
    """The splits of `tfds:NAME`, and its class names in the order of their numbers, () if it has
    none. NAME may be a folder that TFDS wrote. The dataset is downloaded and prepared if needed.

    ValueError: it cannot be opened, has no train or dev, or its features have other names.
    """
    builder, splits = _open(source)
    features = builder.info.features
    label = LABEL_FEATURES.get(task_type)
    classes = _innermost(features[label]) if label in features else None
    names = tuple(getattr(classes, "names", None) or ())
    examples: dict[str, list[LocatedExample]] = {}
    for split, rows in splits.items():
        records: list[LocatedRecord] = []
        for n in range(len(rows)):
            location = Location(f"{source}/{split}", f"example {n}")
            record = {
                k: _to_json(features[k], v, task_type in LABEL_FEATURES) for k, v in rows[n].items()
            }
            records.append((location, with_text_fields(record, task_type)))
        if not records:
            raise ValueError(f"{source}/{split} is empty: expected examples in it")
        labeled = not split.startswith("test")
        no_label = no_label_markers(names, markers)
        examples[split] = parse_records(task_type, records, issues, labeled, no_label)
    return examples, names


def _open(source: str) -> tuple[Any, dict[str, Any]]:
    with tfds_folder.open_builder(source, source.removeprefix("tfds:"), "tfds:NAME") as builder:
        names = {name: split for split, name in SPLITS.items() if split in builder.info.splits}
        splits = {name: builder.as_data_source(split=split) for name, split in names.items()}
    if not {"train", "dev"} <= set(splits):
        listed = ", ".join(sorted(builder.info.splits)) or "none"
        raise ValueError(f"{source} has the splits {listed}: expected train, and validation or dev")
    return builder, splits


def _innermost(feature: Any) -> Any:
    """The element feature of nested list features."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return feature


def _to_json(feature: Any, value: Any, named: bool) -> Any:
    """A TFDS value as in JSON. A class is its number or, if `named`, its name; -1 if unknown."""
    if isinstance(value, dict):
        inner = getattr(feature, "feature", feature)
        return {k: _to_json(inner[k], v, named) for k, v in value.items()}
    if isinstance(value, np.ndarray | list):
        return [_to_json(feature, v, named) for v in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    value = value.item() if isinstance(value, np.generic) else value
    classes = _innermost(feature)
    if hasattr(classes, "int2str"):
        return classes.int2str(value) if named and value >= 0 else value
    return value


def with_text_fields(record: dict[str, Any], task_type: TaskType) -> dict[str, Any]:
    """The record with the fields that `records.parse_example` reads."""
    if "text" in record or task_type not in (
        "classification",
        "multilabel",
        "regression",
    ):
        return record
    for first, second in TEXT_FEATURES:
        if first in record and (second is None or second in record):
            pair = {} if second is None else {"text_pair": record[second]}
            return record | {"text": record[first]} | pair
    return record
