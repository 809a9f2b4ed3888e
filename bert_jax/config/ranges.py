"""What a field's value may be, said alike for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST = 1 << 30  # of a size: rows are counted in 32 bits

# Whether a field's value is as it should be, and in words what it should be.
Holds = Mapping[str, tuple[bool, str]]


def check(section: str, config: Any, holds: Holds) -> None:
    """ValueError: names the first field whose value is not as it should be."""
    for name, (right, expected) in holds.items():
        if not right:
            raise ValueError(f"{section}.{name} is {getattr(config, name)}: expected {expected}")
