"""The objective config of sentence encoders: pairs of texts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bert_jax.config.model_types import ModelType
from bert_jax.config.ranges import check_ranges

MIN_LEARNED_TEMPERATURE = 0.01  # as in CLIP (Radford et al. 2021, section 2.5)
LATEST_NEIGHBOR = 0.75  # of a row, where its second neighbor begins at the latest
LONGEST_CROP = 0.5  # of a row
LEAST_WORDS = 4  # tokens of a crop, where the row has as many


@dataclass(frozen=True)
class Contrastive:
    """A sentence encoder, trained on pairs of texts, or in pre-training on plain text.

    `ranking` is softmax cross-entropy: each query has to find its positive among the documents of
    the whole batch, over all devices and micro-batches. The other losses are for pairs with a
    score, and compare the pairs' cosines with the scores: their order (`cosent`), their squared
    difference (`cosine`), or a contrastive loss for scores of 0 and 1 (`margin`).
    """

    # Where pairs come from: rows of fine-tuning (`pairs`), or rows of a corpus in pre-training.
    # `simcse` pairs each row with itself, with other dropout; `neighbors` pairs two spans of a row
    # that follow each other, and `crops` two that are drawn independently and may overlap.
    task: Literal["pairs", "simcse", "neighbors", "crops"] = "pairs"
    # Family of the encoder.
    family: ModelType = "bert"
    # Loss; `auto` is `ranking` for rows with a positive, and `cosent` for rows with a score.
    loss: Literal["auto", "ranking", "cosent", "cosine", "margin"] = "auto"
    # What makes one vector of a text's tokens: their mean, the first token, or the mean weighted by
    # position.
    pooling: Literal["mean", "cls", "weightedmean"] = "mean"
    # Compare vectors by their cosine; otherwise by their dot product.
    normalize: bool = True
    # Temperature of the softmax, and of `cosent`.
    temperature: float = 0.05
    # Train the temperature, from that value on.
    learn_temperature: bool = False
    # Also rank all queries for each positive, and average both losses.
    symmetric: bool = False
    # Margin of the loss `margin`, as a cosine distance.
    margin: float = 0.5
    # Sizes of shorter vectors that are trained too, such as 256 128 64 (Matryoshka). Each is the
    # first part of the whole vector, and its loss is added.
    dimensions: tuple[int, ...] = ()
    # Never rank a document as wrong that is the query's own text, its positive, or another positive
    # that the training rows name for the query.
    mask_false_negatives: bool = True
    # Maximum number of hard negatives per row; None uses all of them.
    max_negatives: int | None = None
    # Text before every query.
    query_prompt: str = ""
    # Text before every document.
    document_prompt: str = ""

    def __post_init__(self) -> None:
        limit = self.max_negatives
        checks = {
            "temperature": (self.temperature > 0, "above 0"),
            "margin": (0 < self.margin <= 2, "0 < x <= 2"),
            "dimensions": (all(n >= 1 for n in self.dimensions), "at least 1 each"),
            "max_negatives": (limit is None or limit >= 0, "at least 0, or None"),
        }
        check_ranges("objective", self, checks)
        if self.task != "pairs" and self.loss not in ("auto", "ranking"):
            raise ValueError(
                f"objective.loss is {self.loss} and objective.task {self.task}: expected ranking, "
                "since plain text has no scores"
            )

    def check_dimensions(self, width: int) -> None:
        """ValueError: `dimensions` that are not below the encoder's width."""
        if max(self.dimensions, default=0) >= width:
            raise ValueError(
                f"objective.dimensions is {self.dimensions}: expected sizes below the encoder's "
                f"width {width}, which is always trained"
            )

    def text_length(self, length: int) -> int:
        """Tokens of each text, padding included, for rows of `length` tokens: those of the pairs
        that pre-training makes of its rows, which are cut out of them but for `simcse`."""
        if self.task in ("pairs", "simcse"):
            return length
        longest = LATEST_NEIGHBOR if self.task == "neighbors" else LONGEST_CROP
        return min(length, max(math.ceil(longest * length), LEAST_WORDS) + 2)

    @property
    def default_length(self) -> int:
        """Maximum tokens per text when `data.length` is not set."""
        return 128
