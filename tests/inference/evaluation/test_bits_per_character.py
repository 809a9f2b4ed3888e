"""Bits per character: equal for equal knowledge, whatever the vocabulary."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bert_jax.data import documents
from bert_jax.data.tokenization import normalization
from bert_jax.data.tokenization.tokenizer import KINDS, Kind, Tokenizer, load_tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.inference.evaluation import bits_per_character as bits
from bert_jax.inference.evaluation import text_words
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds
from bert_jax.inference.evaluation.word_queries import queries_of_word
from tests.helpers.known_models import contextless_model, small_model
from tests.helpers.paths import SAMPLE

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
STEMS, ENDINGS = [f"{a}un" for a in "bdfgklmn"], [f"t{a}r" for a in "aeiou"]
WORDS = [stem + ending for stem in STEMS for ending in ENDINGS]
TEXT = " ".join(np.random.default_rng(0).choice(WORDS, 120))


def wordpiece(folder: Path, pieces: list[str]) -> Tokenizer:
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in [*SPECIALS, *pieces]))
    return load_tokenizer(folder)


def log_p(tokenizer: Tokenizer, probability: dict[str, float]) -> np.ndarray:
    """Log probabilities of a vocabulary; the padding token gets what is left over."""
    p = np.array([probability.get(tokenizer.token(i), 0.0) for i in range(tokenizer.vocab_size)])
    p[0] = 1 - p.sum()
    return np.log(np.maximum(p, 1e-30))


@pytest.fixture(scope="module")
def whole_words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return wordpiece(tmp_path_factory.mktemp("bits") / "words", WORDS)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    pieces = [*STEMS, *(f"##{ending}" for ending in ENDINGS)]
    return wordpiece(tmp_path_factory.mktemp("bits") / "parts", pieces)


@pytest.mark.slow_unless("40")
@pytest.mark.parametrize("max_words", [120, 40])
def test_the_same_distribution_costs_the_same_in_two_vocabularies(
    max_words: int, whole_words: Tokenizer, parts: Tokenizer
) -> None:
    """p(stem) = 1/16 and p(ending) = 1/10, so a word has 1/160, in one piece or in two."""
    halves = dict.fromkeys(STEMS, 1 / 16) | {f"##{ending}": 1 / 10 for ending in ENDINGS}
    one = contextless_model(whole_words, log_p(whole_words, dict.fromkeys(WORDS, 1 / 160)))
    two = contextless_model(parts, log_p(parts, halves))
    a, b = (bits.bits_per_character(model, [TEXT], max_words) for model in (one, two))
    assert a.bits == pytest.approx(np.full(max_words, np.log2(160)), abs=1e-4)
    assert b.bits == pytest.approx(a.bits, abs=1e-4)
    assert np.array_equal(a.characters, b.characters)
    assert (a.pieces, b.pieces) == (max_words, 2 * max_words)
    characters = 7 * max_words - (max_words == 120)  # no white space after the last word
    assert a.value == pytest.approx(max_words * np.log2(160) / characters, rel=0.001)
    assert a.standard_error < 0.01


@pytest.mark.slow
def test_a_vocabulary_without_half_of_the_words_does_not_win(
    whole_words: Tokenizer, tmp_path: Path
) -> None:
    """Even if its model knows which words are unknown, and the rest of the words twice as well."""
    few = wordpiece(tmp_path / "few", WORDS[::2])
    whole = contextless_model(whole_words, log_p(whole_words, dict.fromkeys(WORDS, 1 / 40)))
    half = contextless_model(few, log_p(few, dict.fromkeys(WORDS[::2], 1 / 20)))
    known, unknown = (bits.bits_per_character(model, [TEXT]) for model in (whole, half))
    assert 0.4 < unknown.unknown_pieces / unknown.pieces < 0.6
    assert known.unknown_pieces == 0
    alphabet = len(set(TEXT) - {" "})
    assert unknown.alphabet == alphabet
    assert max(unknown.bits) == pytest.approx(6 * np.log2(alphabet))
    assert known.value < unknown.value - 1


def test_a_text_of_one_unknown_word_costs_its_spelling(
    whole_words: Tokenizer, tmp_path: Path
) -> None:
    """However it is cut, and though its pieces begin before the sampled part."""
    text = "EVQLVESGGG" * 500
    score = bits.bits_per_character(small_model(whole_words), [text], 20)
    assert (len(score.bits), score.total_words) == (20, 100)
    assert score.unknown_pieces == score.pieces == 20
    assert score.value == pytest.approx(np.log2(6)) == score.spelling


def test_long_words_do_not_make_a_sample_large(tmp_path: Path) -> None:
    letters = wordpiece(tmp_path / "letters", [*"abcd", *(f"##{c}" for c in "abcd")])
    text = "".join(np.random.default_rng(0).choice([*"abcd"], 90))
    words = text_words.split_words(text * 20 + " abcd")
    assert (words[:, 2] - words[:, 0]).max() == 51  # and the white space
    assert words[-1].tolist() == [1801, 1805, 1805]
    score = bits.bits_per_character(small_model(letters), [text], 2)
    assert (score.pieces, score.unknown_pieces, score.characters.sum()) == (90, 0, 90)


def test_counts_and_frequencies_stand_beside_the_model(parts: Tokenizer) -> None:
    """Of pieces in random order, a model with their frequencies scores as frequencies do; endings
    follow stems, which counts of neighbors know."""
    kinds = TokenKinds.of(parts)
    rows = np.array([parts.build_row(parts.encode(TEXT))[0]] * 2, np.int32)
    counts = NeighborCounts.fit(rows, kinds)
    model = contextless_model(parts, np.log(np.maximum(counts.tables.unigram, 1e-30)))
    score = bits.bits_per_character(
        model, [TEXT, TEXT], 50, counts=lambda at: CountsByRow.same(counts, len(at))
    )
    assert score.unigram_bits == pytest.approx(score.bits, abs=1e-4)
    assert score.bigram_bits is not None
    assert score.bigram_bits.sum() < 0.8 * score.bits.sum()
    assert score.difference is not None
    difference, error = score.difference
    assert difference == pytest.approx(score.value - score.per_character(score.bigram_bits))
    assert 0 < error < difference
    assert score.spelling > score.value


def test_the_piece_and_all_later_pieces_of_its_word_are_hidden(parts: Tokenizer) -> None:
    text = f"{WORDS[0]} {WORDS[7]} {WORDS[3]}"
    rows = list(queries_of_word(parts, text, 7, 13, 5, 32))
    shown = [" ".join(parts.token(i) for i in query.tokens) for query in rows]
    assert shown == [
        "[CLS] bun ##tar [MASK] [MASK] bun ##tor [SEP]",
        "[CLS] bun ##tar dun [MASK] bun ##tor [SEP]",
    ]
    assert [(q.position, parts.token(q.target), q.word) for q in rows] == [
        (3, "dun", 5),
        (4, "##tir", 5),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_piece_of_a_text_is_scored_once(kind: Kind) -> None:
    """Of a text that is longer than the model's rows, for every kind of tokenizer."""
    document = next(iter(documents.read_documents([SAMPLE])))
    tokenizer = train_tokenizer(document.paragraphs, kind, 500)
    text = " ".join(document.paragraphs)[:800]
    words = text_words.split_words(text)
    queries = [q for b, e, _ in words for q in queries_of_word(tokenizer, text, b, e, 0, 24)]
    assert [q.target for q in queries] == tokenizer.encode(text)
    for query in queries:
        assert len(query.tokens) <= 24
        assert query.tokens[query.position] == tokenizer.mask_id
        assert query.tokens[query.position - 1] != tokenizer.mask_id
    assert (words[:, 2] - words[:, 0]).sum() == len(text)


