"""`predict`: a fine-tuned model on a file of new rows, a part of the file at a time."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bert_jax import tasks
from bert_jax.config import TaskType
from bert_jax.inference.model import Model

ROWS_PER_CHUNK = 1024  # rows held at a time


def predict_file(model: Model, source: Path, out: Path) -> tuple[int, int]:
    """Write an object per row of `source` into the new file `out`, in their order; returns how
    many rows there were, and how many of their texts were too long and cut.

    ValueError: a model that was not fine-tuned, an `out` that is there, rows that are not sound.
    """
    kind = model.task.task_type
    if out.exists():
        raise ValueError(f"--out {out} is there: expected the name of a new file")
    if not source.is_file():
        raise ValueError(f"{source} does not exist: expected a file of rows; check the path")
    part, rows, cut = out.with_name(f".{out.name}.part"), 0, 0
    try:
        with part.open("w", encoding="utf-8") as f:
            for examples in _parts(_examples(kind, source)):
                encoded = model.encode_examples(examples)
                for said in model.predict_examples(encoded):
                    f.write(json.dumps(said, ensure_ascii=False) + "\n")
                rows, cut = rows + len(examples), cut + encoded.num_truncated
            f.flush()
            os.fsync(f.fileno())
        if not rows:
            raise ValueError(f"{source} is empty: expected one JSON object a line")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return rows, cut


def _examples(kind: TaskType, source: Path) -> Iterable[tasks.Example]:
    """SQuAD's JSON is one object and read whole; a line is a row of its own."""
    if kind == "qa" and source.suffix == ".json":
        return tasks.read_unlabeled_examples(kind, source)
    return tasks.iter_unlabeled_examples(kind, source)


def _parts(examples: Iterable[tasks.Example]) -> Iterator[list[Any]]:
    remaining = iter(examples)
    while part := list(itertools.islice(remaining, ROWS_PER_CHUNK)):
        yield part
