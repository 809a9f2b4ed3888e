"""Masks: what must hold exactly, and laws compared with the originals, run step by step."""

import random
from collections import Counter
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT, Masking, replace
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.objectives.masking import mask_tokens, max_predictions
from tests.helpers import reference_masking

PAD, CLS, SEP, MASK, V = 0, 1, 2, 3, 60
SPECIAL = np.arange(V) < 4
STARTS = np.arange(V) < 40  # pieces from 40 on go on with a word
FREQUENCY = np.where(SPECIAL, 0, np.arange(V)) / np.arange(4, V).sum()
VOCABULARY = Vocabulary(MASK, SPECIAL, STARTS, FREQUENCY)
LAWS = {
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
    made = {
        "tokens": tokens,
        "size": size,
        "first": split,
        "row": np.arange(n),
        "epoch": np.zeros(n),
        "pair": np.zeros(n),
    }
    return {k: jnp.asarray(v, jnp.int32) for k, v in made.items()}


@cache
def compiled(masking: Masking) -> Callable:
    return jax.jit(lambda batch, key: mask_tokens(batch, masking, VOCABULARY, key))


def run(masking: Masking, batch: dict, seed: int = 0) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in compiled(masking)(batch, jax.random.key(seed)).items()}


def hidden(out: dict[str, np.ndarray]) -> np.ndarray:
    """Bool [b l]: which tokens are predicted."""
    chosen = np.zeros(out["tokens"].shape, bool)
    r, i = np.nonzero(out["weights"])
    chosen[r, out["masked"][r, i]] = True
    return chosen


@pytest.mark.parametrize("law", LAWS)
def test_what_is_handed_on(law: str) -> None:
    """Targets are the row's tokens, each place once and in order; nothing else is touched."""
    batch = rows()
    out = run(LAWS[law], batch)
    used, masked, chosen = out["weights"] > 0, out["masked"], hidden(out)
    assert chosen.sum() == used.sum()
    assert np.array_equal(out["labels"], batch["tokens"])
    targets = np.take_along_axis(out["labels"], masked, 1)
    assert np.array_equal(targets[used], out["targets"][used])
    assert np.array_equal(out["tokens"][~chosen], out["labels"][~chosen])
    assert ((np.diff(masked) > 0) | ~used[:, 1:]).all()


@pytest.mark.parametrize("law", sorted(set(LAWS) - {"roberta"}))
def test_specials_and_padding_are_never_hidden(law: str) -> None:
    batch = rows()
    assert not (hidden(run(LAWS[law], batch)) & SPECIAL[batch["tokens"]]).any()


def test_fairseq_may_hide_specials_but_never_padding() -> None:
    batch = rows()
    chosen = hidden(run(LAWS["roberta"], batch))
    assert chosen[:, 0].any()
    assert not (chosen & (np.arange(64) >= batch["size"][:, None])).any()


@pytest.mark.parametrize("law", ["bert", "electra"])
def test_single_tokens_fill_the_budget_exactly(law: str) -> None:
    """min(cap, max(1, round(.15 n))) of the row with its specials, Python's rounding."""
    batch = rows()
    want = [max(1, round(0.15 * int(n))) for n in batch["size"]]
    assert hidden(run(LAWS[law], batch)).sum(1).tolist() == want


def test_a_cap_binds() -> None:
    masking = replace(LAWS["bert"], max_predictions=4)
    assert max_predictions(masking, 64) == 4
    assert hidden(run(masking, rows())).sum(1).max() == 4


