"""Splits of datasets that have names for their splits, columns and classes (TFDS, the Hub)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bert_jax.config import TaskType
from bert_jax.tasks.fields import IssueCounts
from bert_jax.tasks.records import LocatedExample, parse_records
from bert_jax.tasks.text_files import LocatedRecord

SPLITS = {  # the dataset's split -> our split, of which the first that there is counts
    "train": "train",
    "validation": "dev",
    "dev": "dev",
    "validation_matched": "dev",
    "validation_mismatched": "dev_mismatched",
    "test": "test",
    "test_matched": "test",
    "test_mismatched": "test_mismatched",
}
TEXT_FEATURES = (  # columns that are read as text and text_pair
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
}  # columns with class names


def choose_splits(
    source: str, available: Collection[str], train: str | None = None
) -> dict[str, str]:
    """Our split -> the dataset's split, of those that are available. `train` names the split to
    train on, if it is another one. ValueError: there is no train or dev."""
    splits: dict[str, str] = {}
    for name, split in SPLITS.items():
        if name in available:
            splits.setdefault(split, name)
    if train is not None:
        splits["train"] = train
    if not {"train", "dev"} <= set(splits):
        listed = ", ".join(sorted(available)) or "none"
        raise ValueError(f"{source} has the splits {listed}: expected train, and validation or dev")
    return splits


def parse_split(
    task_type: TaskType,
    split: str,
    records: Sequence[LocatedRecord],
    issues: IssueCounts,
    names: Sequence[str],
    markers: Sequence[str] = (),
) -> list[LocatedExample]:
    """The examples of the records of `split` (ours). `names` are those of the classes, () if they
    have none; `markers` are labels that mean "no label". ValueError: an invalid record."""
    renamed = [(location, with_text_fields(r, task_type)) for location, r in records]
    labeled = not split.startswith("test")
    return parse_records(task_type, renamed, issues, labeled, no_label_markers(names, markers))


def no_label_markers(names: Sequence[str], markers: Sequence[str]) -> tuple[str, ...]:
    """The user's markers and, where classes have names, -1, the number of a class that is not
    known. A class may have that name."""
    return (*markers, *(("-1",) if names and "-1" not in names else ()))


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
