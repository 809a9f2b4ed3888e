"""`pretrain`: train a config on its corpora, or resume where its run folder stopped."""

from __future__ import annotations

import logging

from bert_jax.checkpoint import run_dir
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment, checked
from bert_jax.data import mixture, mixture_report
from bert_jax.distributed import initialize
from bert_jax.model.attention import kernel_check
from bert_jax.training import loop, profiler, trackers
from bert_jax.training.assemble import assemble, open_corpora
from bert_jax.training.early_stopping import EarlyStopping
from bert_jax.training.guard import PreemptionHandler
from bert_jax.training.unused_fields import has_begun, refuse_unused_fields
from bert_jax.utils import remote

logger = logging.getLogger(__name__)


def pretrain(config: Experiment, profile: int = 0, take_over: bool = False) -> int | None:
    """Train to `run.steps`; returns the number of the signal that stopped the run before, else
    None. `profile` steps are traced (profiler.py); `take_over` as in `locked_run_dir`.

    Everything that can be wrong with the request is found before the run folder is made.
    ValueError: a value of a wrong type in the config, a folder that holds no corpus, corpora of
    different tokenizers, rows longer than the model, a mesh or batch that does not fit the devices,
    a run folder of another config.
    """
    config = checked(config)
    profiler.check_steps(profile)
    trackers.check_installed(config.run.tracker_names)
    folder = remote.local_cache_path(config.run.dir)
    data = open_corpora(config)
    refuse_unused_fields(config)
    if not has_begun(config):
        mixture.check_same_pairs(config, data.stages)
    initialize.check_same_config(data.config)
    run_dir.check_run_dir(folder, data.config, data.tokenizer)
    run = assemble(data.config, data)
    kernel_check.check_attention(run.config, data.is_packed)
    with (
        run_dir.locked_run_dir(run.config, data.tokenizer_dir, take_over=take_over) as checkpoints,
        PreemptionHandler() as preemption,
    ):
        for describe in (mixture_report.describe_mixes, mixture_report.describe_repeated_pairs):
            for line in describe(run.config, data.stages):
                logger.info(line)
        patience = run.config.run.patience
        stopping = EarlyStopping("-eval_loss", patience)
        loop.fit(
            run.config,
            run.steps,
            run.train_batches(),
            run.evaluate,
            checkpoints,
            folder,
            preemption,
            save_evaluated=patience is not None,  # the best step is worth keeping
            early_stopping=stopping,
            profile=profile,
        )
        if stopping.should_stop:
            log_best(stopping.best_step, checkpoints, config.run.dir)
        checkpoints.close()
    return preemption.signal


def log_best(best: int, checkpoints: Checkpoints, folder: str) -> None:
    """Say how to use the best step of a run that stopped early, which is not its newest one."""
    newest = checkpoints.newest()
    if best != newest and best in checkpoints.steps():
        logger.info(
            "load, export and finetune take the newest step, %d: to use step %d, move the newer "
            "folders out of %s/checkpoints",
            *(newest, best, folder),
        )
