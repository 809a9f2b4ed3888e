"""Range checks for config fields, with uniform messages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

MAX_SIZE = 1 << 30  # of any size field, because rows are counted in 32 bits
MAX_STEPS = 1 << 31  # of a run, because steps are counted in 32 bits
MAX_FLOAT = 3e38  # of any number, because float32 is computed with

RangeChecks = Mapping[str, tuple[bool, str]]  # field -> (is the value valid, what is expected)


def check_seed(seed: int) -> None:
    """ValueError: the seed is no number of 63 bits."""
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"the seed is {seed}: expected a number from 0 to 2^63 - 1")


def check_paths(section: str, **paths: str | None) -> None:
    """Raise a ValueError for a path that begins with `~`, which only a shell replaces."""
    for name, path in paths.items():
        if str(path).startswith("~"):
            raise ValueError(
                f"{section}.{name} is {path}: expected a path without ~, such as "
                f"{os.path.expanduser(str(path))}"
            )


def check_ranges(section: str, config: Any, checks: RangeChecks) -> None:
    """Raise a ValueError that names the first field with an invalid value."""
    for name, (valid, expected) in checks.items():
        value = getattr(config, name)
        if not valid or (isinstance(value, float) and abs(value) > MAX_FLOAT):
            raise ValueError(f"{section}.{name} is {value}: expected {expected}")
