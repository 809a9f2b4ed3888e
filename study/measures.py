"""What is read off a run's record (collect.py), and how it is written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]  # of one run, as study.json holds it


@dataclass(frozen=True)
class Measure:
    title: str
    of: Callable[[Record], float | None]
    higher: bool | None = True  # is better; None: neither
    form: str = "{:.1f}"

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


def tasks(record: Record) -> float | None:
    """The mean of the tasks' metrics, in percent; None until all are there."""
    wanted, found = record["wanted"], record.get("tasks", {})
    if not wanted or not set(wanted) <= set(found):
        return None
    return 100 * statistics.mean(found[task]["value"] for task in wanted)


def _layers(what: str, task: str) -> Callable[[Record], float | None]:
    """Of the scores of all layers, embeddings first: the best in the middle, or the last."""

    def of(record: Record) -> float | None:
        scores = record.get("layers", {}).get(task)
        if scores is None or len(scores) < 3:
            return None
        return 100 * (scores[-1] if what == "last" else max(scores[1:-1]))

    return of


MEASURES = {
    "tasks": Measure("mean over tasks", tasks),
    "qa": Measure("answers, F1", _at("tasks", "qa", "value")),
    "qa_exact": Measure("answers, exact match", _at("tasks", "qa", "exact_match")),
    "mlm": Measure("held-out MLM loss (nat)", _at("held_out", "mlm_loss"), False, "{:.3f}"),
    "nsp": Measure("tells next sentences", _at("pairs", "nsp", times=100)),
    "sop": Measure("tells order", _at("pairs", "sop", times=100)),
    "rtd_auc": Measure("AUC of replaced tokens", _at("last", "eval_rtd_auc"), True, "{:.3f}"),
    "parameters": Measure("parameters", _at("parameters"), None, "short"),
    "flops": Measure("FLOPs", _at("flops", "sparse"), None, "{:.2e}"),
    "steps": Measure("steps", _at("steps"), None, "{:.0f}"),
    "epochs": Measure("epochs", _at("epochs"), None, "{:.1f}"),
    "speed": Measure("tokens/s", _at("speed"), None, "short"),
    "tagging_middle": Measure("tags, best middle layer", _layers("middle", "tagging")),
    "tagging_last": Measure("tags, last layer", _layers("last", "tagging")),
    "texts_middle": Measure("texts, best middle layer", _layers("middle", "texts")),
    "texts_last": Measure("texts, last layer", _layers("last", "texts")),
}
