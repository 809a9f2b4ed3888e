"""However a tokenizer is stored, special tokens in a text are text; vocabularies with odd lines."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers

from bert_jax.data.tokenization import backends, pretrained, tokenizer
from bert_jax.data.tokenization.special_tokens import KINDS, SPECIAL_TOKENS
from bert_jax.data.tokenization.training import train_tokenizer

LINES = ["the [cat] <sat> on a mat, 한국어 हिन्दी", "S E P C L S M A K / s"] * 3
SIZES = {"wordpiece": 53, "unigram": 48, "bpe": 280, "chars": None}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders by the way in which a tokenizer is stored."""

    def store(kind: str) -> dict[str, Path]:
        root = tmp_path_factory.mktemp(kind)
        tok = train_tokenizer(LINES, kind, SIZES[kind], cased=True)  # type: ignore[arg-type]
        tok.save(root / "saved")
        tok.with_words(["covfefe"])[0].save(root / "more words")
        shutil.copytree(root / "saved", root / "pipeline")
        for file in (root / "pipeline").iterdir():
            if file.name not in ("tokenizer.json", "tokenizer_config.json"):
                file.unlink()
        shutil.copytree(root / "saved", root / "without a pipeline")
        if kind != "chars":
            (root / "without a pipeline" / "tokenizer.json").unlink()
        if kind == "unigram":
            settings = {"tokenizer_class": "AlbertTokenizer", "do_lower_case": False}
            (root / "albert").mkdir()
            shutil.copy(root / "saved" / "spiece.model", root / "albert")
            (root / "albert" / "tokenizer_config.json").write_text(json.dumps(settings))
        return {path.name: path for path in root.iterdir()}

    return store


def spelled(kind: str) -> list[str]:
    return [t for s in SPECIAL_TOKENS[kind] for t in (s, f"a {s} b", f"a{s}b", f"{s}{s}")]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_text_are_text(kind: str, stored: Any) -> None:
    for way, folder in stored(kind).items():
        tok = tokenizer.load_tokenizer(folder)
        for text in spelled(kind):
            ids = {*tok.encode(text), *tok.encode_with_offsets(text)[0]}
            assert not ids & set(tok.special_ids), (way, text)


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
def test_so_they_are_after_transformers_saved_the_folder_again(
    kind: str, stored: Any, tmp_path: Path
) -> None:
    transformers: Any = pytest.importorskip("transformers")
    for way, folder in stored(kind).items():
        if (kind, way) == ("unigram", "without a pipeline"):  # which transformers needs
            continue
        if way == "albert":  # AutoTokenizer asks config.json for the class
            (folder / "config.json").write_text('{"model_type": "albert"}')
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / way)
        old, new = (tokenizer.load_tokenizer(f) for f in (folder, tmp_path / way))
        assert new.encode_batch(LINES) == old.encode_batch(LINES), way
        for text in spelled(kind):
            assert not set(new.encode(text)) & set(new.special_ids), (way, text)


VOCABULARY = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n\n\nthe\ncat\n##s\nthe\n"


def test_of_equal_lines_of_a_vocabulary_the_last_one_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "vocab.txt").write_text(VOCABULARY)
    with caplog.at_level(logging.WARNING):
        tok = tokenizer.load_tokenizer(tmp_path)
    assert tok.encode("the cats a") == [11, 9, 10, 5]
    assert "line 7 has the piece '' again in line 8" in caplog.text
    tok.save(tmp_path / "again")
    assert tokenizer.load_tokenizer(tmp_path / "again").fingerprint == tok.fingerprint


@pytest.mark.peer
def test_transformers_reads_such_a_vocabulary_alike(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text(VOCABULARY)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tok = tokenizer.load_tokenizer(tmp_path)
    text = "the cats\n\na dog"
    assert hf(text, add_special_tokens=False)["input_ids"] == tok.encode(text)


def test_a_byte_order_mark_in_a_vocabulary_is_refused_with_line_and_piece(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\ufeff" + VOCABULARY)
    with pytest.raises(ValueError, match=r"line 1: the piece '\[PAD\]' begins with a byte-order"):
        tokenizer.load_tokenizer(tmp_path)


def test_steps_of_a_normalizer_within_another_count() -> None:
    core = tokenizers.Tokenizer(models.WordLevel({"a": 0, "?": 1}, "?"))
    inner = normalizers.Sequence([normalizers.Lowercase()])  # type: ignore[call-arg]
    core.normalizer = normalizers.Sequence([inner])
    assert backends.TokenizersBackend(core).lowercases
    precompiled = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    spec = {"normalizers": [{"normalizers": [precompiled]}]}
    assert pretrained._charsmap(spec) == bytes(3)
