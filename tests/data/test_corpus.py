"""A corpus depends on text and seed alone, opens in TFDS, and is refused if it is damaged."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_jax.data import corpus, prepare, records, segments, splits, token_store, work_shards
from bert_jax.data.corpus import open_corpus
from tests.helpers.corpora import make, rows, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[str, str]:
    """Twelfths of the sample text, 152 documents in all, and a tokenizer."""
    return write_inputs(tmp_path_factory.mktemp("inputs"), 12)


@pytest.fixture(scope="module")
def prepared(inputs, tmp_path_factory) -> corpus.Corpus:
    return make(inputs, tmp_path_factory.mktemp("prepared") / "corpus")


@pytest.mark.parametrize("segments", ["nsp", "full"])
def test_rows_do_not_depend_on_the_number_of_workers(segments, inputs, tmp_path, monkeypatch):
    """Nor on which of many parts of the work ends first."""
    monkeypatch.setattr(prepare, "ENCODE_CHARACTERS", 10_000)
    monkeypatch.setattr(token_store, "MAX_SHARD_DOCUMENTS", 10)
    parts, list_work_shards = [], prepare.list_work_shards
    listed = lambda *args: parts.append(list_work_shards(*args)) or parts[-1]  # noqa: E731
    monkeypatch.setattr(prepare, "list_work_shards", listed)
    one, two = (make(inputs, tmp_path / str(w), segments, workers=w) for w in (1, 2))
    assert len(parts[0]) == len(parts[1]) > 10
    assert one.info == two.info
    assert [rows(one, s) for s in splits.SPLITS] == [rows(two, s) for s in splits.SPLITS]


def test_another_seed_gives_other_rows(inputs, prepared, tmp_path):
    assert rows(make(inputs, tmp_path / "other", seed=1)) != rows(prepared)


def test_duplicates_are_other_rows_of_the_same_text(inputs, prepared, tmp_path):
    twice = make(inputs, tmp_path / "twice", duplicates=2)
    first, count = rows(prepared), prepared.info.train.rows
    assert rows(twice)[:count] == first
    assert rows(twice)[count : 2 * count] != first
    assert rows(twice, "validation") == rows(prepared, "validation")
    assert twice.info.train.documents == prepared.info.train.documents


def test_the_counts_are_those_of_the_rows(prepared):
    for split in splits.SPLITS:
        read, counts = rows(prepared, split), prepared.info.counts(split)
        assert counts.rows == len(read)
        assert counts.tokens == sum(size for _, size, _, _ in read)
        assert counts.short_rows == sum(size < 64 for _, size, _, _ in read)
        assert counts.random_pairs == sum(pair == 1 for *_, pair in read)
        assert counts.labeled_pairs == sum(pair >= 0 for *_, pair in read)
    tokens = np.array([i for ids, size, _, _ in rows(prepared) for i in ids[:size]])
    expected = np.bincount(tokens, minlength=prepared.tokenizer.vocab_size)
    assert (prepared.unigram == expected).all()


def test_every_20th_document_is_held_out(prepared):
    assert (prepared.info.train.documents, prepared.info.validation.documents) == (145, 7)
    for folds, total in [(20, 152), (20, 39), (2, 2), (3, 3), (7, 7)]:
        for split in splits.SPLITS:
            mine = [i for i in range(total) if splits.split_name(i, folds) == split]
            count = splits.split_size(split, total, folds)
            assert [splits.nth_in_split(split, n, folds) for n in range(count)] == mine
            assert [splits.index_in_split(i, folds) for i in mine] == [*range(count)]


def test_random_pairs_are_about_as_many_as_next_ones(prepared):
    """At least half by the coin, more by chunks of one sentence."""
    counts = prepared.info.train
    assert counts.random_pairs / counts.rows > 0.5 - 4 * np.sqrt(0.25 / counts.rows)
    assert counts.random_pairs / counts.rows < 0.8


def test_tfds_opens_it_without_tensorflow(prepared):
    code = f"""if 1:
        import sys, tensorflow_datasets as tfds
        source = tfds.builder_from_directory({str(prepared.path)!r}).as_data_source()
        assert sorted(source) == ["train", "validation"], source
        row = source["train"][5]
        print(row["tokens"].dtype, row["tokens"].shape, row["pair"], len(source["train"]))
        assert "tensorflow" not in sys.modules and "jax" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "uint16",
        "(64,)",
        str(rows(prepared)[5][3]),
        str(len(rows(prepared))),
    ]


def test_examples_are_what_tfds_would_write():
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import example_serializer
    from tensorflow_datasets.proto import tf_example_pb2

    row = segments.TokenRow(np.array([5, 300, 70_000], np.int32), 2, -1)
    own_bytes = records.RowFormat(5, 1, 70_001).serialize([row])
    number = tfds.features.Scalar(np.int32)
    tokens = tfds.features.Tensor(shape=(5,), dtype=np.int32, encoding="bytes")
    features = tfds.features.FeaturesDict(
        {"tokens": tokens, "size": number, "first": number, "pair": number}
    )
    values = {"tokens": np.array([5, 300, 70_000, 1, 1], np.int32), "size": 3, "first": 2}
    encoded = features.encode_example(values | {"pair": -1})
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    tfds_bytes = serializer.serialize_example(encoded)
    parse = tf_example_pb2.Example.FromString
    assert parse(own_bytes) == parse(tfds_bytes)


