"""What happens to case and to marks, in several scripts and for every kind of tokenizer."""

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from bert_jax.data.tokenization import backends, tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from tests.helpers.paths import FIXTURES, SAMPLE

# Each pair differs in marks only.
PAIRS = {
    "hi": ("हिन्दी फ़िल्म", "हिनदी फिलम"),
    "ja": ("がぎぐ パピ", "かきく ハヒ"),
    "vi": ("đường Việt", "đuong Viet"),
    "de": ("möchte schön", "mochte schon"),
    "th": ("น้ำ ไม่", "นำ ไม"),
    "ar": ("كِتَابٌ", "كتاب"),
    "ru": ("ёлка край", "елка краи"),
}
TEXTS = [text for pair in PAIRS.values() for text in pair]
LINES = [
    *TEXTS,
    *map(str.title, TEXTS),
    "학교에서 한국어를",
    "İstanbul \u0131l\u0131k",
    "می‌خواهم (که)",
]
NFD = [unicodedata.normalize("NFD", line) for line in LINES]


@pytest.fixture(scope="module")
def trained() -> Any:
    """Tokenizers by (kind, cased, accents)."""
    training_lines = [p for p in SAMPLE.read_text().splitlines() if p][-60:] + LINES * 3
    cache: dict[Any, tokenizer.Tokenizer] = {}

    def get(kind: str, cased: bool, accents: Any = None) -> tokenizer.Tokenizer:
        key = kind, cased, accents
        if key not in cache:
            size = 400 if kind == "unigram" else 700
            cache[key] = train_tokenizer(training_lines, kind, size, cased, accents=accents)  # type: ignore[arg-type]
        return cache[key]

    return get


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
@pytest.mark.parametrize("language", PAIRS)
def test_cased_keeps_marks_and_uncased_strips_them(kind, language, trained):
    """Unless --accents says otherwise: the defaults are those of the published models."""
    with_marks, without = PAIRS[language]
    for cased in (True, False):
        assert trained(kind, cased).keeps_accents == cased
        for accents in (None, "keep", "strip"):
            tok = trained(kind, cased, accents)
            kept = accents == "keep" or (accents is None and cased)
            assert (tok.encode(with_marks) != tok.encode(without)) == kept, accents
            assert (tok.encode("Việt") != tok.encode("việt")) == cased


def test_unigram_takes_composed_and_decomposed_letters_for_the_same(trained):
    tok = trained("unigram", True)
    assert tok.encode_batch(NFD) == tok.encode_batch(LINES)
    assert "möchte" in tok.decode(tok.encode(NFD[6]))


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_accents_are_part_of_a_saved_folder_and_of_the_fingerprint(kind, trained, tmp_path):
    keep, strip = trained(kind, True), trained(kind, True, "strip")
    keep.save(tmp_path)
    again = tokenizer.load_tokenizer(tmp_path)
    assert again.fingerprint == keep.fingerprint != strip.fingerprint
    assert again.encode_batch(NFD) == keep.encode_batch(NFD)
    if kind == "unigram":
        model = keep._backend.model
        other = tokenizer.Tokenizer(kind, backends.SentencePieceBackend(model, True), True)
        assert other.fingerprint != keep.fingerprint


def test_bytes_keep_everything():
    with pytest.raises(ValueError, match="accents is strip, but bpe encodes the bytes"):
        train_tokenizer(LINES, "bpe", 300, accents="strip")


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
@pytest.mark.parametrize("cased", [True, False])
@pytest.mark.parametrize("accents", ["keep", "strip"])
def test_transformers_gives_the_same_ids(kind, cased, accents, trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    tok = trained(kind, cased, accents)
    tok.save(tmp_path)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    lines = LINES + NFD
    assert hf(lines, add_special_tokens=False)["input_ids"] == tok.encode_batch(lines)


def albert_folder(folder: Path, model: bytes, **settings: Any) -> Path:
    """A folder as it is published for ALBERT: a SentencePiece model and settings."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "albert"}')
    (folder / "spiece.model").write_bytes(model)
    config = {"tokenizer_class": "AlbertTokenizer"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.peer
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("lower", [True, False])
def test_an_albert_folder_gives_the_ids_of_transformers(keep, lower, trained, tmp_path):
    """Also after transformers saved it again. ALBERT's own code keeps vowel signs, which have no
    combining class; transformers strips all nonspacing marks."""
    transformers = pytest.importorskip("transformers")
    model = trained("unigram", True)._backend.model
    lines = [*LINES, *NFD, "``a'' (1,000) <unk>"]
    folder = albert_folder(tmp_path / "hf", model, do_lower_case=lower, keep_accents=keep)
    hf = transformers.AutoTokenizer.from_pretrained(folder)
    hf.save_pretrained(tmp_path / "again")
    ids = hf(lines[:-1], add_special_tokens=False)["input_ids"]
    for dir in (folder, tmp_path / "again"):
        tok = tokenizer.load_tokenizer(dir)
        assert tok.keeps_accents == keep
        assert tok.encode_batch(lines[:-1]) == ids
        assert tok.encode_with_offsets(lines[0])[0] == ids[0]
    original = tokenizer.load_tokenizer(folder, original=True)
    assert original.keeps_accents == keep
    vowel_signs = "कि कु", "क क"
    assert len(set(map(tuple, original.encode_batch(vowel_signs)))) == 2
    assert len(set(map(tuple, tok.encode_batch(vowel_signs)))) == (2 if keep else 1)


@pytest.mark.peer
def test_a_published_folder_that_keeps_accents(tmp_path):
    transformers = pytest.importorskip("transformers")
    shutil.copytree(FIXTURES / "albert_keep_accents", tmp_path / "hf")
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    tok = tokenizer.load_tokenizer(tmp_path / "hf")
    assert tok.keeps_accents
    assert hf(LINES, add_special_tokens=False)["input_ids"] == tok.encode_batch(LINES)
