"""`pretrain`: a config and its corpora -> a run folder; begun, or gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax import checkpoint, config, data, folders, objectives, origin, sharding, train
from bert_jax.config import Experiment
from bert_jax.corruption import Vocabulary
from bert_jax.guard import Stop
from bert_jax.text import tokenizer as tokenizers
from bert_jax.text.corpus import Corpus, open_corpus
from bert_jax.text.tokenizer import Tokenizer

# What may differ when a run goes on: how far and how often, and the machine, not the result.
FREE = (
    "run.steps",
    "run.log_every",
    "run.save_every",
    "run.eval_every",
    "run.dir",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
)


def pretrain(asked: Experiment) -> int | None:
    """Train `asked` to its last step; returns the signal that stopped it before, if one did.

    Everything that can be wrong with the request is found before the run folder is made.
    ValueError: a folder that is no corpus, corpora of different tokenizers, rows longer than
    the model, a mesh or batch that does not fit the devices, a run folder of another config.
    """
    corpora, weights = open_corpora(asked.data)
    begun_from = origin.of(asked)
    experiment = resolve(asked, corpora, begun_from and begun_from.encoder(corpora))
    folder = Path(experiment.run.dir)
    check_folder(folder, experiment, corpora[0].tokenizer)
    mesh = sharding.make_mesh(experiment.mesh)
    objective = objectives.build(experiment, vocabulary(corpora[0].tokenizer, corpora, weights))
    steps = train.build(experiment, objective, mesh)
    steps = begun_from.begin(steps) if begun_from else steps
    batches, held_out = (batches_of(experiment, corpora, weights, s) for s in SPLITS)

    most = experiment.run.eval_batches * experiment.optim.accumulate

    def score(params: Any) -> dict[str, float]:
        return train.evaluate(steps, objective, params, held_out.once(most))

    main = jax.process_index() == 0
    if main and not (folder / "config.json").exists():
        begin_folder(folder, experiment, corpora[0].path / "tokenizer")
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", experiment.run.keep)
    if (checkpoints.newest() or 0) > experiment.run.steps:
        raise ValueError(
            f"the run in {folder} is at step {checkpoints.newest()}, run.steps is "
            f"{experiment.run.steps}: ask for more steps, or choose another --run.dir"
        )
    if main:  # a run that goes on records what may differ, now that nothing refuses it
        begin_folder(folder, experiment, corpora[0].path / "tokenizer")
    with Stop() as stop:
        try:
            train.fit(
                experiment,
                steps,
                batches.start,
                score,
                checkpoints,
                folder,
                stop,
            )
        finally:
            checkpoints.close()
    return stop.signal


SPLITS = ("train", "validation")


def open_corpora(asked: config.Data) -> tuple[list[Corpus], list[float] | None]:
    """The corpora of `data.path`, or of `data.mix` with their weights."""
    if (asked.path is None) == (asked.mix is None):
        raise ValueError(
            "expected either --data.path CORPUS or --data.mix CORPUS=WEIGHT,...: "
            "make a corpus with `bert-jax prepare`"
        )
    if asked.path is not None:
        return [open_corpus(asked.path)], None
    corpora, weights = [], []
    for part in str(asked.mix).split(","):
        path, _, weight = part.rpartition("=")
        try:
            weights.append(float(weight))
        except ValueError:
            weights.append(0.0)
        if not path or weights[-1] <= 0:
            raise ValueError(f"data.mix has {part!r}: expected PATH=WEIGHT, the weight above 0")
        corpora.append(open_corpus(path))
    for corpus in corpora[1:]:
        if corpus.info.tokenizer_fingerprint != corpora[0].info.tokenizer_fingerprint:
            raise ValueError(
                f"{corpus.path} and {corpora[0].path} were prepared with different tokenizers: "
                "prepare them with the same one"
            )
    return corpora, weights


def resolve(
    asked: Experiment, corpora: Sequence[Corpus], encoder: config.Encoder | None = None
) -> Experiment:
    """The config with what its corpus decides: vocabulary size, padding and row length; or,
    but for the last, with the `encoder` of the model that it begins from."""
    tokenizer = corpora[0].tokenizer
    longest = max(c.info.length for c in corpora)
    length = asked.data.length or longest
    if length < longest:
        raise ValueError(
            f"data.length is {length}, but the corpus has rows of {longest} tokens: "
            f"prepare it with --length {length}"
        )
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


def batches_of(
    experiment: Experiment,
    corpora: Sequence[Corpus],
    weights: Sequence[float] | None,
    split: str,
) -> data.Batches:
    # Evaluation goes by micro-batches too: a whole batch may not fit on the devices.
    parts = 1 if split == "train" else experiment.optim.accumulate
    return data.Batches(
        sources=[c.source(split) for c in corpora],
        batch_size=experiment.data.batch_size // parts,
        length=experiment.data.length or 0,
        pad_id=experiment.encoder.pad_id,
        seed=experiment.run.seed,
        weights=weights,
        process=(jax.process_index(), jax.process_count()),
        threads=experiment.data.threads,
    )


def begin_folder(folder: Path, experiment: Experiment, tokenizer: Path) -> None:
    """Write the config and the tokenizer, each at once and in this order, so that a run that
    is killed in between begins again with the same command."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(experiment, folder / "config.json")
    if not (folder / "tokenizer").exists():
        with folders.new_folder(folder / "tokenizer") as new:
            shutil.copytree(tokenizer, new, dirs_exist_ok=True)


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
