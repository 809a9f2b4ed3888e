"""Files of every form give the same documents, and bad ones a plain message."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from bert_jax.data import documents, record_texts, text_formats
from bert_jax.data.corpus_lines import read_lines
from bert_jax.data.documents import Document, read_documents

NO_LINE_END = "Another\u0085 doc\u2028ument\x0c, naïve."  # a mis-decoded ellipsis is common
TEXT = f"One line.\nTwo lines.\n\n\n{NO_LINE_END}\n"
EXPECTED = [("One line.", "Two lines."), (NO_LINE_END,)]


def paragraphs(*patterns: str | Path, **options: Any) -> list[tuple[str, ...]]:
    return [d.paragraphs for d in read_documents([str(p) for p in patterns], **options)]


@pytest.fixture
def file(tmp_path):
    """Writes bytes under a name."""

    def write(name: str, data: bytes | str) -> Path:
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return tmp_path / name

    return write


def test_every_form_gives_the_same_documents(file, tmp_path):
    texts = ["One line.\nTwo lines.", NO_LINE_END]
    records = "".join(json.dumps({"text": t, "id": 1}) + "\n" for t in texts)
    data = TEXT.encode()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    two_frames = zstandard.compress(data[:20]) + zstandard.compress(data[20:])
    paths = [
        file("a.txt", data),
        file("crlf.txt", "\ufeff" + TEXT.replace("\n", "\r\n")),
        file("a.txt.gz", gzip.compress(data)),
        file("a.txt.xz", lzma.compress(data)),
        file("a.txt.zst", two_frames),
        file("a.jsonl", records),
        file("b.jsonl.gz", gzip.compress(records.encode())),
        file("a.txt.bz2", bz2.compress(data)),
        file("a.ndjson", records),
        file("c4-train.00000-of-01024.json.gz", gzip.compress(records.encode())),
        file("c4.json.aa", records),  # as `split` names its parts
        file("c4.jsonl.00001-of-01024.gz", gzip.compress(records.encode())),
        file("notes.jsonl.txt", data),
        file("a.JSON.bz2", bz2.compress(b"\n" + records.encode())),
        tmp_path / "a.parquet",
    ]
    for path in paths:
        assert paragraphs(path) == EXPECTED, path


def test_a_text_that_is_named_twice_is_refused(file, tmp_path):
    """Else its copy would be trained on where it is held out."""
    path = file("a.txt", "a")
    for again in (path, tmp_path / "*.txt", tmp_path / ".." / tmp_path.name / "a.txt"):
        with pytest.raises(ValueError, match=r"a\.txt is given twice \(also as .*a\.txt\)"):
            read_documents([path, again])


def test_half_a_surrogate_pair_is_replaced_and_counted_or_refused(file):
    path = file("a.jsonl", r'{"text": "hi \ud83d, \ud83d\ude00"}')
    (document,) = read_documents([path])
    assert document == Document(("hi \ufffd, \U0001f600",), 1)
    with pytest.raises(ValueError, match="line 1: half of a surrogate pair is no character"):
        paragraphs(path, strict=True)


def test_parquet_text_that_is_not_utf8_is_replaced_and_counted_or_refused(tmp_path):
    """Whatever the type that holds it."""
    raw = pyarrow.array([b"fine", None, b"caf\xe9"])
    for i, kind in enumerate((pyarrow.string(), pyarrow.large_string())):
        text = pyarrow.Array.from_buffers(kind, 3, raw.cast(binary(kind)).buffers())
        for column in (text, text.dictionary_encode()):
            path = tmp_path / f"{i}.parquet"
            pyarrow.parquet.write_table(pyarrow.table({"text": column}), path)
            assert [*read_documents([path])] == [Document(("fine",)), Document(("caf\ufffd",), 1)]
            with pytest.raises(ValueError, match=r"row 3, byte 4: 0xe9 is not UTF-8"):
                paragraphs(path, strict=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": raw}), path)
    with pytest.raises(ValueError, match="row 1: `text` is not a string"):
        paragraphs(path)


def binary(kind: pyarrow.DataType) -> pyarrow.DataType:
    return pyarrow.large_binary() if kind == pyarrow.large_string() else pyarrow.binary()


def test_a_field_is_refused_where_no_text_has_fields(file):
    """It would be ignored in silence."""
    plain, sequences = file("a.txt", TEXT), file("a.fasta", ">a\nMV\n")
    records = file("a.jsonl", '{"body": "a"}')
    for sources in ([plain], [sequences, plain]):
        with pytest.raises(ValueError, match=r"--field is body, but .* is no file of records"):
            paragraphs(*sources, field="body")
    assert len(paragraphs(plain, records, field="body")) == 3


def test_a_header_longer_than_a_line_may_be_is_no_sequence(file, monkeypatch):
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 20)
    path = file("a.fasta", ">one of many merged names, long\nMVLS\nPADK\n>b\nAC\n")
    assert paragraphs(path) == [("MVLSPADK",), ("AC",)]


def test_files_of_a_glob_come_in_the_order_of_their_names(file, tmp_path):
    for name in "cab":
        file(f"{name}.txt", name)
    assert paragraphs(tmp_path / "*.txt") == [("a",), ("b",), ("c",)]
    assert paragraphs(tmp_path / "c.txt", tmp_path / "[ab].txt") == [("c",), ("a",), ("b",)]


def test_a_tfds_dataset_is_read(tmp_path):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info

    identity = dataset_info.DatasetIdentity(
        name="notes", version=tfds.core.Version("1.0.0"), data_dir=str(tmp_path), module_name=""
    )
    features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": np.int64})
    writer = tfds.core.SequentialWriter(
        tfds.core.DatasetInfo(builder=identity, features=features), 10, file_format="array_record"
    )
    writer.initialize_splits(["train"])
    rows = [{"text": "One line.\nTwo lines.", "label": 0}, {"text": "naïve", "label": 1}]
    writer.add_examples({"train": rows})
    writer.close_all()
    assert paragraphs(f"tfds:{tmp_path}/train") == [("One line.", "Two lines."), ("naïve",)]
    with pytest.raises(ValueError, match="example 1: `label` is not a string"):
        list(read_documents([f"tfds:{tmp_path}/train"], field="label"))
    with pytest.raises(ValueError, match="cannot be opened"):
        paragraphs(f"tfds:{tmp_path}/test")


def test_bytes_that_are_not_utf8_are_counted_and_replaced(file):
    path = file("bad.txt", b"caf\xe9 \xff\xfe ok\n\nfine\n")
    first, second = read_documents([path])
    assert first == Document(("caf\ufffd \ufffd\ufffd ok",), 3)
    assert second.replaced_bytes == 0


def test_strict_refuses_them_and_says_where(file):
    path = file("bad.txt", b"fine\n\ncaf\xe9 ok\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 3, byte 4: 0xe9 is not UTF-8"):
        paragraphs(path, strict=True)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.txt", b"", r"empty\.txt is empty: expected text"),
        ("blank.txt", b"\n \n\n", r"blank\.txt is empty"),
        ("empty.jsonl", b"", r"empty\.jsonl is empty"),
        ("a.txt", "Ödön.".encode("utf-16"), r"a\.txt begins with the byte-order mark of UTF-16"),
        ("a.txt", "One word".encode("utf-16-le"), r"a\.txt begins with NUL bytes: .*UTF-16LE"),
        (
            "a.gz",
            gzip.compress("Ödön.".encode("utf-32"), mtime=0),
            r"a\.gz begins with the byte-order mark",
        ),
        ("a.gz", b"no gzip", r"a\.gz cannot be read"),
        ("a.xz", lzma.compress(b"words " * 999)[:-9], r"a\.xz cannot be read"),
        ("a.zst", b"no zstandard", r"a\.zst cannot be read"),
        ("a.parquet", b"no parquet", r"a\.parquet cannot be read"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"txt": "a"}\n', r"a\.jsonl, line 1: no field `text`"),
        ("a.jsonl", b'["a"]\n', r"a\.jsonl, line 1: no field `text`"),
        ("a.json", b' [{"text": "a"},', r"a\.json is one JSON array: expected one object per line"),
        ("a.json.gz", gzip.compress(b"[\n", mtime=0), r"a\.json\.gz is one JSON array"),
        ("a.json", b'{\n"text": "a"}', r"line 1: not JSON: .* expected one object per line"),
        ("a.json", b"A word.", r"a\.json, line 1: not JSON"),
        ("a.ndjson", b'{"txt": "a"}\n', r"a\.ndjson, line 1: no field `text`"),
        ("a.bz2", b"no bzip2", r"a\.bz2 cannot be read"),
    ],
)
def test_a_bad_file_is_refused(name, data, message, file):
    with pytest.raises(ValueError, match=message) as caught:
        paragraphs(file(name, data))
    assert "\n" not in str(caught.value)


def test_a_record_that_is_too_long_is_said_to_be(file, monkeypatch):
    monkeypatch.setattr(record_texts, "MAX_JSON_BYTES", 1000)
    record = json.dumps({"text": "가 " * 200})  # six bytes for each letter
    with pytest.raises(ValueError, match=r"line 1: the record has more than 0 MiB: write such"):
        paragraphs(file("a.jsonl", record.encode() + b"\n"))


def test_another_encoding_is_warned_of_before_the_whole_file_is_read(file, caplog):
    text = "Привет, как дела?\n" * 9000
    path = str(file("a.txt", text.encode("cp1251")))
    documents.check_sources([path, str(file("b.txt", text.encode()))], False, "text")
    (record,) = caplog.records
    assert "a.txt is probably in another encoding than UTF-8" in record.getMessage()
    assert f"of its first {documents.LOOKED_AT // 18 * 18 + 18} characters" in record.getMessage()


@pytest.mark.parametrize("suffix", [s.lstrip(".") for s in text_formats.NOT_READ])
def test_a_format_that_is_not_read_is_refused_by_its_name(suffix, file):
    """Before anything is read, also inside a compression and among the files of a glob."""
    for name in (f"a.{suffix}", f"b.{suffix}.GZ"):
        path = file(name, TEXT)
        for pattern in (path, path.parent / "*"):
            with pytest.raises(ValueError, match=rf"it is a \.{suffix} file: expected plain text"):
                read_documents([str(pattern)])
        path.unlink()


def test_a_table_is_refused_with_what_to_do(file):
    with pytest.raises(ValueError, match=r"name the column with --field; .* to .*a\.csv\.txt\.gz$"):
        paragraphs(file("a.csv.gz", b""))
    with pytest.raises(ValueError, match=r"extract its text; .* rename it to .*a\.html\.txt$"):
        paragraphs(file("a.html", TEXT))


def archives() -> dict[str, bytes]:
    """The suffix of each format -> a file of it with TEXT in it."""
    zipped, tarred, table = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.txt", TEXT)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    pyarrow.parquet.write_table(pyarrow.table({"text": [TEXT]}), table)
    made = {".zip": zipped, ".tar": tarred, ".parquet": table}
    compressed = {f".{name}": compress(TEXT.encode()) for name, compress in COMPRESS.items()}
    return {suffix: data.getvalue() for suffix, data in made.items()} | compressed


def test_a_format_that_is_not_text_is_refused_by_its_first_bytes(file):
    for suffix, data in archives().items():
        for path in (file("a.txt", data), file("b.txt.gz", gzip.compress(data))):
            with pytest.raises(ValueError, match=rf"holds no text: .* of a \{suffix} file") as e:
                paragraphs(path)
            assert "\n" not in str(e.value)


MUSTARD = "m" * 256 + "mustard seeds"  # `ustar` is where an archive has it


@pytest.mark.parametrize(
    "text", ["PK and 7z", "Rar!", "PAR1 is a gene", "BZh91", "7z", "%PDF", MUSTARD]
)
def test_text_that_names_a_format_is_text(text, file):
    assert paragraphs(file("a.txt", text)) == [(text,)]


def test_archives_of_both_kinds_of_tar_are_told(file):
    for kind in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
            archive.addfile(tarfile.TarInfo("a.txt"))
        with pytest.raises(ValueError, match=r"begins as that of a \.tar file"):
            paragraphs(file("a.txt", data.getvalue()))


def test_only_the_beginning_of_a_file_tells_its_format(file, monkeypatch):
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 8)
    assert paragraphs(file("a.txt", "letters %PDF-1.7")) == [("letters", "%PDF-1.", "7")]


def test_a_window_that_is_too_large_is_named(file):
    """A frame of one raw block, whose header has a window of 256 MiB."""
    frame = b"\x28\xb5\x2f\xfd\x00\x90" + (5 << 3 | 1).to_bytes(3, "little") + b"words"
    with pytest.raises(ValueError, match=r"above 128 MiB, .* with zstd -d --long=31 .*a\.zst$"):
        paragraphs(file("a.zst", frame))


def test_an_error_of_the_disk_is_none_of_the_format(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file or directory; check the"):
        list(read_lines(str(tmp_path / "none.txt"), True, 1 << 20))


COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_file_that_was_cut_off_is_refused_wherever_it_was(suffix, file):
    """Also in its last frame. Only a cut between two frames leaves a file that is complete."""
    random.seed(0)
    first, second = ("".join(random.choices("abcd \n", k=3000)).encode() for _ in range(2))
    frames = [COMPRESS[suffix](part) for part in (first, second)]
    data, between = b"".join(frames), len(frames[0])
    complete = [len(d) for d in (first, first + second)]
    for size, length in zip((between, len(data)), complete, strict=True):
        lines = read_lines(str(file(f"whole.{suffix}", data[:size])), True, 1 << 20)
        assert sum(len(line.text) for line in lines) == length
    for size in (5, between // 2, between - 1, between + 7, between + 400, len(data) - 1):
        cut = file(f"cut.{suffix}", data[:size])
        with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be read: .* file ended"):
            paragraphs(cut)


def test_a_zstandard_file_of_many_small_frames_is_read_whole(file):
    """Several frames end in one read; a skippable frame holds no text."""
    lines = [f"line {i}\n".encode() for i in range(500)]
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"any"
    data = skippable.join(zstandard.compress(line) for line in lines)
    (document,) = read_documents([file("a.zst", data)])
    assert document.paragraphs == tuple(line.decode().strip() for line in lines)


def test_what_is_not_there_is_refused_before_anything_is_read(file, tmp_path):
    good = file("good.txt", TEXT)
    for missing, message in [
        (tmp_path / "none.txt", "does not exist"),
        (tmp_path / "*.none", "no file matches"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_documents([good, missing])
    with pytest.raises(ValueError, match="no TEXT is given: expected files"):
        read_documents([])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe or a device: expected a file"):
        read_documents([tmp_path / "pipe"])
    for source in ("tfds:lm1b", "tfds:/train", "tfds:lm1b/"):
        with pytest.raises(ValueError, match=f"{source} names no split: expected tfds:NAME/SPLIT"):
            read_documents([source])


@pytest.mark.parametrize("end", ["\r", "\r\n", "\r\r\n"])
def test_other_line_ends_give_the_same_documents(file, end, monkeypatch):
    """Also where a read ends between the two characters of a line's end."""
    text = "one line\nof three\nwörds\n\nanother document\n"
    expected = paragraphs(file("lf.txt", text))
    other = file("other.txt", text.replace("\n", end).encode())
    assert paragraphs(other) == expected
    for longest in range(17, 40):  # bytes; the longest line has 18 with its end
        monkeypatch.setattr(documents, "MAX_LINE_BYTES", longest)
        assert [" ".join(d) for d in paragraphs(other)] == [" ".join(d) for d in expected]


