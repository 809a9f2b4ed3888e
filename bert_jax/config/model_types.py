"""Hugging Face's model types, by the names in `config.json`."""

from __future__ import annotations

from typing import Literal

# SpanBERT's is bert.
ModelType = Literal[
    "bert",
    "albert",
    "roberta",
    "electra",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "modernbert",
]
ROBERTA_LIKE = ("roberta", "xlm-roberta", "camembert")  # RoBERTa's network and heads
