"""The stored rows of the demo have the form and the number of tokens that were measured."""

import numpy as np

from tests.helpers import demo_rows


def test_the_stored_rows_are_427_pairs_with_padding() -> None:
    """[CLS] a [SEP] b [SEP] and padding, of a vocabulary of 4,000 pieces."""
    rows = demo_rows.load()
    tokens, size, first = rows["tokens"], rows["size"], rows["first"]
    assert tokens.shape == (427, 64)
    assert int(size.sum()) == 25_522
    assert (tokens[:, 0] == 101).all()
    ends = np.stack([first, size], 1) - 1
    assert (np.take_along_axis(tokens, ends, 1) == 102).all()
    assert (tokens[np.arange(64) >= size[:, None]] == 0).all()
    assert tokens.max() < 4000
    assert set(rows["pair"]) == {0, 1}
    assert len(demo_rows.tokenizer_fingerprint()) == 64
