"""Documents of tokenized sentences to rows, one pure function per way of pre-training.

    --segments  function              rows                                            paper
    electra     electra_segments      two segments, no label                          ELECTRA
    full        full_sentences        FULL-SENTENCES: across documents                RoBERTa
    doc         doc_sentences         DOC-SENTENCES: within a document                RoBERTa
    single      single_segments       one segment of sentences, within a document     SpanBERT
    nsp         next_sentence_pairs   two segments, the second next or random         BERT
    sop         sentence_order_pairs  two segments, in order or swapped               ALBERT

The last two are in sentence_pairs.py. `electra_original` is `electra` with a quirk of the
published code.

The sources are the originals' create_pretraining_data.py (bert, albert),
build_pretraining_dataset.py (electra), token_block_utils_fast.pyx (fairseq) and
no_nsp_span_bert_dataset.py (SpanBERT). Masks are drawn later, on the device.

Rows of two segments truncate a sentence that is longer than a row, as the originals do. The other
kinds split it into chunks that fit and lose nothing; there fairseq keeps an over-long row, and
SpanBERT drops the sentence.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bert_jax.data.tokenization.special_tokens import SpecialTokens

SHORT_ELECTRA_PROB = 0.05  # of an ELECTRA example to be shorter
ONE_SEGMENT_PROB = 0.1  # of an ELECTRA example to have no second segment


# The bit of an id that continues a word of segmented text, until rows are serialized.
CONTINUES = 1 << 30


class TokenRow(NamedTuple):
    """The tokens of one row, before padding."""

    tokens: np.ndarray  # int32[size], special tokens included
    first: int  # tokens of segment 0
    pair: int = -1  # label: 1 is random (NSP) or swapped (SOP), 0 is not; -1: no label
    # Sentences of the chunk that the row was made of, also truncated ones and those that a random
    # segment replaced. A part of a sentence that was split counts as one.
    sentences: int = 0
    # Rows of two segments: tokens of the document that the row was made of, those of them that are
    # in no row, and of these the ones that are beyond a row's length in a single sentence.
    text: int = 0
    dropped: int = 0
    overlong: int = 0


class Sentences:
    """A document's sentences: one array of ids, and where each sentence ends."""

    def __init__(self, tokens: np.ndarray, lengths: np.ndarray):
        self.tokens = tokens
        self.bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def slice(self, start: int, stop: int) -> np.ndarray:
        """The tokens of sentences start to stop."""
        return self.tokens[self.bounds[start] : self.bounds[stop]]

    def fill(self, start: int, target: int) -> int:
        """The first `stop` at which sentences from `start` reach `target` tokens, or the end."""
        stop = bisect.bisect_left(self.bounds, self.bounds[start] + target)
        return min(max(stop, start + 1), len(self))

    def count_losses(self, row: TokenRow, start: int, stop: int, kept: int, room: int) -> TokenRow:
        """The row with its counts of tokens: it was made of sentences start to stop, and has `kept`
        tokens of them. A sentence of more than `room` tokens, at most the last one, is overlong."""
        text = self.bounds[stop] - self.bounds[start]
        last = self.bounds[stop] - self.bounds[stop - 1]
        overlong = min(text - kept, max(0, last - room))
        return row._replace(text=text, dropped=text - kept, overlong=overlong)


# ---- two segments: ELECTRA


def electra_segments(
    document: Sentences,
    length: int,
    special_tokens: SpecialTokens,
    rng: np.random.Generator,
    scramble: bool = False,
) -> Iterator[TokenRow]:
    """ELECTRA's two segments; tokens that do not fit are dropped. `scramble` keeps a quirk of the
    original: a short late sentence can still join segment 1 after segment 2 has begun.

    The original carries the target length over to the next document; here each example draws its
    own from the same distribution, so that documents do not depend on each other.
    """
    start = 0
    while start < len(document):
        target = int(rng.integers(5, length + 1)) if rng.random() < SHORT_ELECTRA_PROB else length
        stop = document.fill(start, target)
        first_target = 100_000 if rng.random() < ONE_SEGMENT_PROB else (target - 3) // 2
        first, second = _two_segments(document, start, stop, first_target, rng, scramble)
        room = special_tokens.text_capacity(length, 1)
        first = first[:room]
        second = second[: max(0, special_tokens.text_capacity(length, 2) - len(first))]
        ids, first_size = special_tokens.build_row(first, second or None)
        row = TokenRow(np.array(ids, np.int32), first_size, sentences=stop - start)
        yield document.count_losses(row, start, stop, len(first) + len(second), room)
        start = stop