def test_every_word_is_scored_with_the_text_around_it(parts: Tokenizer) -> None:
    """The word stands in the middle of the row, and the row is full where there is text."""
    for number in (0, 1, 60, 118, 119):
        (first, *_) = queries_of_word(parts, TEXT, 7 * number, 7 * number + 6, 0, 12)
        assert len(first.tokens) == 12
        expected = {0: 1, 1: 3, 118: 7, 119: 9}.get(number, 5)
        assert abs(first.position - expected) <= 1


def test_text_without_spaces_is_cut_after_punctuation_and_ten_pieces(tmp_path: Path) -> None:
    letters = wordpiece(tmp_path / "letters", [*"日本語国。", *(f"##{c}" for c in "日本語国。")])
    text = "日本語。" + "国" * 23 + "。本語"
    cut = text_words.split_words(text)
    assert [text[b:e] for b, e, _ in cut] == ["日本語。", "国" * 23 + "。", "本語"]
    queries = list(queries_of_word(letters, text, *cut[1, :2], 0, 64))
    hidden = [q.tokens.count(letters.mask_id) for q in queries]
    assert hidden == [*range(10, 0, -1), *range(10, 0, -1), *range(4, 0, -1)]


@pytest.mark.slow
def test_folding_makes_cased_and_uncased_models_score_the_same_text() -> None:
    text = "Zoë SAW a naïve Ångström\u200b."
    folded = normalization.fold_text(text, ("case", "accents"))
    assert folded == "zoe saw a naive angstrom\u200b."
    assert normalization.fold_text(text, ("case",)) == text.lower()
    document = next(iter(documents.read_documents([SAMPLE])))
    paragraphs = [*document.paragraphs[:50], text]
    uncased = train_tokenizer(paragraphs, "wordpiece", 500)
    cased = train_tokenizer(paragraphs, "wordpiece", 500, cased=True)
    both = ("case", "accents")
    assert normalization.folds(uncased) == both
    assert normalization.folds(cased) == ()
    lost = [normalization.lost_characters(tok, Counter(text)) for tok in (uncased, cased)]
    assert [set(characters) for characters in lost] == [set("ëïÅö\u200b"), {"\u200b"}]
    assert bits.bits_per_character(small_model(uncased), [text]).folded == both
    plain = bits.bits_per_character(small_model(cased), [text])
    assert plain.folded == ()
    again = bits.bits_per_character(small_model(cased), [text], fold=both)
    assert again.folded == both
    assert again.alphabet < plain.alphabet
    # what folding removes is scored as it is then: only the space of no width is dropped
    assert again.dropped_characters == plain.dropped_characters == 1
    assert bits.bits_per_character(small_model(uncased), [text]).dropped_characters == 1
    assert np.array_equal(again.characters, plain.characters)


