"""Early stopping (`run.patience`): end a run whose metric no longer improves.

Its state is a function of the evaluations up to a step, which are on the disk, in `metrics.jsonl`,
before the checkpoint of their step, and are compared with the precision that they have there. So a
run that was killed stops at the same step as one that was not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from bert_jax.utils import metrics_log
from bert_jax.utils.metrics_log import logged_precision

logger = logging.getLogger(__name__)


class EarlyStopping:
    """Counts the evaluations since the best one.

    metric    name of the metric that should grow, or with a leading minus, shrink
    patience  evaluations in a row without a better value after which to stop; None: never
    """

    def __init__(self, metric: str, patience: int | None) -> None:
        self._name, self._sign = metric.removeprefix("-"), -1.0 if metric.startswith("-") else 1.0
        self._patience = patience
        self._best, self.best_step, self._stale = -math.inf, 0, 0

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        return self._patience is not None and self._stale >= self._patience

    def update(self, step: int, scores: Mapping[str, float | None]) -> None:
        """Count an evaluation after `step`. A value that is equal, missing or not a number is no
        better."""
        value = scores.get(self._name)
        value = None if value is None else logged_precision(value)
        score = -math.inf if value is None or math.isnan(value) else self._sign * value
        if score >= self._best and score > -math.inf:
            self.best_step = step  # the latest of equals, as `Checkpoints.best`
        if score > self._best:
            self._best, self._stale = score, 0
        else:
            self._stale += 1

    def resume(self, folder: Any, step: int) -> None:
        """Count the evaluations up to `step` that the run folder has logged."""
        file = folder / "metrics.jsonl"
        if self._patience is None or not file.exists():
            return
        for line in metrics_log.metric_lines(file):
            if line["step"] <= step and any(name.startswith("eval_") for name in line):
                self.update(int(line["step"]), line)

    def log(self, step: int) -> None:
        """Say why the run ends."""
        logger.info(
            "stopped early at step %d: no better %s in %d evaluations; the best (of equals the "
            "latest) was at step %d",
            *(step, self._name, self._stale, self.best_step),
        )
