"""A packed corpus holds the sequences of a padded one, in fewer rows."""

import json
import shutil

import numpy as np
import pytest

from bert_jax.data import bin_packing, corpus, segments, splits
from bert_jax.data.corpus import open_corpus
from tests.helpers.corpora import make, rows, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[str, str]:
    """152 short documents, and a tokenizer."""
    return write_inputs(tmp_path_factory.mktemp("inputs"), 24)


@pytest.fixture(scope="module")
def prepared(inputs, tmp_path_factory) -> corpus.Corpus:
    return make(inputs, tmp_path_factory.mktemp("prepared") / "corpus")


def sequences(prepared: corpus.Corpus, split: str = "train") -> list[tuple]:
    """Those of all rows, packed or not: tokens, first, pair."""
    packed = []
    for ids, *numbers in rows(prepared, split):
        ends = np.cumsum(np.atleast_1d(numbers[0])).tolist()
        first, pair = map(np.atleast_1d, numbers[1:])
        for begin, end, *others in zip([0, *ends[:-1]], ends, first, pair, strict=True):
            if end > begin:
                packed.append((ids[begin:end], *map(int, others)))
    return sorted(packed)


@pytest.fixture(scope="module")
def packed(inputs, tmp_path_factory) -> corpus.Corpus:
    return make(inputs, tmp_path_factory.mktemp("packed") / "corpus", pack=3)


def test_a_packed_corpus_holds_every_sequence_once(prepared, packed):
    for split in splits.SPLITS:
        assert sequences(packed, split) == sequences(prepared, split)
        counts, alone = packed.info.counts(split), prepared.info.counts(split)
        assert counts.sequences == alone.sequences == alone.rows >= counts.rows
        assert (counts.tokens, counts.random_pairs) == (alone.tokens, alone.random_pairs)
    assert packed.info.padding("train") < prepared.info.padding("train")
    assert (packed.unigram == prepared.unigram).all()
    assert (packed.info.packed, prepared.info.packed) == (3, 0)


def test_packed_rows_are_whole_and_describe_themselves(packed):
    for ids, size, first, pair in rows(packed):
        assert (size[:-1] >= size[1:]).all()
        assert 0 < size.sum() <= 64
        assert not np.any(ids[size.sum() :])
        assert (first <= size).all()
        assert ((pair == -1) == (size == 0)).all()
        assert (size <= 64 // np.arange(1, 4)).all()


def test_longer_rows_hold_more_of_the_same_sequences(inputs, prepared, tmp_path):
    long = make(inputs, tmp_path / "long", pack=6, row_length=200)
    assert sequences(long) == sequences(prepared)
    assert (long.info.length, long.info.sequence_length) == (200, 64)
    assert all(len(ids) == 200 for ids, *_ in rows(long))


def test_packed_rows_do_not_depend_on_the_number_of_workers(inputs, packed, tmp_path):
    again = make(inputs, tmp_path / "two", workers=2, pack=3)
    assert again.info == packed.info
    assert repr(rows(again)) == repr(rows(packed))


def test_tfds_opens_a_packed_corpus(packed):
    import tensorflow_datasets as tfds

    [decoded] = (
        tfds.builder_from_directory(packed.path).as_data_source(split="train").__getitems__([4])
    )
    row = packed.source("train")[4]
    for name, value in row.items():
        assert value.dtype == decoded[name].dtype
        assert np.array_equal(value, decoded[name])


def test_a_corpus_from_before_packing_opens(prepared, tmp_path):
    path = shutil.copytree(prepared.path, tmp_path / "copy")
    values = json.loads((path / "corpus.json").read_text())
    for name in ("packed", "sequence_length"):
        del values[name]
    for split in splits.SPLITS:
        del values[split]["sequences"]
    (path / "corpus.json").write_text(json.dumps(values))
    assert open_corpus(path).info == prepared.info


def test_a_description_of_other_rows_is_refused(packed, tmp_path):
    path = shutil.copytree(packed.path, tmp_path / "copy")
    values = json.loads((path / "corpus.json").read_text())
    for wrong in (0, 4, "3"):
        (path / "corpus.json").write_text(json.dumps(values | {"packed": wrong}))
        with pytest.raises(ValueError, match=r"corpus\.json does not match its rows: prepare"):
            open_corpus(path).source("train")


@pytest.mark.parametrize("max_sequences", [2, 3, 8])
def test_packing_loses_nothing_and_fills_rows(max_sequences):
    """Random sizes of half a row on average: every sequence once, none over the length, and but
    for what cannot be helped under a twentieth of padding."""
    rng = np.random.default_rng(max_sequences)
    sequences = [
        segments.TokenRow(np.full(n, i), int(n)) for i, n in enumerate(rng.integers(4, 125, 900))
    ]
    prepared = bin_packing.pack_rows(sequences, 128, max_sequences)
    assert sorted(row.tokens[0] for pack in prepared for row in pack) == list(range(900))
    assert max(sum(len(row.tokens) for row in pack) for pack in prepared) <= 128
    assert max(map(len, prepared)) <= max_sequences
    assert sum(len(row.tokens) for row in sequences) > 0.95 * 128 * len(prepared)