def test_spans_fill_their_budget_exactly() -> None:
    """ceil(.15 n) of the text without its three specials."""
    batch = rows()
    want = [-(-15 * (int(n) - 3) // 100) for n in batch["size"]]
    assert hidden(run(LAWS["spanbert"], batch)).sum(1).tolist() == want


def test_fairseq_rounds_at_random_with_the_right_mean() -> None:
    batch = rows(4000)
    counts, mean = hidden(run(LAWS["roberta"], batch)).sum(1), 0.15 * np.asarray(batch["size"])
    assert (np.abs(counts - mean) < 1).all()
    assert abs(counts.sum() / mean.sum() - 1) < 4 * 0.5 / (np.sqrt(4000) * mean.mean())


@pytest.mark.parametrize("law", ["whole words", "albert"])
def test_words_are_hidden_whole(law: str) -> None:
    batch = rows()
    chosen, text = hidden(run(LAWS[law], batch)), ~SPECIAL[batch["tokens"]]
    for c, t, tokens in zip(chosen, text, np.asarray(batch["tokens"]), strict=True):
        words = np.cumsum(STARTS[tokens[t]] | (np.arange(t.sum()) == 0))
        parts = [set(c[t][words == w]) for w in set(words)]
        assert all(len(p) == 1 for p in parts)


@pytest.mark.parametrize("law", ["bert", "electra", "roberta"])
def test_fates_of_hidden_tokens(law: str) -> None:
    """Shares of [MASK], of other tokens and of the token itself, within four deviations."""
    masking, batch = LAWS[law], rows(4000)
    out = run(masking, batch)
    chosen = hidden(out) & ~SPECIAL[np.asarray(batch["tokens"])]
    n, same = chosen.sum(), (out["tokens"] == out["labels"])[chosen].sum()
    masks = (out["tokens"] == MASK)[chosen].sum()
    pool = V if masking.random_from == "vocabulary" else V - 4
    chance = masking.random_prob / pool  # a random token may be [MASK] or the token itself
    for seen, share in (
        (masks, masking.mask_prob + (chance if pool == V else 0)),
        (same, 1 - masking.mask_prob - masking.random_prob + chance),
    ):
        assert abs(seen - n * share) < 4 * np.sqrt(n * share * (1 - share)) + 1


def test_a_span_has_one_fate() -> None:
    out = run(LAWS["spanbert"], rows())
    chosen = hidden(out)
    masked, same = out["tokens"] == MASK, out["tokens"] == out["labels"]
    mixed = changed = 0
    for c, m, s in zip(chosen, masked, same, strict=True):
        for span in np.split(np.flatnonzero(c), np.flatnonzero(np.diff(np.flatnonzero(c)) > 1) + 1):
            assert m[span].all() or not m[span].any()
            changed += not (m | s)[span].all()
            mixed += 0 < s[span].mean() < 1
    assert mixed < changed / 5  # where one random token of a span is the token itself


def test_random_tokens_are_as_frequent_as_in_the_corpus() -> None:
    masking = Masking(rate=0.5, mask_prob=0.0, random_prob=1.0, random_from="corpus")
    out = run(masking, rows(2000))
    seen = np.bincount(out["tokens"][hidden(out)], minlength=V) / hidden(out).sum()
    assert np.abs(seen - FREQUENCY).sum() / 2 < 0.02


def words_of(tokens: np.ndarray) -> list[int]:
    text = tokens[~SPECIAL[tokens]]
    return (np.cumsum(STARTS[text] | (np.arange(len(text)) == 0)) - 1).tolist()


def word_runs(words: list[int], chosen: set[int]) -> list[int]:
    """Lengths in words of runs of hidden pieces."""
    runs: list[set[int]] = []
    for i in sorted(chosen):
        if i - 1 in chosen:
            runs[-1].add(words[i])
        else:
            runs.append({words[i]})
    return [len(r) for r in runs]


@pytest.mark.parametrize("law", ["whole words", "albert", "spanbert"])
def test_lengths_agree_with_the_original_walk(law: str) -> None:
    """Histograms of run lengths, in pieces and in words: total variation at most .03."""
    masking, batch = LAWS[law], rows(4000)
    tokens = np.asarray(batch["tokens"])
    chosen, rng = hidden(run(masking, batch)), random.Random(0)
    ours, theirs = [Counter(), Counter()], [Counter(), Counter()]
    for row, size, c in zip(tokens, np.asarray(batch["size"]), chosen, strict=True):
        words, mine = words_of(row), set(np.flatnonzero(c[~SPECIAL[row]]).tolist())
        budget = min(max_predictions(masking, 64), max(1, round(0.15 * int(size))))
        walk = {
            "whole words": lambda w=words, b=budget: reference_masking.whole_words(w, b, rng),
            "albert": lambda w=words, b=budget: reference_masking.ngrams(w, b, rng),
            "spanbert": lambda w=words: reference_masking.spans(w, rng),
        }[law]()
        for counters, some in ((ours, mine), (theirs, walk)):
            counters[0].update(reference_masking.run_lengths(some))
            counters[1].update(word_runs(words, some))
    for a, b in zip(ours, theirs, strict=True):
        n, m = a.total(), b.total()
        assert sum(abs(a[k] / n - b[k] / m) for k in a | b) / 2 < 0.03


def test_boundaries_stand_beside_the_span_and_are_text() -> None:
    batch = rows()
    out = run(LAWS["spanbert"], batch)
    chosen, tokens = hidden(out), np.asarray(batch["tokens"])
    r, p = np.nonzero(out["sbo_weights"])
    left, right, place = (out[k][r, p] for k in ("left", "right", "offset"))
    at = out["masked"][r, p]
    assert np.array_equal(left + 1 + place, at)
    for side in (left, right):
        assert not chosen[r, side].any()
        assert not SPECIAL[tokens[r, side]].any()
    assert all(chosen[i, a + 1 : b].all() for i, a, b in zip(r, left, right, strict=True))
    dropped = (out["weights"] > 0) & (out["sbo_weights"] == 0)
    r, p = np.nonzero(dropped)
    sides = [tokens[r, np.clip(out[k][r, p], 0, 63)] for k in ("left", "right")]
    assert (SPECIAL[sides[0]] | SPECIAL[sides[1]]).all()


def test_a_row_has_its_masks_whatever_batch_it_comes_in() -> None:
    batch = rows(8)
    whole = run(LAWS["albert"], batch)
    part = run(LAWS["albert"], {k: v[3:6] for k, v in batch.items()})
    assert all(np.array_equal(part[k], whole[k][3:6]) for k in whole)


@pytest.mark.parametrize(("copies", "new"), [(None, [1, 1, 1]), (2, [1, 0, 1]), (1, [0, 0, 0])])
def test_static_masks_come_back_and_dynamic_ones_do_not(copies: int | None, new: list) -> None:
    masking, batch = replace(LAWS["bert"], num_static_masks=copies), rows(20)
    first = run(masking, batch)["masked"]
    for epoch, changed in enumerate(new, 1):
        later = run(masking, {**batch, "epoch": batch["epoch"] + epoch})["masked"]
        assert np.array_equal(first, later) == (not changed)


def test_a_row_of_specials_alone_hides_nothing() -> None:
    batch = {k: v[:1] for k, v in rows().items()}
    batch |= {"tokens": jnp.full((1, 64), SEP, jnp.int32)}
    for law in sorted(set(LAWS) - {"roberta"}):
        assert not run(LAWS[law], batch)["weights"].any()