def _two_segments(
    document: Sentences,
    start: int,
    stop: int,
    first_target: int,
    rng: np.random.Generator,
    scramble: bool,
) -> tuple[list[int], list[int]]:
    first: list[int] = []
    second: list[int] = []
    for i in range(start, stop):
        sentence = document.slice(i, i + 1).tolist()
        fits = len(first) + len(sentence) < first_target and (scramble or not second)
        # the sentence that crosses the target joins either segment
        crosses = not second and len(first) < first_target
        if not first or fits or (crosses and rng.random() < 0.5):
            first += sentence
        else:
            second += sentence
    return first, second


# ---- whole sentences: RoBERTa and SpanBERT


def full_sentences(
    documents: Iterable[Sentences], length: int, special_tokens: SpecialTokens
) -> Iterator[TokenRow]:
    """RoBERTa's FULL-SENTENCES: lines of text (or sentences), each followed by a separator, fill
    the row, across documents; one more separator marks the start of a document.

        <s> s1 </s> s2 </s> </s> s1' </s>
    """
    return _fill_rows(_split_into_lines(documents, length - 2), length, special_tokens)


def doc_sentences(
    document: Sentences, length: int, special_tokens: SpecialTokens
) -> Iterator[TokenRow]:
    """RoBERTa's DOC-SENTENCES: as `full_sentences`, but the row ends with the document."""
    return _fill_rows(_split_into_lines([document], length - 2), length, special_tokens)


def _split_into_lines(documents: Iterable[Sentences], max_size: int) -> Iterator[list[int]]:
    for number, document in enumerate(documents):
        if number:
            yield []
        for start, stop in _sentence_spans(document, max_size):
            yield document.tokens[start:stop].tolist()


def _fill_rows(
    lines: Iterable[list[int]], length: int, special_tokens: SpecialTokens
) -> Iterator[TokenRow]:
    """Fill rows greedily: a line joins the row if it fits with its separator. An empty line is a
    separator alone; rows without any token of text are dropped."""
    ids, sentences = [special_tokens.cls], 0
    for line in lines:
        if len(ids) + len(line) + 1 > length:
            if len(ids) > 2:
                yield TokenRow(np.array(ids, np.int32), len(ids), sentences=sentences)
            ids, sentences = [special_tokens.cls], 0
        ids += [*line, special_tokens.sep]
        sentences += bool(line)
    if len(ids) > 2:
        yield TokenRow(np.array(ids, np.int32), len(ids), sentences=sentences)


def single_segments(
    document: Sentences, length: int, special_tokens: SpecialTokens
) -> Iterator[TokenRow]:
    """SpanBERT's single segment: whole sentences of one document."""
    room = special_tokens.text_capacity(length, 1)
    begin = end = sentences = 0
    for start, stop in [*_sentence_spans(document, room), (len(document.tokens), -1)]:
        if stop < 0 or stop - begin > room:
            ids, first_size = special_tokens.build_row(document.tokens[begin:end].tolist())
            yield TokenRow(np.array(ids, np.int32), first_size, sentences=sentences)
            begin, sentences = start, 0
        end, sentences = stop, sentences + 1


def _sentence_spans(document: Sentences, max_size: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each sentence among the tokens; over-long ones are split."""
    for i in range(len(document)):
        start, stop = document.bounds[i], document.bounds[i + 1]
        for begin in range(start, stop, max_size):
            yield begin, min(begin + max_size, stop)
