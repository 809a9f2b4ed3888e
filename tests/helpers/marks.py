"""Marks of single parameters (pyproject.toml says what they mean)."""

import pytest

SLOW = pytest.mark.slow
NIGHTLY = [SLOW, pytest.mark.nightly]
