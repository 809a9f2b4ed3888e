"""What is read off a run's record (collect.py), and how it is written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]  # of one run, as study.json holds it


@dataclass(frozen=True)
class Metric:
    title: str
    of: Callable[[Record], float | None]
    higher: bool | None = True  # is better; None: neither
    form: str = "{:.1f}"
    # of one run: the standard error that its scored rows leave, were they drawn anew
    error: Callable[[Record], float] = lambda _: 0.0

    def shown(self, value: float | None) -> str:
        if value is None:
            return ""
        return _short(value) if self.form == "short" else self.form.format(value)


def _short(value: float) -> str:
    """8400 -> 8.4k; 1.2e15 as it is."""
    if value < 1000:
        return f"{value:.3g}"
    power = int(math.log10(value) // 3)
    return f"{value:.2e}" if power > 2 else f"{value / 1000**power:.3g}{' kM'[power]}"


def _at(*path: str, times: float = 1.0) -> Callable[[Record], float | None]:
    def of(record: Record) -> float | None:
        value: Any = record
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return None if value is None else times * value

    return of


def chance(share: float, rows: int) -> float:
    """The standard error of a share of so many rows, in percent. Of any mean of numbers from 0
    to 1 it is at most that; one row of either kind more, so that it is never 0."""
    p = (min(max(share, 0.0), 1.0) * rows + 1) / (rows + 2)
    return 100 * math.sqrt(p * (1 - p) / max(rows, 1))


def tasks(record: Record) -> float | None:
    """The mean of the tasks' metrics, in percent; None until all are there."""
    wanted, found = record["wanted"], record.get("tasks", {})
    if not wanted or not set(wanted) <= set(found):
        return None
    return 100 * statistics.mean(found[task]["value"] for task in wanted)


def _tasks_error(record: Record) -> float:
    found = record["tasks"]
    each = [chance(found[task]["value"], found[task]["rows"]) for task in record["wanted"]]
    return math.hypot(*each) / len(each)


def _answers_error(record: Record) -> float:
    """Answers are scored in percent, by SQuAD's own script."""
    found = record["tasks"]["qa"]
    return chance(found["value"] / 100, found["rows"])


def _pairs_error(what: str) -> Callable[[Record], float]:
    return lambda record: chance(record["pairs"][what], record["pairs"][f"{what}_rows"])


def layer(scores: Sequence[float], what: str) -> int:
    """Of the scores of all layers, embeddings first: the number of the one that is meant. It is
    the same for all runs: the best of several would be picked on the rows that are scored."""
    return len(scores) - 1 if what == "last" else (len(scores) - 1) // 2


def _layer(what: str, task: str, title: str) -> Metric:
    def of(record: Record) -> float | None:
        scores = record.get("layers", {}).get(task)
        return 100 * scores[layer(scores, what)] if scores and len(scores) > 2 else None

    def error(record: Record) -> float:
        scores = record["layers"][task]
        return chance(scores[layer(scores, what)], record["layers"][f"{task}_rows"])

    return Metric(title, of, error=error)


METRICS = {
    "tasks": Metric("mean over tasks", tasks, error=_tasks_error),
    "qa": Metric("answers, F1", _at("tasks", "qa", "value"), error=_answers_error),
    "qa_exact": Metric("answers, exact match", _at("tasks", "qa", "exact_match")),
    "mlm": Metric("held-out MLM loss (nat)", _at("held_out", "mlm_loss"), False, "{:.3f}"),
    "nsp": Metric("tells next sentences", _at("pairs", "nsp", times=100),
                   error=_pairs_error("nsp")),
    "sop": Metric("tells order", _at("pairs", "sop", times=100), error=_pairs_error("sop")),
    "rtd_auc": Metric("AUC of replaced tokens", _at("last", "eval_rtd_auc"), True, "{:.3f}"),
    "gain": Metric("loss below that of frequencies (nat)", _at("gain"), True, "{:.3f}"),
    "pair_gain": Metric("loss on pairs below that of frequencies (nat)", _at("pair_gain"), True,
                         "{:.3f}"),
    "parameters": Metric("parameters", _at("parameters"), None, "short"),
    "flops": Metric("FLOPs", _at("flops", "sparse"), None, "{:.2e}"),
    "steps": Metric("steps", _at("steps"), None, "{:.0f}"),
    "epochs": Metric("epochs", _at("epochs"), None, "{:.1f}"),
    "tokens": Metric("tokens", _at("tokens"), None, "short"),
    "speed": Metric("tokens/s", _at("speed"), None, "short"),
    "tagging_middle": _layer("middle", "tagging", "tags, middle layer"),
    "tagging_last": _layer("last", "tagging", "tags, last layer"),
    "texts_middle": _layer("middle", "texts", "texts, middle layer"),
    "texts_last": _layer("last", "texts", "texts, last layer"),
}  # fmt: skip
