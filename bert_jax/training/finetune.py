"""`finetune`: a model and the labelled rows of a task -> a run folder with `results.json`.

    config.json  tokenizer/  checkpoints/  metrics.jsonl  timing.jsonl  tensorboard/
    results.json             the metrics of the best checkpoint on dev, on test where there is one
    predictions_SPLIT.jsonl  what that checkpoint says of every example of dev and test

The loop is that of pre-training, so a run that was stopped goes on bit for bit. It is scored and
saved at the same steps; the checkpoint with the task's best metric on dev is the one that counts.
With several seeds each has a folder of its own, `seed_0`, `seed_1`, ... in `run.dir`.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import jax

from bert_jax import config, objectives
from bert_jax.checkpoint import run_dir
from bert_jax.config import Experiment
from bert_jax.distributed import initialize, sharding
from bert_jax.tasks import results
from bert_jax.training import step as train
from bert_jax.training import warm_start
from bert_jax.training.evaluation import Evaluator
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.training.guard import PreemptionHandler
from bert_jax.utils import io, remote

logger = logging.getLogger(__name__)


def finetune(asked: Experiment, seeds: int = 1, take_over: bool = False) -> int | None:
    """Train `asked` (see `recipe.for_model`) to its last step, once or with several seeds, and
    write the results; returns the signal that stopped it before, if one did. What is finished
    already is left as it is.

    ValueError: data that is no such task, a run folder of another config, and what `pretrain`
    refuses; all of it before the run folder is made.
    """
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}: expected at least 1")
    folder = remote.local_cache_path(asked.run.dir)
    other = folder / ("config.json" if seeds > 1 else "seed_0")
    if other.exists():
        raise ValueError(
            f"run.dir {folder} was made with {'one seed' if seeds > 1 else 'several seeds'} "
            f"({other.name} is there): choose another, or ask for the same --seeds"
        )
    task = FinetuneTask.of(asked)
    initialize.check_same_config(task.experiment)
    for note in task.notes:
        logger.info(note)
    if seeds == 1:
        return train_one_seed(task, task.experiment, take_over)
    each = [config_of_seed(task.experiment, i) for i in range(seeds)]
    for experiment in each:
        run_dir.check_run_dir(
            remote.local_cache_path(experiment.run.dir), experiment, task.tokenizer
        )
    for experiment in each:
        signal = train_one_seed(task, experiment, take_over)
        if signal is not None:
            return signal
    if jax.process_index() == 0:
        results.aggregate_seeds(
            folder, [remote.local_cache_path(experiment.run.dir) for experiment in each]
        )
        remote.upload(asked.run.dir)
    return None


def config_of_seed(experiment: Experiment, i: int) -> Experiment:
    run = experiment.run
    return config.replace(experiment, run=dict(seed=run.seed + i, dir=f"{run.dir}/seed_{i}"))


def train_one_seed(
    task: FinetuneTask, experiment: Experiment, take_over: bool = False
) -> int | None:
    """One run: to its last step, then the results of its best checkpoint."""
    folder, run = remote.local_cache_path(experiment.run.dir), experiment.run
    run_dir.check_run_dir(folder, experiment, task.tokenizer)
    done = results.read_results(folder)
    if done is not None and done["steps"] == run.steps:
        return None
    mesh = sharding.make_mesh(experiment.mesh)
    objective = objectives.build(experiment)
    assert isinstance(objective, objectives.SupervisedObjective)
    steps = train.build_steps(experiment, objective, mesh)
    steps = warm_start.WarmStart(str(run.init), experiment).begin(steps)
    exam = Evaluator(task, experiment, objective, steps, mesh)

    def score(params: Any) -> dict[str, float]:
        scores = exam.evaluate(params, "dev").scores()
        return {f"eval_{name}": value for name, value in scores.items()}

    rows = task.batches(experiment, "train", sharding.process_slices(mesh))
    best = f"eval_{task.headline}"
    with (
        run_dir.locked_run_dir(experiment, task.tokenizer, best, take_over) as checkpoints,
        PreemptionHandler() as stop,
    ):
        train.fit(
            experiment, steps, rows.iterate, score, checkpoints, folder, stop, save_scored=True
        )
        if stop.signal is None:
            found = checkpoints.best() or run.steps
            params = checkpoints.restore_params(found, steps.like.params)
            _conclude(exam, params, found)
        checkpoints.close()
    return stop.signal


def _conclude(exam: Evaluator, params: Any, best: int) -> None:
    """Write what the best checkpoint says of every split but train, and its scores."""
    task, experiment = exam.task, exam.experiment
    folder, main = remote.local_cache_path(experiment.run.dir), jax.process_index() == 0
    made: results.Results = {
        "task": task.dataset.task,
        "task_type": task.dataset.task_type,
        "model": experiment.run.init,
        "metric": task.headline,
        "seed": experiment.run.seed,
        "steps": experiment.run.steps,
        "best_step": best,
    }
    confusion: dict[str, Any] = {}
    threshold = 0.0  # of no answer: what is best on dev, also for the other splits
    for split in (s for s in results.SPLITS if s in task.encoded):
        paper = exam.evaluate(params, split)
        if split == "dev" and "threshold" in (found := paper.scores()):
            threshold = made["threshold"] = found["threshold"]
        scores, counts = paper.scores(threshold), paper.confusion()
        made |= {split: scores} if scores else {}
        confusion |= {split: counts} if counts else {}
        lines = (json.dumps(p, ensure_ascii=False) + "\n" for p in paper.predictions(threshold))
        if main:
            io.write_text(folder / f"predictions_{split}.jsonl", "".join(lines))
    if confusion:
        made["confusion"] = {"labels": list(task.dataset.labels), **confusion}
    made["notes"] = task.notes
    if main:
        results.write_results(folder, made)
