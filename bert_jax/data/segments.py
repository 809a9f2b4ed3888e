"""Documents of tokenised sentences to rows, one pure function per way of pre-training.

    name       rows                                                        source
    nsp        two segments, the second next or random (BERT)              bert.md, section 2
    sop        two segments, in order or swapped (ALBERT)                  albert.md, section 2
    electra    two segments, no label                                      electra.md, section 2
    full       whole sentences, across documents (RoBERTa)                 roberta.md, section 2
    doc        whole sentences, within a document (RoBERTa)
    single     one segment of whole sentences, within a document (SpanBERT) spanbert.md, section 2

The sources are the originals' create_pretraining_data.py (bert, albert),
build_pretraining_dataset.py (electra), token_block_utils_fast.pyx (fairseq) and
no_nsp_span_bert_dataset.py (SpanBERT). Masks come later, on the device.

A sentence longer than a row is cut by truncation in `nsp`, `sop` and `electra`, as in the
originals; `full`, `doc` and `single` split it into pieces that fit and lose nothing, where
fairseq keeps it over-long and SpanBERT drops it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bert_jax.data.tokenization.special_tokens import SpecialTokens

SHORT_PAIR_PROB = (
    0.1  # share of documents with a shorter target: BERT's and ALBERT's short_seq_prob
)
SHORT_ELECTRA_PROB = 0.05  # share of examples
ONE_SEGMENT_PROB = 0.1  # share of ELECTRA's examples without a second segment


class TokenRow(NamedTuple):
    tokens: np.ndarray  # int32[size], specials included
    first: int  # tokens of segment 0
    pair: int = -1  # NSP: 1 is random, SOP: 1 is swapped (or random); -1: no label


class Sentences:
    """A document's sentences: one array of ids, and where each sentence ends."""

    def __init__(self, tokens: np.ndarray, lengths: np.ndarray):
        self.tokens = tokens
        self.bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()

    @classmethod
    def of(cls, sentences: Iterable[list[int]]) -> Sentences:
        kept = [s for s in sentences if len(s)]
        flat = [i for s in kept for i in s]
        return cls(np.array(flat, np.int32), np.array([len(s) for s in kept], np.int64))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def size(self, start: int, stop: int) -> int:
        return self.bounds[stop] - self.bounds[start]

    def slice(self, start: int, stop: int) -> np.ndarray:
        """The tokens of sentences start to stop."""
        return self.tokens[self.bounds[start] : self.bounds[stop]]

    def fill(self, start: int, target: int) -> int:
        """The first `stop` at which sentences from `start` reach `target` tokens, or the end."""
        stop = bisect.bisect_left(self.bounds, self.bounds[start] + target)
        return min(max(stop, start + 1), len(self))


DrawDocument = Callable[[np.random.Generator], Sentences]  # draws a random document


# ---- two segments: BERT and ALBERT


def next_sentence_pairs(
    document: Sentences,
    length: int,
    special_tokens: SpecialTokens,
    rng: np.random.Generator,
    other: DrawDocument,
) -> Iterator[TokenRow]:
    """Next sentence prediction: in half of the rows, and whenever one sentence fills the row,
    segment B comes from another document, and its place here is used again."""
    room = special_tokens.text_capacity(length, 2)
    target = pair_target(room, rng)
    start = 0
    while start < len(document):
        stop = document.fill(start, target)
        middle = start + _split_point(stop - start, rng)
        a = document.slice(start, middle)
        if middle == stop or rng.random() < 0.5:
            b, pair = _random_segment(other(rng), target - len(a), rng), 1
            start = middle
        else:
            b, pair = document.slice(middle, stop), 0
            start = stop
        yield _pair_row(a, b, room, pair, special_tokens, rng)


def sentence_order_pairs(
    document: Sentences,
    length: int,
    special_tokens: SpecialTokens,
    rng: np.random.Generator,
    other: DrawDocument,
) -> Iterator[TokenRow]:
    """Sentence order prediction: half of the rows swapped. A row that one sentence fills has
    nothing to swap with: there ALBERT falls back to a random segment, with the same label."""
    room = special_tokens.text_capacity(length, 2)
    target = pair_target(room, rng)
    start = 0
    while start < len(document):
        stop = document.fill(start, target)
        middle = start + _split_point(stop - start, rng)
        a, b = document.slice(start, middle), document.slice(middle, stop)
        pair = 0
        if middle == stop:
            b, pair = _random_segment(other(rng), target - len(a), rng), 1
        elif rng.random() < 0.5:
            a, b, pair = b, a, 1
        start = stop
        yield _pair_row(a, b, room, pair, special_tokens, rng)


def pair_target(room: int, rng: np.random.Generator) -> int:
    """Tokens to aim at, drawn once per document: all that fit, seldom fewer."""
    return int(rng.integers(2, room + 1)) if rng.random() < SHORT_PAIR_PROB else room


def _split_point(sentences: int, rng: np.random.Generator) -> int:
    """How many of a chunk's sentences make segment A."""
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
    ids, boundary = special_tokens.build_row(a.tolist(), b.tolist())
    return TokenRow(np.array(ids, np.int32), boundary, pair)


