"""`pretrain`: a config and its corpora -> a run folder; begun, or gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax import (
    bucket,
    config,
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
from bert_jax.corruption import Vocabulary
from bert_jax.guard import Stop
from bert_jax.text.corpus import Corpus
from bert_jax.text.tokenizer import Tokenizer


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
    experiment = resolve(asked, opened, begun_from and begun_from.encoder(opened))
    processes.agree(experiment)
    run_folder.check(folder, experiment, opened[0].tokenizer)
    mesh = sharding.make_mesh(experiment.mesh)
    _, last, weights = stages[-1]  # the same text at every length
    objective = objectives.build(experiment, vocabulary(opened[0].tokenizer, last, weights))
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


def resolve(
    asked: Experiment, corpora: Sequence[Corpus], encoder: config.Encoder | None = None
) -> Experiment:
    """The config with what its corpora decide: vocabulary size, padding and row length; or,
    but for the last, with the `encoder` of the model that it begins from."""
    tokenizer = corpora[0].tokenizer
    longest = max(c.info.length for c in corpora)
    length = max(stage.length or longest for stage in asked.stages)
    if isinstance(asked.objective, config.Masked) and asked.objective.pair:
        for corpus in corpora:
            if corpus.info.segments not in ("nsp", "sop"):
                raise ValueError(
                    f"{corpus.path} was prepared with --segments {corpus.info.segments}, which "
                    "has no sentence pairs: prepare it with nsp or sop, or set "
                    "--objective.no-pair"
                )
    try:
        return config.replace(
            asked,
            encoder=encoder or dict(vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id),
            data=dict(length=length, corpus="+".join(c.fingerprint for c in corpora)),
        )
    except ValueError as e:
        raise ValueError(f"{e} (the corpus has rows of {longest} tokens)") from None


def vocabulary(
    tokenizer: Tokenizer,
    corpora: Sequence[Corpus] = (),
    weights: Sequence[float] | None = None,
) -> Vocabulary:
    """What corruption needs to know of the tokenizer and of how often its pieces occur in the
    corpora, mixed as they are."""
    special = np.zeros(tokenizer.vocab_size, bool)
    special[list(tokenizer.special_ids)] = True
    counts = None
    if corpora:
        shares = weights or [1.0] * len(corpora)
        parts = [w * c.unigram / c.unigram.sum() for w, c in zip(shares, corpora, strict=True)]
        counts = np.sum(parts, axis=0)
    apart = tokenizer.kind == "bpe"
    return Vocabulary(tokenizer.mask_id, special, tokenizer.word_starts(), counts, apart)
