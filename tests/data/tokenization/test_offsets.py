"""The characters that pieces stand for, of three kinds of tokenizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.data.tokenization.added_tokens import _sentencepiece
from bert_jax.data.tokenization.albert_text import clean_text
from bert_jax.data.tokenization.backends import SentencePieceBackend
from bert_jax.data.tokenization.offsets import _clean_with_sources, encode_with_offsets
from tests.helpers.labeled_rows import KINDS, trained_tokenizer

CHARACTERS = st.sampled_from(
    "aB 1,.é\u0301\u200d👩🏽中文ﬁ½İß\t\u3000\u00a0\x00한'हि्\u1112\u1161\u11abかﾞো\u09c7\u09be\u00b4ำ"
    "\u200c\u200e\ufeff\ufffd\u2581"
)
TEXTS = st.lists(CHARACTERS, max_size=30).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_pieces_stand_for_characters_in_order(kind: str, text: str) -> None:
    """Same ids as `encode`; begins and ends never go back; no white space at either side."""
    ids, spans = trained_tokenizer(kind).encode_with_offsets(text)
    assert ids == trained_tokenizer(kind).encode(text)
    assert spans.shape == (len(ids), 2)
    assert spans.dtype == np.int32
    begins, ends = spans.T
    assert (begins <= ends).all()
    assert (np.diff(begins) >= 0).all()
    assert (np.diff(ends) >= 0).all()
    assert ((begins >= 0) & (ends <= len(text))).all()
    parts = [text[begin:end] for begin, end in spans]
    assert all(part == part.strip() for part in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_letter_belongs_to_a_piece(kind: str) -> None:
    text = "Zoë's  cafe\u0301, 中文\t👩\u200d👧🏽 (1,000)"
    _, spans = trained_tokenizer(kind).encode_with_offsets(text)
    covered = {i for begin, end in spans for i in range(begin, end)}
    assert covered == {i for i, c in enumerate(text) if not c.isspace()}


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.booleans(), st.booleans())
def test_a_text_can_be_cleaned_part_by_part(text: str, cased: bool, accents: bool) -> None:
    cleaned, sources = _clean_with_sources(text, cased, accents)
    assert cleaned == clean_text(text, cased, accents)
    assert len(sources) == len(cleaned)
    assert sources == sorted(sources)


@pytest.mark.parametrize("word", ["ကီလို", "தொழில்", "কেমন", "한국어"])
def test_a_letter_and_its_sign_have_spans_of_their_own_unless_they_compose(word: str) -> None:
    cleaned, sources = _clean_with_sources(f"{word} {word}", True, True)
    assert cleaned == f"{word} {word}"
    assert sources == [(i, i + 1) for i in range(len(cleaned))]


def test_a_digit_and_the_comma_behind_it_have_spans_of_their_own() -> None:
    """ALBERT's rule, for a model that has the two in one piece."""
    grown = trained_tokenizer("unigram")
    with pytest.raises(ValueError, match="more than one word"):  # the rule splits it again
        grown.with_words(["1990,"])
    backend = grown._backend
    assert isinstance(backend, SentencePieceBackend)
    backend = _sentencepiece(backend, ["▁1990,"])
    text = "in 1990, x"
    ids, spans = encode_with_offsets(backend, text)
    assert ids == backend.encode(text)
    assert len(backend._processor.encode("1990,")) == 1
    parts = [text[begin:end] for begin, end in spans]
    assert "".join(parts) == text.replace(" ", "")
    assert parts[-2:] == [",", "x"] or parts[-3:] == [",", "", "x"]
