"""Masks of whole words: none is hidden in part, and no row of text is left without a mask."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import BERT, Masking, replace
from bert_jax.data.mixture import StageData
from bert_jax.data.tokenization.words import word_edges
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.objectives.masking import mask_tokens
from bert_jax.objectives.word_boundaries import WordBoundaries
from bert_jax.training.assemble import CorpusData
from tests.helpers.labeled_rows import trained_tokenizer

# Words of 1 to 6 pieces. Pieces of Thai and Han need no mark.
PIECES = ["[PAD]", "[MASK]", "▁", "▁д", "ж", "юз", "▁눈", "이", "내", "렸", "ฝน", "ตก", "雪", "。"]
SPECIAL = np.arange(len(PIECES)) < 2
VOCABULARY = Vocabulary(1, SPECIAL, word_edges("unigram", PIECES))
N, LENGTH = 64, 24


@pytest.fixture(scope="module", params=["word", "ngram", "span"])
def masked(request):
    """Random rows of 4 to 24 pieces before and after masking; half of them are a single word."""
    rng = np.random.default_rng(0)
    size = rng.integers(4, LENGTH + 1, N)
    tokens = rng.integers(2, len(PIECES), (N, LENGTH))
    tokens[::2] = 4
    tokens[np.arange(LENGTH) >= size[:, None]] = 0
    masking = Masking(granularity=request.param, max_ngram=3)
    batch = {"tokens": tokens, "size": size, "row": np.arange(N), "epoch": np.zeros(N)}
    batch = {k: jnp.asarray(v, jnp.int32) for k, v in batch.items()}
    out = jax.jit(lambda b: mask_tokens(b, masking, VOCABULARY, jax.random.key(0)))(batch)
    return request.param, tokens, size, jax.tree.map(np.asarray, out)


def test_every_row_hides_something_and_at_most_its_budget(masked):
    _, _, size, out = masked
    hidden = out["weights"].sum(1)
    assert (hidden >= 1).all()
    assert (hidden <= np.maximum(1, np.round(0.15 * size))).all()


@pytest.mark.parametrize("masked", ["word", "ngram"], indirect=True)
def test_a_word_that_fits_the_budget_is_hidden_as_a_whole(masked):
    """But not by SpanBERT, whose last span ends with the budget, within a word if need be."""
    _, tokens, size, out = masked
    for i in range(N):
        begins = VOCABULARY.words.begins_word(tokens[i, : size[i]])
        words = np.cumsum(begins | (np.arange(size[i]) == 0))
        hidden = np.isin(np.arange(size[i]), out["masked"][i][out["weights"][i] > 0])
        for word in set(words):
            budget = max(1, round(0.15 * size[i]))
            assert (words == word).sum() > budget or len({*hidden[words == word]}) == 1


def test_whole_words_do_not_become_n_grams(masked):
    """BERT's whole-word masking draws words one by one, whatever `max_ngram` is."""
    granularity, tokens, size, out = masked
    runs = []
    for i in range(N):
        begins = VOCABULARY.words.begins_word(tokens[i, : size[i]])
        words = np.cumsum(begins | (np.arange(size[i]) == 0))
        places = out["masked"][i][out["weights"][i] > 0]
        runs += list(np.diff(np.unique(words[places])) == 1)
    neighbors = np.mean(runs)
    assert neighbors < 0.35 if granularity == "word" else neighbors > 0.35


def test_the_word_rule_of_the_config_is_that_of_the_vocabulary() -> None:
    tokenizer = trained_tokenizer("unigram")
    info = SimpleNamespace(segmented=False, train=SimpleNamespace(rows=1))
    unigram = np.ones(tokenizer.vocab_size)
    corpus: Any = SimpleNamespace(tokenizer=tokenizer, info=info, unigram=unigram)
    stages = [StageData(BERT.stages[0], [corpus], None)]
    starts = []
    for rule in ("script", "albert"):
        config = replace(BERT, objective=dict(masking=dict(word_rule=rule)))
        starts.append(CorpusData(config, stages).vocabulary.words.starts)
        assert np.array_equal(starts[-1], tokenizer.word_edges(rule).starts)
    assert (starts[0] != starts[1]).any()


@pytest.mark.parametrize(
    ("size", "budget", "parts"),
    [(7, 3, [3, 3, 1]), (9, 4, [3, 3, 3]), (4, 4, [4]), (3, 0, [1] * 3)],
)
def test_a_longer_word_is_cut_into_equal_parts(size, budget, parts):
    words = WordBoundaries.from_starts(jnp.arange(12) < size, jnp.zeros(12, bool), budget)
    assert np.diff(words.bounds)[: len(parts)].tolist() == parts
    assert words.num_words == len(parts)
