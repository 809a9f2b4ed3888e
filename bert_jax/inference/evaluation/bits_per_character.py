"""Bits per character: a score of masked language models that compares across vocabularies.

Each word is predicted with the rest of the text in sight, piece by piece from left to right, and
the piece and all later pieces of its word are hidden (Kauf and Ivanova 2023, A better way to do
masked language model scoring):

    the sou ##ven ##ir [SEP]     the [M]  [M]  [M] [SEP]      -log2 p(sou)
                                 the sou  [M]  [M] [SEP]      -log2 p(##ven)
                                 the sou ##ven [M] [SEP]      -log2 p(##ir)

The sum over the words is divided by their characters in the raw text, with the white space after
them. Characters that the tokenizer drops do not count, since nothing predicts them. An unknown
piece costs what it takes to spell it: log2 of the size of the text's alphabet per character. So a
vocabulary that lacks words does not win.

A word is what stands between white space, so it is the same for every model. In text without
spaces it ends after punctuation or 50 characters, and after 10 pieces.

Beside it, for the same pieces with the same neighbors in sight: neighbor counts, frequencies of
pieces, and spelling with all characters of the alphabet equally likely.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bert_jax.data.tokenization.normalization import (
    FOLDS,
    Fold,
    fold_text,
    folds,
    lost_characters,
    normalize,
)
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.masked_places import SEED, check_mask_filler, ratio
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds, neighbors
from bert_jax.inference.evaluation.text_words import split_words
from bert_jax.inference.evaluation.token_rows import map_rows
from bert_jax.inference.evaluation.word_queries import (
    Query,
    QueryRows,
    num_visible,
    queries_of_word,
    query_rows,
)
from bert_jax.inference.model import Model

MAX_WORDS = 1000  # that are scored by default


@dataclass(frozen=True)
class BitsPerCharacter:
    """The score, and what it was computed from."""

    bits: np.ndarray  # float [w]: of each scored word
    bigram_bits: np.ndarray | None  # float [w]: of counts of both neighbors; None without counts
    unigram_bits: np.ndarray | None  # float [w]: of frequencies of pieces; None without counts
    characters: np.ndarray  # int [w]: of each scored word, with white space after it, not dropped
    visible: np.ndarray  # int [w]: those that are no white space
    total_words: int  # of the text
    alphabet: int  # number of different characters of the text, without white space
    pieces: int  # of the scored words
    unknown_pieces: int  # of these, and pieces that are special tokens in the text
    dropped_characters: int  # of the folded text, that normalization removes or changes
    text_characters: int  # of the text, without white space
    folded: tuple[Fold, ...]  # distinctions that the model does not have to predict

    @property
    def value(self) -> float:
        """Bits per character over the scored words."""
        return self.per_character(self.bits)

    @property
    def spelling(self) -> float:
        """Bits per character if all characters of the alphabet are equally likely."""
        return self.per_character(self.visible * bits_to_spell(self.alphabet))

    def per_character(self, bits: np.ndarray) -> float:
        """The sum of bits [w] over the characters."""
        return float(bits.sum() / self.characters.sum())

    @property
    def standard_error(self) -> float:
        """Of the value over words."""
        return ratio(self.bits, self.characters)[1]

    @property
    def difference(self) -> tuple[float, float] | None:
        """The model's bits per character minus those of counts of both neighbors, and the standard
        error over words, of which both score the same; None without counts."""
        if self.bigram_bits is None:
            return None
        return ratio(self.bits - self.bigram_bits, self.characters)


def bits_to_spell(alphabet: int) -> float:
    """Bits of a character of an alphabet of this size."""
    return float(np.log2(max(2, alphabet)))


def bits_per_character(
    model: Model,
    texts: Sequence[str],
    max_words: int = MAX_WORDS,
    fold: Sequence[Fold] = (),
    seed: int = SEED,
    counts: Callable[[Sequence[tuple[int, int]]], CountsByRow] | None = None,
    length: int | None = None,
) -> BitsPerCharacter:
    """Score a sample of `max_words` words of the texts; the sample depends on the texts and the
    seed alone. `fold` removes case or accents from the texts first, to compare a model with one
    whose tokenizer removes them. `counts` gives the counts for words that begin at some positions
    (number of the text, character). `length` is the number of tokens of a word's row, its context
    included; by default as many as the model takes.

    ValueError: a model without a masked-word head, texts without a word or a character that the
    tokenizer keeps, fewer than one word.
    """
    check_mask_filler(model)
    if max_words < 1:
        raise ValueError(f"the number of words is {max_words}: expected at least 1")
    words = [split_words(text) for text in texts]
    total = sum(map(len, words))
    if not total:
        raise ValueError("the text has no words: expected text to score")
    tokenizer = model.tokenizer
    removed = {*fold, *folds(tokenizer)}
    folded: tuple[Fold, ...] = tuple(f for f in FOLDS if f in removed)
    scored = [fold_text(text, folded) for text in texts]
    dropped = _vanishing(tokenizer, scored)
    alphabet = num_visible(set().union(*scored), dropped)
    length = model.config.encoder.max_length if length is None else length
    chosen = np.random.default_rng(seed).permutation(total)[:max_words]
    chosen.sort()
    bounds = np.cumsum([0, *map(len, words)])
    spans = _chosen_spans(words, bounds, chosen)
    characters = [sum(c not in dropped for c in scored[t][b:after]) for t, b, _, after in spans]
    if not any(characters):
        raise ValueError("the tokenizer drops all characters of the text: expected text to score")
    queries: list[Query] = []
    for i, (text, begin, end, _) in enumerate(spans):
        queries += queries_of_word(tokenizer, scored[text], begin, end, i, length, dropped)
    kinds = TokenKinds.of(tokenizer)
    target = np.array([q.target for q in queries], int)
    known = ~kinds.excluded[target]
    spelled = np.array([q.characters for q in queries]) * bits_to_spell(alphabet)
    word = np.array([q.word for q in queries], int)
    rows = query_rows(list(itertools.compress(queries, known)), model.config.encoder.pad_id)

    def of_words(losses: np.ndarray) -> np.ndarray:
        """Bits of each word, from the losses of the known pieces in nat."""
        bits = spelled.copy()
        bits[known] = losses / np.log(2)
        return np.bincount(word, bits, len(chosen))

    occurring = Counter(itertools.chain.from_iterable(scored))
    by_word = None if counts is None else counts([(text, begin) for text, begin, _, _ in spans])
    bigram, unigram = _baselines(by_word, rows, word[known], kinds)
    return BitsPerCharacter(
        of_words(_losses(model, rows)),
        None if bigram is None else of_words(bigram),
        None if unigram is None else of_words(unigram),
        characters=np.array(characters),
        visible=np.array([num_visible(scored[t][b:e], dropped) for t, b, e, _ in spans]),
        total_words=total,
        alphabet=alphabet,
        pieces=len(queries),
        unknown_pieces=int((~known).sum()),
        dropped_characters=lost_characters(tokenizer, occurring).total(),
        text_characters=sum(len(text) - sum(map(str.isspace, text)) for text in texts),
        folded=folded,
    )


def _vanishing(tokenizer: Tokenizer, texts: Sequence[str]) -> frozenset[str]:
    """The characters of the texts that normalization drops, such as marks and control characters;
    not those of which it keeps a part."""
    nothing = normalize(tokenizer, "aa")
    return frozenset(c for c in set().union(*texts) if normalize(tokenizer, f"a{c}a") == nothing)


def _chosen_spans(
    words: Sequence[np.ndarray], bounds: np.ndarray, chosen: np.ndarray
) -> list[tuple[int, int, int, int]]:
    """Of each chosen word: the number of its text, its begin and end, and where the next begins."""
    spans = []
    for number in chosen:
        text = int(np.searchsorted(bounds, number, side="right")) - 1
        begin, end, after = map(int, words[text][number - bounds[text]])
        spans.append((text, begin, end, after))
    return spans


def _losses(model: Model, queries: QueryRows) -> np.ndarray:
    """-log p of every query's target in nat."""
    if not len(queries.rows):  # all words are unknown, or vanish in normalization
        return np.zeros(0)
    _, params = model.objective.mask_filler(model.params)
    losses, _ = map_rows(
        lambda batch: model.mask_losses(params, batch),
        queries.rows,
        model.config.encoder,
        row_logits=model.config.encoder.vocab_size,
        masked=queries.position[:, None],
        targets=queries.target[:, None],
    )
    return losses[:, 0].astype(float)


def _baselines(
    counts: CountsByRow | None, queries: QueryRows, word: np.ndarray, kinds: TokenKinds
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """-log p in nat under neighbor counts and under frequencies: of the known pieces, [q]."""
    if counts is None:
        return None, None
    number = np.arange(len(word))
    left, right = neighbors(queries.rows.tokens, kinds, number, queries.position)
    unigram = counts.unigram_scores(word, queries.target)
    return counts.loss(word, left, right, queries.target), unigram.loss
