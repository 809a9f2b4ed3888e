"""The prompts of the demo are filled in by counts, too: what needs no model."""

import numpy as np
import pytest

from bert_jax.inference.demo_prompts import fill_by_counts, is_sensible
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds
from tests.helpers.labeled_rows import trained_tokenizer


def test_counts_fill_in_what_stood_beside_the_same_neighbors() -> None:
    """Of `the c ##at s ##at`: what followed `the`, and what preceded `s`."""
    tokenizer = trained_tokenizer("wordpiece")
    ids = tokenizer.build_row(tokenizer.encode("the cat sat"))[0]
    rows = np.array([ids] * 8)
    counts = NeighborCounts.fit(rows, TokenKinds.of(tokenizer))
    masked = f"the {tokenizer.mask_token} sat"
    assert set(fill_by_counts(counts, tokenizer, masked, 2)) == {"c", "##at"}


@pytest.mark.parametrize(
    ("words", "sensible"),
    [
        (["a", "b", "c", "x"], False),
        (["a", "b", "x"], True),
        (["Ġx", " X", "b"], True),
        ([], False),
    ],
)
def test_an_accepted_word_counts_among_the_first_three(words: list[str], sensible: bool) -> None:
    assert is_sensible(words, ["x", "y"]) == sensible