def test_characters_that_normalization_drops_change_no_score(parts: Tokenizer) -> None:
    """An accent of its own and a zero byte; words outside the vocabulary pay for their spelling."""
    text = TEXT[:139] + " xyz xxy"
    marked = text.replace("u", "u\u0301").replace("y", "\0y")
    model = small_model(parts)
    plain, other = (bits.bits_per_character(model, [t]) for t in (text, marked))
    assert other.dropped_characters > plain.dropped_characters == 0
    assert other.unknown_pieces == plain.unknown_pieces == 2
    assert other.value == pytest.approx(plain.value, rel=1e-6)
    assert (other.spelling, other.alphabet) == (plain.spelling, plain.alphabet)
    with pytest.raises(ValueError, match="drops all characters of the text"):
        bits.bits_per_character(model, ["\u0301\0"])


def test_the_sample_of_words_is_fixed(parts: Tokenizer) -> None:
    model = small_model(parts)
    once, again = (bits.bits_per_character(model, [TEXT], 30) for _ in range(2))
    assert np.array_equal(once.bits, again.bits)
    assert not np.array_equal(once.bits, bits.bits_per_character(model, [TEXT], 30, seed=1).bits)
    assert (len(once.bits), once.total_words) == (30, 120)


def test_standard_error_covers_the_whole_text(parts: Tokenizer) -> None:
    model = small_model(parts)
    whole = bits.bits_per_character(model, [TEXT]).value
    samples = [bits.bits_per_character(model, [TEXT], 25, seed=i) for i in range(8)]
    deviations = [(s.value - whole) / s.standard_error for s in samples]
    assert 0.3 < np.sqrt(np.mean(np.square(deviations))) < 2


def test_a_text_or_a_sample_without_words_is_refused(parts: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no words"):
        bits.bits_per_character(small_model(parts), [" \n "])
    with pytest.raises(ValueError, match="number of words is -3: expected at least 1"):
        bits.bits_per_character(small_model(parts), [TEXT], max_words=-3)
