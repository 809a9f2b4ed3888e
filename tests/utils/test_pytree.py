"""Rows in parts and back."""

import numpy as np

from bert_jax.utils.pytree import join_rows, split_rows


def test_joined_parts_are_the_rows_in_their_order() -> None:
    """A part takes every n-th row, so that a device, which holds neighbors, has rows of each."""
    rows = {"a": np.arange(12).reshape(6, 2), "b": np.arange(6)}
    parts = split_rows(rows, 3)
    assert parts["b"].tolist() == [[0, 3], [1, 4], [2, 5]]
    joined = join_rows(parts)
    assert all(np.array_equal(joined[name], rows[name]) for name in rows)
