"""Restoring hidden tokens: nothing to copy, and the true baselines beside the model."""

from dataclasses import replace

import numpy as np
import pytest

from bert_jax.config import BERT, ELECTRA, Imported
from bert_jax.config import replace as replace_config
from bert_jax.data import documents
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.inference.evaluation import replaced_tokens, token_rows
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.masked_places import (
    MaskedRows,
    check_mask_filler,
    mask_rows,
    masked_scores,
    model_scores,
    paired_difference,
)
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds
from bert_jax.inference.evaluation.pair_scores import pair_scores
from bert_jax.inference.evaluation.replaced_tokens import area_under_roc, replaced_scores
from bert_jax.inference.evaluation.token_rows import TokenRows
from bert_jax.inference.model import Model
from tests.helpers.known_models import contextless_model, small_model
from tests.helpers.paths import SAMPLE


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    lines = [p for d in documents.read_documents([SAMPLE]) for p in d.paragraphs][:300]
    return train_tokenizer(lines, "wordpiece", 400)


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> TokenRows:
    text = next(iter(documents.read_documents([SAMPLE])))
    few = text._replace(paragraphs=text.paragraphs[:20])
    return token_rows.text_rows([few], tokenizer, 32)[0]


@pytest.fixture(scope="module")
def masked(rows: TokenRows, tokenizer: Tokenizer) -> MaskedRows:
    return mask_rows(rows, Vocabulary.of(tokenizer))


@pytest.fixture(scope="module")
def counts(rows: TokenRows, tokenizer: Tokenizer) -> CountsByRow:
    fitted = NeighborCounts.fit(rows.tokens, TokenKinds.of(tokenizer))
    return CountsByRow.same(fitted, len(rows))


def test_every_hidden_token_shows_the_mask_token(
    masked: MaskedRows, rows: TokenRows, tokenizer: Tokenizer
) -> None:
    """So no model can score by copying, and nothing else is changed."""
    row, position = masked.places
    assert (masked.rows.tokens[row, position] == tokenizer.mask_id).all()
    assert np.array_equal(masked.labels, np.tile(rows.tokens, (3, 1)))
    assert (masked.rows.tokens != masked.labels).sum() == len(row)
    assert abs(len(row) / (3 * rows.size.sum()) - 0.15) < 0.01
    assert not np.isin(masked.targets, tokenizer.special_ids).any()


def test_masks_of_a_row_follow_from_the_seed_and_its_number(
    masked: MaskedRows, rows: TokenRows, tokenizer: Tokenizer
) -> None:
    vocabulary, n = Vocabulary.of(tokenizer), len(rows)
    few = mask_rows(rows.take(np.arange(5)), vocabulary, maskings=2)
    assert np.array_equal(few.masked[:5], masked.masked[:5])
    assert np.array_equal(few.masked[5:], masked.masked[n : n + 5])
    assert not np.array_equal(few.masked[:5], few.masked[5:])
    assert not np.array_equal(mask_rows(rows, vocabulary, seed=1).masked, masked.masked)


def test_a_model_without_context_scores_what_frequencies_score(
    masked: MaskedRows, counts: CountsByRow, tokenizer: Tokenizer
) -> None:
    unigram = counts.counts[0].tables.unigram
    model = contextless_model(tokenizer, np.log(np.maximum(unigram, 1e-30)))
    scores = masked_scores(model, counts, masked, TokenKinds.of(tokenizer))
    assert scores.model.loss == pytest.approx(scores.unigram.loss, abs=1e-4)
    assert np.array_equal(scores.model.rank, scores.unigram.rank)
    assert scores.bigram.loss.mean() < scores.unigram.loss.mean() - 0.5


def test_scores_do_not_depend_on_the_batch(masked: MaskedRows, tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer)
    whole = model_scores(model, masked)
    some = np.array([3, 40, 7])
    part = MaskedRows(
        masked.rows.take(some), masked.labels[some], masked.masked[some], masked.used[some], 1
    )
    row, _ = masked.places
    expected = np.concatenate([whole.loss[row == i] for i in some])
    assert model_scores(model, part).loss == pytest.approx(expected, abs=1e-5)


