"""What is hidden from the encoder, and what stands in its place. Pure, on the device.

    tokens   [CLS] the cat ##s sat [SEP]          tokens   [CLS] the [M] [M] sat [SEP]
    size     6                             ->     masked   2 3 0       targets  cat ##s .
                                                  weights  1 1 0       labels   the row as it was

A row's masks follow from (key, row number, epoch) alone: with the epoch they are dynamic
(RoBERTa), with `epoch % copies` they are the `copies` fixed ones of a corpus that was masked
on disk (BERT). Neither the batch that a row comes in nor the number of devices changes them.

Every law of masking is the same walk: take the next window of words, see whether it fits the
budget, hide it. They differ in how a window is drawn: words in shuffled order with lengths
of 1 (whole words) or up to 3 (ALBERT's n-grams), or from a piece drawn uniformly with
SpanBERT's lengths. Single tokens need no walk: the first of a random order are hidden.

Axes of a row: l tokens, p predictions, v vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from bert_jax.config import Masking
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.objectives.masking_budget import (
    max_packed_predictions,
    max_predictions,
    num_to_mask,
    with_scheduled_rate,
)
from bert_jax.utils.types import Batch

__all__ = [
    "WordBoundaries",
    "choose_masked",
    "mask_tokens",
    "max_packed_predictions",
    "max_predictions",
    "ngram_walk",
    "span_walk",
    "with_scheduled_rate",
]


def mask_tokens(batch: Batch, masking: Masking, vocabulary: Vocabulary, key: jax.Array) -> Batch:
    """Hide tokens of every row of a batch (`tokens` [b l], `size` `row` `epoch` [b]).

    The result has the fields of the batch, `tokens` corrupted, and

        labels   [b l]  the tokens as they were
        masked   [b p]  positions of predictions, ascending; 0 where weights is 0
        targets  [b p]  the tokens there, as they were
        weights  [b p]  1 where a slot is used
        left right offset sbo_weights [b p]  the tokens around a prediction's span, its place
                 in it, and whether both belong to the text: the boundary term's inputs
    """
    length = batch["tokens"].shape[-1]
    slots = max_predictions(masking, length)
    epoch = (
        batch["epoch"]
        if masking.num_static_masks is None
        else batch["epoch"] % masking.num_static_masks
    )

    def one(tokens: jax.Array, size: jax.Array, row: jax.Array, epoch: Any, rate: Any) -> Batch:
        k = jax.random.fold_in(jax.random.fold_in(key, row), epoch)
        return _corrupt_row(tokens, size, masking, vocabulary, slots, k, rate)

    tokens, size, row = (batch[name] for name in ("tokens", "size", "row"))
    return {**batch, **jax.vmap(one)(tokens, size, row, epoch, batch.get("rate"))}


def _corrupt_row(
    tokens: Int[Array, " l"],
    size: Int[Array, ""],
    masking: Masking,
    vocabulary: Vocabulary,
    slots: int,
    key: jax.Array,
    rate: Any,
) -> Batch:
    choosing, fates, replacing = jax.random.split(key, 3)
    at = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    real = at < size
    text = real & ~jnp.asarray(vocabulary.special)[tokens]
    hidden = choose_masked(
        tokens,
        real if masking.mask_special_tokens else text,
        size,
        masking,
        vocabulary,
        slots,
        choosing,
        rate,
    )
    first, last = span_bounds(hidden)

    u = jax.random.uniform(fates, tokens.shape)
    if masking.replace_per == "span":
        u = u[first]
    other = _random_tokens(masking, vocabulary, tokens.shape, replacing)
    shown = jnp.where(u < masking.mask_prob, vocabulary.mask_id, other)
    shown = jnp.where(hidden & (u < masking.mask_prob + masking.random_prob), shown, tokens)

    masked = jnp.sort(jnp.where(hidden, at, tokens.shape[0]))[:slots]
    used = masked < tokens.shape[0]
    masked = jnp.where(used, masked, 0)
    left, right = first[masked] - 1, last[masked] + 1

    def inside(i: jax.Array) -> jax.Array:
        return (i >= 0) & text.at[i].get(mode="fill", fill_value=False)

    return {
        "tokens": shown.astype(tokens.dtype),
        "labels": tokens,
        "masked": masked,
        "targets": jnp.where(used, tokens[masked], 0),
        "weights": used.astype(jnp.float32),
        "left": jnp.maximum(left, 0),
        "right": jnp.minimum(right, tokens.shape[0] - 1),
        "offset": masked - first[masked],
        "sbo_weights": (used & inside(left) & inside(right)).astype(jnp.float32),
    }


def choose_masked(
    tokens: Int[Array, " l"],
    candidates: Bool[Array, " l"],
    size: Int[Array, ""],
    masking: Masking,
    vocabulary: Vocabulary,
    slots: int,
    key: jax.Array,
    rate: Any = None,
) -> Bool[Array, " l"]:
    """Which candidates of a row are hidden: at most the budget, exactly it wherever single
    tokens or spans fill it."""
    rounding, walking = jax.random.split(key)
    n = candidates.sum()
    share = n if masking.budget == "ceil" else size  # SpanBERT counts without specials
    rate = masking.rate if rate is None else rate
    each = jnp.asarray(num_to_mask(masking, rate, tokens.shape[0], jax.random.uniform(rounding)))
    budget = jnp.minimum(jnp.minimum(each[share], slots), n)
    if masking.granularity == "token":
        order = jnp.argsort(jnp.where(candidates, jax.random.uniform(walking, tokens.shape), 2.0))
        fill = jnp.arange(slots) < budget
        return jnp.zeros_like(candidates).at[order[:slots]].set(fill)
    starts = jnp.asarray(vocabulary.starts)[tokens]
    if vocabulary.word_after_special:
        special = jnp.asarray(vocabulary.special)[tokens]
        starts |= jnp.roll(special, 1)
    words = WordBoundaries.of(candidates, starts)
    walk = span_walk if masking.granularity == "span" else ngram_walk
    draws = walk(words, masking, budget, slots, walking)
    return candidates & (draws > 0)[jnp.cumsum(candidates) - 1]


class WordBoundaries(NamedTuple):
    """A row's candidates, in their order, cut into words: word w is the pieces
    `bounds[w] <= i < bounds[w + 1]`. A piece that begins no word belongs to the one before it,
    across a special token too; the first candidate always begins one."""

    bounds: Int[Array, " l+1"]
    word: Int[Array, " l"]  # of each piece
    number: Int[Array, ""]
    pieces: Int[Array, ""]

    @classmethod
    def of(cls, candidates: Bool[Array, " l"], starts: Bool[Array, " l"]) -> WordBoundaries:
        length = candidates.shape[0]
        place = jnp.cumsum(candidates) - 1  # of each candidate among the candidates
        begins = candidates & (starts | (place == 0))
        word = jnp.cumsum(begins) - 1
        sizes = (
            jnp.zeros(length, jnp.int32).at[jnp.where(candidates, word, length)].add(1, mode="drop")
        )
        bounds = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(sizes)])
        of_piece = (
            jnp.zeros(length, jnp.int32)
            .at[jnp.where(candidates, place, length)]
            .set(word, mode="drop")
        )
        return cls(bounds, of_piece, begins.sum(), candidates.sum())

    def before(self, word: jax.Array) -> jax.Array:
        """Number of pieces before a word; of all pieces for words past the last."""
        return self.bounds[jnp.minimum(word, self.number)]


def ngram_walk(
    words: WordBoundaries, masking: Masking, budget: jax.Array, slots: int, key: jax.Array
) -> Int[Array, " l"]:
    """Which draw hid each piece, from 1; 0 where none did.

    Words in random order, each the start of an n-gram with p(n) ~ 1/n; one that overshoots
    is shortened, one that still does or that meets a hidden word is passed over
    (albert/create_pretraining_data.py; with `max_words` 1 bert's whole-word masking)."""
    length = words.word.shape[0]
    ordering, lengths = jax.random.split(key)
    at = jnp.arange(length)
    order = jnp.argsort(jnp.where(at < words.number, jax.random.uniform(ordering, (length,)), 2.0))
    u = jax.random.uniform(lengths, (length,))
    law = np.cumsum(1.0 / np.arange(1, masking.max_ngram + 1)).astype(np.float32)
    n = jnp.arange(1, masking.max_ngram + 1)

    def body(s: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        i, total, draws = s
        w = order[i]
        possible = jnp.minimum(words.number - w, masking.max_ngram)  # windows end with the row
        drawn = 1 + (u[i] * jnp.asarray(law)[possible - 1] > jnp.asarray(law)).sum()
        begin, ends = words.before(w), words.before(w + n)
        fits = (n <= drawn) & (n <= possible) & (total + ends - begin <= budget)
        end = jnp.max(jnp.where(fits, ends, begin))
        window = (at >= begin) & (at < end)
        window &= ~(window & (draws > 0)).any()
        return i + 1, total + window.sum(), jnp.where(window, i + 1, draws)

    def go_on(s: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (s[1] < budget) & (s[0] < words.number)

    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(go_on, body, (zero, zero, jnp.zeros(length, jnp.int32)))[2]


def span_walk(
    words: WordBoundaries, masking: Masking, budget: jax.Array, slots: int, key: jax.Array
) -> Int[Array, " l"]:
    """Which draw hid each piece, from 1; 0 where none did.

    From the word of a piece drawn among those still seen, as many words as a geometric law
    cut at `max_words` says, until the budget ends, within a word if it must
    (SpanBERT, pretraining/fairseq/data/masking.py; a span may run over hidden pieces)."""
    length = words.word.shape[0]
    u = jax.random.uniform(key, (slots, 2))
    law = (1.0 - masking.geometric_p) ** np.arange(masking.max_ngram)
    law = jnp.asarray(np.cumsum(law / law.sum())[:-1], jnp.float32)
    at = jnp.arange(length)

    def body(s: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        i, total, draws = s
        seen = (draws == 0) & (at < words.pieces)
        drawn = (u[i, 0] * (words.pieces - total)).astype(jnp.int32)
        piece = jnp.argmax(jnp.cumsum(seen) > drawn)
        w = words.word[piece]
        n = 1 + (u[i, 1] > law).sum()
        fresh = (at >= words.before(w)) & (at < words.before(w + n)) & seen
        fresh &= jnp.cumsum(fresh) <= budget - total
        return i + 1, total + fresh.sum(), jnp.where(fresh, i + 1, draws)

    def go_on(s: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (s[1] < budget) & (s[0] < slots)

    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(go_on, body, (zero, zero, jnp.zeros(length, jnp.int32)))[2]


def span_bounds(hidden: Bool[Array, " l"]) -> tuple[Int[Array, " l"], Int[Array, " l"]]:
    """First and last position of the run of hidden tokens that each hidden token is in:
    spans that overlap or touch are one. Meaningless where nothing is hidden."""
    at = jnp.arange(hidden.shape[0], dtype=jnp.int32)
    before = jnp.concatenate([jnp.zeros(1, bool), hidden[:-1]])
    after = jnp.concatenate([hidden[1:], jnp.zeros(1, bool)])
    first = jax.lax.cummax(jnp.where(hidden & ~before, at, 0))
    last = jax.lax.cummin(jnp.where(hidden & ~after, at, at[-1]), reverse=True)
    return first, last


def _random_tokens(
    masking: Masking, vocabulary: Vocabulary, shape: tuple[int, ...], key: jax.Array
) -> Int[Array, " l"]:
    """Tokens that stand in for others: uniform over all ids as BERT draws them, specials
    included; over all but specials (`words`, fairseq); or as frequent as in the corpus."""
    size = len(vocabulary.special)
    if masking.random_from == "corpus":
        frequency = vocabulary.frequency()
        if frequency is None:
            raise ValueError("masking.random_from is corpus: expected a corpus with its counts")
        law = jnp.asarray(np.cumsum(frequency), jnp.float32)
        return jnp.minimum(jnp.searchsorted(law, jax.random.uniform(key, shape)), size - 1)
    if masking.random_from == "words":
        words = jnp.asarray(np.flatnonzero(~vocabulary.special), jnp.int32)
        return words[jax.random.randint(key, shape, 0, len(words))]
    return jax.random.randint(key, shape, 0, size)
