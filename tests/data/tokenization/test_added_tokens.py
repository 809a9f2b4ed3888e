"""A tokenizer with more words: nothing old changes, new words are one piece, others agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bert_jax.data.tokenization import tokenizer
from bert_jax.data.tokenization.tokenizer import KINDS, Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from tests.helpers.paths import SAMPLE

WORDS = ["Zyzzyva", "covfefe", "blockchains", "blockchain", "qwerty"]
TEXTS = [
    "The Zyzzyva of covfefe, and blockchains; a blockchain.",
    "zyzzyva Zyzzyva (qwerty)",
    "Xblockchain qwertyx a qwerty.",
]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    words = SAMPLE.read_text()[:100_000].split()
    return [" ".join(words[i : i + 15]) for i in range(0, len(words), 15)]


@pytest.fixture(scope="module")
def with_added_words(lines: list[str]) -> Any:
    by_kind: dict[str, tuple[Tokenizer, Tokenizer]] = {}

    def get(kind: str) -> tuple[Tokenizer, Tokenizer]:
        if kind not in by_kind:
            old = train_tokenizer(iter(lines), kind, 600, cased=True)  # type: ignore[arg-type]
            by_kind[kind] = old, old.with_words(WORDS)[0]
        return by_kind[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_new_words_are_the_last_pieces_and_old_texts_stay(
    kind: str, with_added_words: Any, lines: list[str], tmp_path: Path
) -> None:
    old, new = with_added_words(kind)
    assert new.vocab_size == 605
    assert new.fingerprint != old.fingerprint
    assert [i for i in new.encode(TEXTS[0]) if i >= 600] == [600, 601, 602, 603]
    assert new.encode_batch(lines) == old.encode_batch(lines)
    assert new.word_edges().starts[600:].all()
    new.save(tmp_path)
    again = tokenizer.load_tokenizer(tmp_path)
    assert again.fingerprint == new.fingerprint
    assert again.encode_batch(TEXTS) == new.encode_batch(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_are_there_are_not_added_again(kind: str, with_added_words: Any) -> None:
    new = with_added_words(kind)[1]
    same, known = new.with_words([*WORDS, "the"])
    assert (known, same.fingerprint) == ([*WORDS, "the"], new.fingerprint)
    assert new.with_words(["other1", "other1"])[0].vocab_size == 606


def test_case_is_the_tokenizer_s(lines: list[str]) -> None:
    old = train_tokenizer(iter(lines), "wordpiece", 600)
    with pytest.raises(ValueError, match=r"duplicates, to this tokenizer \('Zyzzyva', 'zyzzyva'\)"):
        old.with_words(["Zyzzyva", "zyzzyva"])
    with pytest.raises(ValueError, match=r"1 new words are more than one word.*\('a-b'\)"):
        old.with_words(["covfefe", "a-b"])


def test_a_unigram_pipeline_grows_as_its_model_does(with_added_words: Any, tmp_path: Path) -> None:
    """A Hugging Face folder may hold tokenizer.json alone."""
    old, new = with_added_words("unigram")
    old.save(tmp_path)
    for name in ("spiece.model", tokenizer.FINGERPRINT_FILE):
        (tmp_path / name).unlink()
    grown, known = tokenizer.load_tokenizer(tmp_path).with_words(WORDS)
    assert known == []
    assert grown.encode_batch(TEXTS) == new.encode_batch(TEXTS)


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers(
    kind: str, with_added_words: Any, lines: list[str], tmp_path: Path
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    new = with_added_words(kind)[1]
    new.save(tmp_path)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(hf) == 605
    for text in [*TEXTS, *lines[:100]]:
        assert hf(text)["input_ids"] == new.build_row(new.encode(text))[0]
