"""Sentence pairs: what is order, and what is topic."""

from typing import Any

import numpy as np
import pytest

from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.inference.evaluation import pair_scores
from bert_jax.inference.evaluation.token_rows import TokenRows

SPECIAL = SpecialTokens(1, 2)


def pair_rows(
    pairs: list[tuple[list[int], list[int]]], labels: list[int], special: SpecialTokens = SPECIAL
) -> TokenRows:
    built = [special.build_row(a, b) for a, b in pairs]
    tokens = np.zeros((len(pairs), 9), np.int32)
    for i, (ids, _) in enumerate(built):
        tokens[i, : len(ids)] = ids
    sizes, firsts = [len(ids) for ids, _ in built], [first for _, first in built]
    return TokenRows(tokens, *(np.array(x, np.int32) for x in (sizes, firsts, labels)))


@pytest.mark.parametrize("special", [SPECIAL, SpecialTokens(1, 2, doubled=True)])
def test_swapped_segments_are_in_the_other_order(special: SpecialTokens) -> None:
    rows = pair_rows([([5, 6], [7]), ([8], [9, 5, 6])], [0, 1], special)
    swapped = pair_scores.swap_segments(rows, special)
    expected = pair_rows([([7], [5, 6]), ([9, 5, 6], [8])], [0, 1], special)
    again = pair_scores.swap_segments(swapped, special)
    for name in ("tokens", "size", "first", "pair"):
        assert np.array_equal(getattr(swapped, name), getattr(expected, name))
        assert np.array_equal(getattr(again, name), getattr(rows, name))


class Model:
    """Its pair head answers by a function of a row's two segments."""

    def __init__(self, label: Any) -> None:
        self.label = label
        self.tokenizer = type("Tokenizer", (), {"special_tokens": SPECIAL})

    def log_probabilities(self, rows: TokenRows) -> np.ndarray:
        segments = [
            (t[1 : f - 1], t[f : s - 1])
            for t, f, s in zip(rows.tokens, rows.first, rows.size, strict=True)
        ]
        answers = np.array([self.label(a.tolist(), b.tolist()) for a, b in segments])
        return np.where(answers[:, None] == np.arange(2), -0.1, -2.0)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_scores, "_log_probabilities", lambda m, r: m.log_probabilities(r))


def order(label: Any, rows: TokenRows, train: TokenRows | None = None) -> pair_scores.OrderScores:
    counts = pair_scores.SegmentCounts.fit(rows if train is None else train, SPECIAL, 40)
    model: Any = Model(label)
    scores = pair_scores.order_scores(model, rows, counts)
    assert scores is not None
    return scores


@pytest.mark.parametrize(
    ("label", "of_pairs", "of_order"),
    [
        (lambda a, b: int(a[0] // 10 != b[0] // 10), 0.75, 0.5),  # the topic, in tens
        (lambda a, b: int(a[0] > b[0]), 1.0, 1.0),  # the order within a document
        (lambda a, b: 0, 0.5, 0.5),
    ],
    ids=["topic", "order", "constant"],
)  # fmt: skip
def test_a_model_that_knows_topics_alone_does_not_know_the_order(
    label: Any, of_pairs: float, of_order: float, answers: None
) -> None:
    """ALBERT's pairs: two in order, one swapped, and one with a random segment before it."""
    pairs = [([11], [12]), ([23], [24]), ([12], [11]), ([33], [14])]
    rows = pair_rows(pairs, [0, 0, 1, 1])
    model: Any = Model(label)
    scores = pair_scores.pair_scores(model, rows, 0.5)
    assert scores is not None
    of_neighbors = order(label, rows)
    assert (scores.accuracy, of_neighbors.accuracy) == (of_pairs, of_order)
    assert of_neighbors.neighbors == 2


def test_rows_that_fill_their_length_were_trimmed_and_do_not_count(answers: None) -> None:
    rows = pair_rows([([11], [12]), ([11, 12, 13], [14, 15, 16])], [0, 0])
    assert rows.size.tolist() == [5, 9]
    assert order(lambda a, b: int(a[0] > b[0]), rows).neighbors == 1


@pytest.mark.parametrize("rule", [lambda a, b: len(a) > len(b), lambda a, b: len(a) - len(b) > 1])
def test_no_rule_about_the_difference_of_the_lengths_knows_the_order(
    rule: Any, answers: None
) -> None:
    """Of first segments four are longer and two are shorter: two of one token more are left out."""
    longer = [([5, 6], [7]), ([8, 9], [10]), ([5, 6], [8]), ([5, 6, 7], [8])]
    shorter = [([9], [10, 11]), ([9], [10, 11, 12])]
    rows = pair_rows([*longer, *shorter, ([5], [6])], [0] * 7)
    scores = order(lambda a, b: int(not rule(a, b)), rows)
    assert (scores.neighbors, scores.accuracy) == (5, 0.5)
    assert order(lambda a, b: int(a[0] > b[0]), rows).accuracy == 1.0


def test_the_rows_left_are_from_the_whole_text() -> None:
    rows = pair_rows([([5, i], [7]) for i in range(10, 20)] + [([5], [6, 7])] * 2, [0] * 12)
    kept = pair_scores.balanced_lengths(rows, SPECIAL)
    assert kept.tokens[:, 2].tolist() == [10, 15, 2, 2]


def test_words_that_begin_or_end_pairs_tell_the_order_to_counts(answers: None) -> None:
    """20 stands in first segments of the training rows, and the same token in both elsewhere."""
    train = pair_rows([([20, 5], [6, 5]), ([20, 6], [5, 6])], [0, 0])
    rows = pair_rows([([20], [7]), ([8], [20]), ([8], [9]), ([20, 8], [9, 9])], [0] * 4)
    constant = order(lambda a, b: 0, rows, train)
    assert (constant.accuracy, constant.counts_accuracy) == (0.5, (1 + 0 + 0.5 + 1) / 4)


def test_the_difference_to_counts_is_paired_by_row(answers: None) -> None:
    """A model that answers as counts do differs from them by 0 ± 0, whatever they score."""
    train = pair_rows([([20, 5], [6, 5]), ([20, 6], [5, 6])], [0, 0])
    rows = pair_rows([([20], [7]), ([8], [20]), ([20], [9])], [0] * 3)
    same = order(lambda a, b: int(20 in b), rows, train)
    assert same.accuracy == same.counts_accuracy == 2 / 3
    assert same.difference_error == 0 < same.standard_error
    right = order(lambda a, b: int((a, b) in [([7], [20]), ([20], [8]), ([9], [20])]), rows, train)
    assert right.accuracy == 1
    assert right.difference_error == pytest.approx(1 / 3)


@pytest.mark.parametrize("number", [1, 5, 400])
def test_an_accuracy_of_one_has_an_error(number: int, answers: None) -> None:
    """It falls as one over the number of pairs: the rule of three gives an upper limit of 3 / n."""
    scores = order(lambda a, b: int(a[0] > b[0]), pair_rows([([5], [6])] * number, [0] * number))
    assert scores.accuracy == 1
    assert 0.4 < number * scores.standard_error < 1.1
    assert np.isnan(scores.difference_error) == (number == 1)


def test_without_neighbors_or_a_pair_head_there_is_no_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = Model(lambda a, b: 0)
    monkeypatch.setattr(pair_scores, "_log_probabilities", lambda m, r: None)
    for label in (0, 1):
        rows = pair_rows([([5], [6])], [label])
        counts = pair_scores.SegmentCounts.fit(rows, SPECIAL, 40)
        assert pair_scores.order_scores(model, rows, counts) is None
