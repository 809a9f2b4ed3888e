"""Text to a corpus on disk, and back: `prepare` and `open_corpus`.

    OUT/
      bert_jax_corpus-*.array_record-*  dataset_info.json  features.json   the TFDS dataset
      tokenizer/      what the ids mean
      corpus.json     how it was made, and its counts (Info)
      unigram.npy     int64[V]: how often each id occurs in the training rows

Two passes. The first streams documents, splits them into sentences, encodes them and stores
them by number; the second makes rows (units.py). Both map pure functions over units of work, on
the processes of this machine (passes.py) or on a runner of Apache Beam (beam.py), and keep
the order: a corpus does not depend on what made it. Everything goes to a sibling folder that
is renamed at the very end.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.data import bin_packing, documents, records, tfds_folder
from bert_jax.data import prepare as passes
from bert_jax.data.prepare import PrepareConfig, SplitCounts
from bert_jax.data.tokenization import tokenizer
from bert_jax.data.work_shards import SEGMENT_KINDS, SPLITS
from bert_jax.utils import io

logger = logging.getLogger(__name__)

VERSION = 1
MIN_LENGTH = 8  # tokens of a row: two segments of two, and their special tokens
MAX_LENGTH = 65_536


@dataclass(frozen=True)
class CorpusInfo:
    """corpus.json: how a corpus was made, and what is in it."""

    segments: str
    length: int  # of a row
    seed: int
    duplicates: int
    tokenizer_kind: str
    tokenizer_fingerprint: str
    vocab_size: int
    pad_id: int
    replaced_bytes: int  # that were not UTF-8
    train: SplitCounts
    validation: SplitCounts
    version: int = VERSION
    packed: int = 0  # sequences in a row at most; 0: each has a row of its own
    sequence_length: int | None = None  # where it is not that of a row

    def padding(self, split: str) -> float:
        """The share of its tokens that only fill rows up."""
        counts = self.counts(split)
        return 1 - counts.tokens / max(1, counts.rows * self.length)

    def counts(self, split: str) -> SplitCounts:
        return self.train if split == "train" else self.validation


# ---- reading


class Corpus:
    """A prepared corpus; opened by `open_corpus`."""

    def __init__(self, path: Path, info: CorpusInfo):
        self.path, self.info = path, info

    def __repr__(self) -> str:
        rows = f"{self.info.train.rows} + {self.info.validation.rows} rows of {self.info.length}"
        packed = ", packed" if self.info.packed else ""
        return f"Corpus({self.path}, {self.info.segments}, {rows}{packed})"

    @functools.cached_property
    def tokenizer(self) -> tokenizer.Tokenizer:
        loaded = tokenizer.load_tokenizer(self.path / "tokenizer")
        if loaded.fingerprint != self.info.tokenizer_fingerprint:
            raise ValueError(f"{self.path}/tokenizer is not the corpus's own: prepare it again")
        return loaded

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of how the corpus was made and of what it holds."""
        parts = [(self.path / name).read_bytes() for name in ("corpus.json", "unigram.npy")]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    @functools.cached_property
    def unigram(self) -> np.ndarray:
        """int64[V]: how often each id stands in the training rows, specials included."""
        try:
            return np.load(self.path / "unigram.npy")
        except Exception as e:  # NumPy parses the header as Python, and fails in many ways
            raise ValueError(
                f"{self.path}/unigram.npy is damaged: {e}; prepare the corpus again"
            ) from e

    def source(self, split: str) -> records.RecordSource:
        """Random access to a split's rows."""
        if split not in SPLITS:
            raise ValueError(f"the split is {split!r}: expected {' or '.join(SPLITS)}")
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.decode import DeserializeMethod

        tfds_folder.check_features_json(self.path)
        builder: Any = tfds.builder_from_directory(str(self.path))
        raw = builder.as_data_source(split=split, deserialize_method=DeserializeMethod.RAW_BYTES)
        features, packed = builder.info.features, self.info.packed
        if features["size"].shape != ((packed,) if packed else ()):
            raise ValueError(f"{self.path}/corpus.json is not of its rows: prepare it again")
        rows = records.RecordSource(raw, features["tokens"].np_dtype, packed=bool(packed))
        if len(rows) != self.info.counts(split).rows:
            raise ValueError(f"{self.path} has lost rows of {split}: prepare it again")
        return rows


def open_corpus(path: str | Path) -> Corpus:
    """Opens what `prepare` wrote; checks that all its parts are there."""
    path = Path(path)
    if not (path / "corpus.json").is_file():
        raise ValueError(f"{path} is not a corpus: expected a folder that prepare wrote")
    try:
        values = json.loads((path / "corpus.json").read_text(encoding="utf-8"))
        for split in SPLITS:  # corpora from before rows were packed do not say the same twice
            values[split] = SplitCounts(**{"sequences": values[split]["rows"]} | values[split])
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


