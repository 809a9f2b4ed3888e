"""A tokenizer with more words: nothing old changes, new words are one piece, others agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bert_jax.data.tokenization import added_tokens, tokenizer
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.data.tokenization.words import byte_letters
from tests.helpers.paths import SAMPLE

KINDS = ("wordpiece", "unigram", "bpe")
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


NEW = {
    "ko": ("학교", "학교 안에 학교가"),
    "ta": ("கொடு", "அவன் கொடு என்றான்"),
    "bn": ("ভালো", "সে ভালো আছে"),
    "ml": ("കൊടി", "ഒരു കൊടി കണ്ടു"),
    "ja": ("パン", "このパンを食べる"),
    "zh": ("新聞", "我讀新聞了"),
    "th": ("ราคา", "ในราคาแพง"),
}


@pytest.fixture(scope="module")
def small() -> Any:
    """Tokenizers that know no word of another script than Latin; each can encode its letters."""
    alphabet = [" ".join("".join(text for _, text in NEW.values())), "a cat and a dog sat on a mat"]
    sizes = {"wordpiece": 80, "unigram": 79, "bpe": 262}
    return {k: train_tokenizer(alphabet * 2, k, n, cased=True) for k, n in sizes.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", NEW)
def test_words_of_every_script_are_found_in_running_text(
    kind: str, language: str, small: Any
) -> None:
    """And replace the pieces of which their rows become the mean."""
    word, text = NEW[language]
    old = small[kind]
    new, known = old.with_words([word])
    assert known == []
    assert new.vocab_size - 1 in new.encode(text)
    [pieces] = added_tokens.replaced_pieces(old, new, [word])
    encoded = old.encode(word if kind != "bpe" or language in ("ja", "zh", "th") else f" {word}")
    assert pieces == [i for i in encoded if i != old.unk_id]


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
def test_words_without_spaces_are_found_where_transformers_finds_them(
    kind: str, small: Any, tmp_path: Path
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    unspaced = [NEW[language][0] for language in ("ja", "zh", "th")]
    texts = [text for _, text in NEW.values()] + ["パン新聞 ราคาราคา[SEP"]
    small[kind].save(tmp_path / "old")
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path / "old")
    hf.add_tokens(unspaced)
    new = small[kind].with_words(unspaced)[0]
    new.save(tmp_path / "new")
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    again = tokenizer.load_tokenizer(tmp_path / "new")
    assert again.fingerprint == new.fingerprint
    for tok in (new, again):
        ids = tok.encode_batch(texts)
        assert ids == hf(texts, add_special_tokens=False)["input_ids"]
        assert ids == exported(texts, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("word", ["눈이", "हिन्दी", "แม่น้ำ", "снег", "می\u200cخواهم"])  # noqa: RUF001
def test_pieces_of_bytes_are_shown_as_words_of_their_script(word: str, small: Any) -> None:
    letters = {b: c for c, b in byte_letters().items()}
    piece = "".join(letters[b] for b in f" {word}".encode())
    assert small["bpe"].piece_text(piece) == word


def test_pieces_of_bytes_are_shown_as_text(small: Any) -> None:
    show = small["bpe"].piece_text
    assert [show(p) for p in ("Ġthe", "Ġ", "à\u00b8Ļ", "à¹ī", "<mask>", "à¹")] == [
        *("the", " ", "น", "\u0e49", "<mask>", "\\xe0\\xb9"),
    ]
    assert small["wordpiece"].piece_text("##s") == "##s"
