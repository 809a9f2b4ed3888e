"""The pieces of words to predict, as rows with mask tokens (bits_per_character.py).

The piece and all later pieces of its word are hidden, and as much of the text is around them as the
row has room for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.evaluation.token_rows import TokenRows

MAX_PIECES = 10  # of a word that are hidden together
CONTEXT_CHARACTERS = 8  # of the text per token that the model takes: more than most pieces have
EDGE = 100  # characters in which the context's edge is moved to white space


class Query(NamedTuple):
    """One piece to predict."""

    tokens: list[int]  # the row, with mask tokens
    position: int
    target: int
    characters: int  # of the word in the piece, to spell if it is unknown
    word: int  # of the sample


def queries_of_word(
    tokenizer: Tokenizer,
    text: str,
    begin: int,
    end: int,
    word: int,
    length: int,
    dropped: frozenset[str] = frozenset(),
) -> Iterator[Query]:
    """The pieces of the word at `begin` to `end`, each with the text around it."""
    room = tokenizer.special_tokens.text_capacity(length, 1)
    start, stop = _context(text, begin, end, room * CONTEXT_CHARACTERS // 2)
    ids, spans, places = _encode(tokenizer, text[start:stop])
    first_visible, after = begin - start, end - start
    own = (places >= first_visible) & (places < after)
    # an unknown piece may be longer than the word: each word pays for its own characters
    own |= (np.array(ids) == tokenizer.unk_id) & (places < after) & (spans[:, 1] > first_visible)
    own = np.flatnonzero(own)
    visible = np.cumsum([0, *(num_visible(c, dropped) for c in text[start:stop])])
    for group in range(0, len(own), min(MAX_PIECES, room)):
        pieces = own[group : group + min(MAX_PIECES, room)]
        first, last = int(pieces[0]), int(pieces[-1]) + 1
        left = min(max(0, (first + last - room) // 2), max(0, len(ids) - room))
        window = ids[left : left + room]
        for i in range(first, last):
            row = [*window[: i - left], *[tokenizer.mask_id] * (last - i), *window[last - left :]]
            tokens, _ = tokenizer.build_row(row)
            low, high = np.clip(spans[i], first_visible, after)
            characters = int(visible[high] - visible[low])
            yield Query(tokens, i - left + 1, ids[i], characters, word)


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


class QueryRows(NamedTuple):
    """Queries as arrays."""

    rows: TokenRows
    position: np.ndarray  # int32 [q]
    target: np.ndarray  # int32 [q]


def query_rows(queries: Sequence[Query], pad_id: int) -> QueryRows:
    """The queries of all words as padded rows."""
    size = np.array([len(q.tokens) for q in queries], np.int32)
    tokens = np.full((len(queries), size.max(initial=1)), pad_id, np.int32)
    for row, query in zip(tokens, queries, strict=True):
        row[: len(query.tokens)] = query.tokens
    return QueryRows(
        TokenRows(tokens, size, size, np.full_like(size, -1)),
        np.array([q.position for q in queries], np.int32),
        np.array([q.target for q in queries], np.int32),
    )


def num_visible(characters: Iterable[str], dropped: frozenset[str]) -> int:
    """How many characters are neither white space nor dropped."""
    return sum(not c.isspace() and c not in dropped for c in characters)
