"""What masking needs to know of a tokenizer's vocabulary and of a corpus."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Vocabulary(NamedTuple):
    """Properties of each piece, and how often it stands in the corpus."""

    mask_id: int
    special: np.ndarray  # bool [v]: never predicted unless the law says so
    starts: np.ndarray  # bool [v]: begins a word
    counts: np.ndarray | None = None  # [v]: how often each piece stands in the corpus
    # Byte-level BPE marks a word by the space before it, so the first one after a special token
    # goes unmarked. The other kinds mark every word; there a piece that goes on with a word
    # belongs to the word before, across a special token too, as in the originals.
    word_after_special: bool = False

    def frequency(self, specials: bool = False) -> np.ndarray | None:
        """Of each piece in running text, float [v]; None where the corpus is not known."""
        if self.counts is None:
            return None
        counts = self.counts if specials else np.where(self.special, 0, self.counts)
        return counts / counts.sum()
