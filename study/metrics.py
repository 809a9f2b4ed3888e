"""The metrics of a run, read from its record in study.json, and how they are printed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]  # of one run, as in study.json


@dataclass(frozen=True)
class Metric:
    title: str
    value: Callable[[Record], float | None]
    higher_is_better: bool | None = True  # None: neither
    format: Callable[[float], str] = "{:.1f}".format
    # standard error of one run that follows from the number of scored rows
    error: Callable[[Record], float] = lambda _: 0.0


def short_number(value: float) -> str:
    """8400 -> 8.4k; 1.2e15 stays as it is."""
    if value < 1000:
        return f"{value:.3g}"
    power = int(math.log10(value) // 3)
    return f"{value:.2e}" if power > 2 else f"{value / 1000**power:.3g}{' kM'[power]}"


def standard_error(share: float, rows: int) -> float:
    """The standard error of a share of `rows` rows, in percent.

    It bounds that of any mean of numbers from 0 to 1. One row of either kind is added, so that
    the error is never 0.
    """
    p = (min(max(share, 0.0), 1.0) * rows + 1) / (rows + 2)
    return 100 * math.sqrt(p * (1 - p) / max(rows, 1))


def _field(*path: str, times: float = 1.0) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        number: Any = record
        for name in path:
            number = number.get(name) if isinstance(number, dict) else None
        return None if number is None else times * number

    return value


def task_mean(record: Record) -> float | None:
    """The mean of the tasks' metrics, in percent; None until all tasks have a score."""
    expected, scores = record["expected_tasks"], record.get("tasks", {})
    if not expected or not set(expected) <= set(scores):
        return None
    return 100 * statistics.mean(scores[task]["value"] for task in expected)


def _task_error(record: Record) -> float:
    scores = [record["tasks"][task] for task in record["expected_tasks"]]
    return math.hypot(*map(_score_error, scores)) / len(scores)


def _score_error(score: Record) -> float:
    """Of a share of rows that are right, or of a correlation r: (1 - r^2) / sqrt(n - 1)."""
    value, rows = score["value"], score["rows"]
    if score.get("metric") in ("pearson", "spearman"):
        return 100 * (1 - value**2) / math.sqrt(max(rows - 1, 1))
    return standard_error(value, rows)


def _qa_error(record: Record) -> float:
    """SQuAD's script gives scores in percent."""
    score = record["tasks"]["qa"]
    return standard_error(score["value"] / 100, score["rows"])


def _pair_accuracy(name: str, title: str) -> Metric:
    def error(record: Record) -> float:
        return standard_error(record["pairs"][name], record["pairs"][f"{name}_rows"])

    return Metric(title, _field("pairs", name, times=100), error=error)


def _difference(record: Record, a: str, b: str) -> float | None:
    scores = record.get("held_out", {})
    x, y = scores.get(a), scores.get(b)
    return None if x is None or y is None else x - y


def over_counts(record: Record) -> float | None:
    """By how much a run beats counts of both neighbors of its training rows: in nat at places that
    show the mask token or, of a discriminator, in AUC on the same samples."""
    if record.get("held_out", {}).get("rtd_auc") is not None:
        return _difference(record, "rtd_auc", "bigram_auc")
    return _difference(record, "bigram_loss", "mask_loss")


def over_frequencies(record: Record) -> float | None:
    """By how much a run beats what needs no context: in nat, word frequencies at the same places
    or, of a discriminator, in AUC, itself on rows in random order."""
    if record.get("held_out", {}).get("rtd_auc") is not None:
        return _difference(record, "rtd_auc", "rtd_shuffled_auc")
    return _difference(record, "unigram_loss", "mask_loss")


def _mask_error(record: Record) -> float:
    return record["held_out"].get("mask_loss_se") or 0.0


def probed_tasks(record: Record, task_type: str | None = None) -> list[str]:
    """The tasks with linear probes, all or those of a type, in the order of their names."""
    types = record.get("layer_types", {})
    return sorted(t for t in record.get("layers", {}) if task_type in (None, types.get(t)))


def _probe(layer: str, task_type: str | None, title: str) -> Metric:
    """The mean over tasks of one layer's score. The layer is the same for all runs: the best of
    several layers would be chosen on the scored rows."""

    def score(scores: list[float]) -> float:  # embeddings first
        return scores[{"first": 0, "middle": (len(scores) - 1) // 2, "last": -1}[layer]]

    def scores_of(record: Record) -> list[tuple[str, float]]:
        tasks = probed_tasks(record, task_type)
        return [(t, score(record["layers"][t])) for t in tasks if len(record["layers"][t]) > 2]

    def value(record: Record) -> float | None:
        if not set(record.get("expected_probes", ())) <= set(record.get("layers", {})):
            return None  # means over different tasks do not compare
        scores = scores_of(record)
        return 100 * statistics.mean(v for _, v in scores) if scores else None

    def error(record: Record) -> float:
        scores = scores_of(record)
        errors = (standard_error(v, record["layer_rows"][task]) for task, v in scores)
        return math.hypot(*errors) / len(scores)

    return Metric(title, value, error=error)


THREE_DIGITS = "{:.3f}".format

METRICS = {
    "tasks": Metric("mean over tasks", task_mean, error=_task_error),
    "qa": Metric("answers, F1", _field("tasks", "qa", "value"), error=_qa_error),
    "qa_exact": Metric("answers, exact match", _field("tasks", "qa", "exact_match")),
    "mask": Metric(
        "loss at [MASK] (nat)", _field("held_out", "mask_loss"), False, THREE_DIGITS, _mask_error
    ),
    "mask_accuracy": Metric("right at [MASK] (%)", _field("held_out", "mask_accuracy", times=100)),
    "counts": Metric(
        "loss of counts there (nat)", _field("held_out", "bigram_loss"), None, THREE_DIGITS
    ),
    "over_counts": Metric("better than counts by (nat; RTD: AUC)", over_counts, True, THREE_DIGITS),
    "over_frequencies": Metric(
        "better than without context by (nat; RTD: AUC)", over_frequencies, True, THREE_DIGITS
    ),
    "nsp": _pair_accuracy("nsp", "NSP accuracy"),
    "sop": _pair_accuracy("sop", "SOP accuracy"),
    "sop_counts": Metric("SOP, counts of tokens", _field("pairs", "sop_counts", times=100), None),
    "rtd_auc": Metric("AUC of replaced tokens", _field("held_out", "rtd_auc"), True, THREE_DIGITS),
    "pair_delta": Metric(
        "pair loss below trivial baseline (nat)", _field("pair_delta"), True, THREE_DIGITS
    ),
    "parameters": Metric("parameters", _field("parameters"), None, short_number),
    "flops": Metric("FLOPs", _field("flops", "sparse"), None, "{:.2e}".format),
    "steps": Metric("steps", _field("steps"), None, "{:.0f}".format),
    "epochs": Metric("epochs", _field("epochs"), None),
    "tokens": Metric("tokens", _field("tokens"), None, short_number),
    "speed": Metric("tokens/s", _field("speed"), None, short_number),
    "probes_first": _probe("first", None, "probes, embeddings"),
    "probes_middle": _probe("middle", None, "probes, middle layer"),
    "probes_last": _probe("last", None, "probes, last layer"),
    "tagging_middle": _probe("middle", "tagging", "tags, middle layer"),
    "tagging_last": _probe("last", "tagging", "tags, last layer"),
    "texts_middle": _probe("middle", "classification", "texts, middle layer"),
    "texts_last": _probe("last", "classification", "texts, last layer"),
}
