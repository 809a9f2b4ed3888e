"""Bits per character: a score of masked language models that compares across vocabularies.

Each word is predicted with the rest of the text in sight, piece by piece from left to right, and
the piece and all later pieces of its word are hidden (Kauf and Ivanova 2023, A better way to do
masked language model scoring):

    the sou ##ven ##ir [SEP]     the [M]  [M]  [M] [SEP]      -log2 p(sou)
                                 the sou  [M]  [M] [SEP]      -log2 p(##ven)
                                 the sou ##ven [M] [SEP]      -log2 p(##ir)

The sum over the words is divided by their characters in the raw text, with the white space after
them. An unknown piece costs what it takes to spell it: log2 of the size of the text's alphabet per
character. So a vocabulary that lacks words does not win.

A word is what stands between white space, so it is the same for every model. In text without
spaces it ends after punctuation, and after 10 pieces.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bert_jax.data.tokenization.normalization import (
    FOLDS,
    Fold,
    dropped_characters,
    fold_text,
    folds,
)
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.evaluation.masked_places import SEED, check_mask_filler
from bert_jax.inference.evaluation.token_rows import TokenRows, map_rows
from bert_jax.inference.model import Model

MAX_WORDS = 1000  # that are scored by default
MAX_PIECES = 10  # of a word that are hidden together
LONG_WORD = 20  # characters; a longer one is split after punctuation
CONTEXT_CHARACTERS = 8  # of the text per token that the model takes: more than most pieces have
EDGE = 100  # characters in which the context's edge is moved to white space
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class BitsPerCharacter:
    """The score, and what it was computed from."""

    bits: np.ndarray  # float [w]: of each scored word
    characters: np.ndarray  # int [w]: of each scored word, with the white space after it
    total_words: int  # of the text
    alphabet: int  # number of different characters of the text, without white space
    pieces: int  # of the scored words
    unknown_pieces: int  # of these
    dropped_characters: int  # of the text, that the tokenizer's normalization removes or changes
    folded: tuple[Fold, ...]  # distinctions that the model does not have to predict

    @property
    def value(self) -> float:
        """Bits per character over the scored words."""
        return float(self.bits.sum() / self.characters.sum())

    @property
    def standard_error(self) -> float:
        """Of the value over words."""
        n, rest = len(self.bits), self.bits - self.value * self.characters
        if n < 2:
            return float("nan")
        return float(np.sqrt((rest**2).sum() * n / (n - 1)) / self.characters.sum())


def bits_per_character(
    model: Model,
    texts: Sequence[str],
    max_words: int = MAX_WORDS,
    fold: Sequence[Fold] = (),
    seed: int = SEED,
) -> BitsPerCharacter:
    """Score a sample of `max_words` words of the texts; the sample depends on the texts and the
    seed alone. `fold` removes case or accents from the texts first, to compare a model with one
    whose tokenizer removes them.

    ValueError: a model without a masked-word head, texts without a word.
    """
    check_mask_filler(model)
    words = [_split_words(text) for text in texts]
    total = sum(map(len, words))
    if not total:
        raise ValueError("the text has no words: expected text to score")
    tokenizer = model.tokenizer
    removed = {*fold, *folds(tokenizer)}
    folded: tuple[Fold, ...] = tuple(f for f in FOLDS if f in removed)
    scored = [fold_text(text, folded) for text in texts]
    alphabet = len({c for c in set().union(*scored) if not c.isspace()})
    chosen = np.random.default_rng(seed).permutation(total)[:max_words]
    chosen.sort()
    bounds = np.cumsum([0, *map(len, words)])
    queries: list[_Query] = []
    characters = np.zeros(len(chosen), int)
    for i, number in enumerate(chosen):
        text = int(np.searchsorted(bounds, number, side="right")) - 1
        begin, end, after = words[text][number - bounds[text]]
        characters[i] = after - begin
        queries += _queries(model, scored[text], begin, end, i)
    word = np.array([q.word for q in queries], int)
    piece_bits = np.array([q.unknown_characters for q in queries]) * np.log2(max(2, alphabet))
    known = np.array([q.target != tokenizer.unk_id for q in queries], bool)
    piece_bits[known] = _losses(model, list(itertools.compress(queries, known))) / np.log(2)
    bits = np.bincount(word, piece_bits, len(chosen))
    return BitsPerCharacter(
        bits,
        characters,
        total,
        alphabet,
        pieces=len(queries),
        unknown_pieces=int((~known).sum()),
        dropped_characters=sum(dropped_characters(tokenizer, text) for text in texts),
        folded=folded,
    )


def _split_words(text: str) -> np.ndarray:
    """int [w 3]: begin and end of each word, and where the next one begins."""
    begins, ends = [], []
    for match in WORD.finditer(text):
        begin, end = match.span()
        cuts = _after_punctuation(text, begin, end) if end - begin > LONG_WORD else []
        begins += [begin, *cuts]
        ends += [*cuts, end]
    return np.stack([begins, ends, [*begins[1:], len(text)][: len(begins)]], 1).astype(int)


def _after_punctuation(text: str, begin: int, end: int) -> list[int]:
    """Where a word of a text without spaces is cut."""
    is_mark = [unicodedata.category(c)[0] in "PS" for c in text[begin:end]]
    return [begin + i for i in range(1, end - begin) if is_mark[i - 1] and not is_mark[i]]


class _Query(NamedTuple):
    """One piece to predict."""

    tokens: list[int]  # the row, with mask tokens
    position: int
    target: int
    unknown_characters: int  # to spell
    word: int  # of the sample


def _queries(model: Model, text: str, begin: int, end: int, word: int) -> Iterator[_Query]:
    """The pieces of the word at `begin` to `end`, each with the text around it."""
    tokenizer = model.tokenizer
    room = tokenizer.special_tokens.text_capacity(model.config.encoder.max_length, 1)
    start, stop = _context(text, begin, end, room * CONTEXT_CHARACTERS // 2)
    ids, spans, places = _encode(tokenizer, text[start:stop])
    own = np.flatnonzero((places >= begin - start) & (places < end - start))
    for group in range(0, len(own), min(MAX_PIECES, room)):
        pieces = own[group : group + min(MAX_PIECES, room)]
        first, last = int(pieces[0]), int(pieces[-1]) + 1
        left = min(max(0, (first + last - room) // 2), max(0, len(ids) - room))
        window = ids[left : left + room]
        for i in range(first, last):
            row = [*window[: i - left], *[tokenizer.mask_id] * (last - i), *window[last - left :]]
            tokens, _ = tokenizer.build_row(row)
            unknown = int(spans[i, 1] - spans[i, 0]) if ids[i] == tokenizer.unk_id else 0
            yield _Query(tokens, i - left + 1, ids[i], unknown, word)


def _context(text: str, begin: int, end: int, size: int) -> tuple[int, int]:
    """The text around a word: up to `size` characters to each side, from white space to white space
    if there is some near the edge."""
    start, stop = max(0, begin - size), min(len(text), end + size)
    if start:
        space = re.search(r"\s", text[start : min(start + EDGE, begin)])
        start += space.start() if space else 0
    if stop < len(text):
        rest = text[max(stop - EDGE, end) : stop]
        space = re.search(r"\s\S*$", rest)
        stop -= len(rest) - space.start() if space else 0
    return start, stop


def _encode(tokenizer: Tokenizer, text: str) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The pieces of a text, their spans [n 2], and where each piece's first character that is not
    white space stands [n]: a lone mark of a space belongs to the word after it."""
    ids, spans = tokenizer.encode_with_offsets(text)
    visible = np.flatnonzero([not c.isspace() for c in text])
    at = np.searchsorted(visible, spans[:, 0])
    return ids, spans, np.append(visible, len(text))[at]


def _losses(model: Model, queries: Sequence[_Query]) -> np.ndarray:
    """-log p of every query's target in nat."""
    if not queries:  # all words are unknown, or vanish in normalization
        return np.zeros(0)
    _, params = model.objective.mask_filler(model.params)
    encoder = model.config.encoder
    size = np.array([len(q.tokens) for q in queries], np.int32)
    tokens = np.full((len(queries), size.max()), encoder.pad_id, np.int32)
    for row, query in zip(tokens, queries, strict=True):
        row[: len(query.tokens)] = query.tokens
    rows = TokenRows(tokens, size, size, np.full_like(size, -1))

    losses, _ = map_rows(
        lambda batch: model.mask_losses(params, batch),
        rows,
        encoder,
        masked=np.array([[q.position] for q in queries], np.int32),
        targets=np.array([[q.target] for q in queries], np.int32),
    )
    return losses[:, 0].astype(float)
