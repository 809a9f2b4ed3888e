"""Rows of tokens, as `EncodedExamples` lists their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def one_row(tokens: Sequence[int] | np.ndarray, first: int, number: int) -> dict[str, Any]:
    """A row of tokens, of which `first` are in the first segment."""
    ids = np.asarray(tokens, np.int32)  # texts that are equal may share an array
    sizes = {"size": np.int32(len(ids)), "first": np.int32(first), "row": np.int32(number)}
    return {"tokens": ids, **sizes}


def rows_in_one(built: Sequence[tuple[Sequence[int], int]], number: int) -> dict[str, Any]:
    """Several token rows of one example: the options of a question, the windows of a text, the
    candidates of a query."""
    return {
        "tokens": [np.array(ids, np.int32) for ids, _ in built],
        "size": np.array([len(ids) for ids, _ in built], np.int32),
        "first": np.array([first for _, first in built], np.int32),
        "row": np.int32(number),
    }
