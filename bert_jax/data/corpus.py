"""A prepared corpus on disk: `open_corpus` opens what `prepare.prepare_corpus` wrote.

OUT/
  bert_jax_corpus-*.array_record-*  dataset_info.json  features.json   the TFDS dataset
  tokenizer/      the tokenizer of the ids
  corpus.json     how it was made, and its counts (CorpusInfo)
  unigram.npy     int64[V]: how often each id occurs in the training rows
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.data import records, tfds_folder
from bert_jax.data.segments import TokenRow
from bert_jax.data.sentence_pairs import PAIR_KINDS
from bert_jax.data.splits import SPLITS
from bert_jax.data.tokenization.coverage import Coverage
from bert_jax.data.tokenization.tokenizer import Tokenizer, load_tokenizer

VERSION = 1


@dataclass(frozen=True)
class SplitCounts:
    """The counts of one split. Rows and tokens are over all duplicates."""

    documents: int = 0
    sentences: int = 0
    rows: int = 0
    tokens: int = 0  # special tokens included, padding not
    short_rows: int = 0  # rows with padding
    random_pairs: int = 0  # rows with label 1: random (NSP) or swapped (SOP)
    sequences: int = 0  # equal to `rows` unless rows are packed
    labeled_pairs: int = 0  # rows with label 1 or 0; the others of an NSP or SOP corpus have none
    words: int = 0  # words in the rows; 0 in a corpus that was prepared before they were counted
    # Sequences of one sentence (of one line in RoBERTa's rows), or of a part of one that was split.
    single_sentences: int = 0
    # Rows of two segments: tokens of the documents, those of them that are in no row, and of these
    # the ones of sentences that are longer than a row.
    text_tokens: int = 0
    dropped_tokens: int = 0
    overlong_tokens: int = 0

    @property
    def label_share(self) -> float:
        """The share of label 1 among the pairs that have a label; 0 without pairs."""
        return self.random_pairs / max(1, self.labeled_pairs)

    @property
    def dropped_share(self) -> float:
        """The share of the text that is in no row; 0 if it was not counted."""
        return self.dropped_tokens / max(1, self.text_tokens)

    @property
    def overlong_share(self) -> float:
        """The share of the text that is in no row because sentences are longer than a row."""
        return self.overlong_tokens / max(1, self.text_tokens)

    @classmethod
    def of_rows(
        cls, rows: Sequence[Sequence[TokenRow]], length: int, words: int = 0
    ) -> SplitCounts:
        """The counts of rows of `length` tokens, each one or several sequences."""
        tokens = [sum(len(sequence.tokens) for sequence in row) for row in rows]
        sequences = [sequence for row in rows for sequence in row]
        return cls(
            rows=len(rows),
            tokens=sum(tokens),
            short_rows=sum(n < length for n in tokens),
            random_pairs=sum(sequence.pair == 1 for sequence in sequences),
            sequences=len(sequences),
            labeled_pairs=sum(sequence.pair >= 0 for sequence in sequences),
            words=words,
            single_sentences=sum(sequence.sentences == 1 for sequence in sequences),
            text_tokens=sum(sequence.text for sequence in sequences),
            dropped_tokens=sum(sequence.dropped for sequence in sequences),
            overlong_tokens=sum(sequence.overlong for sequence in sequences),
        )

    def __add__(self, other: SplitCounts) -> SplitCounts:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return SplitCounts(*(a + b for a, b in pairs))


@dataclass(frozen=True)
class CorpusInfo:
    """The content of corpus.json: how the corpus was made, and its counts."""

    segments: str
    length: int  # tokens of a row
    seed: int
    duplicates: int
    tokenizer_kind: str
    tokenizer_fingerprint: str
    vocab_size: int
    pad_id: int
    replaced_bytes: int  # bytes of the text that were not UTF-8
    train: SplitCounts
    validation: SplitCounts
    version: int = VERSION
    packed: int = 0  # max sequences in a row; 0: rows are not packed
    sequence_length: int | None = None  # max tokens of a sequence; None: `length`
    language: str = "en"  # whose rules split the sentences
    segmented: bool = False  # white space separates words, in scripts without spaces too
    separators: str | None = None  # RoBERTa's rows: after each `line` or `sentence`
    stores_words: bool = False  # rows say where their words begin
    hub_rows: dict[str, int] = dataclasses.field(default_factory=dict)  # dataset@COMMIT -> its rows
    characters: int = 0  # of the text without white space; 0 in corpora older than this count
    unknown_characters: int = 0  # of these, those in unknown tokens

    def unlabeled_pairs(self, split: str) -> int:
        """Rows (or sequences) of sentence pairs that have no label."""
        counts = self.counts(split)
        return counts.sequences - counts.labeled_pairs if self.segments in PAIR_KINDS else 0

    def padding(self, split: str) -> float:
        """The share of a split's tokens that are padding."""
        counts = self.counts(split)
        return 1 - counts.tokens / max(1, counts.rows * self.length)

    def counts(self, split: str) -> SplitCounts:
        """The counts of the split `train` or `validation`."""
        return self.train if split == "train" else self.validation


