"""The table of languages counts what it says."""

from typing import Any

import numpy as np
import pytest

from benchmarks import language_texts, languages
from bert_jax.data.tokenization.training import train_tokenizer
from tests.helpers.paths import ROOT

LINES = (ROOT / "data/korean/text.txt").read_text(encoding="utf-8").split("\n")[::2]


@pytest.fixture(scope="module", params=["unigram", "bpe", "wordpiece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    size = {"unigram": 450, "bpe": 700, "wordpiece": 1500}[request.param]
    return train_tokenizer(LINES, request.param, size, cased=True)


def test_words_are_counted_from_the_text(tokenizer: Any) -> None:
    """A final stop is a word of WordPiece alone; characters of Thai are words."""
    ids, words = languages.encode_words("눈이 하얗게 쌓여 있었다.", tokenizer)
    assert len({*words}) == 4 + (tokenizer.kind == "wordpiece")
    assert len(ids) == len(words)
    assert (np.diff(words) >= 0).all()


@pytest.mark.peer
@pytest.mark.slow
def test_no_word_of_korean_is_hidden_in_part_and_ids_agree(tokenizer: Any) -> None:
    row = languages.measure("ko", tokenizer, LINES, language_texts.random_lines("ko"))
    assert row["partial"] == row["bare"] == row["ids_text"] == row["ids_random"] == 0
    assert row["lost"] == 0


def test_a_part_of_a_word_that_is_hidden_is_seen(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single tokens instead of whole words leave parts of many words."""
    encoded = [languages.encode_words(line, tokenizer) for line in LINES]
    rng = np.random.default_rng(0)
    monkeypatch.setattr(languages, "hide", lambda tokens, *_: rng.random(tokens.shape) < 0.15)
    partial, bare = languages.masked_words(encoded, tokenizer)
    assert partial > 0.01  # most words of WordPiece are single pieces here
    assert bare < 0.1
