"""Rows to predict, one at a time: labels in them are not looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax.config import TaskType
from bert_jax.tasks.examples import Example
from bert_jax.tasks.records import Location, parse_example, read_json_lines

LABEL_FIELDS = ("label", "tags", "answers", "is_impossible")


def iter_unlabeled_examples(task_type: TaskType, file: Path) -> Iterator[Example]:
    """The rows of a JSONL file as they come; blank lines are skipped.

    ValueError: a line that is not a JSON object, a field that is missing or wrong.
    """
    return (
        parse_unlabeled_example(task_type, record, place) for place, record in read_json_lines(file)
    )


def parse_unlabeled_example(task_type: TaskType, record: Any, place: Location) -> Example:
    """A record as an example. ValueError: as above, named by its place."""
    if not isinstance(record, dict):
        raise ValueError(f"{place}: expected a JSON object, one a line")
    bare = {k: v for k, v in record.items() if k not in LABEL_FIELDS}
    return parse_example(task_type, bare, place, Counter(), labelled=False)
