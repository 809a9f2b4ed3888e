"""The properties of a vocabulary that masking needs, and its statistics in a corpus."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Vocabulary(NamedTuple):
    """Properties of each of the `v` pieces, and how often it occurs in the corpus."""

    mask_id: int
    special: np.ndarray  # bool [v]: special tokens, masked only with masking.mask_special_tokens
    starts: np.ndarray  # bool [v]: the piece begins a word
    counts: np.ndarray | None = None  # [v]: occurrences of each piece; None: no corpus
    # Whether the piece after a special token always begins a word. Byte-level BPE marks a word by
    # the space before it, so the first word after a special token is not marked. The other kinds
    # mark every word; there a continuing piece belongs to the word before, even across a special
    # token, as in the originals.
    word_after_special: bool = False
    unk_id: int | None = None  # masked only with masking.mask_unknown; None: no such token

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
