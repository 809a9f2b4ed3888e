"""Text becomes a corpus: what is counted, said and refused on the way."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bert_jax.data import prepare, splits, work_shards
from bert_jax.data.corpus_report import describe_split
from bert_jax.data.documents import Document
from bert_jax.data.encode_documents import TextConfig, encode_documents
from bert_jax.data.prepare import _tokenizer_dir, prepare_corpus
from bert_jax.data.token_store import StoreIndex
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.data.worker_pool import Workers
from bert_jax.utils.errors import RunError
from tests.helpers.corpora import make, rows, write_inputs
from tests.helpers.paths import ROOT, SAMPLE


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[str, str]:
    """Twelfths of the sample text, 152 documents in all, and a tokenizer."""
    return write_inputs(tmp_path_factory.mktemp("inputs"), 12)


# ---- few documents, in any script

SENTENCES = {
    "Korean": "비가 온다. 바람이 분다. 강물이 흐른다. 새가 난다.",
    "Thai": "ฝนตกหนัก ลมพัดแรง แม่น้ำไหล นกบินสูง",
    "Greek": "Βρέχει πολύ. Φυσάει αέρας. Το ποτάμι κυλά. Πετούν πουλιά.",  # noqa: RUF001
    "Arabic": "ينزل المطر. تهب الريح. يجري النهر. يطير الطائر.",
    "Hindi": "बारिश होती है। हवा चलती है। नदी बहती है। पक्षी उड़ते हैं।",
}


# One for each of up to 40 documents.
MARKS = "一二三四五六七八九十百千万上下左右中大小山川日月木火水土金天地人口手目耳田石竹糸"


def documents_in(script: str, count: int = len(MARKS)) -> str:
    """Documents of 12 lines each, which have the document's mark in them."""
    lines = SENTENCES[script]
    return "\n\n".join("\n".join(f"{mark} {lines}" for _ in range(12)) for mark in MARKS[:count])


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> str:
    """A tokenizer of bytes, which has all scripts above."""
    folder = tmp_path_factory.mktemp("letters") / "tokenizer"
    lines = [line for s in SENTENCES for line in documents_in(s).split("\n") if line]
    train_tokenizer(lines, "bpe", 300).save(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("script", "count", "held_out"),
    [
        ("Greek", 2, [1]),
        ("Korean", 3, [2]),
        ("Hindi", 19, [18]),
        ("Thai", 25, [19]),
        ("Arabic", 39, [19]),
        ("Korean", 40, [19, 39]),
    ],
)
@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_validation_rows_are_of_validation_documents(
    script, count, held_out, kind, letters, tmp_path, caplog
):
    """The last of every 20 documents is held out, or the very last: its mark is in no row of
    training, and no other mark in a row of validation."""
    (tmp_path / "text.txt").write_text(documents_in(script, count), encoding="utf-8")
    options = {"duplicates": 1, "language": "th" if script == "Thai" else "en", "progress": False}
    prepared = prepare_corpus(
        [tmp_path / "text.txt"], letters, kind, 128, tmp_path / "c", **options
    )
    decode = prepared.tokenizer.decode
    used = {
        split: {c for ids, size, *_ in rows(prepared, split) for c in decode(ids[:size])}
        for split in splits.SPLITS
    }
    marks = {MARKS[i] for i in held_out}
    assert used["validation"] & {*MARKS} == marks
    assert used["train"] & {*MARKS} == {*MARKS[:count]} - marks
    counts, said = prepared.info.validation, describe_split(prepared.info, "validation")[0]
    assert said.startswith(f"validation: {len(held_out)} documents, ")
    assert "validation has only" in caplog.text
    assert ("train has only" in caplog.text) == (count < 21)
    assert counts.labeled_pairs == 2 * counts.random_pairs
    assert (counts.random_pairs > 0) == (kind == "sop" or len(held_out) > 1)


def test_two_documents_share_nothing_and_prepare_says_what_they_lack(inputs, tmp_path, caplog):
    sentences = "One. Two. Three.\n" * 20 + "\n" + "Four. Five. Six.\n" * 20
    (tmp_path / "two.txt").write_text(sentences)
    prepared = prepare_corpus(
        [tmp_path / "two.txt"], inputs[1], "nsp", 16, tmp_path / "c", progress=False
    )
    info = prepared.info
    assert (info.train.documents, info.validation.documents) == (1, 1)
    assert info.train.random_pairs == info.validation.labeled_pairs == 0
    assert info.train.labeled_pairs > 0
    assert "train has only 1 document, so its metrics" in caplog.text
    assert (
        f"{info.unlabeled_pairs('train')} of its {info.train.rows} pairs have no label"
        in caplog.text
    )
    assert f"{info.validation.rows} of its {info.validation.rows} pairs" in caplog.text