def test_long_lines_and_documents_are_cut_and_nothing_is_lost(file, monkeypatch):
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 50)
    monkeypatch.setattr(documents, "MAX_DOCUMENT_CHARACTERS", 120)
    monkeypatch.setattr(documents, "UNDIVIDED_CHARACTERS", 120)
    words = " ".join(f"wört{i}" for i in range(200)) + " " + "ä" * 200
    read = paragraphs(file("long.txt", words))
    assert "".join(p for d in read for p in d).replace(" ", "") == words.replace(" ", "")
    assert max(len(p.encode()) for d in read for p in d) <= 100
    assert max(sum(map(len, d)) for d in read) <= 220
    assert len(read) > 5


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_long_lines_of_records_are_split_where_those_of_a_plain_file_are(kind, file, monkeypatch):
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 50)
    text = " ".join(f"wört{i}" for i in range(99)) + "\n" + "ä" * 60 + " \n" + "short"
    path = file(f"a.{kind}", json.dumps({"text": text}))
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), path)
    (read,) = paragraphs(path)
    assert [read] == paragraphs(file("a.txt", text))
    assert max(len(line.encode()) for line in read) <= 100 < len(text)
    sequence = ">a\n" + "\n".join("ACGT" * 10 for _ in range(3))
    assert paragraphs(file("a.fasta", sequence)) == [("ACGT" * 30,)]