def test_batches_hold_few_logits(
    rows: TokenRows, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty places in each of the 1,024 short rows of a batch are 20 GB with 250,000 pieces."""
    encoder = small_model(tokenizer).config.encoder
    monkeypatch.setattr(token_rows, "MAX_LOGITS", 1000)
    batches = []

    def number_of_rows(batch: dict[str, np.ndarray]) -> tuple[np.ndarray]:
        batches.append(len(batch["size"]))
        return (batch["number"],)

    number = np.arange(len(rows))
    (found,) = token_rows.map_rows(number_of_rows, rows, encoder, row_logits=300, number=number)
    assert set(batches) == {3}
    assert np.array_equal(found, number)
    token_rows.map_rows(number_of_rows, rows, encoder, row_logits=5000, number=number)
    assert batches[-1] == 1


def test_standard_error_is_that_of_rows() -> None:
    """Equal places of a row are one sample: repeating them does not make it more certain."""
    rng = np.random.default_rng(0)
    once = rng.normal(0.3, 1, 400)
    row = np.arange(400)
    mean, error = paired_difference(row, once, np.zeros(400), 400)
    assert mean == pytest.approx(once.mean())
    assert error == pytest.approx(once.std(ddof=1) / 20)
    thrice = paired_difference(np.repeat(row, 3), np.repeat(once, 3), np.zeros(1200), 400)
    assert thrice == pytest.approx((mean, error))


@pytest.mark.parametrize("label", [0, 1])
def test_a_constant_answer_about_pairs_scores_one_half(
    label: int, rows: TokenRows, tokenizer: Tokenizer
) -> None:
    pair = (np.arange(len(rows)) % 4 == 0).astype(np.int32)
    model = contextless_model(tokenizer, np.zeros(tokenizer.vocab_size), pair=True)
    out = model.params["pair"]["dense"]
    share = 0.25 if label == 0 else 0.75
    out["kernel"] *= 0
    out["bias"] = np.log(np.float32([1 - share, share]))
    scores = pair_scores(model, replace(rows, pair=pair), train_share=share)
    assert scores is not None
    assert scores.accuracy == 0.5
    assert scores.loss == pytest.approx(scores.share_loss, abs=1e-6)


def test_rows_of_one_label_have_no_pair_score(rows: TokenRows, tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer)
    assert pair_scores(model, rows, 0.5) is None
    assert pair_scores(model, replace(rows, pair=np.ones(len(rows), np.int32)), 0.5) is None


@pytest.mark.slow
def test_replaced_tokens_are_found_by_counts_and_not_by_chance(
    masked: MaskedRows, counts: CountsByRow, tokenizer: Tokenizer
) -> None:
    """A random generator's samples are unlikely between their neighbors; a random discriminator
    does not see that."""
    electra = replace_config(ELECTRA, objective=dict(generator_size=1.0))
    model, kinds = small_model(tokenizer, electra), TokenKinds.of(tokenizer)
    scores = replaced_scores(model, counts, masked, kinds)
    assert scores is not None
    assert scores.tokens == (~np.isin(masked.labels, tokenizer.special_ids)).sum()
    assert 0.1 < scores.replaced_share < 0.2
    assert abs(scores.auc - 0.5) < 0.25
    assert scores.bigram_auc > 0.8
    places = np.zeros(masked.labels.shape, bool)
    places[:, :9] = True
    few = replaced_scores(model, counts, masked, kinds, places=places)
    assert few is not None
    assert few.tokens == (~np.isin(masked.labels[:, :9], tokenizer.special_ids)).sum()
    assert few.auc != scores.auc


@pytest.mark.parametrize("target", ["rtd", "rtd_masked", "all_tokens_mlm", "replace_mlm"])
def test_a_discriminator_that_knows_the_replaced_tokens_finds_all_of_them(
    target: str,
    masked: MaskedRows,
    counts: CountsByRow,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And one that takes each for the other finds none. One that was trained at hidden places is
    scored there, and one that restores tokens is not."""
    electra = replace_config(ELECTRA, objective=dict(target=target))
    model, kinds = Model(electra, {}, tokenizer), TokenKinds.of(tokenizer)
    hidden, others = masked.places, masked.labels.copy()
    letters = sorted({*masked.labels.flat} - set(tokenizer.special_ids))
    others[hidden] = np.random.default_rng(0).choice(letters, len(hidden[0]))
    monkeypatch.setattr(replaced_tokens, "sample_replacements", lambda *_: others)
    sign = 1

    def logits(rows: TokenRows) -> np.ndarray:
        return np.where(rows.tokens != masked.labels, 1.0, -1.0) * sign

    monkeypatch.setattr(replaced_tokens, "_discriminator_logits", lambda _: logits)
    scores = replaced_scores(model, counts, masked, kinds)
    if not target.startswith("rtd"):
        assert scores is None
        return
    assert scores is not None
    assert (scores.auc, scores.recall, scores.precision) == (1, 1, 1)
    text = (~np.isin(masked.labels, tokenizer.special_ids)).sum()
    assert scores.tokens == (len(hidden[0]) if target == "rtd_masked" else text)
    sign = -1
    scores = replaced_scores(model, counts, masked, kinds)
    assert scores is not None
    assert (scores.auc, scores.recall, scores.precision) == (0, 0, 0)


def test_area_under_roc_counts_ties_one_half() -> None:
    scores, positive = np.array([1.0, 2, 2, 3, 0]), np.array([0, 0, 1, 1, 0], bool)
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert area_under_roc(scores, positive) == pytest.approx(np.mean(pairs))


def test_a_model_without_the_head_is_refused(tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer, replace_config(BERT, objective=Imported(pooler=True)))
    with pytest.raises(ValueError, match="no masked-word head"):
        check_mask_filler(model)
