"""The corpora that a config names, what they decide, and their batches, stage by stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.config import Data, Encoder, Experiment, Masked, Stage, replace
from bert_jax.data import corpus_cache, loader
from bert_jax.data.corpus import Corpus, open_corpus
from bert_jax.data.vocabulary import Vocabulary


class StageData(NamedTuple):
    """What the batches of a stage are drawn from."""

    stage: Stage
    corpora: list[Corpus]
    weights: list[float] | None  # None: of one corpus


def open_stages(asked: Experiment) -> list[StageData]:
    """The corpora of every stage; `{length}` in `data.path` or `data.mix` stands for its length.

    ValueError: a folder that is no corpus, corpora of different tokenizers, packed ones beside
    others, rows longer than those of their stage, stages of several lengths without `{length}`.
    """
    names = asked.data.path or asked.data.mix or ""
    lengths = sorted({stage.length for stage in asked.stages if stage.length is not None})
    if len(lengths) > 1 and names and "{length}" not in names:
        raise ValueError(
            f"data.stages has rows of {' and '.join(map(str, lengths))} tokens, and {names!r} no "
            "{length} that stands for them: prepare a corpus for each, and write the path as "
            "corpora/{length}"
        )
    opened = [
        StageData(stage, *open_corpora(_fill_in_length(asked.data, stage)))
        for stage in asked.stages
    ]
    everything = [corpus for mixture in opened for corpus in mixture.corpora]
    for corpus in everything[1:]:
        if corpus.info.tokenizer_fingerprint != everything[0].info.tokenizer_fingerprint:
            raise ValueError(
                f"{corpus.path} and {everything[0].path} were prepared with different tokenizers: "
                "prepare them with the same one"
            )
        if bool(corpus.info.packed) != bool(everything[0].info.packed):
            one, other = sorted((corpus, everything[0]), key=lambda c: c.info.packed)
            raise ValueError(
                f"{other.path} has packed rows, and {one.path} has not: prepare both with --pack, "
                "or both without"
            )
    for stage, corpora, _ in opened:
        longest = max(corpus.info.length for corpus in corpora)
        if stage.length is not None and stage.length < longest:
            what = "data.length is" if asked.data.stages is None else "data.stages has"
            raise ValueError(
                f"{what} {stage.length}, but the corpus has rows of {longest} tokens: "
                f"prepare it with --length {stage.length}"
            )
    return opened


def _fill_in_length(asked: Data, stage: Stage) -> Data:
    if asked.stages is None:
        return asked
    length = str(stage.length)
    path, mix = (name and name.replace("{length}", length) for name in (asked.path, asked.mix))
    return dataclasses.replace(asked, path=path, mix=mix)


def open_corpora(asked: Data) -> tuple[list[Corpus], list[float] | None]:
    """The corpora of `data.path`, or of `data.mix` with their weights."""
    if (asked.path is None) == (asked.mix is None):
        raise ValueError(
            "expected either --data.path CORPUS or --data.mix CORPUS=WEIGHT,...: "
            "make a corpus with `bert-jax prepare`"
        )
    if asked.path is not None:
        return [open_corpus(corpus_cache.cached_download(asked.path))], None
    corpora, weights = [], []
    for part in str(asked.mix).split(","):
        path, _, weight = part.rpartition("=")
        try:
            weights.append(float(weight))
        except ValueError:
            weights.append(0.0)
        if not path or not 0 < weights[-1] < float("inf"):
            raise ValueError(f"data.mix has {part!r}: expected PATH=WEIGHT, the weight above 0")
        corpora.append(open_corpus(corpus_cache.cached_download(path)))
    return corpora, weights


def fill_in_config(
    asked: Experiment, corpora: Sequence[Corpus], encoder: Encoder | None = None
) -> Experiment:
    """The config with what its corpora decide: vocabulary size, padding and row length; or,
    but for the last, with the `encoder` of the model that it begins from."""
    tokenizer = corpora[0].tokenizer
    longest = max(c.info.length for c in corpora)
    length = max(stage.length or longest for stage in asked.stages)
    if isinstance(asked.objective, Masked) and asked.objective.sentence_pair:
        for corpus in corpora:
            if corpus.info.segments not in ("nsp", "sop"):
                raise ValueError(
                    f"{corpus.path} was prepared with --segments {corpus.info.segments}, which "
                    "has no sentence pairs: prepare it with nsp or sop, or set "
                    "--objective.no-sentence-pair"
                )
    try:
        return replace(
            asked,
            encoder=encoder or dict(vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id),
            data=dict(length=length, corpus="+".join(c.fingerprint for c in corpora)),
        )
    except ValueError as e:
        raise ValueError(f"{e} (the corpus has rows of {longest} tokens)") from None


def corpus_vocabulary(mixture: StageData) -> Vocabulary:
    """What corruption needs to know of the tokenizer and of how often its pieces occur in the
    corpora, mixed as they are. Of several stages any will do: they have the same text."""
    _, corpora, weights = mixture
    tokenizer = corpora[0].tokenizer
    special = np.zeros(tokenizer.vocab_size, bool)
    special[list(tokenizer.special_ids)] = True
    shares = weights or [1.0] * len(corpora)
    parts = [w * c.unigram / c.unigram.sum() for w, c in zip(shares, corpora, strict=True)]
    apart = tokenizer.kind == "bpe"
    counts = np.sum(parts, axis=0)
    return Vocabulary(tokenizer.mask_id, special, tokenizer.word_starts(), counts, apart)


BatchSlice = tuple[int, int]  # the i-th of n equal parts of every batch
WHOLE_BATCH: tuple[BatchSlice, ...] = ((0, 1),)


def training_loader(
    experiment: Experiment, stages: Sequence[StageData], parts: Sequence[BatchSlice] = WHOLE_BATCH
) -> loader.StagedLoader:
    """The batches of a run; of each the parts that this process reads."""
    made = [_build_loader(experiment, s, "train", parts, i) for i, s in enumerate(stages)]
    return loader.StagedLoader([(s.stage.start, b) for s, b in zip(stages, made, strict=True)])


def evaluation_loader(
    experiment: Experiment, stages: Sequence[StageData], parts: Sequence[BatchSlice] = WHOLE_BATCH
) -> loader.Loader | loader.ConcatLoader:
    """The held-out rows of the last stage: what the model is made for, and one series of figures
    however many stages there are."""
    return _build_loader(experiment, stages[-1], "validation", parts)


def _build_loader(
    experiment: Experiment,
    mixture: StageData,
    split: str,
    parts: Sequence[BatchSlice],
    number: int = 0,
) -> loader.Loader | loader.ConcatLoader:
    # Evaluation goes by micro-batches too: a whole batch may not fit on the devices.
    micro = 1 if split == "train" else experiment.optim.accumulate
    length = mixture.stage.length or max(corpus.info.length for corpus in mixture.corpora)
    batches = loader.Loader(
        sources=[corpus.source(split) for corpus in mixture.corpora],
        batch_size=mixture.stage.batch_size // micro,
        length=length,
        pad_id=experiment.encoder.pad_id,
        # Stages that share a corpus shuffle it differently.
        seed=experiment.run.seed + 10_000 * number,
        weights=mixture.weights,
        threads=experiment.data.threads,
        packed=max(corpus.info.packed for corpus in mixture.corpora),
    )
    mine = [dataclasses.replace(batches, process=part) for part in parts]
    return mine[0] if len(mine) == 1 else loader.ConcatLoader(mine)
