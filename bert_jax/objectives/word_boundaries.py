"""The words of a row, for masks that hide words as a whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class WordBoundaries(NamedTuple):
    """A row's candidate tokens, in order, grouped into words: word w is the candidates
    `bounds[w] <= i < bounds[w + 1]`. A token that starts no word belongs to the previous word,
    even across a special token, as in the originals; the first candidate always starts a word."""

    bounds: Int[Array, " l+1"]
    word: Int[Array, " l"]  # of each candidate
    num_words: Int[Array, ""]
    num_tokens: Int[Array, ""]

    @classmethod
    def from_starts(
        cls, candidates: Bool[Array, " l"], starts: Bool[Array, " l"], max_size: Any = None
    ) -> WordBoundaries:
        """The words of the `candidates` whose first tokens are `starts`. A word of more than
        `max_size` tokens, which could never be masked as a whole, is cut into equal parts."""
        length = candidates.shape[0]
        index = jnp.cumsum(candidates) - 1  # of each candidate among the candidates
        is_start = candidates & (starts | (index == 0))
        if max_size is not None:
            _, word, bounds = _count_words(candidates, is_start)
            size = (bounds[1:] - bounds[:-1])[word]
            parts = -(-size // jnp.maximum(max_size, 1))
            part_size = -(-size // jnp.maximum(parts, 1))
            is_start |= candidates & ((index - bounds[word]) % jnp.maximum(part_size, 1) == 0)
        num_words, word, bounds = _count_words(candidates, is_start)
        word_of_candidate = (
            jnp.zeros(length, jnp.int32)
            .at[jnp.where(candidates, index, length)]
            .set(word, mode="drop")
        )
        return cls(bounds, word_of_candidate, num_words, candidates.sum())

    def tokens_before(self, word: jax.Array) -> jax.Array:
        """The number of tokens before a word; of all tokens if there is no such word."""
        return self.bounds[jnp.minimum(word, self.num_words)]


def _count_words(
    candidates: Bool[Array, " l"], is_start: Bool[Array, " l"]
) -> tuple[Int[Array, ""], Int[Array, " l"], Int[Array, " l+1"]]:
    """The number of words, the word of each token, and where words begin among the candidates."""
    length = candidates.shape[0]
    word = jnp.cumsum(is_start) - 1
    sizes = jnp.zeros(length, jnp.int32).at[jnp.where(candidates, word, length)].add(1, mode="drop")
    bounds = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(sizes)])
    return is_start.sum(), word, bounds
