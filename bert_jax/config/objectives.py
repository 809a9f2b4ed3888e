"""What is learned: masked words, replaced tokens, or a task with labels."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config.encoder import Encoder
from bert_jax.config.ranges import check


@dataclass(frozen=True)
class Masking:
    """Which tokens are hidden, and what stands in their place. See corruption/."""

    granularity: Literal["token", "word", "ngram", "span"] = "token"
    rate: float = 0.15
    final_rate: float | None = None  # in a straight line over the schedule; scored at `rate`
    # rate x length becomes a number of tokens. round: BERT; ceil: SpanBERT, of the text without
    # its special tokens; floor: fairseq, plus a draw from [0, 1)
    budget: Literal["round", "ceil", "floor"] = "round"
    max_predictions: int | None = None  # a cap per row; BERT's 20 at length 128 never binds there
    mask_prob: float = 0.8  # fates of a chosen token: [MASK] ...
    random_prob: float = 0.1  # ... another token; the rest stays as it is
    random_from: Literal["vocabulary", "words", "corpus"] = "vocabulary"  # words: no specials
    replace_per: Literal["token", "span"] = "token"  # what draws its fate on its own
    mask_special_tokens: bool = False  # fairseq also masks <s> and </s>
    max_ngram: int = 1  # longest n-gram (ALBERT 3) or span (SpanBERT 10)
    geometric_p: float = 0.2  # of SpanBERT's length law
    num_static_masks: int | None = (
        None  # static masking: this many fixed masks per row; None: dynamic
    )

    def __post_init__(self) -> None:
        most = self.max_predictions
        holds = {
            "rate": (0 < self.rate < 1, "0 < x < 1"),
            "final_rate": (self.final_rate is None or 0 < self.final_rate < 1, "0 < x < 1"),
            "max_predictions": (most is None or most >= 1, "at least 1, or None"),
            "copies": (
                self.num_static_masks is None or self.num_static_masks >= 1,
                "at least 1, or None",
            ),
            "max_ngram": (self.max_ngram >= 1, "at least 1"),
            "geometric_p": (0 < self.geometric_p < 1, "0 < x < 1"),
        }
        check("masking", self, holds)
        if self.final_rate is not None and self.num_static_masks is not None:
            raise ValueError(
                f"masking.final_rate is {self.final_rate} beside "
                f"masking.num_static_masks {self.num_static_masks}: fixed masks have one rate; "
                "leave out one of the two"
            )
        if (
            self.mask_prob < 0
            or self.random_prob < 0
            or self.mask_prob + self.random_prob > 1 + 1e-9
        ):
            raise ValueError(
                f"masking.mask_prob {self.mask_prob} and masking.random_prob {self.random_prob}: "
                "expected two shares whose sum is at most 1"
            )

    @property
    def most(self) -> float:
        """The largest rate of all steps."""
        return max(self.rate, self.final_rate or 0.0)


@dataclass(frozen=True)
class Masked:
    """Masked language model, perhaps with a sentence pair and a span boundary term."""

    masking: Masking = field(default_factory=Masking)
    sentence_pair: bool = True  # next sentence or sentence order: one head, the data decides
    sbo_weight: float = 0.0  # of the span boundary term; 0: no such head
    sbo_positions: int = 15  # rows of its table: the longest span that is fully predicted
    sbo_size: int = 200  # width of its position embeddings

    def __post_init__(self) -> None:
        holds = {
            "sbo_weight": (0 <= self.sbo_weight < float("inf"), "at least 0"),
            "sbo_positions": (self.sbo_positions >= 1, "at least 1"),
            "sbo_size": (self.sbo_size >= 1, "at least 1"),
        }
        check("objective", self, holds)


@dataclass(frozen=True)
class ReplacedTokens:
    """ELECTRA: a small generator fills masks, the discriminator finds what it replaced."""

    masking: Masking = field(default_factory=lambda: Masking(mask_prob=0.85, random_prob=0.0))
    generator_size: float = 0.25  # of the discriminator's width
    generator_layers: float = 1.0  # of its depth
    tied: Literal["all", "words", "none"] = "all"  # which embeddings both towers share
    weight: float = 50.0  # of the discriminator's loss
    temperature: float = 1.0  # of the generator's samples
    # What the discriminator learns, by section 3.4 of the paper: which tokens were replaced, of
    # all or of the masked ones alone; or the words that stood there (weight 1 suits these), of the
    # masked ones (Replace MLM) or of all, beside a choice to copy (All-Tokens MLM)
    target: Literal["rtd", "rtd_masked", "replace_mlm", "all_tokens_mlm"] = "rtd"

    def __post_init__(self) -> None:
        above = ("generator_size", "generator_layers", "temperature")
        holds = {name: (getattr(self, name) > 0, "above 0") for name in above}
        check("objective", self, {**holds, "weight": (self.weight >= 0, "at least 0")})

    def generator(self, encoder: Encoder) -> Encoder:
        """The generator's encoder: a fraction of the discriminator's (electra,
        run_pretraining.get_generator_config)."""
        size = round(encoder.hidden_size * self.generator_size)
        layers = round(encoder.layers * self.generator_layers)
        try:
            return dataclasses.replace(
                encoder,
                hidden_size=size,
                layers=layers,
                heads=max(1, size // 64),
                mlp_size=None,
                embedding_size=encoder.embedding_width,
                groups=None if encoder.groups is None else min(encoder.groups, layers),
            )
        except ValueError as e:
            raise ValueError(
                f"objective.generator_size {self.generator_size} and generator_layers "
                f"{self.generator_layers} do not make a generator: {e}"
            ) from None


@dataclass(frozen=True)
class Imported:
    """Nothing to learn: a network read from elsewhere, with the heads that came along."""

    family: Literal["bert", "albert", "roberta", "electra"] = "bert"  # whose tensors it had
    mlm: bool = False
    pooler: bool = False
    pair: bool = False
    rtd: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(h for h in ("mlm", "pooler", "pair", "rtd") if getattr(self, h))


Kind = Literal["classification", "regression", "tagging", "choice", "qa"]
Glue = Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]


@dataclass(frozen=True)
class Supervised:
    """Fine-tuning: one head over the encoder, learned from labelled rows.

    The head is a dense layer to the labels on `head`: the pooled first token, the first token
    itself (ELECTRA), or `gelu`, a dense layer and a GELU on the first token (ELECTRA in Hugging
    Face); for tagging it lies on every token. `qa` has two such layers or, `joint`, an end that
    is told the start and a classifier of answerable questions.
    """

    task: Kind | Glue = "classification"
    family: Literal["bert", "albert", "roberta", "electra"] = "bert"  # of the encoder
    head: Literal["pooler", "first", "gelu"] = "pooler"
    span: Literal["linear", "joint"] = "linear"
    labels: tuple[str, ...] = ()  # in the order of the logits; from the data
    dropout: float = 0.1  # before the head's dense layers; linear spans have none
    init: Literal["same", "glorot"] = "same"  # of the head's last layer; ELECTRA: Glorot
    scale: float = 1.0  # regression learns label / scale: 5 for STS-B in ELECTRA and RoBERTa

    def __post_init__(self) -> None:
        holds = {
            "dropout": (0 <= self.dropout < 1, "0 <= x < 1"),
            "scale": (0 < self.scale < float("inf"), "above 0"),
        }
        check("objective", self, holds)

    @property
    def kind(self) -> Kind:
        """What the task asks for."""
        if self.task in typing.get_args(Glue):
            return "regression" if self.task == "stsb" else "classification"
        return typing.cast(Kind, self.task)

    @property
    def outputs(self) -> int:
        """Numbers that the head gives of a text or token; two while the labels are unknown."""
        return 1 if self.kind in ("regression", "choice") else len(self.labels) or 2

    @property
    def by_token(self) -> bool:
        """Whether the outputs of a row are one per token."""
        return self.kind == "tagging" or (self.kind == "qa" and self.span == "linear")

    @property
    def length(self) -> int:
        """Tokens of a row at most, where `data.length` does not say: BERT's and ELECTRA's for
        GLUE and SQuAD, ELECTRA's for tagging, ALBERT's and RoBERTa's for RACE."""
        return {"tagging": 256, "qa": 384, "choice": 512}.get(self.kind, 128)


Objective = Masked | ReplacedTokens | Imported | Supervised