def _check_shards(path: Path, split: str) -> None:
    found = sorted(path.glob(f"{records.DATASET_NAME}-{split}.array_record-*"))
    expected = int(found[0].name.rpartition("-")[2]) if found else 1
    if len(found) != expected or not all(f.stat().st_size for f in found):
        raise ValueError(
            f"{path} is damaged: {len(found)} of {expected} shards of {split} are whole; "
            "prepare the corpus again"
        )


# ---- writing


def prepare(
    texts: Sequence[str],
    tokenizer_dir: str | Path,
    segments: str,
    length: int,
    out: str | Path,
    workers: int = 1,
    seed: int = 0,
    duplicates: int = 1,
    strict: bool = False,
    engine: str = "local",
    progress: bool = True,
    flags: Sequence[str] = (),
    pack: int | None = 0,
    row_length: int | None = None,
) -> Corpus:
    """Makes a corpus from texts (documents.py) and a tokenizer's folder; `flags` are for the runner
    of Beam. With `pack` up to so many sequences of `length` share a row of `row_length` tokens;
    None: as many as `packs.usual` says."""
    _check(segments, length, workers, seed, duplicates, engine, flags)
    _check_packing(pack, length, row_length)
    pack = bin_packing.default_sequences(length, row_length or length) if pack is None else pack
    out = Path(out)
    io.require_new(out)
    tok = tokenizer.load_tokenizer(tokenizer_dir)
    # RoBERTa's own rows put </s> between sentences, which are encoded without spaces.
    spaced = tok.kind == "bpe" and segments not in ("full", "doc")
    sources = documents.expand_sources(texts)
    how = (segments, length, seed, duplicates, tok.special_tokens, strict, spaced, pack, row_length)
    request = PrepareConfig(sources, *how)
    if engine == "beam":
        run = functools.partial(_beam().run, flags=flags)
    else:
        run = functools.partial(passes.run, workers=workers, progress=progress)
    with io.atomic_dir(out) as folder:
        tok.save(folder / "tokenizer")
        stored, rows = run(folder, request)
        info = CorpusInfo(
            segments,
            row_length or length,
            seed,
            duplicates,
            tok.kind,
            tok.fingerprint,
            tok.vocab_size,
            tok.pad_id,
            stored.replaced,
            train=stored.counts("train") + rows["train"],
            validation=stored.counts("validation") + rows["validation"],
            packed=pack,
            sequence_length=length if (row_length or length) > length else None,
        )
        text = json.dumps(dataclasses.asdict(info), indent=2) + "\n"
        (folder / "corpus.json").write_text(text, encoding="utf-8")
    if stored.replaced:
        logger.warning("%d bytes were not UTF-8; U+FFFD stands for them", stored.replaced)
    return open_corpus(out)


def _check(
    segments: str,
    length: int,
    workers: int,
    seed: int,
    duplicates: int,
    engine: str,
    flags: Sequence[str],
) -> None:
    if segments not in SEGMENT_KINDS:
        raise ValueError(f"segments is {segments!r}: expected one of {', '.join(SEGMENT_KINDS)}")
    if not MIN_LENGTH <= length <= MAX_LENGTH:
        raise ValueError(f"length is {length}: expected {MIN_LENGTH} to {MAX_LENGTH} tokens a row")
    for name, value in (("workers", workers), ("duplicates", duplicates)):
        if value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed is {seed}: expected 0 to 2^63 - 1")
    if duplicates > 1 and segments in ("full", "doc", "single"):
        raise ValueError(
            f"duplicates is {duplicates}, but {segments} draws nothing: its rows would be the "
            "same again; leave duplicates at 1, masks change in training"
        )
    if engine not in ("local", "beam"):
        raise ValueError(f"engine is {engine!r}: expected local or beam")
    if engine == "beam" and workers > 1:
        raise ValueError(
            f"workers is {workers}: they are the local engine's; ask Beam's runner by its own "
            "flags, as --direct_num_workers=2 --direct_running_mode=multi_processing"
        )
    if engine == "local" and flags:
        raise ValueError(f"{flags[0]} is for a runner of Beam: add --engine beam")


def _check_packing(pack: int | None, length: int, row_length: int | None) -> None:
    if pack and not 2 <= pack <= bin_packing.MAX_SEQUENCES:
        raise ValueError(
            f"pack is {pack}: expected 2 to {bin_packing.MAX_SEQUENCES} sequences a "
            "row, or 0 for one"
        )
    if row_length is None:
        return
    if pack == 0:
        raise ValueError(f"row_length is {row_length}, but rows are not packed: add --pack")
    if not length <= row_length <= MAX_LENGTH:
        raise ValueError(
            f"row_length is {row_length}: expected {length} to {MAX_LENGTH} tokens, since "
            f"sequences have up to {length}"
        )


def _beam() -> Any:
    try:
        from bert_jax.data import beam
    except ImportError as e:
        raise ValueError(
            f"engine beam needs Apache Beam ({e}): pip install 'apache-beam>=2.77', or use "
            "--engine local, which makes the same corpus"
        ) from None
    return beam
