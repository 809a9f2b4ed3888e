"""Which lines a tokenizer is trained on."""

import numpy as np
import pytest

from bert_jax.data.tokenization import training


def test_a_sample_is_an_even_part_of_a_long_text_and_all_of_a_short_one():
    """It follows from the text alone, keeps its order and never holds more than was allowed."""
    texts = [f"{i:04d}" * 5 for i in range(5000)]  # 20 characters each: 100,000
    assert list(training.sample_texts(iter(texts), 1)) == texts
    drawn = list(training.sample_texts(iter(texts), 0.02))
    assert drawn == list(training.sample_texts(iter(texts), 0.02)) == sorted(drawn)
    assert len(drawn) == 1000
    middle = np.mean([int(text[:4]) for text in drawn])
    assert abs(middle - 2500) < 4 * 1443 / np.sqrt(1000)
    assert set(training.sample_texts(iter(texts), 0.01)) < set(drawn)
    with pytest.raises(ValueError, match="0 million characters: expected more than 0"):
        training.sample_texts(iter(texts), 0)
