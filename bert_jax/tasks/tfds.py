"""TFDS datasets whose features have the names of our rows' fields, or of TFDS's GLUE tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.config import TaskType
from bert_jax.data import tfds_folder
from bert_jax.tasks.fields import IssueCounts, Location
from bert_jax.tasks.named_columns import LABEL_FEATURES, choose_splits, parse_split
from bert_jax.tasks.records import LocatedExample
from bert_jax.tasks.text_files import LocatedRecord


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
            records.append((location, record))
        if not records:
            raise ValueError(f"{source}/{split} is empty: expected examples in it")
        examples[split] = parse_split(task_type, split, records, issues, names, markers)
    return examples, names


def _open(source: str) -> tuple[Any, dict[str, Any]]:
    with tfds_folder.open_builder(source, source.removeprefix("tfds:"), "tfds:NAME") as builder:
        names = choose_splits(source, builder.info.splits)
        splits = {ours: builder.as_data_source(split=name) for ours, name in names.items()}
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
