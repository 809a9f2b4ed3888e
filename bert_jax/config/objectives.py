"""Objective configs: masked LM, replaced-token detection, or a task with labels."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config.contrastive import Contrastive
from bert_jax.config.encoder import Encoder
from bert_jax.config.model_types import ModelType
from bert_jax.config.ranges import check_ranges
from bert_jax.config.supervised import Supervised


@dataclass(frozen=True)
class Masking:
    """Which tokens are masked, and what replaces them (objectives/masking.py)."""

    # Unit that is masked as a whole: tokens, words, n-grams of words (ALBERT), or spans (SpanBERT).
    granularity: Literal["token", "word", "ngram", "span"] = "token"
    # What a word is. `script`: text between spaces; in scripts without spaces (Han, kana, Thai,
    # Lao, Khmer, Burmese, Tibetan) each piece. `albert`: ALBERT's rule for Unigram, for English.
    word_rule: Literal["script", "albert"] = "script"
    # Share of the tokens that are masked.
    rate: float = 0.15
    # Share of masked tokens at the end of training: the share changes linearly from `rate` to this
    # value. Evaluation uses `rate`. None keeps `rate`.
    final_rate: float | None = None
    # Rounding of rate x length to a number of tokens. `round` is BERT's. `ceil` is SpanBERT's and
    # does not count special tokens. `floor` is fairseq's, which first adds a random
    # fraction.
    budget: Literal["round", "ceil", "floor"] = "round"
    # Maximum number of masked tokens per row; None means no maximum. (BERT's 20 at length 128 is
    # never reached.)
    max_predictions: int | None = None
    # Probability that a chosen token is replaced by the mask token.
    mask_prob: float = 0.8
    # Probability that a chosen token is replaced by a random one; the others stay unchanged.
    random_prob: float = 0.1
    # Distribution of random tokens: all ids (`vocabulary`), all but special tokens (`words`), or
    # the frequencies of the corpus (`corpus`).
    random_from: Literal["vocabulary", "words", "corpus"] = "vocabulary"
    # Unit that is replaced in one way: with `token` every token draws mask, random or unchanged,
    # with `span` all tokens of a span share one draw.
    replace_per: Literal["token", "span"] = "token"
    # Also mask special tokens, as fairseq masks <s> and </s>.
    mask_special_tokens: bool = False
    # Also mask and predict the unknown token, as the originals do. By default it is only an input,
    # so that the model does not learn to predict it.
    mask_unknown: bool = False
    # Maximum length in words of an n-gram (ALBERT: 3) or a span (SpanBERT: 10).
    max_ngram: int = 1
    # Parameter p of the geometric distribution of span lengths (SpanBERT).
    geometric_p: float = 0.2
    # Number of fixed masks per row for static masking; None draws new masks in each epoch (dynamic
    # masking).
    num_static_masks: int | None = None

    def num_slots(self, length: int) -> int:
        """The number of predictions in a row of `length` tokens: its largest possible budget."""
        n = self.max_rate * length
        budgets = {"round": max(1, round(n)), "ceil": math.ceil(n), "floor": int(n) + 1}
        budget = budgets[self.budget]
        return budget if self.max_predictions is None else min(budget, self.max_predictions)

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
        both = (self.mask_prob, self.random_prob)
        if not (all(p >= 0 for p in both) and sum(both) <= 1 + 1e-9):
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
    # Train a sentence-pair head. The rows of the corpus decide between NSP and SOP.
    sentence_pair: bool = True
    # Weight of the span-boundary loss; 0 removes its head.
    sbo_weight: float = 0.0
    # Number of rows in the position table of the span-boundary head; longer spans are predicted
    # only in part.
    sbo_positions: int = 15
    # Width of the position embeddings of the span-boundary head.
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
    # Width of the generator's MLP: four times its own width, or in proportion to the
    # discriminator's, as a gated MLP needs, whose width is rarely four times.
    generator_mlp: Literal["fourfold", "proportional"] = "fourfold"
    # Embeddings that generator and discriminator share: all of them, the word table only, or none.
    # With `gradient_disentangled` (DeBERTa-v3) the word, position and type tables are the
    # generator's, and only its loss changes them; the discriminator adds a table of differences of
    # its own to each, which starts at zero. Each network has its own norm.
    tied: Literal["all", "words", "none", "gradient_disentangled"] = "all"
    # Weight of the discriminator's loss; the generator's loss has weight 1.
    weight: float = 50.0
    # Temperature of the softmax from which the generator's tokens are sampled.
    temperature: float = 1.0
    # What the discriminator learns (section 3.4 of the paper). `rtd` detects replaced tokens, and
    # with `rtd_masked` only at masked positions. `replace_mlm` predicts the original words at
    # masked positions; `all_tokens_mlm` predicts those of all tokens, with a copy mechanism. For
    # the last two use weight 1.
    target: Literal["rtd", "rtd_masked", "replace_mlm", "all_tokens_mlm"] = "rtd"

    def __post_init__(self) -> None:
        positive = ("generator_size", "generator_layers", "temperature")
        checks = {name: (getattr(self, name) > 0, "above 0") for name in positive}
        check_ranges("objective", self, {**checks, "weight": (self.weight >= 0, "at least 0")})

    def generator(self, encoder: Encoder) -> Encoder:
        """The generator's encoder, a fraction of the discriminator's (electra,
        run_pretraining.get_generator_config)."""
        size = round(encoder.hidden_size * self.generator_size)
        proportional = max(1, round(encoder.mlp_width * size / encoder.hidden_size))
        layers = round(encoder.layers * self.generator_layers)
        try:
            return dataclasses.replace(
                encoder,
                hidden_size=size,
                layers=layers,
                heads=max(1, size // 64),
                mlp_size=proportional if self.generator_mlp == "proportional" else None,
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

    # Family whose tensor names the checkpoint uses.
    family: ModelType = "bert"
    # Add a masked-LM head.
    mlm: bool = False
    # Add a pooler.
    pooler: bool = False
    # Add a sentence-pair head.
    pair: bool = False
    # Add a replaced-token-detection head.
    rtd: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of its pre-training heads."""
        return tuple(h for h in ("mlm", "pooler", "pair", "rtd") if getattr(self, h))


Objective = Masked | ReplacedTokens | Imported | Supervised | Contrastive
