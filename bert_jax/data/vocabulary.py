"""The properties of a vocabulary that masking needs, and its statistics in a corpus."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.words import WordEdges, WordRule


class Vocabulary(NamedTuple):
    """Properties of each of the `v` pieces, and how often it occurs in the corpus."""

    mask_id: int
    special: np.ndarray  # bool [v]: special tokens, masked only with masking.mask_special_tokens
    words: WordEdges  # where words begin
    counts: np.ndarray | None = None  # [v]: occurrences of each piece; None: no corpus
    unk_id: int | None = None  # masked only with masking.mask_unknown; None: no such token

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, rule: WordRule = "script", counts: np.ndarray | None = None
    ) -> Vocabulary:
        """The properties of a tokenizer's pieces, with their `counts` in a corpus."""
        special = np.zeros(tokenizer.vocab_size, bool)
        special[list(tokenizer.special_ids)] = True
        words = tokenizer.word_edges(rule)
        return cls(tokenizer.mask_id, special, words, counts, tokenizer.unk_id)

    def frequency(
        self, include_special: bool = False, include_unknown: bool = False
    ) -> np.ndarray | None:
        """The relative frequency of each piece, float [v], by default of those that are predicted;
        None without a corpus, or if it has no such piece."""
        if self.counts is None:
            return None
        counts = self.counts if include_special else np.where(self.special, 0, self.counts)
        if self.unk_id is not None and not include_unknown:
            counts = np.where(np.arange(len(counts)) == self.unk_id, 0, counts)
        return counts / counts.sum() if counts.any() else None
