"""What is compared: a family at the study's scale, and the differences that make an arm of it.

Arms that resolve to one config are one run, whichever claims ask for them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT, Experiment, Masked, replace
from study import compute
from study.presets import PRESETS, Preset

Kind = Literal["wordpiece", "unigram", "bpe"]


class Family(NamedTuple):
    base: Experiment
    tokenizer: Kind
    segments: str


FAMILIES = {
    "bert": Family(BERT, "wordpiece", "nsp"),
    "albert": Family(ALBERT, "unigram", "sop"),
    "roberta": Family(ROBERTA, "bpe", "full"),
    "electra": Family(ELECTRA, "wordpiece", "electra"),
    "spanbert": Family(SPANBERT, "wordpiece", "single"),
    # ELECTRA's own baseline: its rows and its masks, all of the model a masked language model
    # (electra, configure_pretraining.py electra_objective=False)
    "mlm": Family(
        replace(BERT, objective=Masked(masking=ELECTRA.objective.masking, sentence_pair=False)),  # type: ignore[union-attr]
        "wordpiece",
        "electra",
    ),
}


@dataclass(frozen=True)
class Variant:
    """One side of a comparison, as a difference from a family."""

    name: str  # of its runs: letters, digits and underscores
    family: str
    changes: dict[str, Any] = field(default_factory=dict)  # laid over the family's config
    size: str | None = None  # one of the scale's `sizes`
    segments: str | None = None  # None: the family's
    tokenizer: Kind | None = None
    share: int = 1  # one of so many documents of the training text
    long: bool = False  # rows of the scale's `qa_length`
    batch: float = 1.0  # times the scale's batch; the rate goes with its root
    equal: Literal["tokens", "flops"] = "tokens"  # to the yardstick


class Corpus(NamedTuple):
    """What rows are made of; its name is that of its folder."""

    tokenizer: Kind
    segments: str
    length: int
    share: int = 1

    @property
    def whole(self) -> str:
        """The name of the corpus of all documents."""
        return f"{self.tokenizer}-{self.segments}-{self.length}"

    @property
    def name(self) -> str:
        return self.whole + (f"-1of{self.share}" if self.share > 1 else "")


class Run(NamedTuple):
    """A pre-training: its folder's name, what it reads, and its config without paths."""

    name: str
    arm: str
    seed: int
    corpus: Corpus
    experiment: Experiment
    length: int
    filled: float  # share of its rows that is no padding, as the scale expects it

    @property
    def rows(self) -> int:
        return self.experiment.run.steps * self.experiment.data.batch_size

    @property
    def tokens(self) -> float:
        """That are no padding."""
        return self.rows * self.length * self.filled

    @property
    def cost(self) -> compute.Cost:
        return compute.Cost.of(self.experiment, self.length, self.tokens)


def corpus_of(arm: Variant, scale: Preset) -> Corpus:
    family = FAMILIES[arm.family]
    return Corpus(
        arm.tokenizer or family.tokenizer,
        arm.segments or family.segments,
        scale.qa_length if arm.long else scale.length,
        arm.share,
    )


def run_of(arm: Variant, scale: Preset, seed: int) -> Run:
    """The run of an arm with a seed. Its name holds a hash of all that decides its result but
    the text."""
    corpus = corpus_of(arm, scale)
    experiment = _shaped(arm, scale, corpus.length)
    steps = _steps(arm, scale, experiment)
    every = max(1, steps // 5)
    scored = scale.eval_batches * scale.batch_size  # rows of any batch
    experiment = replace(
        experiment,
        run=dict(
            steps=steps,
            seed=seed,
            log_every=max(1, steps // 50),
            eval_every=every,
            save_every=max(every, 500),
            eval_batches=max(1, scored // experiment.data.batch_size),
            max_to_keep=1,
            dtype=scale.dtype,
            dir="",
        ),
    )
    told = json.dumps([corpus, said(experiment)], sort_keys=True)
    mark = hashlib.sha256(told.encode()).hexdigest()[:6]
    name = f"{arm.name}-s{seed}-{mark}"
    filled = scale.real(corpus.whole)
    return Run(name, arm.name, seed, corpus, experiment, corpus.length, filled)


def _steps(arm: Variant, scale: Preset, experiment: Experiment) -> int:
    """As many as make the yardstick's tokens, or its FLOPs."""
    corpus = corpus_of(arm, scale)
    tokens = _tokens(scale)
    if arm.equal == "flops":
        tokens = yardstick(scale) / compute.published(experiment, corpus.length)
    return round(tokens / (experiment.data.batch_size * corpus.length * scale.real(corpus.whole)))


def said(fields: Any) -> dict[str, Any]:
    """What is not the default of its class: fields that come to the project later, and are left
    at their defaults, change no name."""
    plain = type(fields)()
    out: dict[str, Any] = {"kind": type(fields).__name__}
    for f in dataclasses.fields(fields):
        value = getattr(fields, f.name)
        if dataclasses.is_dataclass(value):
            out[f.name] = said(value)
        elif value != getattr(plain, f.name):
            out[f.name] = value
    return out


YARDSTICK = Variant("mlm", "mlm")


def _tokens(scale: Preset) -> float:
    """Real tokens that the scale's masked language model sees."""
    rows = scale.steps * scale.batch_size
    return rows * scale.length * scale.real(corpus_of(YARDSTICK, scale).whole)


@cache
def _yardstick(name: str) -> float:
    scale = PRESETS[name]
    experiment = _shaped(YARDSTICK, scale, scale.length)
    return compute.published(experiment, scale.length) * _tokens(scale)


def yardstick(scale: Preset) -> float:
    """FLOPs that runs at equal FLOPs have: those of the scale's masked language model."""
    return _yardstick(scale.name)


def _shaped(arm: Variant, scale: Preset, length: int) -> Experiment:
    """The family at the scale's size, with the arm's differences."""
    base = FAMILIES[arm.family].base
    batch = max(1, round(scale.batch_size * arm.batch * scale.length / length))
    rate = scale.optim.peak_lr * arm.batch**0.5
    sized = replace(
        base,
        encoder=dict(
            scale.encoder,
            max_length=length,
            position_offset=0,  # RoBERTa's two rows that nobody looks up
            vocab_size=scale.vocab_size,
        ),
        data=dict(batch_size=batch, threads=2),
        optim=replace(scale.optim, peak_lr=rate),
    )
    if arm.size is not None:
        sized = replace(sized, encoder=scale.sizes[arm.size])
    return replace(sized, **arm.changes)
