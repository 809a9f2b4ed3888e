"""Texts that are not UTF-8 are read as if they had a `?` there, everywhere; long ones in parts."""

import pytest

from bert_jax.inference.features import as_texts
from bert_jax.utils import text_lines
from bert_jax.utils.text_lines import text_chunks, without_surrogates
from tests.helpers.labeled_rows import KINDS, trained_tokenizer

HALF, WHOLE = "a b\ud83d c \udcff", "a b? c ?"


def test_half_of_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert without_surrogates(HALF) == WHOLE
    assert without_surrogates("한국어 \U0001f600") == "한국어 \U0001f600"
    assert as_texts([HALF, "a"]) == [WHOLE, "a"]


def test_a_chunk_ends_after_so_many_texts_or_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "TEXTS_PER_CHUNK", 3)
    monkeypatch.setattr(text_lines, "CHARACTERS_PER_CHUNK", 10)
    texts = ["a", "b", "c", "d", "e" * 99, "f", "g" * 9, "h"]
    sizes = [len(chunk) for chunk in text_chunks(texts)]
    assert sizes == [3, 2, 2, 1]
    assert [text for chunk in text_chunks(texts) for text in chunk] == texts
    assert not list(text_chunks([]))


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
