"""Rows on disk: a TFDS dataset in ArrayRecord, written without TensorFlow.

A record is a `tf.train.Example` in protocol-buffer wire format, which TFDS reads as its own.

    feature   type                             meaning
    tokens    uint16[length] or int32[length]  ids, padded; raw bytes
    size      int32                            number of tokens, padding excluded
    first     int32                            number of tokens of segment 0
    pair      int32                            label of the sentence pair, or -1

A row of a packed corpus holds up to n sequences, one after the other. `size`, `first` and `pair`
are then int32[n], raw bytes too: one number for each sequence, and 0 0 -1 for missing ones.
Rows of segmented text whose ids do not tell where words begin have a feature `words`,
uint8[length / 8]: one bit for each token, 1 where a word begins.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from bert_jax.data.segments import CONTINUES, TokenRow
from bert_jax.utils import io
from bert_jax.utils.errors import RunError

DATASET_NAME = "bert_jax_corpus"
# compression would save 6 % of the space, and make writing 5 and reading 2 times as slow
WRITER_OPTIONS = "group_size:1,uncompressed"
MIN_SHARD_ROWS = 8192  # a writer holds 46 bytes and some waste for each row until it closes
SURE_TO_NEED = 0.5  # of the estimated size of the rows, which may be twice too large
OPEN_FILES = 10_000  # macOS allows 10,240
MAX_SHARDS = 256  # about: readers keep every shard open (raise_open_file_limit)


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.int32]:
    return np.uint16 if vocab_size < 65_536 else np.int32


class RowFormat(NamedTuple):
    """The form of rows of `length` tokens."""

    length: int
    pad_id: int
    vocab_size: int
    max_sequences: int = 0  # of a packed row; 0: rows are not packed
    stores_words: bool = False  # take the bit CONTINUES of the ids for the feature `words`

    @property
    def bytes_per_row(self) -> int:
        """The size of a record, about."""
        return self.length * np.dtype(token_dtype(self.vocab_size)).itemsize + 64

    def serialize(self, sequences: Sequence[TokenRow]) -> bytes:
        """A row of one sequence, or of up to `max_sequences` if rows are packed: the bytes of a
        `tf.train.Example`."""
        joined = np.concatenate([row.tokens for row in sequences])
        tokens = np.full(self.length, self.pad_id, token_dtype(self.vocab_size))
        tokens[: len(joined)] = joined & ~CONTINUES
        features = _feature(b"tokens", _bytes(tokens))
        if self.stores_words:
            begins = np.zeros(self.length, bool)
            begins[: len(joined)] = joined & CONTINUES == 0
            features += _feature(b"words", _bytes(np.packbits(begins)))
        numbers = np.array([(len(r.tokens), r.first, r.pair) for r in sequences], np.int32)
        if self.max_sequences:
            padded = np.zeros((self.max_sequences, 3), np.int32)
            padded[:, 2] = -1
            padded[: len(numbers)] = numbers
            values = [_bytes(column) for column in padded.T]
        else:
            values = [_int64(value) for value in numbers[0].tolist()]
        for name, value in zip((b"size", b"first", b"pair"), values, strict=True):
            features += _feature(name, value)
        return _field(1, features)


def open_records(file: str) -> ArrayRecordReader:
    """A file to read single records from."""
    return ArrayRecordReader(file, "readahead_buffer_size:0")


class Shards:
    """Random access to the records of ArrayRecord files, in their order; `counts` are the records
    of each. At most `max_open` files are open at a time, by default all.

    Records are read as ranges of one. A list of numbers, as TFDS's data source gives, makes
    ArrayRecord look through the index of the whole file: 1.2 ms in a file of 300,000 records and
    not .003 (array_record issue 143). So the rows of a batch are read in series, and
    `data.threads` batches at once.
    """

    def __init__(self, files: Sequence[str], counts: Sequence[int], max_open: int | None = None):
        self._files, self._ends = files, list(itertools.accumulate(counts))
        self._open = functools.lru_cache(maxsize=max_open)(open_records)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        shard = bisect.bisect_right(self._ends, number)
        place = number - (self._ends[shard - 1] if shard else 0)
        return self._open(self._files[shard]).read(place, place + 1)[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[bytes]:
        return [self[number] for number in numbers]


class RecordSource:
    """Random access to the rows of a split: `tokens` [l], `size` `first` `pair`, numbers or, if
    the corpus is packed, [n] each, and perhaps `words` [l]. TFDS's own decoding takes thirty times
    as long."""

    def __init__(self, records: Any, dtype: Any, packed: bool, words: bool = False):
        from tensorflow_datasets.proto import tf_example_pb2

        schema: Any = tf_example_pb2
        self._parse = schema.Example.FromString
        self._records, self._dtype, self._packed, self._words = records, dtype, packed, words

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self._row(self._records[number])

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [self._row(record) for record in self._records.__getitems__(list(numbers))]

    def _row(self, record: bytes) -> dict[str, Any]:
        features = self._parse(record).features.feature
        row: dict[str, Any] = {"tokens": _array(features["tokens"], self._dtype)}
        for name in ("size", "first", "pair"):
            value = features[name]
            row[name] = _array(value, np.int32) if self._packed else value.int64_list.value[0]
        if self._words:
            bits = np.unpackbits(_array(features["words"], np.uint8), count=len(row["tokens"]))
            row["words"] = bits.astype(bool)
        return row


def raise_open_file_limit() -> None:
    """Let this process open `OPEN_FILES` files if the system allows it, for the shards of several
    corpora: a soft limit is often 1,024, or 256."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    unlimited = resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == unlimited else min(hard, OPEN_FILES)
    if soft != unlimited and soft < limit:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _array(feature: Any, dtype: Any) -> np.ndarray:
    return np.frombuffer(feature.bytes_list.value[0], dtype)