@pytest.fixture
def small_documents(monkeypatch):
    """Documents of at most 60 characters; of 20, where a file does not divide its text."""
    monkeypatch.setattr(documents, "MAX_DOCUMENT_CHARACTERS", 60)
    monkeypatch.setattr(documents, "UNDIVIDED_CHARACTERS", 20)


def test_a_long_file_without_blank_lines_is_cut_into_small_documents(file, small_documents, caplog):
    """At line ends, and nothing is lost. After its first blank line documents are whole again."""
    lines = [f"τρίτη {i:03d}" for i in range(20)]  # 9 characters each
    read = paragraphs(file("long.txt", "\n".join(lines)))
    assert [p for d in read for p in d] == lines
    assert max(len(d) for d in read) == 3
    assert len(read) > 5
    assert caplog.text.count("long.txt has no blank line") == 1
    read = paragraphs(file("late.txt", "\n".join([*lines, "", *lines[:5], "", "สวัสดี"])))
    assert [len(d) for d in read][-2:] == [5, 1]


def test_a_file_that_divides_its_text_is_cut_at_the_maximum_only(file, small_documents, caplog):
    lines = [f"세 번째 {i:03d}" for i in range(20)]  # 8 characters each
    assert [len(d) for d in paragraphs(file("two.txt", "첫째\n\n" + "\n".join(lines)))] == [
        1,
        8,
        8,
        4,
    ]
    text = json.dumps({"text": "\n".join(lines)})
    assert [len(d) for d in paragraphs(file("one.jsonl", text))] == [8, 8, 4]
    assert [len(d) for d in paragraphs(file("short.txt", "\n".join(lines[:7])))] == [7]
    assert not caplog.text


