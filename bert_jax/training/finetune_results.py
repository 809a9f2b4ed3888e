"""The files that a finished fine-tuning run leaves: results, predictions, and an error analysis."""

from __future__ import annotations

from typing import Any

from bert_jax.distributed import initialize
from bert_jax.tasks import errors_file, results
from bert_jax.training.evaluation import EvalResult, Evaluator
from bert_jax.training.pairs import PairEvaluator
from bert_jax.utils import io, remote, strict_json

# Metrics at the best threshold of a split -> the same at dev's.
BEST_THRESHOLD = {"best_f1": "f1", "best_exact_match": "exact_match"}


def write_results(evaluator: Evaluator, params: Any, best: int, last: int) -> None:
    """Write results.json, errors.json, and the predictions of every split but train. `best` is the
    selected checkpoint, `last` the last step."""
    task, config = evaluator.task, evaluator.config
    folder, main = remote.local_cache_path(config.run.dir), initialize.is_first()
    values = _run_values(evaluator, best, last)
    by_split: dict[str, dict[str, Any]] = {"confusion": {}, "per_label": {}, "errors": {}}
    # The best on dev, used for the other splits too: of "no answer", and of each label.
    threshold, thresholds = 0.0, ()
    for split in (s for s in results.SPLITS if s in task.encoded):
        result = evaluator.evaluate(params, split)
        if split == "dev" and "threshold" in (scores := result.scores()):
            threshold = values["threshold"] = scores["threshold"]
        if split == "dev" and (thresholds := result.best_thresholds()):
            values["thresholds"] = dict(zip(task.dataset.labels, thresholds, strict=True))
        scores = result.scores(threshold, thresholds)
        if split != "dev":  # they are chosen by the labels of the split that is scored
            scores = {k: v for k, v in scores.items() if k not in (*BEST_THRESHOLD, "threshold")}
        values |= {split: scores} if scores else {}
        predictions = result.predictions(threshold, thresholds)
        parts = {
            "confusion": result.confusion(),
            "per_label": result.label_scores(thresholds),
            "errors": _errors(result, predictions) if scores else None,
        }
        for name, part in parts.items():
            by_split[name] |= {split: part} if part else {}
        rows = (strict_json.dumps(p, ensure_ascii=False) + "\n" for p in predictions)
        if main:
            io.write_text(folder / f"predictions_{split}.jsonl", "".join(rows))
    if by_split["confusion"]:
        values["confusion"] = {"labels": list(task.dataset.labels), **by_split["confusion"]}
    if by_split["per_label"]:
        values["per_label"] = by_split["per_label"]
    values["notes"] = task.notes
    if main:
        results.write_results(folder, values)
        errors_file.write_errors(folder, by_split["errors"])


def write_pair_results(evaluator: PairEvaluator, params: Any, best: int, last: int) -> None:
    """`write_results` for a sentence encoder, which has no classes."""
    folder, main = evaluator.config.run.dir, initialize.is_first()
    values, cache = _run_values(evaluator, best, last), remote.local_cache_path(folder)
    for split in (s for s in results.SPLITS if s in evaluator.task.dataset.splits):
        values[split], predictions = evaluator.evaluate(params, split)
        rows = (strict_json.dumps(p, ensure_ascii=False) + "\n" for p in predictions)
        if main:
            io.write_text(cache / f"predictions_{split}.jsonl", "".join(rows))
    values["notes"] = [*evaluator.task.notes, *evaluator.notes]
    if main:
        results.write_results(cache, values)


def _run_values(evaluator: Evaluator | PairEvaluator, best: int, last: int) -> results.Results:
    """What results.json says of the run itself."""
    task, run = evaluator.task, evaluator.config.run
    values: results.Results = {
        "task": task.dataset.task,
        "task_type": task.dataset.task_type,
        "model": run.init,
        "metric": BEST_THRESHOLD.get(task.main_metric, task.main_metric),
        "seed": run.seed,
        "steps": run.steps,
        "best_step": best,
        "select": run.select,
    }
    if run.patience is not None:
        values["patience"] = run.patience
    if last < run.steps:
        values["stopped_at"] = last
    return values


def _errors(result: EvalResult, predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst rows of a split, and the calibration of its probabilities."""
    return errors_file.split_errors(
        result.encoded, result.outputs, predictions, result.objective.labels
    )
