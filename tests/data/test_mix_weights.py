"""The weights of a mix: given, or by the sizes of the corpora."""

from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import BERT, Data, replace
from bert_jax.data import mix_weights, mixture_report
from bert_jax.data.corpus import Corpus, CorpusInfo, SplitCounts
from bert_jax.data.mixture import StageData

TOKENS = {"en": 1_000_000, "ko": 10_000, "th": 100}


@pytest.fixture
def corpora() -> list[Corpus]:
    """Three corpora of very different sizes, two duplicates each, 10 tokens a row; but Thai, whose
    rows have one."""
    made = []
    for name, tokens in TOKENS.items():
        rows = 2 * tokens // (1 if name == "th" else 10)
        train = SplitCounts(rows=rows, tokens=2 * tokens, sequences=rows)
        info = CorpusInfo("nsp", 16, 0, 2, "bpe", "", 9, 0, 0, train, SplitCounts())
        made.append(Corpus(Path(name), info))
    return made


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0])
def test_weights_are_sizes_to_a_power(exponent: float, corpora: list[Corpus]) -> None:
    """With 0.3 Korean gets a quarter of what English gets, not a hundredth. It is tokens that are
    so divided, where a weight counts rows."""
    weights = np.array(mix_weights.weights_by_size(corpora, exponent))
    sizes = np.array([*TOKENS.values()], float)
    tokens = weights * [10, 10, 1]
    assert np.allclose(tokens / tokens.sum(), sizes**exponent / (sizes**exponent).sum())
    if exponent == 0.3:
        assert abs(weights[1] / weights[0] - 0.25) < 0.01
    if exponent == 1:
        rows = [c.info.train.rows for c in corpora]
        assert np.allclose(weights, rows / np.sum(rows)), "one pass over every text"


def test_a_run_says_how_often_it_reads_each_text(corpora: list[Corpus]) -> None:
    """200 steps of 50 rows: half of them of 100,000 rows of English, half of 1,000 of Korean."""
    config = replace(BERT, run=dict(steps=200), data=dict(batch_size=50))
    lines = mixture_report.describe_mixes(
        config, [StageData(config.stages[0], corpora[:2], [1.0, 1.0])]
    )
    assert lines == [
        "mix: en has 1,000,000 tokens and weight 50.0%: 0.05 passes over its text",
        "mix: ko has 10,000 tokens and weight 50.0%: 5.00 passes over its text",
    ]
    assert (
        mixture_report.describe_mixes(config, [StageData(config.stages[0], corpora[:1], None)])
        == []
    )


def test_a_run_says_how_often_it_reads_each_pair(corpora: list[Corpus]) -> None:
    """10,000 rows of 2,000, which are two passes over the text."""
    config = replace(BERT, run=dict(steps=200), data=dict(batch_size=50))
    stages = [StageData(config.stages[0], corpora[1:2], None)]
    (line,) = mixture_report.describe_repeated_pairs(config, stages)
    assert "each of the 2,000 pairs of ko is read 5.0 times" in line
    assert "prepare --duplicates 10 (now 2) makes enough new pairs" in line
    mixed = [StageData(config.stages[0], corpora[:2], [1.0, 1.0])]
    (line,) = mixture_report.describe_repeated_pairs(config, mixed)
    assert "pairs of ko is read 2.5 times" in line
    half = StageData(config.stages[0]._replace(start=100), corpora[1:2], None)
    (line,) = mixture_report.describe_repeated_pairs(config, [*stages, half])
    assert "pairs of ko is read 5.0 times" in line  # in both stages together
    once = replace(config, run=dict(steps=40))
    no_pairs = replace(config, objective=dict(sentence_pair=False))
    for quiet in (once, no_pairs):
        assert mixture_report.describe_repeated_pairs(quiet, stages) == []


def test_a_mix_has_weights_or_an_exponent() -> None:
    for mix in ("a=2,b=0.5", " a = 2, b= 0.5 "):
        assert mix_weights.parse_mix(Data(mix=mix)) == (["a", "b"], [2.0, 0.5])
    assert mix_weights.parse_mix(Data(mix="a,k=v/b", mix_exponent=0.3)) == (["a", "k=v/b"], None)


@pytest.mark.parametrize(
    ("mix", "exponent", "message"),
    [
        ("a=1,b", None, "no weight for 'b': expected PATH=WEIGHT, or no weights at all"),
        ("a=1,b=0", None, "'b=0': expected PATH=WEIGHT, with a weight above 0"),
        ("a=1,=1", None, "expected PATH=WEIGHT"),
        ("a=1,b=2", 0.3, "exponent is 0.3, which sets the weights, but data.mix has weights too"),
        ("a,b", -1.0, "exponent is -1.0: expected 0 to 1"),
        (None, 0.3, "expected 0 to 1, and data.mix with the paths"),
    ],
)
def test_other_mixes_are_refused(mix: str | None, exponent: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mix_weights.parse_mix(Data(mix=mix, mix_exponent=exponent))
