"""A model in use: the same numbers whatever the batch, and the layers that were asked for."""

from pathlib import Path

import jax
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import BERT, ELECTRA, Experiment, replace
from bert_jax.predict import Model
from bert_jax.text import documents, tokenizer

SAMPLE = Path(__file__).parents[1] / "data" / "sample.txt"
TEXTS = [
    "A short one.",
    "The war and the peace that is to follow are uppermost in our minds.",
    "Yes.",
    *(f"Sentence number {i} of many." for i in range(70)),
]


@pytest.fixture(scope="module")
def words() -> tokenizer.Tokenizer:
    lines = [p for d in documents.read([SAMPLE]) for p in d.paragraphs][:300]
    return tokenizer.train(lines, "wordpiece", 1200)


def model(words: tokenizer.Tokenizer, base: Experiment = BERT) -> Model:
    sizes = dict(layers=3, hidden_size=24, heads=2, embedding_size=12, max_length=40)
    config = replace(base, encoder=sizes | dict(vocab_size=words.vocab_size, init_scale=0.3))
    return Model(config, jax.jit(objectives.build(config).init)(jax.random.key(0)), words)


@pytest.mark.parametrize("base", [BERT, ELECTRA])
def test_a_text_has_one_vector_alone_or_in_a_batch(
    base: Experiment, words: tokenizer.Tokenizer
) -> None:
    m = model(words, base)
    batch = m.encode(TEXTS, layers=(0, 3))
    for i in (0, 1, 40):
        alone = m.encode([TEXTS[i]], layers=(0, 3))[:, 0]
        assert np.abs(alone - batch[:, i]).max() <= 1e-6 * np.abs(batch).max()


def test_layers_are_counted_from_the_embedding_block(words: tokenizer.Tokenizer) -> None:
    m = model(words)
    a = m.encode(TEXTS[:2], layers=(0, 1, 2, 3))
    assert a.shape == (4, 2, 24)
    assert np.array_equal(a[[3, 0]], m.encode(TEXTS[:2], layers=(-1, -4)))
    assert m.encode(TEXTS[:2], layers="words").shape == (1, 2, 12)


def test_pooling_is_over_the_tokens_of_the_text(words: tokenizer.Tokenizer) -> None:
    m = model(words)
    tokens = m.encode(TEXTS[:2], layers=(2,), pool=None)
    lengths = [len(words.row(words.encode(t))[0]) for t in TEXTS[:2]]
    assert [t.shape for t in tokens] == [(1, n, 24) for n in lengths]
    for pool, f in (("mean", lambda t: t.mean(1)), ("cls", lambda t: t[:, 0])):
        pooled = m.encode(TEXTS[:2], layers=(2,), pool=pool)  # type: ignore[arg-type]
        assert np.allclose(pooled[:, 1], f(tokens[1]), atol=1e-6)


@pytest.mark.parametrize("base", [BERT, ELECTRA])
def test_fill_gives_probabilities_in_order(base: Experiment, words: tokenizer.Tokenizer) -> None:
    guesses = model(words, base).fill("The [MASK] of the [MASK].", top=1200)
    assert len(guesses) == 2
    for mask in guesses:
        p = [p for _, p in mask]
        assert p == sorted(p, reverse=True)
        assert abs(sum(p) - 1) < 1e-5


def test_truncation_is_asked_for(words: tokenizer.Tokenizer) -> None:
    m, long = model(words), "word " * 100
    with pytest.raises(ValueError, match="the model takes 40"):
        m.encode([long])
    (cut,) = m.encode([long], truncate=True, pool=None)
    assert cut.shape[1] == 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(layers=(4,)), "the model has layers 0 to 3"),
        (dict(pool="max"), "expected 'mean', 'cls' or None"),
    ],
)
def test_what_is_not_there_is_an_error(
    call: dict, message: str, words: tokenizer.Tokenizer
) -> None:
    with pytest.raises(ValueError, match=message):
        model(words).encode(["a"], **call)
