"""The corpora that a config names, one or a mix per stage: what they decide, and their data
loaders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.config import (
    DROPOUT_RATES,
    Contrastive,
    Data,
    Encoder,
    Experiment,
    Masked,
    Stage,
    replace,
)
from bert_jax.data import corpus_cache, loader, mix_weights
from bert_jax.data.batch_parts import WHOLE_BATCH
from bert_jax.data.corpus import Corpus, open_corpus
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.words import WordRule
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.utils.types import Slices


class StageData(NamedTuple):
    """The corpora that the batches of a stage are drawn from."""

    stage: Stage
    corpora: list[Corpus]
    weights: list[float] | None  # of the corpora in the mix; None: one corpus

    @property
    def max_length(self) -> int:
        """The longest rows of the corpora."""
        return max(corpus.info.length for corpus in self.corpora)


def open_stages(config: Experiment) -> list[StageData]:
    """Open the corpora of every stage; `{length}` in `data.path` or `data.mix` is replaced by the
    length of the stage, which without stages is `data.length`.

    ValueError: a folder is not a corpus, corpora have different tokenizers, some are packed and
    some not, rows are longer than their stage allows, or stages of several lengths have a path
    without `{length}`.
    """
    _check_path_names_length(config)
    stages = [
        StageData(stage, *open_corpora(_fill_in_length(config.data, stage)))
        for stage in config.stages
    ]
    _check_compatible([corpus for stage_data in stages for corpus in stage_data.corpora])
    for stage_data in stages:
        length, max_length = stage_data.stage.length, stage_data.max_length
        if length is not None and length < max_length:
            field = "data.length is" if config.data.stages is None else "data.stages has"
            raise ValueError(
                f"{field} {length}, but the corpus has rows of {max_length} tokens: "
                f"prepare it with --length {length}"
            )
    return stages


def _check_path_names_length(config: Experiment) -> None:
    path = config.data.path or config.data.mix or ""
    lengths = sorted({stage.length for stage in config.stages if stage.length is not None})
    if len(lengths) > 1 and path and "{length}" not in path:
        raise ValueError(
            f"data.stages has rows of {' and '.join(map(str, lengths))} tokens, but the path "
            f"{path!r} does not contain {{length}}: prepare a corpus for each length, and write "
            "the path as corpora/{length}"
        )


def _check_compatible(corpora: Sequence[Corpus]) -> None:
    first = corpora[0]
    for corpus in corpora[1:]:
        if corpus.info.tokenizer_fingerprint != first.info.tokenizer_fingerprint:
            raise ValueError(
                f"{corpus.path} and {first.path} were prepared with different tokenizers: "
                "prepare them with the same one"
            )
        if corpus.info.segmented != first.info.segmented:
            plain, segmented = sorted((corpus, first), key=lambda c: c.info.segmented)
            raise ValueError(
                f"{segmented.path} was prepared with --segmented, but {plain.path} was not, so "
                "their words differ: prepare both alike"
            )
        if bool(corpus.info.packed) != bool(first.info.packed):
            padded, packed = sorted((corpus, first), key=lambda c: c.info.packed)
            raise ValueError(
                f"{packed.path} has packed rows, but {padded.path} has not: prepare both with "
                "--pack, or both without"
            )


def check_same_pairs(config: Experiment, stages: Sequence[StageData]) -> None:
    """ValueError: label 1 means a random segment in one corpus of a mix and a swapped one in
    another."""
    if not (isinstance(config.objective, Masked) and config.objective.sentence_pair):
        return
    for stage_data in stages:
        kinds = {corpus.info.segments: corpus.path for corpus in stage_data.corpora}
        if len(kinds) > 1:
            listed = " and ".join(f"{path} with {kind}" for kind, path in sorted(kinds.items()))
            raise ValueError(
                f"data.mix has {listed}, whose labels of sentence pairs differ: prepare all "
                "corpora with the same --segments, or set --objective.no-sentence-pair"
            )


def _fill_in_length(data: Data, stage: Stage) -> Data:
    if stage.length is None:
        return data
    length = str(stage.length)
    path, mix = (name and name.replace("{length}", length) for name in (data.path, data.mix))
    return dataclasses.replace(data, path=path, mix=mix)


def open_corpora(data: Data) -> tuple[list[Corpus], list[float] | None]:
    """Open the corpora of `data.path`, or those of `data.mix` with their weights."""
    if (data.path is None) == (data.mix is None):
        raise ValueError(
            "expected either --data.path CORPUS or --data.mix CORPUS=WEIGHT,...: "
            "make a corpus with `bert-jax prepare`"
        )
    if data.path is not None:
        return [open_corpus(corpus_cache.cached_download(data.path))], None
    paths, weights = mix_weights.parse_mix(data)
    corpora = [open_corpus(corpus_cache.cached_download(path)) for path in paths]
    if weights is None:
        weights = mix_weights.weights_by_size(corpora, data.mix_exponent or 0.0)
    return corpora, weights


def fill_in_config(
    config: Experiment, corpora: Sequence[Corpus], encoder: Encoder | None = None
) -> Experiment:
    """The config with what the corpora decide: row length, and what the tokenizer decides. That
    comes from `encoder` instead, if the run starts from a model with this one."""
    tokenizer = corpora[0].tokenizer
    max_length = max(corpus.info.length for corpus in corpora)
    length = max(stage.length or max_length for stage in config.stages)
    if isinstance(config.objective, Contrastive):
        _check_gives_pairs(config.objective, corpora, encoder or config.encoder)
    if isinstance(config.objective, Masked) and config.objective.sentence_pair:
        for corpus in corpora:
            if corpus.info.segments not in ("nsp", "sop"):
                raise ValueError(
                    f"{corpus.path} was prepared with --segments {corpus.info.segments}, which "
                    "has no sentence pairs: prepare it with nsp or sop, or set "
                    "--objective.no-sentence-pair"
                )
    try:
        return replace(
            config,
            encoder=encoder or tokenizer_fields(config.encoder, tokenizer),
            data=dict(length=length, corpus="+".join(c.fingerprint for c in corpora)),
        )
    except ValueError as e:
        raise ValueError(f"{e} (the corpus has rows of {max_length} tokens)") from None


def _check_gives_pairs(objective: Contrastive, corpora: Sequence[Corpus], encoder: Encoder) -> None:
    """ValueError: rows of which no pairs can be made (objectives/unlabeled_pairs.py)."""
    task = objective.task
    if task == "pairs":
        raise ValueError(
            "objective.task is pairs, which are rows of fine-tuning: expected simcse, neighbors or "
            "crops, or use bert-jax finetune --task pairs"
        )
    objective.check_dimensions(encoder.hidden_size)
    if task == "simcse" and not any(getattr(encoder, rate) for rate in DROPOUT_RATES):
        raise ValueError(
            "objective.task is simcse, which needs dropout, and the encoder has none: set "
            "--encoder.dropout 0.1, or train on crops or neighbors"
        )
    segments = ("single", "doc", "full") if task == "simcse" else ("single", "doc")
    for corpus in corpora:
        if corpus.info.segments not in segments or corpus.info.packed:
            packed = " and --pack" if corpus.info.packed else ""
            raise ValueError(
                f"{corpus.path} was prepared with --segments {corpus.info.segments}{packed}: "
                f"objective.task {task} expects rows of one text, {' or '.join(segments)}, that "
                "are not packed"
            )


def tokenizer_fields(encoder: Encoder, tokenizer: Tokenizer) -> dict[str, int]:
    """The fields of an encoder that follow from the tokenizer. RoBERTa's positions begin after the
    padding id, as in fairseq and in Hugging Face."""
    pad_id = tokenizer.pad_id
    offset = pad_id + 1 if encoder.position_offset else 0
    return dict(vocab_size=tokenizer.vocab_size, pad_id=pad_id, position_offset=offset)


def corpus_vocabulary(stage_data: StageData, rule: WordRule = "script") -> Vocabulary:
    """The vocabulary statistics that masking needs; counts are weighted as the corpora are mixed.
    Any stage will do, since all stages have the same text. `rule` says where words begin."""
    corpora = stage_data.corpora
    tokenizer = corpora[0].tokenizer
    if corpora[0].info.segmented and rule == "script":
        rule = "spaces"
    weights = stage_data.weights or [1.0] * len(corpora)
    per_row = [c.unigram / max(1, c.info.train.rows) for c in corpora]  # a weight counts rows
    counts = np.sum([w * unigram for w, unigram in zip(weights, per_row, strict=True)], axis=0)
    return Vocabulary.of(tokenizer, rule, counts)


def pair_share(stage_data: StageData) -> float | None:
    """The share of training pairs with label 1, weighted as the corpora are mixed; None if a corpus
    has no pairs with a label."""
    counts = [corpus.info.train for corpus in stage_data.corpora]
    if not all(c.labeled_pairs for c in counts):
        return None
    return float(np.average([c.label_share for c in counts], weights=stage_data.weights))


def training_loader(
    experiment: Experiment, stages: Sequence[StageData], parts: Slices = WHOLE_BATCH
) -> loader.StagedLoader:
    """The training batches of a run; of each, the parts that this process reads. The epochs of a
    stage follow on those of the stages before it, so that a corpus of several stages has other
    masks in each of them."""
    loaders, epoch = [], 0
    for i, stage_data in enumerate(stages):
        start = stage_data.stage.start
        loaders.append((start, _build_loader(experiment, stage_data, "train", parts, i, epoch)))
        if i + 1 < len(stages):
            epoch += _count_epochs(stage_data, stages[i + 1].stage.start - start)
    return loader.StagedLoader(loaders)


def _count_epochs(stage_data: StageData, steps: int) -> int:
    """More than the number of times that so many steps of a stage read a whole corpus: of a mix,
    the one that is read most often. Of a mix it may be too few after many epochs, because grain
    truncates weights by up to 1 %: some rows then have masks of their last epoch once more."""
    rows = steps * stage_data.stage.batch_size
    weights = stage_data.weights or [1.0]
    shares = [weight / sum(weights) for weight in weights]
    return max(
        int(rows * share / corpus.info.train.rows) + 1
        for corpus, share in zip(stage_data.corpora, shares, strict=True)
    )


def evaluation_loader(
    experiment: Experiment, stages: Sequence[StageData], parts: Slices = WHOLE_BATCH
) -> loader.Loader | loader.ConcatLoader:
    """The held-out rows of the last stage, so that a run has one comparable series of evaluation
    metrics however many stages it has."""
    return _build_loader(experiment, stages[-1], "validation", parts)


def _build_loader(
    experiment: Experiment,
    stage_data: StageData,
    split: str,
    parts: Slices,
    stage_number: int = 0,
    first_epoch: int = 0,
) -> loader.Loader | loader.ConcatLoader:
    # Evaluation uses micro-batches too: a whole batch may not fit on the devices.
    micro_batches = 1 if split == "train" else experiment.optim.accumulate
    threads = -(-experiment.data.threads // len(parts))  # a host of a torus may have several parts
    whole = loader.Loader(
        sources=[corpus.source(split) for corpus in stage_data.corpora],
        batch_size=stage_data.stage.batch_size // micro_batches,
        length=stage_data.stage.length or stage_data.max_length,
        pad_id=experiment.encoder.pad_id,
        # Stages that share a corpus shuffle it differently.
        seed=experiment.run.seed + 10_000 * stage_number,
        weights=stage_data.weights,
        threads=threads,
        packed=max(corpus.info.packed for corpus in stage_data.corpora),
        words=any(corpus.info.stores_words for corpus in stage_data.corpora),
        first_epoch=first_epoch,
    )
    slices = [dataclasses.replace(whole, process=part) for part in parts]
    return slices[0] if len(slices) == 1 else loader.ConcatLoader(slices)
