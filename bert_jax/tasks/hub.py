"""Datasets of the Hugging Face Hub as tasks: columns with the names of our rows' fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert_jax.config import TaskType
from bert_jax.data import hub_dataset
from bert_jax.data.hub_dataset import HubConfig
from bert_jax.tasks.fields import IssueCounts, Location
from bert_jax.tasks.named_columns import LABEL_FEATURES, choose_splits, parse_split
from bert_jax.tasks.records import LocatedExample
from bert_jax.tasks.text_files import LocatedRecord
from bert_jax.utils.errors import first_line


def read_hub(
    task_type: TaskType, source: str, issues: IssueCounts, markers: Sequence[str] = ()
) -> tuple[dict[str, list[LocatedExample]], tuple[str, ...]]:
    """The splits of `hf:datasets/OWNER/NAME[@REVISION][/CONFIG][/SPLIT]`, and its class names in
    the order of their numbers, () if it has none. SPLIT is the one to train on.

    ValueError: it cannot be downloaded, has no train or dev, or its columns have other names.
    """
    config, splits = _open(source)
    examples: dict[str, list[LocatedExample]] = {}
    names: tuple[str, ...] = ()
    for split, hub_split in splits.items():
        shards = config.download(hub_split)
        records: list[LocatedRecord] = []
        for file in shards.files:
            rows, classes = read_shard(file, LABEL_FEATURES.get(task_type))
            names = names or classes
            for row in rows:
                records.append((Location(shards.name, f"row {len(records)}"), row))
        if not records:
            raise ValueError(f"{shards.name} is empty: expected rows in it")
        issues[shards.name, "rows"] = len(records)
        examples[split] = parse_split(task_type, split, records, issues, names, markers)
    return examples, names


def _open(source: str) -> tuple[HubConfig, dict[str, str]]:
    """The config, and our split -> its split."""
    dataset = hub_dataset.parse_dataset(source)
    parts = dataset.parts
    try:
        config, train = hub_dataset.open_config(dataset, parts[:1]), parts[1:]
    except ValueError:
        if len(parts) != 1:
            raise
        config, train = hub_dataset.open_config(dataset, ()), parts  # the part is a split
    return config, choose_splits(source, config.splits, *train)


def read_shard(file: Path, label: str | None) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The rows of a Parquet file, and the class names of the column `label` by the schema that the
    library datasets writes. Numbers of classes become their names; -1 remains.

    ValueError: the file cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as e:
        raise ValueError(f"{file} cannot be read: {first_line(e)}") from e
    rows = table.to_pylist()
    names = _class_names(table.schema.metadata or {}, label) if label is not None else ()
    if names:
        assert label is not None
        for row in rows:
            row[label] = _named(row.get(label), names)
    return rows, names


def _class_names(metadata: dict[bytes, bytes], column: str) -> tuple[str, ...]:
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        while "names" not in feature:  # a list of classes
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        return tuple(map(str, feature["names"]))
    except (KeyError, ValueError, TypeError, IndexError):
        return ()


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(v, names) for v in value]
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return value
