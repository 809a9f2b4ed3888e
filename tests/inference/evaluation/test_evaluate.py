"""`evaluate` on corpora and texts: the same scores wherever the rows come from, and no row scored
by its own text."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.config import BERT, ELECTRA, SPANBERT, replace
from bert_jax.data import documents, records
from bert_jax.data.corpus import Corpus
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.inference.evaluation import evaluate, replaced_tokens, text_counts, token_rows
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds
from bert_jax.inference.evaluation.pair_scores import OrderScores
from bert_jax.inference.evaluation.tables import render_evaluation
from tests.helpers.known_models import contextless_model, small_model
from tests.helpers.paths import SAMPLE

CONTRACT = {
    *("mask_loss", "mask_accuracy", "unigram_loss", "bigram_loss", "pair_accuracy"),
    *("rtd_auc", "rtd_recall", "bigram_auc", "bits_per_character"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 80 short documents, and a tokenizer trained on it."""
    root = tmp_path_factory.mktemp("evaluate")
    some = SAMPLE.read_text().split("\n\n")[:80]
    (root / "text.txt").write_text("\n\n".join(d[:800] for d in some))
    lines = [p for d in documents.read_documents([root / "text.txt"]) for p in d.paragraphs]
    train_tokenizer(lines, "wordpiece", 400).save(root / "tok")
    return root


def prepared(folder: Path, name: str, segments: str = "nsp", **options: int) -> Corpus:
    text, out = [str(folder / "text.txt")], folder / name
    options = {"duplicates": 1} | options
    return prepare_corpus(text, folder / "tok", segments, 32, out, progress=False, **options)


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return prepared(folder, "corpus")


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus) -> Tokenizer:
    return corpus.tokenizer


