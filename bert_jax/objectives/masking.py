"""Masking: which tokens are hidden from the encoder, and what replaces them. Pure functions that
run on the device.

    tokens   [CLS] the cat ##s sat [SEP]          tokens   [CLS] the [M] [M] sat [SEP]
    size     6                             ->     masked   2 3 0       targets  cat ##s .
                                                  weights  1 1 0       labels   the row as it was

A row's masks are a function of (key, row number, epoch). With the epoch they are dynamic (RoBERTa);
with `epoch % num_static_masks` they are static, as in a corpus that was masked on disk (BERT).
Neither the row's batch nor the number of devices changes them.

Where words begin is in data/tokenization/words.py; a word that exceeds a row's budget is cut.
Whole-word, n-gram and span masking run the same loop: draw the next window of words, check that it
fits the budget, mask it. They differ in how a window is drawn: words in random order with lengths
of 1 (whole words) or up to 3 (ALBERT's n-grams), or from a uniformly drawn token with SpanBERT's
lengths. Single tokens need no loop: the first ones of a random order are masked.

Axes of a row: l tokens, p predictions, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from bert_jax.config import Masking
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.objectives.masking_budget import num_to_mask
from bert_jax.objectives.word_boundaries import WordBoundaries
from bert_jax.utils.types import Batch

LoopState = tuple[jax.Array, jax.Array, jax.Array]  # draws so far, masked tokens, draw per token


def row_keys(key: jax.Array, batch: Batch) -> jax.Array:
    """A key for every row [b], which depends on its number and the epoch alone."""
    key_of = jax.vmap(lambda row, epoch: jax.random.fold_in(jax.random.fold_in(key, row), epoch))
    return key_of(batch["row"], batch["epoch"])


def mask_tokens(batch: Batch, masking: Masking, vocabulary: Vocabulary, key: jax.Array) -> Batch:
    """Mask tokens of every row of a batch (`tokens` [b l], `size` `row` `epoch` [b], and perhaps
    `words` [b l], where words begin if the vocabulary does not tell).

    Returns the fields of the batch, with masked `tokens`, and

        labels   [b l]  the original tokens
        masked   [b p]  the masked positions, ascending; 0 where weights is 0
        targets  [b p]  the original tokens there
        weights  [b p]  1 where a slot is used
        left right offset sbo_weights [b p]  for the span boundary term: the positions before and
                 after a prediction's span, its offset in the span, and whether both are text
    """
    length = batch["tokens"].shape[-1]
    slots = masking.num_slots(length)
    epoch = (
        batch["epoch"]
        if masking.num_static_masks is None
        else batch["epoch"] % masking.num_static_masks
    )

    def mask_row(
        tokens: jax.Array, size: jax.Array, row: jax.Array, epoch: Any, rate: Any, words: Any
    ) -> Batch:
        k = jax.random.fold_in(jax.random.fold_in(key, row), epoch)
        return _mask_row(tokens, size, masking, vocabulary, slots, k, rate, words)

    tokens, size, row = (batch[name] for name in ("tokens", "size", "row"))
    rate, words = batch.get("rate"), batch.get("words")
    return {**batch, **jax.vmap(mask_row)(tokens, size, row, epoch, rate, words)}


def _mask_row(
    tokens: Int[Array, " l"],
    size: Int[Array, ""],
    masking: Masking,
    vocabulary: Vocabulary,
    slots: int,
    key: jax.Array,
    rate: Any,
    words: Any,
) -> Batch:
    choice_key, action_key, replacement_key = jax.random.split(key, 3)
    at = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    is_real = at < size
    is_text = is_real & ~jnp.asarray(vocabulary.special)[tokens]
    candidates = is_real if masking.mask_special_tokens else is_text
    # SpanBERT does not count special tokens
    counted = candidates.sum() if masking.budget == "ceil" else size
    if vocabulary.unk_id is not None and not masking.mask_unknown:
        candidates &= tokens != vocabulary.unk_id
    is_masked = choose_masked(
        tokens, candidates, counted, masking, vocabulary, slots, choice_key, rate, words
    )
    first, last = span_bounds(is_masked)

    u = jax.random.uniform(action_key, tokens.shape)
    if masking.replace_per == "span":
        u = u[first]
    random_tokens = _random_tokens(masking, vocabulary, tokens.shape, replacement_key)
    replaced = jnp.where(u < masking.mask_prob, vocabulary.mask_id, random_tokens)
    is_replaced = is_masked & (u < masking.mask_prob + masking.random_prob)
    new_tokens = jnp.where(is_replaced, replaced, tokens)

    masked = jnp.sort(jnp.where(is_masked, at, tokens.shape[0]))[:slots]
    used = masked < tokens.shape[0]
    masked = jnp.where(used, masked, 0)
    left, right = first[masked] - 1, last[masked] + 1

    def in_text(i: jax.Array) -> jax.Array:
        return (i >= 0) & is_text.at[i].get(mode="fill", fill_value=False)

    return {
        "tokens": new_tokens.astype(tokens.dtype),
        "labels": tokens,
        "masked": masked,
        "targets": jnp.where(used, tokens[masked], 0),
        "weights": used.astype(jnp.float32),
        "left": jnp.maximum(left, 0),
        "right": jnp.minimum(right, tokens.shape[0] - 1),
        "offset": masked - first[masked],
        "sbo_weights": (used & in_text(left) & in_text(right)).astype(jnp.float32),
    }


def choose_masked(
    tokens: Int[Array, " l"],
    candidates: Bool[Array, " l"],
    counted: Int[Array, ""],
    masking: Masking,
    vocabulary: Vocabulary,
    slots: int,
    key: jax.Array,
    rate: Any = None,
    starts: Any = None,
) -> Bool[Array, " l"]:
    """Which candidates of a row are masked: at most the budget, which is a share of `counted`
    tokens, and exactly the budget for single tokens and spans."""
    rounding_key, sampling_key = jax.random.split(key)
    rate = masking.rate if rate is None else rate
    u = jax.random.uniform(rounding_key)
    budgets = jnp.asarray(num_to_mask(masking, rate, tokens.shape[0], u))
    budget = jnp.minimum(jnp.minimum(budgets[counted], slots), candidates.sum())
    if masking.granularity == "token":
        u = jax.random.uniform(sampling_key, tokens.shape)
        order = jnp.argsort(jnp.where(candidates, u, 2.0))
        fill = jnp.arange(slots) < budget
        return jnp.zeros_like(candidates).at[order[:slots]].set(fill)
    if starts is None:
        starts = vocabulary.words.begins_word(tokens)
    words = WordBoundaries.from_starts(candidates, starts, budget)
    sample = sample_spans if masking.granularity == "span" else sample_ngrams
    draws = sample(words, masking, budget, slots, sampling_key)
    return candidates & (draws > 0)[jnp.cumsum(candidates) - 1]


def sample_ngrams(
    words: WordBoundaries, masking: Masking, budget: jax.Array, slots: int, key: jax.Array
) -> Int[Array, " l"]:
    """The number of the draw, from 1, that masked each token; 0 for tokens that are not masked.

    Words are visited in random order. Each starts an n-gram with p(n) ~ 1/n, which ends with the
    row, is shortened if it exceeds the budget, and skipped if it still does or overlaps a masked
    word. The law is not renormalized for the last words of a row: the last one draws a longer
    n-gram as often as any other, and is then masked alone
    (albert/create_pretraining_data.py). With granularity `word` each is one word, which is BERT's
    whole-word masking."""
    length = words.word.shape[0]
    order_key, length_key = jax.random.split(key)
    at = jnp.arange(length)
    order = jax.random.uniform(order_key, (length,))
    order = jnp.argsort(jnp.where(at < words.num_words, order, 2.0))
    u = jax.random.uniform(length_key, (length,))
    longest = masking.max_ngram if masking.granularity == "ngram" else 1
    p = 1.0 / np.arange(1, longest + 1)
    cdf = (np.cumsum(p) / p.sum())[:-1].astype(np.float32)
    n = jnp.arange(1, longest + 1)

    def body(state: LoopState) -> LoopState:
        i, total, draws = state
        w = order[i]
        drawn_n = 1 + (u[i] > jnp.asarray(cdf)).sum()
        begin, ends = words.tokens_before(w), words.tokens_before(w + n)
        fits = (n <= drawn_n) & (total + ends - begin <= budget)
        end = jnp.max(jnp.where(fits, ends, begin))
        window = (at >= begin) & (at < end)
        window &= ~(window & (draws > 0)).any()
        return i + 1, total + window.sum(), jnp.where(window, i + 1, draws)

    return _draw_until(budget, words.num_words, body, length)


def sample_spans(
    words: WordBoundaries, masking: Masking, budget: jax.Array, slots: int, key: jax.Array
) -> Int[Array, " l"]:
    """The number of the draw, from 1, that masked each token; 0 for tokens that are not masked.

    A span starts at the word of a token drawn among those not yet masked, and its length in words
    has a geometric distribution cut at `max_ngram`. The last span ends with the budget, if need be
    within a word. A span may run over masked tokens
    (SpanBERT, pretraining/fairseq/data/masking.py)."""
    length = words.word.shape[0]
    u = jax.random.uniform(key, (slots, 2))
    probabilities = (1.0 - masking.geometric_p) ** np.arange(masking.max_ngram)
    probabilities /= probabilities.sum()
    length_cdf = jnp.asarray(np.cumsum(probabilities)[:-1], jnp.float32)
    at = jnp.arange(length)

    def body(state: LoopState) -> LoopState:
        i, total, draws = state
        is_free = (draws == 0) & (at < words.num_tokens)
        rank = (u[i, 0] * (words.num_tokens - total)).astype(jnp.int32)
        token = jnp.argmax(jnp.cumsum(is_free) > rank)
        w = words.word[token]
        n = 1 + (u[i, 1] > length_cdf).sum()
        span = (at >= words.tokens_before(w)) & (at < words.tokens_before(w + n)) & is_free
        span &= jnp.cumsum(span) <= budget - total
        return i + 1, total + span.sum(), jnp.where(span, i + 1, draws)

    return _draw_until(budget, slots, body, length)


def _draw_until(
    budget: jax.Array, limit: Any, body: Callable[[LoopState], LoopState], length: int
) -> Int[Array, " l"]:
    """The number of the draw that masked each token, after draws by `body` until the budget is used
    up or `limit` draws were made."""

    def has_budget(state: LoopState) -> jax.Array:
        i, total, _ = state
        return (total < budget) & (i < limit)

    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(has_budget, body, (zero, zero, jnp.zeros(length, jnp.int32)))[2]


def span_bounds(is_masked: Bool[Array, " l"]) -> tuple[Int[Array, " l"], Int[Array, " l"]]:
    """The first and last position of the run of masked tokens around each masked token; adjacent
    spans are one run. Undefined for tokens that are not masked."""
    at = jnp.arange(is_masked.shape[0], dtype=jnp.int32)
    before = jnp.concatenate([jnp.zeros(1, bool), is_masked[:-1]])
    after = jnp.concatenate([is_masked[1:], jnp.zeros(1, bool)])
    first = jax.lax.cummax(jnp.where(is_masked & ~before, at, 0))
    last = jax.lax.cummin(jnp.where(is_masked & ~after, at, at[-1]), reverse=True)
    return first, last


def _random_tokens(
    masking: Masking, vocabulary: Vocabulary, shape: tuple[int, ...], key: jax.Array
) -> Int[Array, " l"]:
    """Random replacement tokens: uniform over all ids including special ones (BERT), uniform over
    ids that are not special (`words`, fairseq), or by their frequency in the corpus.

    ValueError: frequencies are needed, and the corpus has no token counts.
    """
    size = len(vocabulary.special)
    if masking.random_from == "corpus":
        frequency = vocabulary.frequency()
        if frequency is None:
            raise ValueError("masking.random_from is corpus: expected a corpus with token counts")
        cdf = jnp.asarray(np.cumsum(frequency), jnp.float32)
        return jnp.minimum(jnp.searchsorted(cdf, jax.random.uniform(key, shape)), size - 1)
    if masking.random_from == "words":
        words = jnp.asarray(np.flatnonzero(~vocabulary.special), jnp.int32)
        return words[jax.random.randint(key, shape, 0, len(words))]
    return jax.random.randint(key, shape, 0, size)
