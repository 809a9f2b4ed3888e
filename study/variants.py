"""What the study compares: variants of a model family, and the pre-training run of each.

Variants that resolve to the same config share one run, whichever hypotheses use them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT, Experiment, Masked, replace
from bert_jax.perf import flops
from study.presets import Preset

TokenizerKind = Literal["wordpiece", "unigram", "bpe"]


class Family(NamedTuple):
    base: Experiment
    tokenizer: TokenizerKind
    segments: str


FAMILIES = {
    "bert": Family(BERT, "wordpiece", "nsp"),
    "albert": Family(ALBERT, "unigram", "sop"),
    "roberta": Family(ROBERTA, "bpe", "full"),
    "electra": Family(ELECTRA, "wordpiece", "electra"),
    "spanbert": Family(SPANBERT, "wordpiece", "single"),
    # ELECTRA's own baseline: its rows and masks, with the whole model as a masked language model
    # (electra, configure_pretraining.py electra_objective=False)
    "mlm": Family(
        replace(BERT, objective=Masked(masking=ELECTRA.objective.masking, sentence_pair=False)),  # type: ignore[union-attr]
        "wordpiece",
        "electra",
    ),
}


@dataclass(frozen=True)
class Variant:
    """One side of a comparison: a family with changes."""

    name: str  # prefix of its runs: letters, digits and underscores
    family: str
    changes: dict[str, Any] = field(default_factory=dict)  # applied to the family's config
    size: str | None = None  # one of the preset's `sizes`
    segments: str | None = None  # None: the family's
    tokenizer: TokenizerKind | None = None
    subsample: int = 1  # train on one of this many documents
    long_rows: bool = False  # rows of the preset's `qa_length`
    batch_factor: float = 1.0  # times the preset's batch; the rate scales with its square root
    equal: Literal["tokens", "flops"] = "tokens"  # what equals the reference run's


class Corpus(NamedTuple):
    """What a prepared corpus is made from; `name` is its folder's."""

    tokenizer: TokenizerKind
    segments: str
    length: int
    subsample: int = 1

    @property
    def full_name(self) -> str:
        """The name of the corpus of all documents."""
        return f"{self.tokenizer}-{self.segments}-{self.length}"

    @property
    def name(self) -> str:
        return self.full_name + (f"-1of{self.subsample}" if self.subsample > 1 else "")


class Cost(NamedTuple):
    """FLOPs of a whole run, by the formula of ELECTRA's efficiency claims (perf/flops.py).

    `published` and `sparse` count real tokens: padding teaches nothing.
    """

    published: float  # embedding look-ups counted as matrix products, as in the paper
    sparse: float  # look-ups cost nothing, as in these models: what is held equal
    products: float  # matrix products alone, padding included: for time estimates

    @staticmethod
    def of(experiment: Experiment, length: int, tokens: float) -> Cost:
        """The cost of rows of `length` that together have `tokens` real tokens."""
        positions = experiment.run.steps * experiment.data.batch_size * length
        return Cost(
            flops.published_per_token(experiment, length) * tokens,
            flops.published_per_token(experiment, length, "sparse") * tokens,
            flops.model_per_token(experiment, length) * positions,
        )


class Run(NamedTuple):
    """A pre-training run: its folder's name, its corpus, and its config without paths."""

    name: str
    variant: str
    seed: int
    corpus: Corpus
    experiment: Experiment
    fill_ratio: float  # expected share of the corpus's tokens that are not padding

    @property
    def rows(self) -> int:
        return self.experiment.run.steps * self.experiment.data.batch_size

    @property
    def tokens(self) -> float:
        """Real tokens, without padding."""
        return self.rows * self.corpus.length * self.fill_ratio

    @property
    def cost(self) -> Cost:
        return Cost.of(self.experiment, self.corpus.length, self.tokens)


def corpus_of(variant: Variant, preset: Preset) -> Corpus:
    family = FAMILIES[variant.family]
    return Corpus(
        variant.tokenizer or family.tokenizer,
        variant.segments or family.segments,
        preset.qa_length if variant.long_rows else preset.length,
        variant.subsample,
    )


def run_of(variant: Variant, preset: Preset, seed: int) -> Run:
    """The run of a variant with a seed. The name ends in a hash of everything that decides the
    result, except the text."""
    corpus = corpus_of(variant, preset)
    fill_ratio = preset.fill_ratio(corpus.full_name)
    experiment = _config(variant, preset, corpus.length)
    batch_size = experiment.data.batch_size
    if variant.equal == "flops":
        tokens = reference_flops(preset) / flops.published_per_token(
            experiment, corpus.length, "sparse"
        )
    else:
        tokens = _reference_tokens(preset)
    steps = round(tokens / (batch_size * corpus.length * fill_ratio))
    eval_every = max(1, steps // 5)
    experiment = replace(
        experiment,
        run=dict(
            steps=steps,
            seed=seed,
            log_every=max(1, steps // 50),
            eval_every=eval_every,
            save_every=max(500, min(eval_every, 1000)),
            # every batch size is evaluated on the same number of rows
            eval_batches=max(1, preset.eval_batches * preset.batch_size // batch_size),
            max_to_keep=1,
            dtype=preset.dtype,
            dir="",
        ),
    )
    identity = json.dumps([corpus, non_default_fields(experiment)], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:6]
    name = f"{variant.name}-s{seed}-{digest}"
    return Run(name, variant.name, seed, corpus, experiment, fill_ratio)


def non_default_fields(config: Any) -> dict[str, Any]:
    """The fields that differ from their class's defaults. A field that is added to the project
    later and left at its default changes no run's name."""
    default = type(config)()
    values: dict[str, Any] = {"kind": type(config).__name__}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            values[f.name] = non_default_fields(value)
        elif value != getattr(default, f.name):
            values[f.name] = value
    return values


REFERENCE = Variant("mlm", "mlm")


def _reference_tokens(preset: Preset) -> float:
    """Real tokens that the preset's masked language model sees."""
    if preset.arm_flops is not None:
        return preset.arm_flops / _reference_flops_per_token(preset)
    rows = preset.steps * preset.batch_size
    return rows * preset.length * preset.fill_ratio(corpus_of(REFERENCE, preset).full_name)


def reference_flops(preset: Preset) -> float:
    """FLOPs of the preset's masked language model: what runs at equal FLOPs spend."""
    return _reference_tokens(preset) * _reference_flops_per_token(preset)


def _reference_flops_per_token(preset: Preset) -> float:
    experiment = _config(REFERENCE, preset, preset.length)
    return flops.published_per_token(experiment, preset.length, "sparse")


def _config(variant: Variant, preset: Preset, length: int) -> Experiment:
    """The family's config at the preset's size, with the variant's changes."""
    batch_size = preset.batch_size * variant.batch_factor * preset.length / length
    config = replace(
        FAMILIES[variant.family].base,
        encoder=dict(
            preset.encoder,
            max_length=length,
            position_offset=0,  # without RoBERTa's two unused rows
            vocab_size=preset.vocab_size,
        ),
        data=dict(batch_size=max(1, round(batch_size)), threads=2),
        optim=replace(preset.optim, peak_lr=preset.optim.peak_lr * variant.batch_factor**0.5),
    )
    if variant.size is not None:
        config = replace(config, encoder=preset.sizes[variant.size])
    return replace(config, **variant.changes)
