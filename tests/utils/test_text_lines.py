"""Texts that are not UTF-8 are read as if they had a `?` there, everywhere."""

import pytest

from bert_jax.inference.features import as_texts
from bert_jax.utils.text_lines import without_surrogates
from tests.helpers.labeled_rows import KINDS, trained_tokenizer

HALF, WHOLE = "a b\ud83d c \udcff", "a b? c ?"


def test_half_of_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert without_surrogates(HALF) == WHOLE
    assert without_surrogates("한국어 \U0001f600") == "한국어 \U0001f600"
    assert as_texts([HALF, "a"]) == [WHOLE, "a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_encodes_it_as_a_question_mark(kind: str) -> None:
    tokenizer = trained_tokenizer(kind)
    assert tokenizer.encode(HALF) == tokenizer.encode(WHOLE)
    assert tokenizer.encode_batch([HALF, "a"]) == tokenizer.encode_batch([WHOLE, "a"])
    ids, offsets = tokenizer.encode_with_offsets(HALF)
    other_ids, other_offsets = tokenizer.encode_with_offsets(WHOLE)
    assert ids == other_ids
    assert offsets.tolist() == other_offsets.tolist()
    masked = f"{HALF} {tokenizer.mask_token}"
    assert tokenizer.mask_id in tokenizer.encode_with_masks(masked)


def test_texts_in_which_it_is_replaced_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    assert as_texts([HALF, "a", HALF]) == [WHOLE, "a", WHOLE]
    assert "2 of 3 texts have half of a surrogate pair" in caplog.text
