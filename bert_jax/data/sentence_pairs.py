"""Rows of two segments with a label: BERT's next sentence prediction and ALBERT's sentence order.

    training     the originals' draws: one target length and fair coins per document
    validation   a target length for every few rows of text, balanced coins, equal label counts

A document's target length decides how long its rows are, and of how many rows one sentence fills
all, which have label 1. A split of few documents would follow the draw of one of them, so
validation draws the target again and again, by the same law (`HELD_OUT`, `balance_labels`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bert_jax.data.segments import Sentences, TokenRow
from bert_jax.data.tokenization.special_tokens import SpecialTokens

PAIR_KINDS = ("nsp", "sop")
SHORT_PAIR_PROB = 0.1  # of a document to have shorter rows: BERT's and ALBERT's short_seq_prob
HELD_OUT_ROWS = 4  # full rows of text for which a target length of a validation document holds

# Draws another document of the same split; None if the split has no other one.
DrawDocument = Callable[[np.random.Generator], Sentences | None]


def fair_coin(rng: np.random.Generator) -> bool:
    """True or False with equal probability."""
    return bool(rng.random() < 0.5)


class BalancedCoin:
    """A coin whose every second flip is the opposite of the flip before."""

    def __init__(self) -> None:
        self._next: bool | None = None

    def __call__(self, rng: np.random.Generator) -> bool:
        if self._next is not None:
            flip, self._next = self._next, None
            return flip
        flip = fair_coin(rng)
        self._next = not flip
        return flip


@dataclass
class PairDraws:
    """How the rows of a split draw their labels and lengths; by default as the originals do."""

    coin: Callable[[np.random.Generator], bool] = fair_coin
    target_rows: float = math.inf  # full rows of text after which the target is drawn again

    @classmethod
    def held_out(cls) -> PairDraws:
        """The draws of the validation documents of one shard."""
        return cls(BalancedCoin(), HELD_OUT_ROWS)


def next_sentence_pairs(
    document: Sentences,
    length: int,
    special_tokens: SpecialTokens,
    rng: np.random.Generator,
    draw_other: DrawDocument,
    draws: PairDraws | None = None,
) -> Iterator[TokenRow]:
    """BERT's next sentence prediction: in half of the rows, and whenever one sentence fills the
    row, segment B comes from another document, and the next row continues after segment A.

    Without another document such a row is not made: the chunk's own text becomes a row without a
    label, of one segment if it is one sentence."""
    draws = draws or PairDraws()
    room = special_tokens.text_capacity(length, 2)
    chunks = _Chunks(document, room, draws.target_rows)
    start = 0
    while start < len(document):
        a, b, target, middle, stop = chunks.at(start, rng)
        pair, end = 0, stop
        if middle == stop or draws.coin(rng):
            other, pair = draw_other(rng), -1
            if other is not None:
                b, pair = _random_segment(other, target - len(a), rng), 1
                end = middle
        row = _pair_row(a, b, room, pair, special_tokens, rng)
        kept = _kept_tokens(a, b, room, b_is_random=pair == 1)
        row = row._replace(sentences=stop - start)
        yield document.count_losses(row, start, end, kept, room)
        start = end


def sentence_order_pairs(
    document: Sentences,
    length: int,
    special_tokens: SpecialTokens,
    rng: np.random.Generator,
    draw_other: DrawDocument,
    draws: PairDraws | None = None,
) -> Iterator[TokenRow]:
    """ALBERT's sentence order prediction: the segments of half of the rows are swapped. If one
    sentence fills the row, segment B is random, with the label of a swap, as in ALBERT's code;
    without another document the row has one segment and no label."""
    draws = draws or PairDraws()
    room = special_tokens.text_capacity(length, 2)
    chunks = _Chunks(document, room, draws.target_rows)
    start = 0
    while start < len(document):
        a, b, target, middle, stop = chunks.at(start, rng)
        pair = 0
        if middle == stop:
            other, pair = draw_other(rng), -1
            if other is not None:
                b, pair = _random_segment(other, target - len(a), rng), 1
        elif draws.coin(rng):
            a, b, pair = b, a, 1
        row = _pair_row(a, b, room, pair, special_tokens, rng)
        kept = _kept_tokens(a, b, room, b_is_random=middle == stop)
        row = row._replace(sentences=stop - start)
        yield document.count_losses(row, start, stop, kept, room)
        start = stop


def balance_labels(rows: list[TokenRow], rng: np.random.Generator) -> list[TokenRow]:
    """The rows with as many labels 1 as labels 0. Some rows of the more frequent label, drawn at
    random, lose it: their text stays, `pair` is -1. So within a label rows are as they were."""
    with_label = [[i for i, row in enumerate(rows) if row.pair == label] for label in (0, 1)]
    fewer, more = sorted(with_label, key=len)
    surplus = {*map(int, rng.permutation(more)[len(fewer) :])}
    return [row._replace(pair=-1) if i in surplus else row for i, row in enumerate(rows)]


# ---- lengths


def pair_target(room: int, rng: np.random.Generator) -> int:
    """Draw the target number of tokens per row: usually all that fit."""
    return int(rng.integers(2, room + 1)) if rng.random() < SHORT_PAIR_PROB else room


class _Chunk(NamedTuple):
    """Sentences that make a row: `a` up to sentence `middle`, `b` from there to `stop`, which is
    empty if the chunk is one sentence."""

    a: np.ndarray
    b: np.ndarray
    target: int
    middle: int
    stop: int


@dataclass
class _Chunks:
    """A document's chunks. The target length holds for the whole document, or is drawn again after
    every `rows` full rows of text: rows of each target then hold the same share of the text as
    over many documents."""

    document: Sentences
    room: int
    rows: float
    _target: int = field(default=0, init=False)
    _until: float = field(default=0, init=False)  # tokens of the document

    def at(self, start: int, rng: np.random.Generator) -> _Chunk:
        """The chunk that begins at sentence `start`."""
        document = self.document
        if document.bounds[start] >= self._until:
            self._target = pair_target(self.room, rng)
            self._until = document.bounds[start] + self.rows * self.room
        stop = document.fill(start, self._target)
        middle = start + _split_point(stop - start, rng)
        a, b = document.slice(start, middle), document.slice(middle, stop)
        return _Chunk(a, b, self._target, middle, stop)


def _split_point(sentences: int, rng: np.random.Generator) -> int:
    """Draw how many of a chunk's sentences make segment A."""
    return int(rng.integers(1, sentences)) if sentences > 1 else 1