class Corpus:
    """A prepared corpus; `open_corpus` makes one."""

    def __init__(self, path: Path, info: CorpusInfo):
        self.path, self.info = path, info

    def __repr__(self) -> str:
        rows = f"{self.info.train.rows} + {self.info.validation.rows} rows of {self.info.length}"
        packed = ", packed" if self.info.packed else ""
        return f"Corpus({self.path}, {self.info.segments}, {rows}{packed})"

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of its ids."""
        loaded = load_tokenizer(self.path / "tokenizer")
        if loaded.fingerprint != self.info.tokenizer_fingerprint:
            raise ValueError(
                f"{self.path}/tokenizer is not the tokenizer that the corpus was prepared with: "
                "prepare the corpus again"
            )
        return loaded

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits: a hash of corpus.json and unigram.npy."""
        parts = [(self.path / name).read_bytes() for name in ("corpus.json", "unigram.npy")]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    @functools.cached_property
    def unigram(self) -> np.ndarray:
        """int64[V]: how often each id occurs in the training rows, special tokens included."""
        try:
            return np.load(self.path / "unigram.npy")
        except Exception as e:  # NumPy parses the header as Python, and fails in many ways
            raise ValueError(
                f"{self.path}/unigram.npy is damaged: {e}; prepare the corpus again"
            ) from e

    @property
    def coverage(self) -> Coverage:
        """The unknown tokens and the words of the training rows, and the characters of the text."""
        special = list(self.tokenizer.special_ids)
        tokens = int(self.unigram.sum() - self.unigram[special].sum())
        unknown = int(self.unigram[self.tokenizer.unk_id])
        characters = self.info.characters, self.info.unknown_characters
        return Coverage(tokens, unknown, self.info.train.words, *characters)

    def source(self, split: str) -> records.RecordSource:
        """Random access to a split's rows."""
        if split not in SPLITS:
            raise ValueError(f"the split is {split!r}: expected {' or '.join(SPLITS)}")
        import tensorflow_datasets as tfds

        tfds_folder.check_features_json(self.path)
        records.raise_open_file_limit()
        builder: Any = tfds.builder_from_directory(str(self.path))
        info = builder.info.splits[split]
        shards = records.Shards([str(file) for file in info.filepaths], info.shard_lengths)
        features, packed = builder.info.features, self.info.packed
        shape, has_words = ((packed,) if packed else ()), "words" in features
        if (features["size"].shape, has_words) != (shape, self.info.stores_words):
            raise ValueError(
                f"{self.path}/corpus.json does not match its rows: prepare the corpus again"
            )
        dtype, words = features["tokens"].np_dtype, self.info.stores_words
        rows = records.RecordSource(shards, dtype, packed=bool(packed), words=words)
        if len(rows) != self.info.counts(split).rows:
            raise ValueError(
                f"{self.path} has {len(rows)} {split} rows, expected "
                f"{self.info.counts(split).rows}: prepare the corpus again"
            )
        return rows


def open_corpus(path: str | Path) -> Corpus:
    """Open a folder that `prepare` wrote. ValueError: a part of it is missing or damaged."""
    path = Path(path)
    if not (path / "corpus.json").is_file():
        raise ValueError(f"{path} is not a corpus: expected a folder that prepare wrote")
    try:
        values = json.loads((path / "corpus.json").read_text(encoding="utf-8"))
        for split in SPLITS:
            values[split] = SplitCounts(**_added_counts(values, split) | values[split])
        info = CorpusInfo(**values)
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise ValueError(f"{path}/corpus.json is damaged: {e}; prepare the corpus again") from e
    if info.version != VERSION:
        raise ValueError(
            f"{path} has format {info.version}, expected {VERSION}: prepare the corpus again"
        )
    for name in ("dataset_info.json", "features.json", "tokenizer", "unigram.npy"):
        if not (path / name).exists():
            raise ValueError(f"{path} is damaged: {name} is missing; prepare the corpus again")
    for split in SPLITS:
        _check_shards(path, split)
    return Corpus(path, info)


def _added_counts(values: dict[str, Any], split: str) -> dict[str, int]:
    """Counts that a corpus.json lacks which was written before they existed."""
    sequences = values[split].get("sequences", values[split]["rows"])
    labeled = sequences if values["segments"] in PAIR_KINDS else 0
    return {"sequences": sequences, "labeled_pairs": labeled}


def _check_shards(path: Path, split: str) -> None:
    files = sorted(path.glob(f"{records.DATASET_NAME}-{split}.array_record-*"))
    expected = int(files[0].name.rpartition("-")[2]) if files else 1
    complete = [file for file in files if file.stat().st_size]
    if not len(complete) == len(files) == expected:
        raise ValueError(
            f"{path} is damaged: it has {len(complete)} complete {split} shards, expected "
            f"{expected}; prepare the corpus again"
        )
