"""`results.json`: the results of fine-tuning with one seed or several.

    {"task": "rte", "task_type": "classification", "model": "...", "metric": "accuracy",
     "steps": 390, "best_step": 312,
     "dev": {"accuracy": .71, "loss": .62}, "test": {...}, ...}

With several seeds, `dev`, `test`, ... hold medians, `seeds` the results of each seed, and `spread`
the standard deviation, minimum and maximum of every metric. `confusion` has the confusion matrices
(true labels down, predicted labels across), summed over seeds. `per_label` has precision, recall,
F1 and support of each label on each split; `thresholds` those of a multi-label task, chosen on dev.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.utils import io, strict_json
from bert_jax.utils.tables import format_table
from bert_jax.utils.types import is_number

RESULTS_FILE = "results.json"
RERANK_ORDERS = {"first_stage_": ", first stage", "": ", reranked", "best_": ", best order"}
SPLITS = ("dev", "dev_mismatched", "test", "test_mismatched", "diagnostic")

Results = dict[str, Any]


def read_results(folder: Path) -> Results | None:
    """The results of a run folder; None if there are none yet. ValueError: an invalid file."""
    path = folder / RESULTS_FILE
    if not path.is_file():
        return None
    try:
        values = strict_json.null_as_nan(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not JSON: {e}; remove it and run finetune again") from e
    if not isinstance(values, dict) or not _is_valid(values):
        raise ValueError(f"{path} has no valid results: remove it and run finetune again")
    return values


def _is_valid(values: Results) -> bool:
    """Whether everything that is displayed exists and has the right type."""
    splits = [s for s in SPLITS if s in values]
    of_seeds = isinstance(values.get("seeds"), list) and isinstance(values.get("spread"), dict)
    try:
        return (
            "dev" in splits
            and isinstance(values["metric"], str)
            and all(is_number(v) for s in splits for v in values[s].values())
            and ("spread" in values) == ("seeds" in values) == of_seeds
            and (of_seeds or all(is_number(values[k]) for k in ("steps", "best_step")))
            and all(
                is_number(values["spread"][s][m]["sd"])
                for s in splits
                for m in (values[s] if of_seeds else ())
            )
            and ("confusion" not in values or _is_confusion(values["confusion"]))
            and all(is_number(t) for t in values.get("thresholds", {}).values())
            and all(
                is_number(scores[k])
                for by_label in values.get("per_label", {}).values()
                for scores in by_label.values()
                for k in ("precision", "recall", "f1", "support")
            )
        )
    except (KeyError, TypeError, AttributeError):  # a missing value or one of another type
        return False


def _is_confusion(confusion: Any) -> bool:
    labels = confusion["labels"]
    n = len(labels)
    return (
        n > 0
        and all(isinstance(label, str) for label in labels)
        and ("dev" in confusion or "test" in confusion)
        and all(
            len(counts) == n and all(len(row) == n and all(map(is_number, row)) for row in counts)
            for split, counts in confusion.items()
            if split in SPLITS
        )
    )


def best_step(folder: Path, results: Results, steps: Sequence[int]) -> int:
    """The checkpoint that `results.json` describes. ValueError: it is missing; the best of the
    remaining checkpoints may be another."""
    best = results.get("best_step")
    if best is None or best not in steps:
        raise ValueError(
            f"{folder / RESULTS_FILE} refers to checkpoint {best}, which is missing (found "
            f"{', '.join(map(str, steps))}): restore it from a copy, or remove "
            f"{RESULTS_FILE} and run finetune again"
        )
    return int(best)


def write_results(folder: Path, results: Results) -> None:
    """Write `results.json`, with each row of the confusion matrices on one line. Numbers that are
    not finite become null, which `read_results` gives as NaN."""
    assert _is_valid(results), "results that their own reader refuses"
    text = strict_json.dumps(results, indent=2)
    # Strings do not match, because JSON strings contain no line breaks.
    row = re.compile(r"\[\n[\d,\s]+\]")
    text = row.sub(lambda m: json.dumps(json.loads(m[0])), text)
    io.write_text(folder / RESULTS_FILE, text + "\n")


def aggregate_seeds(folder: Path, runs: Sequence[Path]) -> Results:
    """Write the combined results of several seeds to `folder`, and return them."""
    per_seed = [read_results(run) or {} for run in runs]
    assert all(per_seed), "every seed has finished"
    first = per_seed[0]
    names = ("task", "task_type", "model", "metric", "steps", "select")
    combined: Results = {k: first[k] for k in names if k in first}
    spread: Results = {}
    splits = [s for s in SPLITS if s in first]
    for split in splits:
        values = {m: [results[split][m] for results in per_seed] for m in first[split]}
        combined[split] = {m: _median(v) for m, v in values.items()}
        spread[split] = {m: _spread(v) for m, v in values.items()}
    combined["spread"] = spread
    combined["seeds"] = [
        {"run": run.name}
        | {k: results[k] for k in ("seed", "best_step", "stopped_at", *splits) if k in results}
        for run, results in zip(runs, per_seed, strict=True)
    ]
    if "confusion" in first:
        counts = [results["confusion"] for results in per_seed]
        combined["confusion"] = {"labels": counts[0]["labels"]} | {
            split: np.sum([c[split] for c in counts], axis=0).tolist()
            for split in SPLITS
            if split in counts[0]
        }
    write_results(folder, combined)
    return combined


def _median(values: Sequence[float]) -> float:
    """NaN if a seed has no finite value, such as the loss of a split without an answer."""
    return statistics.median(values) if all(map(math.isfinite, values)) else math.nan


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not all(map(math.isfinite, values)):
        return dict.fromkeys(("sd", "min", "max"), math.nan)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"sd": deviation, "min": min(values), "max": max(values)}


def render_results(results: Results) -> str:
    """A table of splits (down) and metrics (across). With several seeds it shows medians and
    standard deviations."""
    splits = [s for s in SPLITS if s in results]
    orders = RERANK_ORDERS if results.get("task_type") == "rerank" else {"": ""}
    prefixes = tuple(filter(None, orders))
    names = (m for s in splits for m in results[s] if not m.startswith(prefixes))
    metrics = list(dict.fromkeys(names))
    rows = [
        [f"{split}{name}", *(_cell(results, split, f"{order}{m}") for m in metrics)]
        for split in splits
        for order, name in orders.items()
    ]
    lines = [format_table(("", *metrics), rows)]
    is_last = results.get("select") == "last"
    which = "last checkpoint" if is_last else f"best checkpoint ({results['metric']} on dev)"
    if "seeds" in results:
        seeds = len(results["seeds"])
        lines.append(f"median ± standard deviation of {seeds} seeds, each at its {which}")
    else:
        lines.append(f"{which}: step {results['best_step']} of {results['steps']}")
    if "stopped_at" in results:
        lines.append(
            f"stopped early at step {results['stopped_at']}: no better {results['metric']} on dev "
            f"in {results.get('patience')} evaluations"
        )
    return "\n".join(lines)


def _cell(results: Results, split: str, metric: str) -> str:
    if metric not in results[split]:
        return ""
    value = f"{results[split][metric]:.4f}"
    if "spread" not in results:
        return value
    return f"{value} ± {results['spread'][split][metric]['sd']:.4f}"