def test_validation_labels_are_balanced_and_prepare_says_what_it_left_out(inputs, tmp_path, caplog):
    caplog.set_level("INFO")
    for kind in ("nsp", "sop"):
        counts = make(inputs, tmp_path / kind, kind).info.validation
        assert counts.labeled_pairs == 2 * counts.random_pairs > 0
        left_out = counts.rows - counts.labeled_pairs
        left = f"{counts.random_pairs} pairs of each label; the labels of {left_out} other pairs"
        assert left in caplog.text
    assert "validation has only 7 documents, so its metrics" in caplog.text
    assert "train has" not in caplog.text


# ---- duplicates


def test_pairs_are_cut_as_often_as_published_and_other_rows_once(inputs, tmp_path):
    (tmp_path / "text.txt").write_text("One. Two. Three.\n\n" * 30)
    for kind, duplicates in [("nsp", 10), ("sop", 40), ("electra", 1), ("doc", 1)]:
        prepared = prepare_corpus(
            [tmp_path / "text.txt"], inputs[1], kind, 16, tmp_path / kind, progress=False
        )
        assert prepared.info.duplicates == duplicates
        assert prepared.info.train.rows >= duplicates * prepared.info.train.documents


def test_a_long_text_has_fewer_duplicates_and_prepare_says_so(
    inputs, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.setattr(work_shards, "MAX_DUPLICATED_TOKENS", 500)
    (tmp_path / "text.txt").write_text("One. Two. Three.\n\n" * 30)
    prepared = [
        prepare_corpus(
            [tmp_path / "text.txt"],
            inputs[1],
            "sop",
            16,
            tmp_path / str(duplicates),
            duplicates=duplicates,
            progress=False,
        )
        for duplicates in (None, 5)
    ]
    assert [p.info.duplicates for p in prepared] == [2, 5]
    assert (
        caplog.text.count("writing 2 duplicates of the text (240 tokens), not 40 as published") == 1
    )


# ---- what is refused


def test_replaced_bytes_are_counted(inputs, tmp_path, caplog):
    (tmp_path / "bad.txt").write_bytes(b"One caf\xe9.\n\nTwo \xff.\n")
    prepared = prepare_corpus(
        [str(tmp_path / "bad.txt")], inputs[1], "doc", 16, tmp_path / "c", progress=False
    )
    assert prepared.info.replaced_bytes == 2
    assert "replaced 2 bytes that were not UTF-8" in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (b"", {}, r"text\.txt is empty"),
        (b"One document only.\nIts second line.\n", {}, "has 1 document .* at least two"),
        (b"A word.\n\n\x00\x01\n", {}, "has 1 document with words"),
        (b"One caf\xe9.\n\nTwo.\n", {"strict": True}, r"line 1, byte 8: 0xe9 is not UTF-8"),
        (b"A.\n\nB.\n", {"length": 7}, "length is 7: expected 8 to"),
        (b"A.\n\nB.\n", {"segments": "pairs"}, "'pairs': expected one of nsp, sop"),
        (b"A.\n\nB.\n", {"workers": 0}, "workers is 0"),
        (b"A.\n\nB.\n", {"seed": -1}, "seed is -1"),
        (b"A.\n\nB.\n", {"duplicates": 2, "segments": "doc"}, "doc draws no random numbers"),
        (b"A.\n\nB.\n", {"engine": "spark"}, "expected local or beam"),
        (b"A.\n\nB.\n", {"pack": 1}, "pack is 1: expected 2 to 64 sequences per row, or 0"),
        (b"A.\n\nB.\n", {"row_length": 32}, "row_length is 32, but rows are not packed"),
        (b"A.\n\nB.\n", {"pack": 2, "row_length": 8}, "row_length is 8: expected 16 .* to 65536"),
        (b"A.\n\nB.\n", {"tokenizer_dir": "none"}, "none is not a folder"),
        (b"A.\n\nB.\n", {"texts": ["none.txt"]}, r"none\.txt does not exist"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(text, options, message, inputs, tmp_path):
    file, place = tmp_path / "text.txt", tmp_path / "place"
    file.write_bytes(text)
    usual = {"texts": [str(file)], "tokenizer_dir": inputs[1], "segments": "nsp", "length": 16}
    with pytest.raises(ValueError, match=message) as caught:
        prepare_corpus(**usual | options, out=place / "corpus", progress=False)
    assert "\n" not in str(caught.value)
    assert not place.exists() or not list(place.iterdir())


def test_all_files_are_looked_at_before_any_is_encoded(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "run_local", lambda *_, **__: pytest.fail("encoded"))
    bad = [tmp_path / "a.txt", tmp_path / "b.jsonl"]
    for file, text in zip(bad, ("", "["), strict=True):
        file.write_text(text)
    texts = [str(p) for p in (inputs[0], *bad)]
    with pytest.raises(ValueError, match="2 of 3 files cannot be read"):
        prepare_corpus(texts, inputs[1], "nsp", 16, tmp_path / "corpus", progress=False)


def test_sentences_longer_than_a_row_need_no_more_rows_than_sentences():
    """They are cut: the disk must not be called too small for text that is in no row."""
    index = StoreIndex(tokens=1_000_000, documents=20, sentences=[100] * 10)
    config = work_shards.RowConfig("nsp", 128, 0, SpecialTokens(1, 2), 0, 60_000)
    assert work_shards.estimate_rows(index, [work_shards.WorkShard(0, 0, 20)], config) == 1000


def test_a_disk_too_small_for_the_rows_is_told_before_they_are_made(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("bert_jax.utils.io.free_bytes", lambda folder: 5_000)
    out = tmp_path / "place" / "corpus"
    with pytest.raises(RunError, match=r"the rows need about .* GB in .*place, where 0.0 GB are"):
        prepare_corpus([str(inputs[0])], inputs[1], "nsp", 16, out, progress=False)
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("inner", ["", "tokenizer"])
def test_the_tokenizer_of_a_run_is_found_in_its_folder(inner, tmp_path):
    (tmp_path / inner).mkdir(exist_ok=True)
    assert _tokenizer_dir(str(tmp_path)) == tmp_path / inner


@pytest.mark.parametrize("items", [2, 99])
def test_a_worker_that_ends_is_named(items):
    """Also where the pool breaks before the last item is submitted."""
    with Workers(2) as pool, pytest.raises(RunError, match=r"was killed, .* lacks `if __name__"):
        list(pool.map(os._exit, [1] * items))


def test_the_store_is_closed_whatever_ends_the_run(inputs, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(prepare.token_store, "close_store", lambda: closed.append(True))
    monkeypatch.setattr(prepare, "make_shard", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(inputs, tmp_path / "c")
    assert closed


def test_options_are_checked_before_a_download(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "expand_texts", None)
    with pytest.raises(ValueError, match="duplicates is 0: expected at least 1"):
        make(inputs, tmp_path / "c", duplicates=0)


def test_an_output_folder_with_something_in_it_is_not_touched(inputs, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ValueError, match="exists and is not empty"):
        make(inputs, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    assert make(inputs, tmp_path / "empty").info.train.rows


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_nothing(sign, inputs, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import signal, sys\nfrom bert_jax.data.prepare import prepare_corpus\n"
        "if __name__ == '__main__':\n"
        # what a script starts in the background ignores Ctrl-C, and so do its children
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    text, tokenizer, out = sys.argv[1:]\n"
        "    prepare_corpus([text], tokenizer, 'nsp', 64, out, workers=2, duplicates=99)\n"
    )
    place = tmp_path / "place"
    command = [sys.executable, str(script), str(SAMPLE), inputs[1], str(place / "corpus")]
    child = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120  # starting two workers takes long on a busy machine
    while not list(place.glob(".corpus.*/documents.array_record")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(sign)
    assert child.wait(120) != 0
    assert not list(place.iterdir())


def test_byte_level_rows_keep_the_spaces_between_sentences(tmp_path):
    text = tmp_path / "text.txt"
    lines = ["The cat sat here. A dog ran. It is late."] * 40
    text.write_text("\n".join(lines) + "\n\n" + "\n".join(lines) + "\n")
    train_tokenizer(lines, "bpe", 280).save(tmp_path / "tok")
    prepared = prepare_corpus(
        [text], tmp_path / "tok", "single", 32, tmp_path / "out", progress=False
    )
    ids, size, *_ = rows(prepared)[0]
    assert "here. A dog ran. It is" in prepared.tokenizer.decode(ids[1 : size - 1])


ENGLISH, JAPANESE = "The cat sat. A dog ran. It is late.", "雪が降る。川が凍る。 空は青い。"


def encoded(text: str, document: Document, kind: str) -> tuple[Tokenizer, list[int]]:
    """A tokenizer that was trained on a text, and the ids of a document."""
    size = {"bpe": 262, "chars": None}[kind]
    tok = train_tokenizer([text] * 9, kind, size, cased=True)
    language = "ja" if text[0] == "雪" else "en"
    (record,) = encode_documents(
        [document], tok, TextConfig(language, False, False, tok.marks_spaces)
    )
    assert record.sentences == 3 * len(document.paragraphs)
    return tok, np.frombuffer(record.data, np.uint32)[1 + record.sentences :].tolist()


@pytest.mark.parametrize("kind", ["bpe", "chars"])
@pytest.mark.parametrize("text", [ENGLISH, JAPANESE, JAPANESE.replace(" ", "")])
def test_a_space_stands_between_sentences_where_the_text_has_one(kind, text):
    """No unknown token stands for one that the vocabulary lacks."""
    tok, ids = encoded(text, Document((text,)), kind)
    assert tok.unk_id not in ids
    assert ids == tok.encode(text)


@pytest.mark.parametrize("kind", ["bpe", "chars"])
def test_the_end_of_a_line_is_a_space_unless_the_vocabulary_has_none(kind):
    text = JAPANESE.replace(" ", "")
    for trained, between in ((text, "" if kind == "chars" else " "), (f"{text} {text}", " ")):
        tok, ids = encoded(trained, Document((text, text)), kind)
        assert tok.unk_id not in ids
        assert tok.decode(ids) == text + between + text
