"""Objective configs: masked LM, replaced-token detection, or a task with labels."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config.encoder import Encoder
from bert_jax.config.ranges import check_ranges


@dataclass(frozen=True)
class Masking:
    """Which tokens are masked, and what replaces them (objectives/masking.py)."""

    # What is masked as a whole: tokens, words, n-grams of words (ALBERT), or spans (SpanBERT).
    granularity: Literal["token", "word", "ngram", "span"] = "token"
    # Share of the tokens that is masked.
    rate: float = 0.15
    # Share at the end of a linear schedule that starts at `rate`; evaluation uses `rate`.
    final_rate: float | None = None
    # How rate x length becomes a number of tokens. `round` is BERT's; `ceil` is SpanBERT's and
    # does not count special tokens; `floor` is fairseq's, which first adds a draw from [0, 1).
    budget: Literal["round", "ceil", "floor"] = "round"
    # Limit of masked tokens per row; BERT's limit of 20 at length 128 never takes effect.
    max_predictions: int | None = None
    # Probability that a chosen token is replaced by the mask token.
    mask_prob: float = 0.8
    # Probability that a chosen token is replaced by a random one; the others stay unchanged.
    random_prob: float = 0.1
    # Where random tokens come from; `words` leaves out special tokens.
    random_from: Literal["vocabulary", "words", "corpus"] = "vocabulary"
    # What draws its replacement independently: every token, or every span as a whole.
    replace_per: Literal["token", "span"] = "token"
    # Whether special tokens may be masked, as fairseq masks <s> and </s>.
    mask_special_tokens: bool = False
    # Whether the unknown token may be masked and predicted. The originals treat it as any word,
    # so a model learns to answer with it; here it is an input only.
    mask_unknown: bool = False
    # Longest n-gram in words (ALBERT: 3) or longest span in words (SpanBERT: 10).
    max_ngram: int = 1
    # Parameter of SpanBERT's geometric distribution of span lengths.
    geometric_p: float = 0.2
    # Static masking with this many fixed masks per row; None means dynamic masking.
    num_static_masks: int | None = None

    def __post_init__(self) -> None:
        limit, static = self.max_predictions, self.num_static_masks
        checks = {
            "rate": (0 < self.rate < 1, "0 < x < 1"),
            "final_rate": (self.final_rate is None or 0 < self.final_rate < 1, "0 < x < 1"),
            "max_predictions": (limit is None or limit >= 1, "at least 1, or None"),
            "num_static_masks": (static is None or static >= 1, "at least 1, or None"),
            "max_ngram": (self.max_ngram >= 1, "at least 1"),
            "geometric_p": (0 < self.geometric_p < 1, "0 < x < 1"),
        }
        check_ranges("masking", self, checks)
        if self.final_rate is not None and static is not None:
            raise ValueError(
                f"masking.final_rate is {self.final_rate} and masking.num_static_masks is "
                f"{static}: static masks have one rate; set only one of the two"
            )
        if (
            min(self.mask_prob, self.random_prob) < 0
            or self.mask_prob + self.random_prob > 1 + 1e-9
        ):
            raise ValueError(
                f"masking.mask_prob is {self.mask_prob} and masking.random_prob is "
                f"{self.random_prob}: expected two probabilities whose sum is at most 1"
            )

    @property
    def max_rate(self) -> float:
        """The highest masking rate of the schedule."""
        return max(self.rate, self.final_rate or 0.0)


@dataclass(frozen=True)
class Masked:
    """Masked language model, with an optional sentence-pair and span-boundary loss."""

    masking: Masking = field(default_factory=Masking)
    # Whether to train a sentence-pair head; the corpus decides between NSP and SOP.
    sentence_pair: bool = True
    # Weight of the span-boundary loss; 0 means no such head.
    sbo_weight: float = 0.0
    # Rows of the span-boundary position table, which is the longest span predicted in full.
    sbo_positions: int = 15
    # Width of the span-boundary position embeddings.
    sbo_size: int = 200

    def __post_init__(self) -> None:
        checks = {
            "sbo_weight": (0 <= self.sbo_weight < float("inf"), "at least 0"),
            "sbo_positions": (self.sbo_positions >= 1, "at least 1"),
            "sbo_size": (self.sbo_size >= 1, "at least 1"),
        }
        check_ranges("objective", self, checks)


@dataclass(frozen=True)
class ReplacedTokens:
    """ELECTRA: a small generator fills masks, and the discriminator detects the replacements."""

    masking: Masking = field(default_factory=lambda: Masking(mask_prob=0.85, random_prob=0.0))
    # Width of the generator as a fraction of the discriminator's width.
    generator_size: float = 0.25
    # Depth of the generator as a fraction of the discriminator's depth.
    generator_layers: float = 1.0
    # Which embeddings generator and discriminator share.
    tied: Literal["all", "words", "none"] = "all"
    # Weight of the discriminator's loss.
    weight: float = 50.0
    # Temperature at which the generator's tokens are sampled.
    temperature: float = 1.0
    # What the discriminator learns (section 3.4 of the paper). `rtd` detects replaced tokens;
    # `rtd_masked` only among the masked ones. `replace_mlm` predicts the original words of the
    # masked tokens and `all_tokens_mlm` those of all tokens, with a copy mechanism; weight 1
    # suits these two.
    target: Literal["rtd", "rtd_masked", "replace_mlm", "all_tokens_mlm"] = "rtd"

    def __post_init__(self) -> None:
        positive = ("generator_size", "generator_layers", "temperature")
        checks = {name: (getattr(self, name) > 0, "above 0") for name in positive}
        check_ranges("objective", self, {**checks, "weight": (self.weight >= 0, "at least 0")})

    def generator(self, encoder: Encoder) -> Encoder:
        """The generator's encoder, a fraction of the discriminator's (electra,
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
    """No objective: an imported network with the heads that its checkpoint had."""

    # Family whose tensor names the checkpoint used.
    family: Literal["bert", "albert", "roberta", "electra"] = "bert"
    # Whether the network has a masked-LM head.
    mlm: bool = False
    # Whether the network has a pooler.
    pooler: bool = False
    # Whether the network has a sentence-pair head.
    pair: bool = False
    # Whether the network has a replaced-token-detection head.
    rtd: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of its pre-training heads."""
        return tuple(h for h in ("mlm", "pooler", "pair", "rtd") if getattr(self, h))


TaskType = Literal["classification", "regression", "tagging", "choice", "qa"]
GlueTask = Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]


@dataclass(frozen=True)
class Supervised:
    """Fine-tuning: one head on the encoder, trained on labeled rows.

    The head is a dense layer to the labels. Its input is set by `head`: the pooled first token,
    the first token itself (ELECTRA), or `gelu`, a dense layer and a GELU on the first token
    (ELECTRA in Hugging Face). For tagging it is applied to every token. `qa` has two such layers
    or, with `joint` spans, an end that depends on the start and a classifier of answerable
    questions.
    """

    # Type of the task, or the name of a GLUE task.
    task: TaskType | GlueTask = "classification"
    # Family of the encoder.
    family: Literal["bert", "albert", "roberta", "electra"] = "bert"
    # Input of the head: pooled first token, first token, or a dense layer with a GELU on it.
    head: Literal["pooler", "first", "gelu"] = "pooler"
    # Span head for questions: independent start and end, or an end that depends on the start.
    span: Literal["linear", "joint"] = "linear"
    # Label names in the order of the logits; they are read from the data.
    labels: tuple[str, ...] = ()
    # Dropout rate before the head's dense layers; linear spans have none.
    dropout: float = 0.1
    # Initial weights of the head's last layer; ELECTRA uses Glorot's.
    init: Literal["same", "glorot"] = "same"
    # Regression learns label / scale; ELECTRA and RoBERTa use 5 for STS-B.
    scale: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "dropout": (0 <= self.dropout < 1, "0 <= x < 1"),
            "scale": (0 < self.scale < float("inf"), "above 0"),
        }
        check_ranges("objective", self, checks)

    @property
    def task_type(self) -> TaskType:
        """The type of the task: STS-B is a regression, all other GLUE tasks classify."""
        if self.task in typing.get_args(GlueTask):
            return "regression" if self.task == "stsb" else "classification"
        return typing.cast(TaskType, self.task)

    @property
    def num_outputs(self) -> int:
        """Number of logits per text or token; 2 while the labels are unknown."""
        return 1 if self.task_type in ("regression", "choice") else len(self.labels) or 2

    @property
    def per_token(self) -> bool:
        """Whether a row has one output per token."""
        return self.task_type == "tagging" or (self.task_type == "qa" and self.span == "linear")

    @property
    def default_length(self) -> int:
        """Maximum tokens per row when `data.length` is not set: BERT's and ELECTRA's length for
        GLUE and SQuAD, ELECTRA's for tagging, ALBERT's and RoBERTa's for RACE."""
        return {"tagging": 256, "qa": 384, "choice": 512}.get(self.task_type, 128)


Objective = Masked | ReplacedTokens | Imported | Supervised
