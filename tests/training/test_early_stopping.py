"""Early stopping: when it stops, and that a run that was killed stops at the same step."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bert_jax.training.early_stopping import EarlyStopping
from bert_jax.training.pretrain import log_best
from bert_jax.utils.metrics_log import logged_precision


def steps_until_stop(metric: str, patience: int | None, values: list[Any]) -> int | None:
    stopping = EarlyStopping(metric, patience)
    for step, value in enumerate(values, 1):
        stopping.update(step, {"eval_f1": value, "eval_loss": value})
        if stopping.should_stop:
            return step
    return None


@pytest.mark.parametrize(
    ("metric", "patience", "values", "stop"),
    [
        ("eval_f1", 2, [0.5, 0.4, 0.4], 3),
        ("eval_f1", 2, [0.5, 0.4, 0.6, 0.6, 0.6], 5),  # an equal value is no better
        ("eval_f1", 1, [0.0, 0.1, 0.2], None),
        ("eval_f1", 2, [0.5, math.nan, None], 3),
        ("eval_f1", 2, [math.nan, math.nan], 2),
        ("-eval_loss", 1, [0.5, 0.4, 0.45], 3),
        ("eval_f1", None, [0.5] * 9, None),
    ],
)
def test_it_stops_after_this_many_evaluations_without_a_better_one(
    metric: str, patience: Any, values: list[Any], stop: int | None
) -> None:
    assert steps_until_stop(metric, patience, values) == stop


@pytest.mark.parametrize("killed", range(1, 7))
def test_a_killed_run_stops_at_the_same_step(killed: int, tmp_path: Path) -> None:
    """Lines after the checkpoint of the resumed step do not count, nor do those of training."""
    values = [0.1 + 0.2, 0.3, 5 / 6, None, 5 / 6, 0.2, 0.9]
    logged = [None if v is None else logged_precision(v) for v in values]
    assert logged[2] < values[2]  # type: ignore[operator]
    lines = [{"step": s, "loss": 1.0} | {"eval_f1": v} for s, v in enumerate(logged, 1)]
    lines.insert(3, {"step": 3, "loss": 0.5})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stopping = EarlyStopping("eval_f1", 3)
    stopping.resume(tmp_path, killed)
    stop = killed if stopping.should_stop else None
    for step, value in enumerate(values[killed:], killed + 1):
        if stop is None:
            stopping.update(step, {"eval_f1": value})
            stop = step if stopping.should_stop else None
    whole = steps_until_stop("eval_f1", 3, values)
    assert whole == 6
    assert stop == whole


def test_the_best_step_is_the_latest_of_equals_as_among_checkpoints(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stopping = EarlyStopping("eval_f1", 3)
    for step, value in enumerate([0.5, 0.5, 0.4, math.nan], 1):
        stopping.update(step, {"eval_f1": value})
    assert (stopping.best_step, stopping.should_stop) == (2, True)
    with caplog.at_level("INFO"):
        stopping.log(4)
    assert "in 3 evaluations; the best (of equals the latest) was at step 2" in caplog.text


@pytest.mark.parametrize(("best", "kept", "says"), [(2, [2, 5], True), (2, [5], False)])
def test_pretraining_says_how_to_use_its_best_step(
    best: int, kept: list[int], says: bool, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints: Any = SimpleNamespace(newest=lambda: 5, steps=lambda: kept)
    with caplog.at_level("INFO"):
        log_best(best, checkpoints, "runs/x")
    message = "the newest step, 5: to use step 2, move the newer folders out of runs/x/checkpoints"
    assert (message in caplog.text) == says
