"""JSON as its standard has it: without NaN and Infinity, which Python would write and other readers
refuse. A number that is not finite is written as null."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(values: Any, **options: Any) -> str:
    """`json.dumps`, with null for numbers that are not finite."""
    try:
        return json.dumps(values, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(values), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def null_as_nan(value: Any) -> Any:
    """A value that was read, with NaN for null."""
    if isinstance(value, dict):
        return {name: null_as_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [null_as_nan(inner) for inner in value]
    return math.nan if value is None else value
