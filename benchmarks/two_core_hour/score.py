"""The scores of a trained entry: bits per character of held-out text, and fine-tuned tasks."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import bert_jax
from benchmarks.two_core_hour.data import TASK_ROWS, ContestData
from bert_jax.data.tokenization.normalization import FOLDS
from bert_jax.inference.evaluation.evaluate import evaluate_text
from bert_jax.tasks import results
from study.datasets import read_rows
from study.finetuning import finetune_run, peak_rate
from study.task_baselines import metric_name, task_baseline

MAX_WORDS = 2000  # of held-out text, the same for every entry
WORD_F1 = "word_f1"
REPORTED = (
    "bits_per_character", "bits_per_character_se", "bigram_bits_per_character", "mask_loss",
    "mask_accuracy", "bigram_loss", "unigram_loss", "length", "masked_tokens", "rtd_auc",
    "bigram_auc",
)  # fmt: skip


def score_text(run: Path, data: ContestData) -> dict[str, Any]:
    """What `bert-jax evaluate` says on the held-out documents, beside counts of the training text.
    Case and accents are folded, so that entries whose tokenizers fold them have no advantage."""
    result = evaluate_text(
        bert_jax.load(run), data.held_out, data.train, max_words=MAX_WORDS, fold=FOLDS
    )
    return {k: v for k, v in result.to_json().items() if k in REPORTED and v is not None}


def score_tasks(run: Path, data: ContestData, out: Path, seeds: int) -> dict[str, Any]:
    """The metric of each task on its test rows, as the median over seeds. Tags that mark no
    entities are scored by the mean of each tag's F1: most words have the same tag. All entries have
    one recipe and one head, on the mean of the tokens or on each token. What is finished in `out`
    is not trained again."""
    datasets, scores = data.labeled, {}
    for name in datasets.task_names():
        folder = out / name
        task_type, rows = datasets.task_type(name), datasets.task(name)
        metric = WORD_F1 if _has_word_tags(task_type, rows) else None  # None: the main one
        if results.read_results(folder) is None:
            recipe = run, task_type, rows, folder, TASK_ROWS
            if signal := finetune_run(*recipe, seeds=seeds, metric=metric):
                raise SystemExit(128 + signal)
        result = results.read_results(folder)
        assert result is not None
        metric = metric or result["metric"]
        scores[name] = {"metric": metric, "value": result["dev"][metric]}
        scores[name]["peak_lr"] = peak_rate(folder)
        if "spread" in result:
            scores[name]["sd"] = result["spread"]["dev"][metric]["sd"]
        for checkpoints in folder.rglob("checkpoints"):
            shutil.rmtree(checkpoints)
    return scores


def _has_word_tags(task_type: str, rows: Path) -> bool:
    """Whether a task has tags that mark no entities."""
    tagged = task_type == "tagging"
    return tagged and metric_name(list(read_rows(rows / "train.jsonl"))) == "accuracy of tags"


def without_encoder(data: ContestData) -> dict[str, float]:
    """What each task gives without an encoder, on the same rows (`study/task_baselines.py`); a task
    of another kind, or of too few rows, is left out."""
    scores: dict[str, float] = {}
    for name in data.labeled.task_names():
        folder = data.labeled.task(name)
        train, test = (list(read_rows(folder / f"{part}.jsonl")) for part in ("train", "dev"))
        with contextlib.suppress(ValueError):
            if (score := task_baseline(train, test, word_f1=True)) is not None:
                scores[name] = score
    return scores