def test_texts_without_a_character_are_counted(file, tmp_path, caplog):
    """Missing ones, too: null in JSON, an empty cell in Parquet."""
    lines = [json.dumps({"text": text}) for text in ("one", None, " ", "two")]
    table = pyarrow.table({"text": ["one", None, " ", "two"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for path in (file("a.jsonl", "\n".join(lines)), tmp_path / "a.parquet"):
        caplog.clear()
        assert paragraphs(path) == [("one",), ("two",)]
        assert f"{path}: 2 texts are empty and were left out" in caplog.text
    with pytest.raises(ValueError, match="no field `text`"):
        paragraphs(file("b.jsonl", '{"other": "one"}'))


def test_files_that_cannot_be_read_are_named_together_before_hours_of_reading(file):
    good = file("good.txt", "text")
    bad = [file(f"{i}.jsonl", "[") for i in range(7)] + [file("empty.txt", " \n")]
    documents.check_sources([str(good)], False, "text")
    with pytest.raises(ValueError, match=r"^8 of 9 files cannot be read: .*; and 3 more$"):
        documents.check_sources([str(p) for p in (good, *bad)], False, "text")
    with pytest.raises(ValueError, match=r"empty\.txt is empty: expected text; remove it"):
        documents.check_sources([str(good), str(bad[-1])], False, "text")


def test_replaced_bytes_are_told_with_their_file(file, caplog):
    paragraphs(file("good.txt", "text"), path := file("bad.txt", b"te\xffxt"))
    assert f"{path}: replaced 1 bytes that were not UTF-8 by U+FFFD" in caplog.text
    assert "good.txt" not in caplog.text
