"""`finetune`: a model and the labeled rows of a task -> a run folder with `results.json`.

    config.json  tokenizer/  checkpoints/  metrics.jsonl  timing.jsonl  tensorboard/
    results.json             metrics of the best checkpoint on dev, and on test where there is one
    predictions_SPLIT.jsonl  that checkpoint's predictions for every example of dev and test
    errors.json              its worst rows, and whether its probabilities can be trusted

The loop is that of pre-training, so a stopped run resumes bit for bit. Every evaluated step is
saved; the checkpoint with the best value of the task's main metric on dev counts, or with
`run.select` the last one. `run.patience` ends a run that no longer improves. With several seeds
each has a folder of its own, `seed_0`, `seed_1`, ... in `run.dir`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bert_jax.checkpoint import run_dir
from bert_jax.config import Contrastive, Experiment, Run, checked
from bert_jax.distributed import initialize
from bert_jax.model.attention import kernel_check
from bert_jax.objectives import ContrastiveObjective, SupervisedObjective
from bert_jax.tasks import results
from bert_jax.training import loop, trackers
from bert_jax.training.assemble import Assembly, assemble
from bert_jax.training.early_stopping import EarlyStopping
from bert_jax.training.evaluation import Evaluator
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.training.finetune_results import write_pair_results, write_results
from bert_jax.training.guard import PreemptionHandler
from bert_jax.training.pairs import PairEvaluator, PairsTask
from bert_jax.utils import remote

logger = logging.getLogger(__name__)

Task = FinetuneTask | PairsTask


def finetune(config: Experiment, seeds: int = 1, take_over: bool = False) -> int | None:
    """Train to the last step, once or with several seeds, and write the results; returns the number
    of the signal that stopped it before, else None. `config` comes from
    `finetune_config.for_model`; `take_over` as in `locked_run_dir`. A finished run is left as it
    is.

    ValueError: data that is no such task, a run folder of another config, and what `pretrain`
    refuses; all of it before the run folder is made.
    """
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}: expected at least 1")
    config = checked(config)
    trackers.check_installed(config.run.tracker_names)
    folder = remote.local_cache_path(config.run.dir)
    conflict = folder / ("config.json" if seeds > 1 else "seed_0")
    if conflict.exists():
        raise ValueError(
            f"run.dir {folder} was made with {'one seed' if seeds > 1 else 'several seeds'} "
            f"({conflict.name} exists): choose another --run.dir, or give the same --seeds"
        )
    task: Task = (PairsTask if isinstance(config.objective, Contrastive) else FinetuneTask).of(
        config
    )
    initialize.check_same_config(task.config)
    for line in [*task.label_counts, *task.notes]:
        logger.info(line)
    if seeds == 1:
        return train_one_seed(task, take_over)
    runs = [task.with_seed(i) for i in range(seeds)]
    folders = [remote.local_cache_path(run.config.run.dir) for run in runs]
    for run, run_folder in zip(runs, folders, strict=True):
        run_dir.check_run_dir(run_folder, run.config, run.tokenizer)
    for run in runs:
        signal = train_one_seed(run, take_over)
        if signal is not None:
            return signal
    if initialize.is_first():
        results.aggregate_seeds(folder, folders)
        remote.upload(config.run.dir)
    return None


def train_one_seed(task: Task, take_over: bool = False) -> int | None:
    """Train to the last step, or until the metric no longer improves, then write the results of the
    selected checkpoint."""
    config = task.config
    folder = remote.local_cache_path(config.run.dir)
    run_dir.check_run_dir(folder, config, task.tokenizer)
    # The first process decides for all: a network disk may show the others an older folder.
    if initialize.broadcast_from_first(lambda: int(_is_finished(folder, config.run))):
        return None
    run = assemble(config, task)
    kernel_check.check_attention(config, packed=False)
    steps = run.steps
    evaluator = _evaluator(task, run)

    def evaluate(params: Any) -> dict[str, float]:
        return {f"eval_{name}": value for name, value in evaluator.dev_scores(params).items()}

    metric = f"eval_{task.main_metric}"
    with (
        run_dir.locked_run_dir(config, task.tokenizer, metric, take_over) as checkpoints,
        PreemptionHandler() as preemption,
    ):
        batches = run.train_batches()
        loop.fit(
            config,
            steps,
            batches,
            evaluate,
            checkpoints,
            folder,
            preemption,
            save_evaluated=True,
            early_stopping=EarlyStopping(metric, config.run.patience),
        )
        if preemption.signal is None:
            checkpoints.require_saved()  # no results of an earlier step
            last = checkpoints.newest() or config.run.steps
            chosen = last if config.run.select == "last" else checkpoints.best() or last
            params = checkpoints.restore_params(chosen, steps.like.params)
            if isinstance(evaluator, PairEvaluator):
                write_pair_results(evaluator, params, chosen, last)
            else:
                write_results(evaluator, params, chosen, last)
        checkpoints.close()
        preemption.agree()  # on a signal that came meanwhile: no further seed begins
    return preemption.signal


def _evaluator(task: Task, run: Assembly) -> Evaluator | PairEvaluator:
    """What scores parameters on the splits of a task."""
    if isinstance(task, PairsTask):
        assert isinstance(run.objective, ContrastiveObjective)
        return PairEvaluator(task, run.config, run.objective, run.steps, run.mesh)
    assert isinstance(run.objective, SupervisedObjective)
    return Evaluator(task, run.config, run.objective, run.steps, run.mesh)


def _is_finished(folder: Path, run: Run) -> bool:
    """Whether the folder has results, and they are those that this run would write again."""
    finished = results.read_results(folder)
    if finished is None:
        return False
    defaults = {"select": "best", "patience": None}  # not in results of older runs
    return all(
        finished.get(name, defaults.get(name)) == getattr(run, name)
        for name in ("steps", "select", "patience")
    )
