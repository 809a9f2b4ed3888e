"""`pretrain`: a config and its corpora -> a run folder; begun, or gone on with."""

from __future__ import annotations

from typing import Any

from bert_jax import objectives
from bert_jax.checkpoint import run_dir
from bert_jax.config import Experiment
from bert_jax.data import mixture
from bert_jax.distributed import initialize, sharding
from bert_jax.training import profiler as profiles
from bert_jax.training import step as train
from bert_jax.training import warm_start
from bert_jax.training.guard import PreemptionHandler
from bert_jax.utils import remote


def pretrain(asked: Experiment, profile: int = 0, take_over: bool = False) -> int | None:
    """Train `asked` to its last step; returns the signal that stopped it before, if one did.
    `profile` steps leave a trace (profile.py); `take_over` as in `locked_run_dir`.

    Everything that can be wrong with the request is found before the run folder is made.
    ValueError: a folder that is no corpus, corpora of different tokenizers, rows longer than
    the model, a mesh or batch that does not fit the devices, a run folder of another config.
    """
    profiles.check_steps(profile)
    folder = remote.local_cache_path(asked.run.dir)
    stages = mixture.open_stages(asked)
    opened = [corpus for stage in stages for corpus in stage.corpora]
    begun_from = warm_start.from_config(asked)
    experiment = mixture.fill_in_config(asked, opened, begun_from and begun_from.encoder(opened))
    initialize.check_same_config(experiment)
    run_dir.check_run_dir(folder, experiment, opened[0].tokenizer)
    mesh = sharding.make_mesh(experiment.mesh)
    objective = objectives.build(experiment, mixture.corpus_vocabulary(stages[-1]))
    steps = train.build_steps(experiment, objective, mesh)
    steps = begun_from.begin(steps) if begun_from else steps
    batches = mixture.training_loader(experiment, stages, sharding.process_slices(mesh))
    held_out = mixture.evaluation_loader(experiment, stages, sharding.process_slices(mesh))

    most = experiment.run.eval_batches * experiment.optim.accumulate

    def score(params: Any) -> dict[str, float]:
        return train.evaluate(steps, objective, params, held_out.one_pass(most))

    with (
        run_dir.locked_run_dir(
            experiment, opened[0].path / "tokenizer", take_over=take_over
        ) as checkpoints,
        PreemptionHandler() as stop,
    ):
        train.fit(
            experiment, steps, batches.iterate, score, checkpoints, folder, stop, profile=profile
        )
        checkpoints.close()
    return stop.signal
