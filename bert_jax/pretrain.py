"""`pretrain`: a config and its corpora -> a run folder; begun, or gone on with."""

from __future__ import annotations

from typing import Any

from bert_jax import (
    bucket,
    corpora,
    objectives,
    origin,
    processes,
    run_folder,
    sharding,
    train,
)
from bert_jax import profile as profiles
from bert_jax.config import Experiment
from bert_jax.guard import Stop


def pretrain(asked: Experiment, profile: int = 0) -> int | None:
    """Train `asked` to its last step; returns the signal that stopped it before, if one did.
    `profile` steps leave a trace (profile.py).

    Everything that can be wrong with the request is found before the run folder is made.
    ValueError: a folder that is no corpus, corpora of different tokenizers, rows longer than
    the model, a mesh or batch that does not fit the devices, a run folder of another config.
    """
    profiles.check(profile)
    folder = bucket.here(asked.run.dir)
    stages = corpora.open_stages(asked)
    opened = [corpus for stage in stages for corpus in stage.corpora]
    begun_from = origin.of(asked)
    experiment = corpora.resolve(asked, opened, begun_from and begun_from.encoder(opened))
    processes.agree(experiment)
    run_folder.check(folder, experiment, opened[0].tokenizer)
    mesh = sharding.make_mesh(experiment.mesh)
    objective = objectives.build(experiment, corpora.vocabulary(stages[-1]))
    steps = train.build(experiment, objective, mesh)
    steps = begun_from.begin(steps) if begun_from else steps
    batches = corpora.training(experiment, stages, sharding.parts(mesh))
    held_out = corpora.evaluation(experiment, stages, sharding.parts(mesh))

    most = experiment.run.eval_batches * experiment.optim.accumulate

    def score(params: Any) -> dict[str, float]:
        return train.evaluate(steps, objective, params, held_out.once(most))

    with run_folder.held(experiment, opened[0].path / "tokenizer") as checkpoints, Stop() as stop:
        train.fit(
            experiment, steps, batches.start, score, checkpoints, folder, stop, profile=profile
        )
        checkpoints.close()
    return stop.signal
