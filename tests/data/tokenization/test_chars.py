"""Vocabularies of characters and k-mers, and sequences as they are stored."""

import gzip

import numpy as np
import pytest

from bert_jax.data import documents
from bert_jax.data.tokenization import tokenizer
from bert_jax.data.tokenization.training import train_tokenizer

PROTEINS = ["MKVLAAGIVG", "MKVKAAG"]
TEXTS = [*PROTEINS, "학교에서 한국어를", "がぎぐ", "हिन्दी में", "Aa"]


def test_every_character_is_a_piece_and_the_text_comes_back():
    tok = train_tokenizer(TEXTS, "chars", None, cased=True)
    for text in TEXTS:
        ids = tok.encode(text)
        assert len(ids) == len(text)
        assert tok.unk_id not in ids
        assert tok.decode(ids) == text
    assert tok.vocab_size == 5 + len(set("".join(TEXTS)))
    assert tok.encode("W") == [tok.unk_id]
    assert not set(tok.encode("[SEP] M")) & set(tok.special_ids)


@pytest.mark.parametrize("kmer", [1, 3])
def test_words_stand_between_spaces_and_each_piece_of_a_sequence_without_spaces_is_one(kmer):
    """As in every kind of tokenizer; characters of scripts that write no spaces are words."""
    tok = train_tokenizer(TEXTS, "chars", None, cased=True, kmer=kmer)
    for text in ("학교에서 한국어를", "हिन्दी में", "MKV Aa"):
        ids = np.array([tok.cls_id, *tok.encode(text)])
        begins = tok.word_edges().begins_word(ids)[1:]
        first, second = text.split()
        number = len(tok.encode(first)), len(tok.encode(" " + second))
        assert begins.tolist() == [i in (0, number[0]) for i in range(sum(number))]
    assert tok.word_edges().begins_word(np.array(tok.encode("がぎぐ"))).all()
    sequences = train_tokenizer(PROTEINS, "chars", None, cased=True, kmer=kmer)
    assert sequences.word_edges().begins_word(np.array(sequences.encode("MKVLAAG"))).all()


def test_groups_are_pieces_and_unknown_ones_are_characters():
    tok = train_tokenizer(PROTEINS, "chars", None, cased=True, kmer=3)
    pieces = [tok.token(i) for i in tok.encode("MKVGGA")]
    assert pieces == ["MKV", "G", "G", "A"]
    small = train_tokenizer(PROTEINS, "chars", 5 + 7 + 1, cased=True, kmer=3)
    assert small.token(small.vocab_size - 1) == "MKV"  # the most frequent one
    with pytest.raises(ValueError, match=r"11 pieces is too small .* at least 12 for chars"):
        train_tokenizer(PROTEINS, "chars", 11, cased=True)
    with pytest.raises(ValueError, match="kmer is 3: expected at least 1, and 1 for bpe"):
        train_tokenizer(PROTEINS, "bpe", 300, kmer=3)
    with pytest.raises(ValueError, match="size is missing: expected a number of pieces for bpe"):
        train_tokenizer(PROTEINS, "bpe", None)


def test_an_unknown_character_is_alone_and_keeps_the_frame_of_its_group():
    tok = train_tokenizer([*PROTEINS, "M K"], "chars", None, cased=True, kmer=3)
    pieces = [tok.token(i) for i in tok.encode("MKVWKVMKX X MKV")]
    expected = ["MKV", "[UNK]", "K", "V", "M", "K", "[UNK]", "▁", "[UNK]", "▁", "MKV"]
    assert pieces == expected
    assert [tok.token(i) for i in tok.encode("M]^-")] == ["M", *["[UNK]"] * 3]


@pytest.mark.parametrize("kmer", [1, 3])
def test_a_saved_folder_keeps_characters_and_groups(kmer, tmp_path):
    tok = train_tokenizer(TEXTS, "chars", None, cased=kmer == 3, kmer=kmer)
    tok.save(tmp_path)
    again = tokenizer.load_tokenizer(tmp_path)
    assert (again.kind, again.fingerprint, again.cased) == ("chars", tok.fingerprint, kmer == 3)
    assert again.encode_batch(TEXTS) == tok.encode_batch(TEXTS)
    other = train_tokenizer(TEXTS, "chars", None, cased=kmer == 3, kmer=kmer + 1)
    assert other.fingerprint != tok.fingerprint


@pytest.mark.peer
@pytest.mark.parametrize("kmer", [1, 3])
def test_transformers_gives_the_same_ids(kmer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tok = train_tokenizer(TEXTS, "chars", None, kmer=kmer)
    tok.save(tmp_path)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    rows = [tok.build_row(tok.encode(t), tok.encode("MKV"))[0] for t in [*TEXTS, "W  ß", "MWK"]]
    assert hf([*TEXTS, "W  ß", "MWK"], ["MKV"] * len(rows))["input_ids"] == rows


def test_a_sequence_of_a_fasta_file_is_a_document_of_one_line(tmp_path):
    text = ">sp|P1 one\r\nMKVL\nA AG \n\nIVG\n;comment\n>P2\n>P3\nMK*\n"
    (tmp_path / "x.fasta").write_text(text)
    with gzip.open(tmp_path / "x.FA.gz", "wt") as f:
        f.write(text)
    for name in ("x.fasta", "x.FA.gz"):
        found = list(documents.read_documents([tmp_path / name]))
        assert [d.paragraphs for d in found] == [("MKVLAAGIVG",), ("MK*",)]
    (tmp_path / "bad.fa").write_bytes(b">P1\nM\xffK\n>P2\nL\n")
    assert [d.replaced_bytes for d in documents.read_documents([tmp_path / "bad.fa"])] == [1, 0]
    (tmp_path / "empty.faa").write_text(">P1\n")
    with pytest.raises(ValueError, match="is empty: expected text"):
        list(documents.read_documents([tmp_path / "empty.faa"]))


PERSIAN = "او به خانه رفت.\n> او گفت\n; و رفت\n"


@pytest.mark.parametrize("name", ["wiki.fa.txt", "wiki.FA.txt.gz", "news.en-fa.txt", "fa.txt"])
def test_persian_text_is_no_sequence_and_keeps_its_spaces_and_lines(name, tmp_path):
    data = PERSIAN.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (document,) = documents.read_documents([tmp_path / name])
    assert document.paragraphs == tuple(PERSIAN.splitlines())


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("wiki.fa", "wiki.fa.txt"),
        ("wiki.fa.gz", "wiki.fa.txt.gz"),
        ("OpenSubtitles.en-fa.fa", "OpenSubtitles.en-fa.fa.txt"),
        ("reads.fasta", "reads.fasta.txt"),
    ],
)
def test_a_fasta_file_without_a_header_is_refused_and_its_new_name_is_read(name, renamed, tmp_path):
    data = ("\n" + PERSIAN).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(ValueError, match="is a FASTA file by its name, but line 2 is") as caught:
        list(documents.read_documents([tmp_path / name]))
    assert str(caught.value).endswith(f"rename it to {tmp_path / renamed}")
    (tmp_path / name).rename(tmp_path / renamed)
    (document,) = documents.read_documents([tmp_path / renamed])
    assert document.paragraphs == tuple(PERSIAN.splitlines())


def test_a_comment_may_begin_a_fasta_file(tmp_path):
    (tmp_path / "old.fa").write_text("\n;a comment\n;another\nMKVL\n>P2\nMK*\n")
    found = list(documents.read_documents([tmp_path / "old.fa"]))
    assert [d.paragraphs for d in found] == [("MKVL",), ("MK*",)]
