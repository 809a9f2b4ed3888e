"""`errors.json`: the error analysis of a fine-tuning run, which `report` shows.

{"dev": {"worst": [{"line": 17, "loss": 3.2, "text": "...", "label": "a", "predicted": "b"}],
         "calibration": {"ece": .04, "bins": [{"confidence": .9, "accuracy": .8, "count": 5}]}},
 "test": {...}}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert_jax.tasks.error_analysis import calibration, worst_rows
from bert_jax.tasks.examples import EncodedExamples
from bert_jax.utils import io
from bert_jax.utils.types import is_number

ERRORS_FILE = "errors.json"


def split_errors(
    encoded: EncodedExamples,
    outputs: Sequence[Any],
    predictions: Sequence[dict[str, Any]],
    labels: Sequence[str],
) -> dict[str, Any]:
    """The worst rows of a split and, for tasks with classes, its calibration."""
    errors: dict[str, Any] = {"worst": worst_rows(encoded, outputs, predictions, labels)}
    reliability = calibration(encoded, outputs, labels)
    return errors if reliability is None else {**errors, "calibration": reliability}


def write_errors(folder: Path, errors: dict[str, Any]) -> None:
    """Write the errors of each split to a run folder."""
    assert all(map(_is_valid, errors.values())), "errors that their own reader refuses"
    text = json.dumps(errors, indent=1, ensure_ascii=False, allow_nan=False)
    io.write_text(folder / ERRORS_FILE, text + "\n")


def read_errors(folder: Path) -> dict[str, Any]:
    """The errors of each split; {} if the run has none. ValueError: an invalid file."""
    path = folder / ERRORS_FILE
    if not path.is_file():
        return {}
    try:
        errors = json.loads(path.read_text(encoding="utf-8"))
        if all(_is_valid(split) for split in errors.values()):
            return errors
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} is no valid error analysis: remove it to report without it")


def _is_valid(split: dict[str, Any]) -> bool:
    bins = split["calibration"]["bins"] if "calibration" in split else []
    return (
        all(
            isinstance(row[k], str)
            for row in split["worst"]
            for k in ("text", "label", "predicted")
        )
        and all(is_number(row[k]) for row in split["worst"] for k in ("line", "loss"))
        and all(is_number(b[k]) for b in bins for k in ("confidence", "accuracy", "count"))
        and ("calibration" not in split or is_number(split["calibration"]["ece"]))
    )
