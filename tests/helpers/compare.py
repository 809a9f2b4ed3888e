"""Compares runs and states."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np


def metric_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without the throughput, which depends on time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


def same_bits(a: object, b: object) -> bool:
    """Whether two trees of arrays are equal bit for bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)
