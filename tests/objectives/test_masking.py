"""Masks: exact properties, and distributions compared with the original algorithms, run step by
step."""

import random
from collections import Counter
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT, Masking, replace
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.data.tokenization.words import WordEdges
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.objectives.masking import mask_tokens, sample_ngrams
from bert_jax.objectives.masking_budget import num_to_mask
from bert_jax.objectives.word_boundaries import WordBoundaries
from tests.helpers import reference_masking

PAD, CLS, SEP, MASK, V = 0, 1, 2, 3, 60
SPECIAL = np.arange(V) < 4
STARTS = np.arange(V) < 40  # tokens from 40 on continue a word
FREQUENCY = np.where(SPECIAL, 0, np.arange(V)) / np.arange(4, V).sum()
VOCABULARY = Vocabulary(MASK, SPECIAL, WordEdges.marked(STARTS), FREQUENCY)
MASKINGS = {
    "bert": BERT.objective.masking,
    "whole words": Masking(granularity="word"),
    "albert": ALBERT.objective.masking,
    "roberta": ROBERTA.objective.masking,
    "electra": ELECTRA.objective.masking,
    "spanbert": SPANBERT.objective.masking,
}


def rows(n: int = 500, length: int = 64, seed: int = 0) -> dict[str, jax.Array]:
    """Rows [CLS] a [SEP] b [SEP], a quarter of them short."""
    rng = np.random.default_rng(seed)
    size = np.where(rng.random(n) < 0.25, rng.integers(8, length, n), length)
    split = rng.integers(4, size - 2)
    tokens = rng.integers(4, V, (n, length))
    at = np.arange(length)
    tokens[:, 0] = CLS
    tokens[at == split[:, None] - 1] = SEP
    tokens[at == size[:, None] - 1] = SEP
    tokens[at >= size[:, None]] = PAD
    batch = {
        "tokens": tokens,
        "size": size,
        "first": split,
        "row": np.arange(n),
        "epoch": np.zeros(n),
        "pair": np.zeros(n),
    }
    return {k: jnp.asarray(v, jnp.int32) for k, v in batch.items()}


@cache
def compiled(masking: Masking) -> Callable:
    return jax.jit(lambda batch, key: mask_tokens(batch, masking, VOCABULARY, key))


