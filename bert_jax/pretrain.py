"""`pretrain`: a config and its corpora -> a run folder; begun, or gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax import (
    checkpoint,
    config,
    corpora,
    folders,
    lock,
    objectives,
    origin,
    processes,
    sharding,
    train,
)
from bert_jax.config import Experiment
from bert_jax.corruption import Vocabulary
from bert_jax.guard import Stop
from bert_jax.text import tokenizer as tokenizers
from bert_jax.text.corpus import Corpus
from bert_jax.text.tokenizer import Tokenizer

# What may differ when a run goes on: how far and how often, and the machine, not the result.
FREE = (
    "run.steps",
    "run.log_every",
    "run.save_every",
    "run.eval_every",
    "run.epochs",
    "run.evals_per_epoch",
    "run.dir",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "guard.max_skips",
    "guard.hang_factor",
    "guard.hang_after",
    "guard.abort_after",
)


def pretrain(asked: Experiment) -> int | None:
    """Train `asked` to its last step; returns the signal that stopped it before, if one did.

    Everything that can be wrong with the request is found before the run folder is made.
    ValueError: a folder that is no corpus, corpora of different tokenizers, rows longer than
    the model, a mesh or batch that does not fit the devices, a run folder of another config.
    """
    stages = corpora.open_stages(asked)
    opened = [corpus for stage in stages for corpus in stage.corpora]
    begun_from = origin.of(asked)
    experiment = resolve(asked, opened, begun_from and begun_from.encoder(opened))
    folder = Path(experiment.run.dir)
    processes.agree(experiment)
    check_folder(folder, experiment, opened[0].tokenizer)
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

    main = jax.process_index() == 0
    tokenizer = opened[0].path / "tokenizer"
    processes.barrier("checked")
    with lock.hold(folder, main):
        if main:
            check_folder(folder, experiment, opened[0].tokenizer)  # nobody came in between
            if not (folder / "config.json").exists():
                begin_folder(folder, experiment, tokenizer)
        processes.barrier("begun")
        check_shared(folder)
        with checkpoint.Checkpoints(folder / "checkpoints", experiment.run.keep) as checkpoints:
            if (checkpoints.newest() or 0) > experiment.run.steps:
                raise ValueError(
                    f"the run in {folder} is at step {checkpoints.newest()}, run.steps is "
                    f"{experiment.run.steps}: ask for more steps, or choose another --run.dir"
                )
            if main:  # a run that goes on records what may differ, now that nothing refuses it
                begin_folder(folder, experiment, tokenizer)
            with Stop() as stop:
                train.fit(experiment, steps, batches.start, score, checkpoints, folder, stop)
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


def begin_folder(folder: Path, experiment: Experiment, tokenizer: Path | Tokenizer) -> None:
    """Write the config and the tokenizer, each at once and in this order, so that a run that
    is killed in between begins again with the same command."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(experiment, folder / "config.json")
    if not (folder / "tokenizer").exists():
        with folders.new_folder(folder / "tokenizer") as new:
            if isinstance(tokenizer, Tokenizer):
                tokenizer.save(new)
            else:
                shutil.copytree(tokenizer, new, dirs_exist_ok=True)


def check_shared(folder: Path) -> None:
    """ValueError: the folder that the first process began cannot be seen here."""
    if not (folder / "config.json").exists():
        raise ValueError(
            f"run.dir {folder} is not the first process's: expected a folder that all processes "
            "share"
        )


def check_folder(folder: Path, experiment: Experiment, tokenizer: Tokenizer) -> None:
    """A run folder is new, or was made by the same config but for `FREE`, and tokenizer."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"run.dir {folder} is a file: expected a folder")
    if not (folder / "config.json").exists():
        if any(not p.name.startswith(".") for p in folder.iterdir()):
            raise ValueError(f"run.dir {folder} is not empty and no run: choose another folder")
        return
    before = config.read(folder / "config.json")
    changed = config.differences(before, experiment)
    refused = {name: values for name, values in changed.items() if name not in FREE}
    if refused:
        listed = "; ".join(f"{n} was {a!r}, now {b!r}" for n, (a, b) in refused.items())
        raise ValueError(
            f"run.dir {folder} was made by another config: {listed}. "
            "Choose another --run.dir, or ask for what it was"
        )
    own = folder / "tokenizer"  # missing where the run was killed as it began
    if own.exists() and tokenizers.load(own).fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"the tokenizer in {folder} is not that of the corpus {experiment.data.path}: "
            "go on with the corpus that the run began with"
        )