def _random_segment(document: Sentences, target: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(len(document)))
    return document.slice(start, document.fill(start, target))


def _pair_row(
    a: np.ndarray,
    b: np.ndarray,
    room: int,
    pair: int,
    special_tokens: SpecialTokens,
    rng: np.random.Generator,
) -> TokenRow:
    a, b = truncate_pair(a, b, room, rng)
    ids, first_size = special_tokens.build_row(a.tolist(), b.tolist() or None)
    return TokenRow(np.array(ids, np.int32), first_size, pair)


def _kept_tokens(a: np.ndarray, b: np.ndarray, room: int, b_is_random: bool) -> int:
    """How many tokens of the document are left when a pair is truncated."""
    kept_a, kept_b = truncated_sizes(len(a), len(b), room)
    return kept_a if b_is_random else kept_a + kept_b


def truncate_pair(
    a: np.ndarray, b: np.ndarray, room: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Remove tokens one by one from the longer segment (B when equal), each from its front or its
    back at random. How many each segment loses follows from the lengths alone, so the number
    that is removed from the front is binomial."""
    size_a, size_b = truncated_sizes(len(a), len(b), room)
    return _trim_both_ends(a, size_a, rng), _trim_both_ends(b, size_b, rng)


def truncated_sizes(a: int, b: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are left in `room` together: they are removed one by one from
    the longer text, from the second if both are equally long (bert, run_classifier.py)."""
    if a + b <= room:
        return a, b
    # the longer shrinks to the shorter, then B and A in turns
    short = min(a, b)
    if 2 * short <= room:
        return (short, room - short) if a <= b else (room - short, short)
    return room - room // 2, room // 2


def _trim_both_ends(x: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    front = int(rng.binomial(len(x) - size, 0.5))
    return x[front : front + size]