@pytest.mark.slow
def test_heads_that_need_other_fields_of_a_batch_do_not_matter(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    base = replace(SPANBERT, objective=dict(sentence_pair=True))
    result = evaluate.evaluate_corpus(small_model(tokenizer, base), corpus, maskings=1)
    assert result.pairs is not None


def test_a_corpus_gives_every_figure_with_its_baseline(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    result = evaluate.evaluate_corpus(small_model(tokenizer, BERT), corpus)
    values = result.to_json()
    assert values.keys() >= CONTRACT
    assert json.loads(json.dumps(values)) == values
    assert values["rows"] == values["total_rows"] == corpus.info.validation.rows
    assert values["unigram_loss"] > values["bigram_loss"] > 0
    assert values["mask_minus_bigram"] == pytest.approx(
        values["mask_loss"] - values["bigram_loss"], abs=1e-9
    )
    for name in ("accuracy", "top5"):
        expected = values[f"mask_{name}"] - values[f"bigram_{name}"]
        assert values[f"mask_{name}_minus_bigram"] == pytest.approx(expected, abs=1e-9)
        assert values[f"mask_{name}_minus_bigram_se"] > 0
    assert 0 < values["pair_accuracy"] < 1
    assert values["order_accuracy"] is None  # of next sentences
    assert values["rtd_auc"] is values["bits_per_character"] is None
    text = render_evaluation(result)
    for name in ("the model", "counts of both neighbors", "frequencies of tokens", "0.500"):
        assert name in text
    assert "worse than counts of the two neighboring tokens" in text
    assert "note: bits per character need raw text" in text


def test_the_order_of_sentences_stands_beside_their_pairs(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    result = evaluate.evaluate_corpus(small_model(tokenizer), corpus, max_rows=1, maskings=1)
    result = dataclasses.replace(result, order=OrderScores(12, 0.625, 0.05, 0.541, 0.072))
    values, text = result.to_json(), render_evaluation(result)
    names = ("order_neighbors", "order_counts_accuracy", "order_minus_counts_se")
    assert [values[name] for name in names] == [12, 0.541, 0.072]
    title = "12 untrimmed neighbors in both orders"
    for shown in (title, "0.625 ± 0.050", "0.541", "+0.084 ± 0.072"):
        assert shown in text


@pytest.mark.slow
def test_electra_is_scored_by_its_generator_and_its_discriminator(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    result = evaluate.evaluate_corpus(small_model(tokenizer, ELECTRA), corpus, maskings=1)
    values = result.to_json()
    for name in ("rtd_auc", "bigram_auc", "rtd_shuffled_auc"):
        assert 0 < values[name] < 1
    assert 0 <= values["rtd_recall"] <= 1
    assert values["pair_accuracy"] is None
    assert "tokens of each row shuffled" in render_evaluation(result)


@pytest.mark.slow
def test_only_context_is_lost_in_shuffled_rows(
    corpus: Corpus, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A discriminator that looks at each token alone has the same AUC in any order; one that looks
    at the token before it has not."""
    model = small_model(tokenizer, ELECTRA)

    def scored(shift: int) -> tuple[float, float]:
        def logits(rows: token_rows.TokenRows) -> np.ndarray:
            return np.sin(np.roll(rows.tokens, shift, axis=1), dtype=np.float32)

        monkeypatch.setattr(replaced_tokens, "_discriminator_logits", lambda _: logits)
        values = evaluate.evaluate_corpus(model, corpus, maskings=1).to_json()
        return values["rtd_auc"], values["rtd_shuffled_auc"]

    in_order, shuffled = scored(0)
    assert shuffled == pytest.approx(in_order, abs=1e-9)
    in_order, shuffled = scored(1)
    assert shuffled != pytest.approx(in_order, abs=1e-6)


def test_pairs_that_are_not_scored_are_noted(corpus: Corpus, tokenizer: Tokenizer) -> None:
    result = evaluate.evaluate_corpus(small_model(tokenizer), corpus, max_rows=1, maskings=1)
    assert result.pairs is None
    assert result.notes[0].startswith("no sentence pairs are scored: ")
    assert "one row does not say which is better" in render_evaluation(result)
    headless = contextless_model(tokenizer, np.zeros(tokenizer.vocab_size))
    notes = evaluate.evaluate_corpus(headless, corpus, max_rows=1, maskings=1).notes
    assert notes[0] == "the model has no head for the corpus's sentence pairs"


def test_a_model_that_is_not_finite_has_no_score(corpus: Corpus, tokenizer: Tokenizer) -> None:
    """NaN is below no logit: every answer would be right."""
    model = contextless_model(tokenizer, np.full(tokenizer.vocab_size, np.nan))
    with pytest.raises(ValueError, match=r"loss is not finite at [0-9,]+ of "):
        evaluate.evaluate_corpus(model, corpus, max_rows=2, maskings=1)


def test_a_sample_of_rows_is_drawn_and_said(corpus: Corpus, tokenizer: Tokenizer) -> None:
    result = evaluate.evaluate_corpus(small_model(tokenizer), corpus, max_rows=3)
    assert (result.rows, result.total_rows) == (3, corpus.info.validation.rows)
    assert f"3 of {result.total_rows} rows" in render_evaluation(result)


def test_packed_rows_are_evaluated_one_sequence_at_a_time(folder: Path, corpus: Corpus) -> None:
    packed = prepared(folder, "packed", pack=3, row_length=70)
    for split in ("train", "validation"):
        ours, theirs = (token_rows.corpus_rows(c, split) for c in (packed, corpus))
        assert ours.tokens.shape[1] == 32
        rows = [
            sorted(map(tuple, np.c_[r.tokens, r.size, r.first, r.pair])) for r in (ours, theirs)
        ]
        assert rows[0] == rows[1]


def test_of_duplicates_one_pass_is_counted(folder: Path, corpus: Corpus) -> None:
    thrice = prepared(folder, "thrice", duplicates=3)
    rows = token_rows.corpus_rows(thrice, "train")
    assert abs(len(rows) / corpus.info.train.rows - 1) < 0.1
    once = token_rows.corpus_rows(corpus, "train")
    shared = min(len(rows), len(once)) - 1
    assert np.array_equal(rows.tokens[:shared], once.tokens[:shared])


def test_random_second_segments_do_not_fit_the_weights(corpus: Corpus) -> None:
    rows = token_rows.corpus_rows(corpus, "train")
    distinct = token_rows.without_random_segments(rows, "nsp", corpus.info.pad_id)
    assert np.array_equal(distinct.size, np.where(rows.pair == 1, rows.first, rows.size))
    assert ((distinct.tokens != corpus.info.pad_id).sum(1) == distinct.size).all()
    assert token_rows.without_random_segments(rows, "sop", 0) is rows


@pytest.mark.slow
def test_each_half_of_a_text_is_scored_by_the_other(folder: Path, tokenizer: Tokenizer) -> None:
    """A model with the frequencies of one half scores as they do on the other, not on its own."""
    text = folder / "text.txt"
    parts = token_rows.text_rows(documents.read_documents([text]), tokenizer, 32)
    rows = token_rows.TokenRows.concatenate(parts)
    middle = text_counts.find_middle([len(part) for part in parts])
    assert 0.4 < middle / len(rows) < 0.6
    counts = NeighborCounts.fit(rows.tokens[:middle], TokenKinds.of(tokenizer))
    unigram = np.log(np.maximum(counts.tables.unigram, 1e-30))
    model = contextless_model(tokenizer, unigram)
    result = evaluate.evaluate_text(model, text, max_rows=9999, max_words=5, maskings=1)
    is_second = result.masked.row >= middle
    model_loss, unigram_loss = result.masked.model.loss, result.masked.unigram.loss
    assert model_loss[is_second] == pytest.approx(unigram_loss[is_second], abs=1e-4)
    assert abs(model_loss[~is_second] - unigram_loss[~is_second]).mean() > 0.01
    assert "other half" in result.counts
    assert result.to_json()["bits_per_character"] > 0
    assert "bits per character" in render_evaluation(result)
    assert not result.notes


def test_counts_of_another_file(folder: Path, tokenizer: Tokenizer) -> None:
    whole = (folder / "text.txt").read_text().split("\n\n")
    for name, part in (("a.txt", whole[:5]), ("b.txt", whole[5:])):
        (folder / name).write_text("\n\n".join(part))
    model = small_model(tokenizer)
    result = evaluate.evaluate_text(model, folder / "a.txt", folder / "b.txt", max_words=2)
    assert result.counts.startswith(str(folder / "b.txt"))
    with pytest.raises(ValueError, match="is also the text to score"):
        evaluate.evaluate_text(model, folder / "a.txt", folder / "a.txt")


def test_rows_of_text_are_as_long_as_those_of_training(folder: Path, tokenizer: Tokenizer) -> None:
    """Positions beyond them may never have been trained. Words get as much context."""
    base, text = replace(BERT, data=dict(length=16)), folder / "text.txt"
    model = small_model(tokenizer, base)
    result = evaluate.evaluate_text(model, text, max_rows=3, max_words=3, maskings=1)
    assert result.length == 16
    longer = evaluate.evaluate_text(model, text, max_rows=3, max_words=3, maskings=1, length=32)
    assert longer.length == 32
    assert result.bits is not None
    assert longer.bits is not None
    assert not np.array_equal(result.bits.bits, longer.bits.bits)


def test_rows_of_text_hold_every_token_once(folder: Path, tokenizer: Tokenizer) -> None:
    document = next(iter(documents.read_documents([folder / "text.txt"])))
    (rows,) = token_rows.text_rows([document, documents.Document(())], tokenizer, 20)
    kept = [t[1 : n - 1] for t, n in zip(rows.tokens, rows.size, strict=True)]
    ids = [i for p in document.paragraphs for i in tokenizer.encode(p)]
    assert np.concatenate(kept).tolist() == ids
    assert (rows.size[:-1] == 20).all()


def test_unusable_input_is_refused_in_one_line(
    folder: Path, corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other = train_tokenizer(["other words than these"] * 9, "wordpiece", 25)
    (tmp_path / "short.txt").write_text("Two words.\n")
    (tmp_path / "thai.txt").write_text("กรุงเทพ เมืองหลวง\n" * 40)
    model, text = small_model(tokenizer), folder / "text.txt"
    for message, call in (
        ("another tokenizer than the model's: evaluate on raw text with --text",
         lambda: evaluate.evaluate_corpus(small_model(other), corpus)),
        ("rows of 32 tokens, but the model takes 16",
         lambda: evaluate.evaluate_corpus(small_model(tokenizer, max_length=16), corpus)),
        ("the number of rows is 0", lambda: evaluate.evaluate_corpus(model, corpus, max_rows=0)),
        ("the number of maskings is 0",
         lambda: evaluate.evaluate_corpus(model, corpus, maskings=0)),
        ("the seed is -1", lambda: evaluate.evaluate_corpus(model, corpus, seed=-1)),
        ("gives 1 row of tokens, too few for counts",
         lambda: evaluate.evaluate_text(model, tmp_path / "short.txt")),
        ("short.txt: counts need at least 2 rows",
         lambda: evaluate.evaluate_text(model, text, tmp_path / "short.txt")),
        ("100% of its pieces are unknown",
         lambda: evaluate.evaluate_text(model, tmp_path / "thai.txt")),
        ("all pieces are special, or unknown to the model",
         lambda: evaluate.evaluate_text(model, tmp_path / "thai.txt", text)),
        ("expected 8 to 32 tokens", lambda: evaluate.evaluate_text(model, text, length=40)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message) as e:
            call()
        assert "\n" not in str(e.value)


def test_a_part_of_a_split_is_spread_over_it() -> None:
    """A corpus may begin with one language."""
    numbers = token_rows.spread_numbers(100_000, 5_000)
    assert 4_900 < len(numbers) <= 5_000
    assert len(set(numbers)) == len(numbers)
    assert (numbers[0], numbers[-1]) == (0, 99_999)
    assert np.diff(np.sort(numbers)).max() < 100_000 / 60
    assert list(token_rows.spread_numbers(10, None)) == list(range(10))
    assert list(token_rows.spread_numbers(10, 3)) == [0, 4, 9]


def test_only_the_rows_that_are_scored_are_read(
    corpus: Corpus, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, _ = evaluate.count_corpus(corpus)
    read: list[int] = []
    getitems = records.RecordSource.__getitems__

    def counted(source: records.RecordSource, numbers: Sequence[int]) -> Any:
        read.extend(numbers)
        return getitems(source, numbers)

    monkeypatch.setattr(records.RecordSource, "__getitems__", counted)
    model = small_model(tokenizer)
    result = evaluate.evaluate_corpus(model, corpus, max_rows=3, maskings=1, counts=counts)
    total = corpus.info.validation.rows
    assert read == list(evaluate._sample(total, 3, evaluate.SEED))
    assert (result.rows, result.total_rows) == (3, total)