def _feature(name: bytes, value: bytes) -> bytes:
    """Encode an entry of the map of features: key is field 1, value is field 2."""
    return _field(1, _field(1, name) + _field(2, value))


def _bytes(values: np.ndarray) -> bytes:
    """Encode a feature that is a list of one array: field 1."""
    return _field(1, _field(1, values.tobytes()))


def _int64(value: int) -> bytes:
    """Encode a feature that is a list of one integer: field 3, packed."""
    return _field(3, _field(1, _varint(value & (1 << 64) - 1)))


def _field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field."""
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def check_disk(folder: Path, rows: float, row_format: RowFormat) -> None:
    """RunError: the disk of a folder is much too small for about so many rows."""
    needed, free = row_format.bytes_per_row * rows, io.free_bytes(folder)
    if free is not None and free < SURE_TO_NEED * needed:
        raise RunError(
            f"the rows need about {needed / 1e9:,.1f} GB in {folder.parent}, where "
            f"{free / 1e9:,.1f} GB are free: free space, choose another --out, or give "
            "--duplicates, if there are several passes over the text"
        )


def rows_per_shard(rows: float) -> int:
    """Rows per shard of a split that will have about `rows` rows."""
    return max(MIN_SHARD_ROWS, int(rows) // MAX_SHARDS)


class SplitWriter:
    """Writes the shards of one split, in the order of the rows. `close` gives them their final
    names, which contain the number of shards."""

    def __init__(self, folder: Path, split: str, shard_rows: int = MIN_SHARD_ROWS):
        self._folder, self._split, self._shard_rows = folder, split, shard_rows
        self._writer: Any = None
        self.shards: list[int] = []  # rows of each
        self.bytes = 0

    def add(self, examples: Iterable[bytes]) -> None:
        for data in examples:
            if not self.shards or self.shards[-1] >= self._shard_rows:
                self._next_shard()
            self._writer.write(data)
            self.bytes += len(data)
            self.shards[-1] += 1

    def adopt(self, file: Path, rows: int, size: int) -> None:
        """Take a file that another process wrote as the next shard: `size` bytes of examples."""
        self._close_shard()
        file.rename(self._part(len(self.shards)))
        self.shards.append(rows)
        self.bytes += size

    def _next_shard(self) -> None:
        self._close_shard()
        self._writer = ArrayRecordWriter(str(self._part(len(self.shards))), WRITER_OPTIONS)
        self.shards.append(0)

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _part(self, shard: int) -> Path:
        return self._folder / f"{self._split}.part{shard}"

    def close(self) -> None:
        self._close_shard()
        count = len(self.shards)
        for i in range(count):
            name = f"{DATASET_NAME}-{self._split}.array_record-{i:05d}-of-{count:05d}"
            self._part(i).rename(self._folder / name)


def finish_dataset(
    folder: Path,
    writers: dict[str, SplitWriter],
    unigram: np.ndarray,
    row_format: RowFormat,
) -> None:
    """Close the shards, write the unigram counts and the metadata with which TFDS opens the
    folder."""
    for writer in writers.values():
        writer.close()
    np.save(folder / "unigram.npy", unigram)
    _write_tfds_metadata(folder, writers, row_format)


def _write_tfds_metadata(
    folder: Path, writers: dict[str, SplitWriter], row_format: RowFormat
) -> None:
    import tensorflow_datasets as tfds
    from etils import epath
    from tensorflow_datasets.core import dataset_info, splits

    def array(size: int, dtype: Any) -> Any:
        return tfds.features.Tensor(shape=(size,), dtype=dtype, encoding="bytes")

    number: Any = tfds.features.Scalar(dtype=np.int32)
    if row_format.max_sequences:
        number = array(row_format.max_sequences, np.int32)
    tokens = array(row_format.length, token_dtype(row_format.vocab_size))
    features = {"tokens": tokens, "size": number, "first": number, "pair": number}
    if row_format.stores_words:
        features["words"] = array(-(-row_format.length // 8), np.uint8)
    identity = dataset_info.DatasetIdentity(
        name=DATASET_NAME,
        version=tfds.core.Version("1.0.0"),
        data_dir=str(folder),
        module_name=__name__,
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    template = tfds.core.ShardedFileTemplate(
        dataset_name=DATASET_NAME, data_dir=epath.Path(folder), filetype_suffix="array_record"
    )
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=writer.shards,
            num_bytes=writer.bytes,
            filename_template=template.replace(split=split),
        )
        for split, writer in writers.items()
    ]
    info.set_splits(splits.SplitDict(infos))
    info.write_to_directory(str(folder))