@pytest.mark.parametrize("kind", work_shards.SEGMENT_KINDS)
def test_every_kind_of_rows_can_be_prepared(kind, inputs, tmp_path):
    prepared = make(inputs, tmp_path / kind, kind)
    labels = {pair for *_, pair in rows(prepared)}
    assert labels == ({0, 1} if kind in ("nsp", "sop") else {-1})
    assert prepared.info.segments == kind
    assert prepared.info.validation.rows > 0


def test_several_shards_are_in_order(inputs, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MIN_SHARD_ROWS", 100)
    monkeypatch.setattr(records, "rows_per_shard", lambda rows: 100)
    again = make(inputs, tmp_path / "sharded")
    assert len(list(again.path.glob("*train*"))) == -(-prepared.info.train.rows // 100)
    assert rows(again) == rows(prepared)


@pytest.mark.parametrize(
    ("kind", "pack", "shards"), [("single", 0, 4), ("single", 4, 4), ("full", 0, 1)]
)
def test_many_short_documents_have_few_shards(kind, pack, shards, inputs, tmp_path, monkeypatch):
    """Each has a row of its own, or a fourth of one, unless rows cross documents."""
    monkeypatch.setattr(records, "MIN_SHARD_ROWS", 1)
    monkeypatch.setattr(records, "MAX_SHARDS", 4)
    (tmp_path / "text.txt").write_text("A word.\n\n" * 84)
    prepared = make((str(tmp_path / "text.txt"), inputs[1]), tmp_path / "c", kind, 512, pack=pack)
    assert prepared.info.train.rows == {"full": 1}.get(kind, 20 if pack else 80)
    assert len(list(prepared.path.glob("*train*"))) == shards


def test_a_corpus_may_open_many_files(prepared):
    """As far as the system allows it, and a higher limit stays."""
    resource = pytest.importorskip("resource")
    before = _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = records.OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, records.OPEN_FILES)
    try:
        for limit in (most // 2, most):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            prepared.source("train")
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def harmed(prepared: corpus.Corpus, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    import shutil

    shutil.copytree(prepared.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_folder_that_is_not_a_corpus_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="is not a corpus: expected a folder that prepare"):
            open_corpus(path)


@pytest.mark.parametrize(
    "name",
    ["dataset_info.json", "features.json", "unigram.npy", "tokenizer", "train", "validation"],
)
def test_a_corpus_with_a_part_missing_is_refused(name, prepared, tmp_path):
    path = harmed(prepared, tmp_path)
    [part] = path.glob(f"*{name}*")
    part.rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"is damaged: .*prepare the corpus again"):
        open_corpus(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"train": {"rows": 1}}'])
def test_a_damaged_description_is_refused(text, prepared, tmp_path):
    path = harmed(prepared, tmp_path)
    (path / "corpus.json").write_text(text)
    with pytest.raises(ValueError, match=r"corpus\.json is damaged"):
        open_corpus(path)


def test_another_format_or_tokenizer_is_refused(prepared, tmp_path, inputs):
    path = harmed(prepared, tmp_path)
    values = json.loads((path / "corpus.json").read_text())
    (path / "corpus.json").write_text(json.dumps(values | {"version": 99}))
    with pytest.raises(ValueError, match="has format 99, expected 1"):
        open_corpus(path)
    (path / "corpus.json").write_text(json.dumps(values | {"tokenizer_fingerprint": "else"}))
    with pytest.raises(ValueError, match="is not the tokenizer that the corpus was prepared with"):
        _ = open_corpus(path).tokenizer
    with pytest.raises(ValueError, match="'test': expected train or validation"):
        prepared.source("test")


def test_records_are_read_as_ranges(tmp_path, monkeypatch):
    """A list of numbers costs a look at the index of the whole file."""
    writer = records.SplitWriter(tmp_path, "train", shard_rows=3)
    writer.add([b"%d" % i for i in range(8)])
    writer.close()
    files = [str(f) for f in sorted(tmp_path.glob("*array_record*"))]

    class Reader:
        def __init__(self, file):
            self.reader = open_records(file)

        def read(self, begin, end):
            return self.reader.read(begin, end)

    open_records = records.open_records
    monkeypatch.setattr(records, "open_records", Reader)
    shards = records.Shards(files, writer.shards)
    assert (len(shards), writer.shards) == (8, [3, 3, 2])
    assert shards.__getitems__([7, 0, 3, 2]) == [b"7", b"0", b"3", b"2"]
    for number in (-1, 8):
        with pytest.raises(IndexError):
            shards[number]
    assert len(records.Shards([], [])) == 0
