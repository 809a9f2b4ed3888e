"""Pairs of texts to rows of tokens.

Each distinct text has a number, by which the objective finds false negatives: two texts are equal
if their tokens are.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks.pairs import Pair
from bert_jax.tasks.rows import one_row
from bert_jax.utils.text_lines import text_chunks


class EncodedPairs(NamedTuple):
    """Rows for batches, and how many distinct texts were cut."""

    rows: list[dict[str, Any]]
    num_truncated: int


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    length: int,
    query_prompt: str = "",
    document_prompt: str = "",
    max_negatives: int | None = None,
) -> EncodedPairs:
    """A row for every pair: `query` and `documents` (token arrays, the positive first), `texts`
    (their numbers, the query's first), `positives` (numbers of all positives of the query) and
    `score`."""
    texts = [[p.text, p.positive, *p.negatives[:max_negatives]] for p in pairs]
    plain, queries, documents = (_TextEncoder(tokenizer, length) for _ in range(3))
    plain.add([text for row in texts for text in row])  # texts are equal or not without prompts
    queries.add([row[0] for row in texts], query_prompt)
    documents.add([text for row in texts for text in row[1:]], document_prompt)
    positives: dict[int, set[int]] = defaultdict(set)
    for row in texts:
        positives[plain.number(row[0])].add(plain.number(row[1]))
    # one array for all rows of a query, of which some have thousands
    arrays = {query: np.array(sorted(known), np.int32) for query, known in positives.items()}
    rows = []
    for pair, row in zip(pairs, texts, strict=True):
        numbers = [plain.number(text) for text in row]
        rows.append(
            {
                "query": queries.tokens(row[0]),
                "documents": [documents.tokens(text) for text in row[1:]],
                "texts": np.array(numbers, np.int32),
                "positives": arrays[numbers[0]],
                "score": np.float32(0 if pair.score is None else pair.score),
            }
        )
    return EncodedPairs(rows, queries.truncated + documents.truncated)


def merge_equal_texts(pairs: Sequence[Pair], tokenizer: Tokenizer) -> list[Pair]:
    """The pairs, with each text replaced by the first one that has the same tokens. A model gives
    them one vector, so an evaluation must not tell them apart."""
    texts = [text for p in pairs for text in (p.text, p.positive, *p.negatives)]
    first = first_equal_texts(texts, tokenizer)
    return [
        Pair(first[p.text], first[p.positive], tuple(first[x] for x in p.negatives), p.score)
        for p in pairs
    ]


def first_equal_texts(texts: Sequence[str], tokenizer: Tokenizer) -> dict[str, str]:
    """For each text the first one that has the same tokens, such as one in other case for an
    uncased tokenizer."""
    encoder = _TextEncoder(tokenizer, sys.maxsize)
    encoder.add(texts)
    first: dict[int, str] = {}
    return {text: first.setdefault(encoder.number(text), text) for text in texts}


def encode_texts(
    texts: Sequence[str], tokenizer: Tokenizer, length: int, prompt: str = ""
) -> EncodedPairs:
    """A row of tokens for every text after the prompt, for `LabeledBatches`."""
    encode = _TextEncoder(tokenizer, length)
    encode.add(texts, prompt)
    tokens = [encode.tokens(text) for text in texts]
    rows = [one_row(ids, len(ids), i) for i, ids in enumerate(tokens)]
    return EncodedPairs(rows, encode.truncated)


class _TextEncoder:
    """The tokens of texts, each encoded once, and a number for each distinct row of tokens."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        capacity = tokenizer.special_tokens.text_capacity(length, 1)
        if capacity < 1:
            raise ValueError(
                f"length is {length}, which leaves no room for text: expected at least 8"
            )
        self._tokenizer, self._capacity = tokenizer, capacity
        self._tokens: dict[str, np.ndarray] = {}
        self._numbers: dict[bytes, int] = {}
        self.truncated = 0  # distinct texts

    def add(self, texts: Sequence[str], prompt: str = "") -> None:
        """Encode texts after a prompt."""
        for new in text_chunks(dict.fromkeys(texts)):
            ids_of = self._tokenizer.encode_batch([prompt + text for text in new])
            for text, ids in zip(new, ids_of, strict=True):
                self.truncated += len(ids) > self._capacity
                row = np.array(self._tokenizer.build_row(ids[: self._capacity])[0], np.int32)
                self._tokens[text] = row
                self._numbers.setdefault(row.tobytes(), len(self._numbers))

    def tokens(self, text: str) -> np.ndarray:
        """The row [l] of a text, with special tokens."""
        return self._tokens[text]

    def number(self, text: str) -> int:
        """The number of the text's tokens."""
        return self._numbers[self._tokens[text].tobytes()]
