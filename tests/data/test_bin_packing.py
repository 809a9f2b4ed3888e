"""A packed corpus holds the sequences of a padded one, in fewer rows."""

import json
import shutil

import numpy as np
import pytest

from bert_jax.data import bin_packing, corpus, segments, splits
from bert_jax.data.corpus import open_corpus
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from tests.helpers.paths import SAMPLE


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> tuple[str, str]:
    """152 short documents, and a tokenizer."""
    folder = tmp_path_factory.mktemp("given")
    documents = SAMPLE.read_text(encoding="utf-8").split("\n\n")
    text = "\n\n".join(d[: len(d) // 24] for d in documents)
    (folder / "text.txt").write_text(text, encoding="utf-8")
    train_tokenizer(text.split("\n"), "wordpiece", 1000).save(folder / "tokenizer")
    return str(folder / "text.txt"), str(folder / "tokenizer")


def make(given, out, **options) -> corpus.Corpus:
    return prepare_corpus([given[0]], given[1], "nsp", 64, out, progress=False, **options)


def rows(made: corpus.Corpus, split: str = "train") -> list[tuple]:
    source = made.source(split)
    read = source.__getitems__(list(range(len(source))))
    return [(r["tokens"].tolist(), r["size"], r["first"], r["pair"]) for r in read]


@pytest.fixture(scope="module")
def made(given, tmp_path_factory) -> corpus.Corpus:
    return make(given, tmp_path_factory.mktemp("made") / "corpus")


def sequences(made: corpus.Corpus, split: str = "train") -> list[tuple]:
    """Those of all rows, packed or not: tokens, first, pair."""
    found = []
    for ids, *numbers in rows(made, split):
        ends = np.cumsum(np.atleast_1d(numbers[0])).tolist()
        first, pair = map(np.atleast_1d, numbers[1:])
        for begin, end, *others in zip([0, *ends[:-1]], ends, first, pair, strict=True):
            if end > begin:
                found.append((ids[begin:end], *map(int, others)))
    return sorted(found)


@pytest.fixture(scope="module")
def packed(given, tmp_path_factory) -> corpus.Corpus:
    return make(given, tmp_path_factory.mktemp("packed") / "corpus", pack=3)


def test_a_packed_corpus_holds_every_sequence_once(made, packed):
    for split in splits.SPLITS:
        assert sequences(packed, split) == sequences(made, split)
        counts, alone = packed.info.counts(split), made.info.counts(split)
        assert counts.sequences == alone.sequences == alone.rows >= counts.rows
        assert (counts.tokens, counts.random_pairs) == (alone.tokens, alone.random_pairs)
    assert packed.info.padding("train") < made.info.padding("train")
    assert (packed.unigram == made.unigram).all()
    assert (packed.info.packed, made.info.packed) == (3, 0)


def test_packed_rows_are_whole_and_describe_themselves(packed):
    for ids, size, first, pair in rows(packed):
        assert (size[:-1] >= size[1:]).all()
        assert 0 < size.sum() <= 64
        assert not np.any(ids[size.sum() :])
        assert (first <= size).all()
        assert ((pair == -1) == (size == 0)).all()
        assert (size <= 64 // np.arange(1, 4)).all()


def test_longer_rows_hold_more_of_the_same_sequences(given, made, tmp_path):
    long = make(given, tmp_path / "long", pack=6, row_length=200)
    assert sequences(long) == sequences(made)
    assert (long.info.length, long.info.sequence_length) == (200, 64)
    assert all(len(ids) == 200 for ids, *_ in rows(long))


def test_packed_rows_do_not_depend_on_the_number_of_workers(given, packed, tmp_path):
    again = make(given, tmp_path / "two", workers=2, pack=3)
    assert again.info == packed.info
    assert repr(rows(again)) == repr(rows(packed))


def test_tfds_opens_a_packed_corpus(packed):
    import tensorflow_datasets as tfds

    [theirs] = (
        tfds.builder_from_directory(packed.path).as_data_source(split="train").__getitems__([4])
    )
    ours = packed.source("train")[4]
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert np.array_equal(value, theirs[name])


def test_a_corpus_from_before_packing_opens(made, tmp_path):
    path = shutil.copytree(made.path, tmp_path / "copy")
    values = json.loads((path / "corpus.json").read_text())
    for name in ("packed", "sequence_length"):
        del values[name]
    for split in splits.SPLITS:
        del values[split]["sequences"]
    (path / "corpus.json").write_text(json.dumps(values))
    assert open_corpus(path).info == made.info


def test_a_description_of_other_rows_is_refused(packed, tmp_path):
    path = shutil.copytree(packed.path, tmp_path / "copy")
    values = json.loads((path / "corpus.json").read_text())
    for wrong in (0, 4, "3"):
        (path / "corpus.json").write_text(json.dumps(values | {"packed": wrong}))
        with pytest.raises(ValueError, match=r"corpus\.json does not match its rows: prepare"):
            open_corpus(path).source("train")


@pytest.mark.parametrize("most", [2, 3, 8])
def test_packing_loses_nothing_and_fills_rows(most):
    """Random sizes of half a row on average: every sequence once, none over the length, and but
    for what cannot be helped under a twentieth of padding."""
    rng = np.random.default_rng(most)
    given = [
        segments.TokenRow(np.full(n, i), int(n)) for i, n in enumerate(rng.integers(4, 125, 900))
    ]
    made = bin_packing.pack_rows(given, 128, most)
    assert sorted(row.tokens[0] for pack in made for row in pack) == list(range(900))
    assert max(sum(len(row.tokens) for row in pack) for pack in made) <= 128
    assert max(map(len, made)) <= most
    assert sum(len(row.tokens) for row in given) > 0.95 * 128 * len(made)
