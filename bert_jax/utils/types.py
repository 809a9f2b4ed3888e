"""Types that several packages share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Batch = dict[str, Any]  # name -> array, of NumPy on the host or of JAX on devices
Params = dict[str, Any]  # nested dicts whose leaves are arrays
Json = dict[str, Any]  # a JSON object
Slices = Sequence[tuple[int, int]]  # (i, n): a process reads the i-th of n parts of each batch


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number: NaN is one, an integer of more than 64 bits is not."""
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    return whole or isinstance(value, float)
