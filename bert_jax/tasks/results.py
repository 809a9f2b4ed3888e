"""`results.json`: what fine-tuning came to, once or over several seeds.

    {"task": "rte", "task_type": "classification", "model": "...", "metric": "accuracy",
     "steps": 390, "best_step": 312,
     "dev": {"accuracy": .71, "loss": .62}, "test": {...}, ...}

Over seeds `dev`, `test`, ... hold medians, `seeds` what each came to, and `spread` the standard
deviation, the smallest and the largest value of every metric. `confusion` counts how often each
label (down) was taken for each (across), over all seeds together.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.utils import io

RESULTS_FILE = "results.json"
SPLITS = ("dev", "dev_mismatched", "test", "test_mismatched")

Results = dict[str, Any]


def read_results(folder: Path) -> Results | None:
    """The results of a run folder; None where there are none yet."""
    path = folder / RESULTS_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not JSON: {e}; remove it to have it made again") from e
    if not isinstance(values, dict) or not _is_sound(values):
        raise ValueError(f"{path} holds no results: remove it to have it made again")
    return values


def _is_sound(values: Results) -> bool:
    """Whether what is shown of results is there, and is what it should be."""
    splits = [s for s in SPLITS if s in values]
    of_seeds = isinstance(values.get("seeds"), list) and isinstance(values.get("spread"), dict)
    try:
        return (
            "dev" in splits
            and isinstance(values["metric"], str)
            and all(_is_number(v) for s in splits for v in values[s].values())
            and ("spread" in values) == ("seeds" in values) == of_seeds
            and (of_seeds or all(_is_number(values[k]) for k in ("steps", "best_step")))
            and all(
                _is_number(values["spread"][s][m]["sd"])
                for s in splits
                for m in (values[s] if of_seeds else ())
            )
            and ("confusion" not in values or _is_confusion(values["confusion"]))
        )
    except (KeyError, TypeError, AttributeError):  # an object is missing, or is something else
        return False


def _is_confusion(found: Any) -> bool:
    labels = found["labels"]
    n = len(labels)
    return (
        n > 0
        and all(isinstance(label, str) for label in labels)
        and ("dev" in found or "test" in found)
        and all(
            len(counts) == n and all(len(row) == n and all(map(_is_number, row)) for row in counts)
            for split, counts in found.items()
            if split in SPLITS
        )
    )


def _is_number(value: Any) -> bool:
    """NaN is one; an integer that no float can hold is not."""
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    return whole or isinstance(value, float)


def write_results(folder: Path, results: Results) -> None:
    text = json.dumps(results, indent=2)
    # A row of the confusion. No string is taken for one: JSON has no line break within a string.
    counts = re.compile(r"\[\n[\d,\s]+\]")
    text = counts.sub(lambda m: json.dumps(json.loads(m[0])), text)
    io.write_text(folder / RESULTS_FILE, text + "\n")


def aggregate_seeds(folder: Path, runs: Sequence[Path]) -> Results:
    """Write the results of several seeds into the folder above them."""
    each = [read_results(run) or {} for run in runs]
    assert all(each), "every seed has finished"
    gathered: Results = {k: each[0][k] for k in ("task", "task_type", "model", "metric", "steps")}
    spread: Results = {}
    for split in (s for s in SPLITS if s in each[0]):
        values = {m: [one[split][m] for one in each] for m in each[0][split]}
        gathered[split] = {m: statistics.median(v) for m, v in values.items()}
        spread[split] = {m: _spread(v) for m, v in values.items()}
    kept = ("best_step", *(s for s in SPLITS if s in each[0]))
    gathered["spread"] = spread
    gathered["seeds"] = [
        {"run": run.name, "seed": one["seed"], **{k: one[k] for k in kept}}
        for run, one in zip(runs, each, strict=True)
    ]
    if "confusion" in each[0]:
        counts = [one["confusion"] for one in each]
        gathered["confusion"] = {"labels": counts[0]["labels"]} | {
            split: np.sum([c[split] for c in counts], axis=0).tolist()
            for split in SPLITS
            if split in counts[0]
        }
    write_results(folder, gathered)
    return gathered


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"sd": deviation, "min": min(values), "max": max(values)}


def render_results(results: Results) -> str:
    """Splits down, metrics across; of several seeds the median, and the standard deviation."""
    splits = [s for s in SPLITS if s in results]
    metrics = list(dict.fromkeys(m for s in splits for m in results[s]))
    cells = [["", *metrics]] + [[s, *(_cell(results, s, m) for m in metrics)] for s in splits]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in cells]
    metric = results["metric"]
    if "seeds" in results:
        lines.append(f"median ± standard deviation of {len(results['seeds'])} seeds, each by its")
        lines[-1] += f" best checkpoint ({metric} on dev)"
    else:
        lines.append(
            f"by the best checkpoint ({metric} on dev), step {results['best_step']} of "
            f"{results['steps']}"
        )
    return "\n".join(lines)


def _cell(results: Results, split: str, metric: str) -> str:
    if metric not in results[split]:
        return ""
    value = f"{results[split][metric]:.4f}"
    if "spread" not in results:
        return value
    return f"{value} ± {results['spread'][split][metric]['sd']:.4f}"
