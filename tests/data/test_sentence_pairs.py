"""Validation pairs: of their own split, as many with label 1 as with label 0, and as long as in
training, in any script."""

from collections import Counter

import numpy as np
import pytest

from bert_jax.data import sentence_pairs, shard_rows, splits
from bert_jax.data.segments import Sentences, TokenRow
from bert_jax.data.sentence_pairs import BalancedCoin, PairDraws, balance_labels
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.data.work_shards import RowConfig, RowTask, WorkShard

SPECIALS = SpecialTokens(1, 2)
WALKS = {
    "nsp": sentence_pairs.next_sentence_pairs,
    "sop": sentence_pairs.sentence_order_pairs,
}


def numbered(document: int, sentences: int, seed: int = 0, longest: int = 30) -> Sentences:
    """A document whose every token is 1000 x its number + the number of the sentence."""
    lengths = np.random.default_rng((seed, document)).integers(3, longest, sentences)
    return Sentences(np.repeat(1000 * (document + 1) + np.arange(sentences), lengths), lengths)


def rows_of(
    kind: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch, seed: int = 0, length: int = 32
) -> dict[str, list[TokenRow]]:
    """The rows of one shard of documents with so many sentences each, by split."""
    store = [numbered(i, n, seed) for i, n in enumerate(sizes)]
    monkeypatch.setattr(shard_rows, "read_document", lambda _, number: store[number])
    config = RowConfig(kind, length, seed, SPECIALS, 0, 60_000)
    task = RowTask(config, len(sizes), "store")
    return shard_rows.make_rows(WorkShard(0, 0, len(sizes)), task)


def labels(rows: list[TokenRow]) -> Counter[int]:
    return Counter(row.pair for row in rows)


@pytest.mark.parametrize("kind", WALKS)
@pytest.mark.parametrize("documents", [2, 3, 7, 20, 39, 45])
def test_every_token_of_a_row_is_from_the_row_s_own_split(kind, documents, monkeypatch) -> None:
    for split, rows in rows_of(kind, [25] * documents, monkeypatch).items():
        folds = min(splits.NUM_FOLDS, documents)
        used = {int(i) // 1000 - 1 for row in rows for i in row.tokens if i >= 1000}
        assert {splits.split_name(n, folds) for n in used} == {split}


@pytest.mark.parametrize("kind", WALKS)
def test_a_split_of_one_document_has_no_random_segment(kind, monkeypatch) -> None:
    """Its rows keep the text; those that call for another document have no label."""
    rows = rows_of(kind, [60, 60], monkeypatch)
    assert min(map(len, rows.values())) > 0
    for split in rows.values():
        for row in split:
            documents = {int(i) // 1000 for i in row.tokens if i >= 1000}
            assert len(documents) == 1
        covered = {int(i) % 1000 for row in split for i in row.tokens if i >= 1000}
        assert len(covered) > 50  # a sentence that is cut away at a row's end may be missing
    assert set(labels(rows["train"])) == ({-1, 0} if kind == "nsp" else {-1, 0, 1})


@pytest.mark.parametrize(
    ("number", "documents", "others"),
    [(3, 6, {0, 1, 2, 4}), (19, 40, {39}), (39, 40, {19}), (39, 60, {19, 59})],
)
def test_a_drawn_document_is_any_other_one_of_the_split(
    number, documents, others, monkeypatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(shard_rows, "read_document", lambda _, n: drawn.append(n))
    task = RowTask(RowConfig("nsp", 32, 0, SPECIALS, 0, 99), documents, "store")
    rng = np.random.default_rng(0)
    for _ in range(100):
        shard_rows.draw_other(number, task, rng)
    assert set(drawn) == others


@pytest.mark.parametrize("kind", WALKS)
@pytest.mark.parametrize("seed", range(5))
def test_validation_pairs_are_balanced(kind, seed, monkeypatch) -> None:
    """The labels that are left out are the surplus of rows that one sentence fills, and at most
    one more."""
    monkeypatch.setattr(shard_rows, "balance_labels", lambda rows, _: rows)
    before = rows_of(kind, [40] * 100, monkeypatch, seed)["validation"]
    monkeypatch.undo()
    after = rows_of(kind, [40] * 100, monkeypatch, seed)["validation"]
    assert [row.tokens.tolist() for row in after] == [row.tokens.tolist() for row in before]
    assert all(a.pair in (b.pair, -1) for a, b in zip(after, before, strict=True))
    counts = labels(before)
    assert labels(after)[0] == labels(after)[1] == min(counts[0], counts[1])
    assert min(counts[0], counts[1]) >= 0.35 * len(before)


def test_balancing_takes_labels_from_the_more_frequent_one_at_random() -> None:
    """So the rows of a label are, on average, what they were: here, long ones as often."""
    rows = [TokenRow(np.zeros(5 + i % 2), 3, int(i % 10 < 7)) for i in range(4000)]
    balanced = balance_labels(rows, np.random.default_rng(0))
    assert labels(balanced) == {1: 1200, 0: 1200, -1: 1600}
    long = np.mean([len(row.tokens) == 6 for row in balanced if row.pair == 1])
    assert abs(long - 3 / 7) < 4 * np.sqrt(0.25 / 1200)
    assert balance_labels([], np.random.default_rng(0)) == []
    assert labels(balance_labels(rows[:1], np.random.default_rng(0))) == {-1: 1}


def test_a_balanced_coin_is_fair_and_never_off_by_more_than_one() -> None:
    coin, rng = BalancedCoin(), np.random.default_rng(0)
    flips = np.array([coin(rng) for _ in range(4001)])
    assert (np.abs(2 * np.cumsum(flips) - np.arange(1, 4002)) <= 1).all()
    assert abs(flips[::2].mean() - 0.5) < 4 * np.sqrt(0.25 / 2001)


@pytest.mark.parametrize("kind", WALKS)
def test_few_long_documents_have_rows_as_short_as_many_documents_in_training(kind) -> None:
    """The share of rows by length: 8 held-out documents with many targets, 3,000 documents with one
    each. With one target each the 8 are a matter of luck."""

    def short_share(documents: int, sentences: int, draws: PairDraws, seed: int = 0) -> float:
        rng, sizes = np.random.default_rng(seed), []
        other = numbered(0, 50)
        for i in range(documents):
            walk = WALKS[kind](numbered(i, sentences, 1), 64, SPECIALS, rng, lambda _: other, draws)
            sizes += [len(row.tokens) for row in walk]
        return float((np.array(sizes) < 40).mean())

    law = short_share(3000, 100, PairDraws())
    held_out = [short_share(8, 1200, PairDraws.held_out(), seed) for seed in range(6)]
    per_document = [short_share(8, 1200, PairDraws(), seed) for seed in range(6)]
    assert abs(np.mean(held_out) - law) < 0.03, (law, held_out)
    assert np.std(held_out) < 0.5 * np.std(per_document), (held_out, per_document)
