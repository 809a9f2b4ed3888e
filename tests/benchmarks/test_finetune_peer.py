"""The same model is kept in transformers as in bert_jax."""

import math

import pytest


@pytest.mark.peer
def test_the_best_is_the_latest_of_equals_and_nan_is_lowest() -> None:
    from benchmarks.finetune_peer import is_best

    assert is_best(0.5, 0.5)
    assert is_best(0.5, -math.inf)
    assert not is_best(0.4, 0.5)
    assert not is_best(math.nan, 0.5)
    assert is_best(math.nan, -math.inf)
