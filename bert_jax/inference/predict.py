"""`predict`: apply a fine-tuned model to a file of new rows, one chunk at a time."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bert_jax import tasks
from bert_jax.data.tokenization import coverage
from bert_jax.inference.model import Model
from bert_jax.tasks import tables
from bert_jax.tasks.text_files import require_file
from bert_jax.utils import io, strict_json

logger = logging.getLogger(__name__)
ROWS_PER_CHUNK = 1024  # rows in memory at a time


def predict_file(model: Model, source: Path, out: Path) -> tuple[int, int]:
    """Write one JSON object per row of `source` to the new file `out`, in their order. Returns the
    number of rows, and how many of them were truncated.

    ValueError: a model that is not fine-tuned, an `out` that exists or has another format in its
    name, invalid rows.
    """
    task_type = model.task.task_type
    io.require_new_jsonl(out)
    require_file(source, "a file of rows")
    out.parent.mkdir(parents=True, exist_ok=True)
    part, rows, truncated = out.with_name(f".{out.name}.part"), 0, 0
    covered, issues = coverage.Coverage(), Counter[tuple[str, str]]()
    with io.sigterm_raises(), contextlib.ExitStack() as cleanup:
        cleanup.callback(part.unlink, missing_ok=True)
        with part.open("w", encoding="utf-8") as f:
            read = tasks.iter_unlabeled_examples(task_type, source, model.task.pairs, issues)
            for examples in _chunks(read):
                encoded = model.encode_examples(examples)
                for prediction in model.predict_examples(encoded):
                    f.write(strict_json.dumps(prediction, ensure_ascii=False) + "\n")
                covered = covered.add(coverage.of_rows(model.tokenizer, encoded.rows))
                rows += len(examples)
                truncated += encoded.num_truncated
            f.flush()
            os.fsync(f.fileno())
        if not rows:
            raise ValueError(f"{source} is empty: expected {tables.expected_rows(source)}")
        part.replace(out)
        coverage.log_rows(model.tokenizer, str(source), covered)
        for (file, issue), count in issues.items():
            logger.warning("%s: %s: %d", file, issue, count)
    return rows, truncated


def _chunks(examples: Iterable[tasks.Example]) -> Iterator[list[Any]]:
    remaining = iter(examples)
    while chunk := list(itertools.islice(remaining, ROWS_PER_CHUNK)):
        yield chunk