def truncate_pair(
    a: np.ndarray, b: np.ndarray, room: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Takes one token after the other from the longer segment (B when equal), from its front
    or back by a coin each. Which segment loses how many follows from the lengths alone, so the
    coins of one segment add up to a binomial number."""
    keep_a, keep_b = _truncated_sizes(len(a), len(b), room)
    return _trim_both_ends(a, keep_a, rng), _trim_both_ends(b, keep_b, rng)


def _truncated_sizes(a: int, b: int, room: int) -> tuple[int, int]:
    if a + b <= room:
        return a, b
    # the longer shrinks to the shorter, then B and A in turns
    short = min(a, b)
    if 2 * short <= room:
        return (short, room - short) if a <= b else (room - short, short)
    return room - room // 2, room // 2


def _trim_both_ends(x: np.ndarray, keep: int, rng: np.random.Generator) -> np.ndarray:
    front = int(rng.binomial(len(x) - keep, 0.5))
    return x[front : front + keep]


# ---- two segments: ELECTRA


def electra_segments(
    document: Sentences,
    length: int,
    special_tokens: SpecialTokens,
    rng: np.random.Generator,
    scramble: bool = False,
) -> Iterator[TokenRow]:
    """ELECTRA's two segments; what does not fit is thrown away. `scramble` keeps a quirk of the
    original: a short late sentence may still join segment 1 after segment 2 has begun.

    The original carries the target on from one document to the next; here each example draws
    its own, from the same law, so that documents do not depend on each other.
    """
    start = 0
    while start < len(document):
        target = int(rng.integers(5, length + 1)) if rng.random() < SHORT_ELECTRA_PROB else length
        stop = document.fill(start, target)
        goal = 100_000 if rng.random() < ONE_SEGMENT_PROB else (target - 3) // 2
        first, second = _two_segments(document, start, stop, goal, rng, scramble)
        start = stop
        first = first[: special_tokens.text_capacity(length, 1)]
        second = second[: max(0, special_tokens.text_capacity(length, 2) - len(first))]
        ids, boundary = special_tokens.build_row(first, second or None)
        yield TokenRow(np.array(ids, np.int32), boundary)


def _two_segments(
    document: Sentences, start: int, stop: int, goal: int, rng: np.random.Generator, scramble: bool
) -> tuple[list[int], list[int]]:
    first: list[int] = []
    second: list[int] = []
    for i in range(start, stop):
        sentence = document.slice(i, i + 1).tolist()
        fits = len(first) + len(sentence) < goal and (scramble or not second)
        # the sentence across the goal goes to either side
        crosses = not second and len(first) < goal
        if not first or fits or (crosses and rng.random() < 0.5):
            first += sentence
        else:
            second += sentence
    return first, second


# ---- whole sentences: RoBERTa and SpanBERT


def full_sentences(
    documents: Iterable[Sentences], length: int, special_tokens: SpecialTokens
) -> Iterator[TokenRow]:
    """FULL-SENTENCES: sentences, each closed by a separator, fill the row and may go on in the
    next document, which one more separator announces.

        <s> s1 </s> s2 </s> </s> s1' </s>
    """
    return _fill_rows(_split_into_lines(documents, length - 2), length, special_tokens)


def doc_sentences(
    document: Sentences, length: int, special_tokens: SpecialTokens
) -> Iterator[TokenRow]:
    """DOC-SENTENCES: as `full`, but a document's end is the row's end."""
    return _fill_rows(_split_into_lines([document], length - 2), length, special_tokens)


def _split_into_lines(documents: Iterable[Sentences], longest: int) -> Iterator[list[int]]:
    for number, document in enumerate(documents):
        if number:
            yield []
        for start, stop in _sentence_spans(document, longest):
            yield document.tokens[start:stop].tolist()


def _fill_rows(
    lines: Iterable[list[int]], length: int, special_tokens: SpecialTokens
) -> Iterator[TokenRow]:
    """Greedy: a line joins the row if it fits with its separator. An empty line is a separator
    alone, and a row of nothing else is left out."""
    ids = [special_tokens.cls]
    for line in lines:
        if len(ids) + len(line) + 1 > length:
            if len(ids) > 2:
                yield TokenRow(np.array(ids, np.int32), len(ids))
            ids = [special_tokens.cls]
        ids += [*line, special_tokens.sep]
    if len(ids) > 2:
        yield TokenRow(np.array(ids, np.int32), len(ids))


def single_segments(
    document: Sentences, length: int, special_tokens: SpecialTokens
) -> Iterator[TokenRow]:
    """One segment of whole sentences of one document."""
    room = special_tokens.text_capacity(length, 1)
    begin = end = 0
    for start, stop in [*_sentence_spans(document, room), (len(document.tokens), -1)]:
        if stop < 0 or stop - begin > room:
            ids, boundary = special_tokens.build_row(document.tokens[begin:end].tolist())
            yield TokenRow(np.array(ids, np.int32), boundary)
            begin = start
        end = stop


def _sentence_spans(document: Sentences, longest: int) -> Iterator[tuple[int, int]]:
    """Where sentences start and stop among the tokens; over-long ones in pieces."""
    for i in range(len(document)):
        start, stop = document.bounds[i], document.bounds[i + 1]
        for piece in range(start, stop, longest):
            yield piece, min(piece + longest, stop)
