"""Texts that are longer than the model: the mean of their windows."""

from typing import Any

import numpy as np
import pytest

from bert_jax.inference.features import FeatureRow
from bert_jax.inference.long_features import check_long, mean_of_windows, split_rows

CLS, SEP = 2, 3


def row(n: int, skip: int = 0) -> FeatureRow:
    return FeatureRow(np.array([CLS, *range(10, 10 + n), SEP]), n + 2, None, skip)


def test_windows_hold_every_piece_once_between_special_tokens() -> None:
    windows, owners = split_rows([row(3), row(0), row(17), row(6)], 8)
    assert owners == [0, 1, 2, 2, 2, 3]
    assert all((w.tokens[0], w.tokens[-1]) == (CLS, SEP) for w in windows)
    assert all(len(w.tokens) == w.first <= 8 for w in windows)
    pieces = np.concatenate([w.tokens[1:-1] for w in windows[2:5]])
    assert pieces.tolist() == list(range(10, 27))
    assert [len(w.tokens) for w in windows[2:5]] == [8, 8, 7]


def test_the_mean_is_that_of_all_tokens_and_a_single_window_keeps_its_bits() -> None:
    windows, owners = split_rows([row(3), row(9, skip=2)], 8)
    vectors = [np.float32([[0.1, 0.2]]), np.float32([[1, 0]]), np.float32([[0, 1]])]
    means = mean_of_windows(vectors, windows, owners, "mean", False)
    assert means[0] is vectors[0]
    sizes = np.array([7 - 2, 6])  # tokens that count: the prompt of the first window does not
    np.testing.assert_allclose(means[1], [sizes / sizes.sum()], rtol=1e-6)
    cls = mean_of_windows(vectors, windows, owners, "cls", False)[1]
    np.testing.assert_allclose(cls, [[0.5, 0.5]])
    unit = mean_of_windows(vectors, windows, owners, "sentence", True)[1]
    assert np.linalg.norm(unit) == pytest.approx(1)


@pytest.mark.parametrize(
    ("long", "pool", "truncate", "message"),
    [
        ("windows", "mean", False, "long is 'windows': expected 'mean' or None"),
        ("mean", "words", False, "not pool 'words': use "),
        ("mean", None, False, "not pool None: use "),
        ("mean", "mean", True, "both given: leave one of them out"),
    ],
)
def test_what_cannot_be_averaged_is_refused(
    long: Any, pool: Any, truncate: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_long(long, pool, truncate)
