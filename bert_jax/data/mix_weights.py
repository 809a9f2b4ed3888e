"""The weights of several corpora in a mix: as given, or by their sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bert_jax.config import Data
from bert_jax.data.corpus import Corpus


def parse_mix(data: Data) -> tuple[list[str], list[float] | None]:
    """The paths of `data.mix`, and their weights; None if they follow from sizes
    (`data.mix_exponent`). Spaces around them do not count. ValueError: not every path has a weight,
    or some have one beside an exponent."""
    paths: list[str] = []
    weights: list[float | None] = []
    for part in str(data.mix).split(","):
        path, _, text = part.rpartition("=")
        weight = _number(text) if path else None
        paths.append((part if weight is None else path).strip())
        weights.append(weight)
        if not paths[-1] or (weight is not None and not 0 < weight < math.inf):
            raise ValueError(f"data.mix has {part!r}: expected PATH=WEIGHT, with a weight above 0")
    given = [w for w in weights if w is not None]
    if data.mix_exponent is None:
        if len(given) < len(paths):
            missing = paths[weights.index(None)]
            raise ValueError(
                f"data.mix has no weight for {missing!r}: expected PATH=WEIGHT, or no weights at "
                "all and data.mix_exponent (1: by size, 0: equal, 0.3: in between)"
            )
        return paths, given
    if given:
        raise ValueError(
            f"data.mix_exponent is {data.mix_exponent}, which sets the weights, but data.mix has "
            "weights too: leave out one of the two"
        )
    return paths, None


def given_weights(data: Data) -> list[float] | None:
    """The weights in `data.mix`, whatever its paths; None if it has none. ValueError: as
    `parse_mix`."""
    return parse_mix(data)[1] if data.mix else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def weights_by_size(corpora: Sequence[Corpus], exponent: float) -> list[float]:
    """Weights with which the tokens that are read from a corpus are in proportion to (its
    tokens)^exponent; their sum is 1. A weight counts rows, which hold more tokens in one corpus
    than in another."""
    sizes = [
        max(1.0, _tokens(c)) ** exponent * max(1, c.info.train.rows) / max(1, c.info.train.tokens)
        for c in corpora
    ]
    return [size / sum(sizes) for size in sizes]


def describe_mix(corpora: Sequence[Corpus], weights: Sequence[float], rows: int) -> list[str]:
    """A line for each corpus: its size, its share of `rows` training rows, and how many passes
    over its text these rows are."""
    lines = []
    for corpus, weight in zip(corpora, weights, strict=True):
        share = weight / sum(weights)
        distinct = corpus.info.train.rows / corpus.info.duplicates
        lines.append(
            f"mix: {corpus.path} has {_tokens(corpus):,.0f} tokens and weight {share:.1%}: "
            f"{share * rows / max(1, distinct):.2f} passes over its text"
        )
    return lines


def _tokens(corpus: Corpus) -> float:
    """The tokens of the training rows in one pass over the text."""
    return corpus.info.train.tokens / corpus.info.duplicates
