"""Fine-tune a run on the rows of a task: one recipe and one head for all runs.

Where the preset has several peak rates, each run and task gets the one that is best on every sixth
training row, after training on the other five; the model that is scored is trained on all of them.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from bert_jax.config import (
    FINETUNE,
    Experiment,
    Supervised,
    TaskType,
    read_config,
    replace,
)
from bert_jax.tasks import results
from bert_jax.training import finetune_config
from bert_jax.training.finetune import finetune
from study.datasets import RATES
from study.presets import TASK_HEAD, Preset


def finetune_run(
    run: Path,
    task_type: TaskType,
    rows: Path,
    out: Path,
    preset: Preset,
    seed: int = 0,
    seeds: int = 1,
    metric: str | None = None,
) -> int | None:
    """Fine-tune the encoder of the run folder `run` on the rows in the folder `rows`; with `seeds`
    above 1 as often, from seed 0 on, with the rate that is best with `seed` by `metric`, or else by
    the task's main metric. What a stopped call has done is not done again. Return the signal that
    stopped it, or None."""
    first, *others = preset.tune_rates
    folders = {}
    if others and (rows / RATES).is_dir():
        rates = (first, *others)
        folders = {rate: out.with_name(f"{out.name}-rate-{rate:g}") for rate in rates}
    for rate, folder in folders.items():
        recipe = _recipe(task_type, preset, rate, seed)
        if signal := _finetune(recipe, run, rows / RATES, folder, 1):
            return signal
    best = max(folders, key=lambda rate: _dev_score(folders[rate], metric), default=first)
    signal = _finetune(_recipe(task_type, preset, best, seed), run, rows, out, seeds)
    if signal is None:
        for folder in folders.values():
            shutil.rmtree(folder)
    return signal


def peak_rate(folder: Path) -> float:
    """The peak rate that a folder of `finetune_run` was trained with."""
    return read_config(min(folder.rglob("config.json"))).optim.peak_lr


def _recipe(task_type: TaskType, preset: Preset, rate: float, seed: int) -> Experiment:
    """The scored rows choose no checkpoint: the last one counts."""
    return replace(
        FINETUNE,
        objective=Supervised(task=task_type, **TASK_HEAD),
        optim=dict(peak_lr=rate),
        run=dict(
            epochs=preset.epochs,
            evals_per_epoch=None,
            log_every=20,
            max_to_keep=1,
            seed=seed,
            dtype=preset.dtype,
        ),
    )


def _finetune(recipe: Experiment, run: Path, rows: Path, out: Path, seeds: int) -> int | None:
    def fill_in(config: Experiment) -> Experiment:
        fields = dict(dir=str(out), init=str(run), eval_every=1 << 20)
        return replace(config, data=dict(path=str(rows)), run=fields)

    return finetune(finetune_config.for_model(recipe, fill_in), seeds)


def _dev_score(folder: Path, metric: str | None) -> float:
    result = results.read_results(folder)
    assert result is not None
    score = result["dev"][metric or result["metric"]]
    return -math.inf if score is None or math.isnan(score) else score  # of a constant prediction