def mask(batch: dict, masking: Masking, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Of another vocabulary, whose program is not kept."""
    f = jax.jit(lambda batch: mask_tokens(batch, masking, vocabulary, jax.random.key(0)))
    return {k: np.asarray(v) for k, v in f(batch).items()}


def run(masking: Masking, batch: dict, seed: int = 0) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in compiled(masking)(batch, jax.random.key(seed)).items()}


def masked_positions(out: dict[str, np.ndarray]) -> np.ndarray:
    """Bool [b l]: the tokens to predict."""
    is_masked = np.zeros(out["tokens"].shape, bool)
    r, i = np.nonzero(out["weights"])
    is_masked[r, out["masked"][r, i]] = True
    return is_masked


@pytest.mark.parametrize("name", MASKINGS)
def test_the_slots_of_a_row_are_its_largest_budget(name: str) -> None:
    masking = replace(MASKINGS[name], max_predictions=None)
    for length in (16, 128, 512):
        largest = num_to_mask(masking, masking.max_rate, length, 0.999)[-1]
        assert masking.num_slots(length) == int(largest)


@pytest.mark.parametrize("name", MASKINGS)
def test_targets_are_the_original_tokens_in_order(name: str) -> None:
    """Each position once; other tokens are unchanged."""
    batch = rows()
    out = run(MASKINGS[name], batch)
    used, masked, is_masked = out["weights"] > 0, out["masked"], masked_positions(out)
    assert is_masked.sum() == used.sum()
    assert np.array_equal(out["labels"], batch["tokens"])
    targets = np.take_along_axis(out["labels"], masked, 1)
    assert np.array_equal(targets[used], out["targets"][used])
    assert np.array_equal(out["tokens"][~is_masked], out["labels"][~is_masked])
    assert ((np.diff(masked) > 0) | ~used[:, 1:]).all()


@pytest.mark.parametrize("name", sorted(set(MASKINGS) - {"roberta"}))
def test_special_tokens_and_padding_are_never_masked(name: str) -> None:
    batch = rows()
    assert not (masked_positions(run(MASKINGS[name], batch)) & SPECIAL[batch["tokens"]]).any()


def test_fairseq_may_mask_special_tokens_but_never_padding() -> None:
    batch = rows()
    is_masked = masked_positions(run(MASKINGS["roberta"], batch))
    assert is_masked[:, 0].any()
    assert not (is_masked & (np.arange(64) >= batch["size"][:, None])).any()


@pytest.mark.parametrize("name", ["bert", "electra"])
def test_single_tokens_fill_the_budget_exactly(name: str) -> None:
    """min(cap, max(1, round(.15 n))), where n includes special tokens, with Python's rounding."""
    batch = rows()
    expected = [max(1, round(0.15 * int(n))) for n in batch["size"]]
    assert masked_positions(run(MASKINGS[name], batch)).sum(1).tolist() == expected


def test_max_predictions_caps_the_budget() -> None:
    masking = replace(MASKINGS["bert"], max_predictions=4)
    assert masking.num_slots(64) == 4
    assert masked_positions(run(masking, rows())).sum(1).max() == 4


def test_spans_fill_their_budget_exactly() -> None:
    """ceil(.15 n), where n excludes the three special tokens."""
    batch = rows()
    expected = [-(-15 * (int(n) - 3) // 100) for n in batch["size"]]
    assert masked_positions(run(MASKINGS["spanbert"], batch)).sum(1).tolist() == expected


def test_fairseq_rounds_at_random_with_the_right_mean() -> None:
    batch = rows(4000)
    counts, mean = (
        masked_positions(run(MASKINGS["roberta"], batch)).sum(1),
        0.15 * np.asarray(batch["size"]),
    )
    assert (np.abs(counts - mean) < 1).all()
    assert abs(counts.sum() / mean.sum() - 1) < 4 * 0.5 / (np.sqrt(4000) * mean.mean())


@pytest.mark.parametrize("name", ["whole words", "albert"])
def test_words_are_masked_whole(name: str) -> None:
    batch = rows()
    is_masked, text = masked_positions(run(MASKINGS[name], batch)), ~SPECIAL[batch["tokens"]]
    for c, t, tokens in zip(is_masked, text, np.asarray(batch["tokens"]), strict=True):
        words = np.cumsum(STARTS[tokens[t]] | (np.arange(t.sum()) == 0))
        budget = max(1, round(0.15 * int((tokens != PAD).sum())))
        parts = [c[t][words == w] for w in set(words)]
        assert all(len({*p}) == 1 for p in parts if len(p) <= budget)


@pytest.mark.parametrize("name", ["bert", "electra", "roberta"])
def test_masked_tokens_are_replaced_with_the_published_probabilities(name: str) -> None:
    """The fractions of [MASK], random tokens and unchanged tokens, within four standard
    deviations."""
    masking, batch = MASKINGS[name], rows(4000)
    out = run(masking, batch)
    is_masked = masked_positions(out) & ~SPECIAL[np.asarray(batch["tokens"])]
    n, same = is_masked.sum(), (out["tokens"] == out["labels"])[is_masked].sum()
    masks = (out["tokens"] == MASK)[is_masked].sum()
    pool = V if masking.random_from == "vocabulary" else V - 4
    chance = masking.random_prob / pool  # a random token may be [MASK] or the token itself
    for count, share in (
        (masks, masking.mask_prob + (chance if pool == V else 0)),
        (same, 1 - masking.mask_prob - masking.random_prob + chance),
    ):
        assert abs(count - n * share) < 4 * np.sqrt(n * share * (1 - share)) + 1


def test_all_tokens_of_a_span_are_replaced_alike() -> None:
    out = run(MASKINGS["spanbert"], rows())
    is_masked = masked_positions(out)
    masked, same = out["tokens"] == MASK, out["tokens"] == out["labels"]
    mixed = changed = 0
    for c, m, s in zip(is_masked, masked, same, strict=True):
        for span in np.split(np.flatnonzero(c), np.flatnonzero(np.diff(np.flatnonzero(c)) > 1) + 1):
            assert m[span].all() or not m[span].any()
            changed += not (m | s)[span].all()
            mixed += 0 < s[span].mean() < 1
    assert mixed < changed / 5  # where one random token of a span is the token itself


def test_random_tokens_are_as_frequent_as_in_the_corpus() -> None:
    masking = Masking(rate=0.5, mask_prob=0.0, random_prob=1.0, random_from="corpus")
    out = run(masking, rows(2000))
    frequency = (
        np.bincount(out["tokens"][masked_positions(out)], minlength=V) / masked_positions(out).sum()
    )
    assert np.abs(frequency - FREQUENCY).sum() / 2 < 0.02


def words_of(tokens: np.ndarray) -> list[int]:
    text = tokens[~SPECIAL[tokens]]
    return (np.cumsum(STARTS[text] | (np.arange(len(text)) == 0)) - 1).tolist()


def word_runs(words: list[int], is_masked: set[int]) -> list[int]:
    """Lengths in words of runs of masked tokens."""
    runs: list[set[int]] = []
    for i in sorted(is_masked):
        if i - 1 in is_masked:
            runs[-1].add(words[i])
        else:
            runs.append({words[i]})
    return [len(r) for r in runs]


@pytest.mark.parametrize("name", ["whole words", "albert", "spanbert"])
def test_span_lengths_agree_with_the_original_algorithm(name: str) -> None:
    """Histograms of run lengths, in tokens and in words: total variation at most .03."""
    masking, batch = MASKINGS[name], rows(4000)
    tokens = np.asarray(batch["tokens"])
    is_masked, rng = masked_positions(run(masking, batch)), random.Random(0)
    histograms, expected = [Counter(), Counter()], [Counter(), Counter()]
    for row, size, c in zip(tokens, np.asarray(batch["size"]), is_masked, strict=True):
        words, masked = words_of(row), set(np.flatnonzero(c[~SPECIAL[row]]).tolist())
        budget = min(masking.num_slots(64), max(1, round(0.15 * int(size))))
        reference = {
            "whole words": lambda w=words, b=budget: reference_masking.whole_words(w, b, rng),
            "albert": lambda w=words, b=budget: reference_masking.ngrams(w, b, rng),
            "spanbert": lambda w=words: reference_masking.spans(w, rng),
        }[name]()
        for counters, tokens in ((histograms, masked), (expected, reference)):
            counters[0].update(reference_masking.run_lengths(tokens))
            counters[1].update(word_runs(words, tokens))
    for a, b in zip(histograms, expected, strict=True):
        n, m = a.total(), b.total()
        assert sum(abs(a[k] / n - b[k] / m) for k in a | b) / 2 < 0.03


def test_ngrams_at_the_end_of_a_row_are_cut_and_their_law_is_not_renormalized() -> None:
    """The first window of a row of three words. The last word is masked alone whatever n it draws;
    the one before it, as often as a word draws 1 (6/11)."""
    words = WordBoundaries.from_starts(jnp.ones(3, bool), jnp.ones(3, bool))
    masking = MASKINGS["albert"]

    def first_window(key: jax.Array) -> jax.Array:
        draws = sample_ngrams(words, masking, jnp.asarray(3), 3, key)
        return (draws == 1) @ jnp.array([1, 2, 4])

    windows = np.asarray(jax.vmap(first_window)(jax.random.split(jax.random.key(0), 20_000)))
    law = {0b001: 6, 0b011: 3, 0b111: 2, 0b010: 6, 0b110: 5, 0b100: 11}  # of 33
    assert set(windows.tolist()) == set(law)
    for window, share in law.items():
        assert abs((windows == window).mean() - share / 33) < 4 * np.sqrt(0.25 / 20_000)


# ---- the unknown token

SCRIPTS = {
    "English": "the river runs to the sea",
    "Korean": "강물 이 바다 로 흐른다",
    "Thai": "แม่น้ำ ไหล ลง ทะเล",
    "Greek": "το ποτάμι κυλά στη θάλασσα",
}


@pytest.fixture(scope="module")
def unknown_words() -> tuple[Tokenizer, dict[str, jax.Array]]:
    """A tokenizer of all scripts, and rows of each with three words that it does not know."""
    tokenizer = train_tokenizer([*SCRIPTS.values()] * 50, "unigram", 61)
    rows = []
    for text in SCRIPTS.values():
        first, *rest = text.split()
        ids, _ = tokenizer.build_row(tokenizer.encode(f"{first} ☃ {' '.join(rest)} ☂ {first} ☃"))
        rows += [ids] * 16
    sizes = [len(ids) for ids in rows]
    tokens = [ids + [tokenizer.pad_id] * (max(sizes) - len(ids)) for ids in rows]
    batch = {"tokens": tokens, "size": sizes, "row": range(64), "epoch": [0] * 64}
    return tokenizer, {k: jnp.asarray(v, jnp.int32) for k, v in batch.items()}


@pytest.mark.parametrize("granularity", ["token", "word", "span"])
def test_the_unknown_token_is_an_input_and_never_a_target(granularity, unknown_words) -> None:
    tokenizer, batch = unknown_words
    vocabulary = Vocabulary.of(tokenizer)
    masking = Masking(granularity=granularity, rate=0.9, max_ngram=3)
    unknown = np.asarray(batch["tokens"]) == tokenizer.unk_id
    assert (unknown.sum(1) == 3).all()

    out = mask(batch, masking, vocabulary)
    assert masked_positions(out)[~unknown].any()
    assert not masked_positions(out)[unknown].any()
    assert (out["tokens"][unknown] == tokenizer.unk_id).all()
    if granularity == "token":  # the originals mask it as any word
        as_published = replace(masking, mask_unknown=True)
        share = masked_positions(mask(batch, as_published, vocabulary))[unknown].mean()
        assert abs(share - 0.95) < 0.08  # 90 % of the tokens, which is more of those that are text


def test_the_frequencies_are_of_what_is_predicted() -> None:
    """The unknown token has none, unless it is masked like a word."""
    vocabulary = VOCABULARY._replace(counts=np.full(V, 2), unk_id=7)
    assert np.flatnonzero(vocabulary.frequency() == 0).tolist() == [0, 1, 2, 3, 7]
    assert vocabulary.frequency()[8] == 1 / (V - 5)
    assert vocabulary.frequency(include_unknown=True)[7] == 1 / (V - 4)
    assert vocabulary.frequency(include_special=True)[7] == 0


@pytest.mark.slow
def test_a_row_of_unknown_tokens_masks_nothing() -> None:
    vocabulary, batch = VOCABULARY._replace(unk_id=7), rows(4)
    batch |= {"tokens": jnp.where(jnp.asarray(SPECIAL)[batch["tokens"]], batch["tokens"], 7)}
    for name in ("bert", "spanbert"):
        assert not mask(batch, MASKINGS[name], vocabulary)["weights"].any()


def test_span_boundaries_are_adjacent_text_tokens() -> None:
    batch = rows()
    out = run(MASKINGS["spanbert"], batch)
    is_masked, tokens = masked_positions(out), np.asarray(batch["tokens"])
    r, p = np.nonzero(out["sbo_weights"])
    left, right, offset = (out[k][r, p] for k in ("left", "right", "offset"))
    at = out["masked"][r, p]
    assert np.array_equal(left + 1 + offset, at)
    for side in (left, right):
        assert not is_masked[r, side].any()
        assert not SPECIAL[tokens[r, side]].any()
    assert all(is_masked[i, a + 1 : b].all() for i, a, b in zip(r, left, right, strict=True))
    dropped = (out["weights"] > 0) & (out["sbo_weights"] == 0)
    r, p = np.nonzero(dropped)
    sides = [tokens[r, np.clip(out[k][r, p], 0, 63)] for k in ("left", "right")]
    assert (SPECIAL[sides[0]] | SPECIAL[sides[1]]).all()


def test_the_masks_of_a_row_do_not_depend_on_its_batch() -> None:
    batch = rows()
    whole = run(MASKINGS["albert"], batch)
    part = run(MASKINGS["albert"], {k: v[3:6] for k, v in batch.items()})
    assert all(np.array_equal(part[k], whole[k][3:6]) for k in whole)


@pytest.mark.parametrize(("copies", "changes"), [(None, [1, 1, 1]), (2, [1, 0, 1]), (1, [0, 0, 0])])
def test_static_masks_repeat_and_dynamic_masks_do_not(copies: int | None, changes: list) -> None:
    masking, batch = replace(MASKINGS["bert"], num_static_masks=copies), rows(20)
    first = run(masking, batch)["masked"]
    for epoch, changed in enumerate(changes, 1):
        later = run(masking, {**batch, "epoch": batch["epoch"] + epoch})["masked"]
        assert np.array_equal(first, later) == (not changed)


def test_a_row_of_special_tokens_only_masks_nothing() -> None:
    batch = rows()
    batch |= {"tokens": jnp.full_like(batch["tokens"], SEP)}
    for name in sorted(set(MASKINGS) - {"roberta"}):
        assert not run(MASKINGS[name], batch)["weights"].any()
