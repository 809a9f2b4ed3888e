"""Which characters Unigram drops or makes spaces of: joiners are letters of a word."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from bert_jax.data.tokenization import sentencepiece_rules, tokenizer, training
from bert_jax.data.tokenization.backends import SentencePieceBackend
from bert_jax.data.tokenization.normalization import lost_characters
from bert_jax.data.tokenization.tokenizer import Tokenizer
from tests.helpers.paths import SAMPLE

NMT_NFKC = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")
JOINED = {  # the two words are spelled apart by a non-joiner (fa, hi) or joiner
    "fa": "می\u200cخواهم",  # noqa: RUF001
    "hi": "क्\u200cष",
    "bn": "র\u200d্যাব",
    "ml": "അവന്\u200d",
    "si": "ක්\u200dෂේත්\u200dර",
}
INVISIBLE = [  # and characters that SentencePiece takes for spaces
    "\u200eab\u200f c\u061cd",
    "\u068e\u061c\u200c\u0652",
    "a\ufeffb \ufffd\u0301",
    "x\u2581\u0301y",
    "ក\u200bខ",
    "\u200c\u0652",
]


def train(normalizer: Any = None) -> Tokenizer:
    lines = [*JOINED.values(), *SAMPLE.read_text().splitlines()[-40:]] * 3
    with pytest.MonkeyPatch.context() as patch:
        if normalizer is not None:
            patch.setattr(training, "training_rules", lambda: normalizer)
        return training.train_tokenizer(lines, "unigram", 150, cased=True)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train()


@pytest.fixture(scope="module")
def published() -> Tokenizer:
    """With SentencePiece's own rules, as published ALBERT models have them."""
    return train(NMT_NFKC)


def test_the_rules_are_those_of_sentencepiece_but_for_six_characters() -> None:
    own = dict(sentencepiece_rules.training_rules().Decompile())
    original = dict(NMT_NFKC.Decompile())
    changed = {c: own.get(c) for c in original if own.get(c) != original[c]}
    assert not own.keys() - original.keys()
    kept, dropped = dict.fromkeys("\u200c\ufffd"), dict.fromkeys("\u200e\u200f\u061c\ufeff", "")
    assert changed == kept | dropped
    assert {original[c] for c in changed} == {" "}
    spaces = {c for c, result in own.items() if result == " "}
    assert {c for c in spaces if not c.isspace()} == {"\u200b", "\u2581"}


@pytest.mark.parametrize("language", JOINED)
def test_a_joiner_is_a_letter_of_its_word(language: str, trained: Tokenizer) -> None:
    """Whole-word masking hides both sides of it, and no text is lost."""
    word = JOINED[language]
    ids = trained.encode(f"{word} {word}")
    begins = trained.word_edges().begins_word(np.array(ids))
    assert begins.tolist() == [i % (len(ids) // 2) == 0 for i in range(len(ids))]
    assert trained.decode(ids) == f"{word} {word}"
    assert trained.unk_id not in ids
    assert trained.encode(word.replace("\u200c", "").replace("\u200d", "")) != trained.encode(word)


def test_text_without_such_characters_has_the_pieces_that_it_had() -> None:
    english = [line for line in SAMPLE.read_text().splitlines() if line][:8]
    vocabularies = []
    for rules in (sentencepiece_rules.training_rules(), NMT_NFKC):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "training_rules", lambda rules=rules: rules)
            tok = training.train_tokenizer(english, "unigram", 90)
        vocabularies.append((tok._backend.pieces, tok._backend.weights, tok.encode_batch(english)))
    assert vocabularies[0] == vocabularies[1]


def test_the_report_counts_what_is_dropped_or_made_a_space(
    trained: Tokenizer, published: Tokenizer
) -> None:
    text = "a\u200cb\u200dc \u200e\u200f\u061c\ufeff\u200b\ufffd\x01\x7f\u2581"
    lost = {"\u200e", "\u200f", "\u061c", "\ufeff", "\u200b", "\x01", "\x7f", "\u2581"}
    assert set(lost_characters(trained, Counter(text))) == lost
    assert set(lost_characters(published, Counter(text))) == lost | {"\u200c", "\ufffd"}


def test_an_imported_model_keeps_its_rules(published: Tokenizer, tmp_path: Path) -> None:
    """And its fingerprint tells the two apart, even if their pieces are the same."""
    word = JOINED["fa"]
    published.save(tmp_path)
    again = tokenizer.load_tokenizer(tmp_path)
    assert again.encode(word) == again.encode(word.replace("\u200c", " "))
    assert isinstance(published._backend, SentencePieceBackend)
    other = Tokenizer("unigram", published._backend, True)
    published._backend.__dict__["_rules"] = sentencepiece_rules.training_rules()
    assert other.fingerprint != again.fingerprint
    del published._backend.__dict__["_rules"]


@pytest.mark.peer
def test_transformers_gives_the_same_ids(
    trained: Tokenizer, published: Tokenizer, tmp_path: Path
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    lines = [*JOINED.values(), *INVISIBLE, *(f"{a}{b}" for a in INVISIBLE for b in INVISIBLE)]
    for name, tok in (("trained", trained), ("published", published)):
        tok.save(tmp_path / name)
        hf = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert hf(lines, add_special_tokens=False)["input_ids"] == tok.encode_batch(lines), name
