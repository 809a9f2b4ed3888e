"""Read a run's `metrics.jsonl` and `timing.jsonl`."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.utils.types import is_number


def logged_precision(value: float) -> float:
    """A number as it is logged: rounded to float32, in the fewest digits that tell it apart."""
    return float(str(np.float32(value)))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`, with NaN for numbers that were not finite. A last line
    that a kill cut short is left out. ValueError: no such file, or not written by a run."""
    if not (folder / "metrics.jsonl").is_file():
        raise ValueError(f"{folder} holds no metrics.jsonl: expected a run folder")
    lines = metric_lines(folder / "metrics.jsonl")
    return [
        {k: v if v is not None and math.isfinite(v) else math.nan for k, v in line.items()}
        for line in lines
    ]


def metric_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of `metrics.jsonl`. ValueError: one is not an object of numbers."""
    lines = []
    for number, raw in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            line = json.loads(raw.decode())
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{path} line {number} is not JSON: {e}") from e
        numbers = isinstance(line, dict) and all(v is None or is_number(v) for v in line.values())
        if not numbers or not isinstance(line.get("step"), int):
            raise ValueError(
                f"{path} line {number}: expected a JSON object of numbers with a step; "
                "fix or remove the line"
            )
        lines.append(line)
    return lines


def goodput(folder: Path) -> dict[str, float]:
    """Seconds of a run by activity, over all its restarts, from `timing.jsonl`. No second counts
    twice.

    steps     dispatching and computing steps that count, without the wait for data
    lost      the same of steps that were repeated after a kill
    wait      for data, of both kinds of steps
    and init, restore, compile, evaluate, save: the host's time in each. Time before the loop, and
    time between the last line and a kill, is not counted.
    """
    totals: dict[str, float] = {"steps": 0.0, "lost": 0.0, "wait": 0.0}
    parts: list[tuple[int, int, float]] = []  # after a step, up to a step, seconds
    for line in _read_timings(folder / "timing.jsonl"):
        what, step, seconds = line["what"], line["step"], line["seconds"]
        if what == "begin":
            for after, upto, taken in parts:
                totals["lost"] += taken * max(upto - max(after, step), 0) / (upto - after)
            parts = [(a, min(u, step), t * (min(u, step) - a) / (u - a)) for a, u, t in parts]
            parts = [part for part in parts if part[1] > part[0]]
        elif what == "steps":
            parts.append((int(line["after"]), step, seconds))
            totals["wait"] += line["wait"]
        else:
            totals[what] = totals.get(what, 0.0) + seconds
    totals["steps"] = sum(taken for _, _, taken in parts)
    return totals


def _read_timings(path: Path) -> list[dict[str, Any]]:
    """The complete lines of the file; a kill may have cut some short."""
    lines = []
    for raw in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(raw.decode())
            lines += [line] if _is_timing(line) else []
    return lines


def _is_timing(line: Any) -> bool:
    """Whether a line of `timing.jsonl` has the form that `MetricsWriter` writes."""
    if not isinstance(line, dict) or not isinstance(line.get("what"), str):
        return False
    steps = line["what"] == "steps"
    numbers: list[Any] = [
        line.get(k) for k in ("step", "seconds", *(("after", "wait") if steps else ()))
    ]
    finite = all(is_number(v) and math.isfinite(v) for v in numbers)
    return finite and (not steps or line["after"] < line["step"])
