"""The two passes over a corpus as pure functions of units of work.

Pass 1 turns a batch of documents into records of tokens, which are stored by number. Pass 2
turns a range of stored documents into rows. Every random number is keyed by (seed, duplicate,
document number) and a random document is fetched by number, so the rows depend neither on how
many workers there are nor on what runs them: an engine maps `rows_of` over `units`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from bert_jax.data import documents, segments
from bert_jax.data.segments import Sentences, TokenRow
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.data.tokenization.tokenizer import Tokenizer

SEGMENT_KINDS = ("nsp", "sop", "electra", "electra_original", "full", "doc", "single")
SPLITS: tuple[str, ...] = ("train", "validation")
NUM_FOLDS = 20  # every 20th document is held out
MAX_SHARD_DOCUMENTS = 1024  # a unit ends after so many documents ...
MAX_SHARD_TOKENS = 1 << 18  # ... or tokens, whichever comes first


class TokenRecord(NamedTuple):
    """A document of tokens as it is stored."""

    data: bytes
    sentences: int
    tokens: int


@dataclass(frozen=True)
class PrepareTask:
    """What the rows of a corpus follow from, beside the unit."""

    segments: str
    length: int  # of a sequence, at most
    seed: int
    special_tokens: SpecialTokens
    documents: int
    store: str  # of pass 1: an ArrayRecord file, or a folder of them (Blocks)
    pack: int = 0  # sequences in a row at most; 0: each has a row of its own
    row_length: int | None = None  # of a packed row; None: that of a sequence

    @property
    def row(self) -> int:
        """Tokens of a row."""
        return self.row_length or self.length

    @property
    def folds(self) -> int:
        return min(NUM_FOLDS, self.documents)


class WorkShard(NamedTuple):
    """Consecutive documents, in one of the passes over the corpus."""

    duplicate: int
    start: int
    stop: int


# ---- pass 1


def encode_documents(
    batch: Sequence[documents.Document], tokenizer: Tokenizer, spaced: bool = False
) -> list[TokenRecord]:
    """Sentences split and encoded; a document without a single token is left out. `spaced` puts
    back the space before every sentence but a document's first, which byte-level BPE encodes:
    without it sentences that follow each other in a row would be glued."""
    split = [[s for p in d.paragraphs for s in documents.split_sentences(p)] for d in batch]
    if spaced:
        split = [[*d[:1], *(f" {s}" for s in d[1:])] for d in split]
    encoded = iter(tokenizer.encode_batch([s for sentences in split for s in sentences]))
    made = [[ids for ids in (next(encoded) for _ in sentences) if ids] for sentences in split]
    return [_record(sentences) for sentences in made if sentences]


def _record(sentences: list[list[int]]) -> TokenRecord:
    lengths = np.array([len(s) for s in sentences], np.uint32)
    tokens = np.array([i for s in sentences for i in s], np.uint32)
    count = np.array([len(sentences)], np.uint32)
    data = count.tobytes() + lengths.tobytes() + tokens.tobytes()
    return TokenRecord(data, len(lengths), len(tokens))


def _parsed(data: bytes) -> Sentences:
    words = np.frombuffer(data, np.uint32)
    count = int(words[0])
    return Sentences(words[1 + count :].astype(np.int32), words[1 : 1 + count])


# ---- which documents belong to which split


def split_name(number: int, folds: int) -> str:
    return "validation" if number % folds == folds - 1 else "train"


def split_size(split: str, documents: int, folds: int) -> int:
    held_out = documents // folds
    return held_out if split == "validation" else documents - held_out


def nth_in_split(split: str, n: int, folds: int) -> int:
    """The number of a split's n-th document."""
    if split == "validation":
        return n * folds + folds - 1
    return n // (folds - 1) * folds + n % (folds - 1)


# ---- pass 2


def make_rows(unit: WorkShard, job: PrepareTask) -> dict[str, list[TokenRow]]:
    """The rows of a unit's documents, by split. Validation is made once, not per duplicate."""
    splits = SPLITS if unit.duplicate == 0 else SPLITS[:1]
    numbers = range(unit.start, unit.stop)
    return {
        split: list(_rows([n for n in numbers if split_name(n, job.folds) == split], unit, job))
        for split in splits
    }


def _rows(numbers: list[int], unit: WorkShard, job: PrepareTask) -> Iterator[TokenRow]:
    if job.segments == "full":  # rows cross documents, but never units
        yield from segments.full_sentences(
            (read_document(job.store, n) for n in numbers), job.length, job.special_tokens
        )
        return
    for number in numbers:
        yield from _document_rows(number, document_rng(job.seed, unit.duplicate, number), job)


def _document_rows(number: int, rng: np.random.Generator, job: PrepareTask) -> Iterator[TokenRow]:
    document, length, special_tokens = (
        read_document(job.store, number),
        job.length,
        job.special_tokens,
    )
    other = functools.partial(_other, number, job)
    match job.segments:
        case "nsp":
            return segments.next_sentence_pairs(document, length, special_tokens, rng, other)
        case "sop":
            return segments.sentence_order_pairs(document, length, special_tokens, rng, other)
        case "electra" | "electra_original":
            scramble = job.segments == "electra_original"
            return segments.electra_segments(document, length, special_tokens, rng, scramble)
        case "doc":
            return segments.doc_sentences(document, length, special_tokens)
        case "single":
            return segments.single_segments(document, length, special_tokens)
    raise AssertionError(job.segments)


def document_rng(seed: int, duplicate: int, number: int) -> np.random.Generator:
    """The random numbers of one document in one pass: a counter-based stream of its own."""
    key = np.array([seed, (duplicate << 48) | number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _other(number: int, job: PrepareTask, rng: np.random.Generator) -> Sentences:
    """Another document of the same split, in up to ten draws as in BERT's code; of the whole
    corpus where the split has only this one."""
    split = split_name(number, job.folds)
    count = split_size(split, job.documents, job.folds)
    drawn = number
    for _ in range(10):
        if count > 1:
            drawn = nth_in_split(split, int(rng.integers(count)), job.folds)
        else:
            drawn = int(rng.integers(job.documents))
        if drawn != number:
            break
    return read_document(job.store, drawn)


@functools.lru_cache(maxsize=8)
def read_document(store: str, number: int) -> Sentences:
    """A stored document by its number."""
    return _parsed(_reader(store).read([number])[0])


@functools.lru_cache(maxsize=1)
def _reader(store: str) -> ArrayRecordReader | BlockReader:
    return BlockReader(store) if Path(store).is_dir() else _open(store)


def _open(file: str) -> ArrayRecordReader:
    return ArrayRecordReader(file, "readahead_buffer_size:0")


class BlockReader:
    """A folder of ArrayRecord files, read as if it were one; `starts.npy` holds the number of
    each one's first document, in the order of their names."""

    def __init__(self, folder: str):
        self._files = sorted(map(str, Path(folder).glob("[0-9]*.array_record")))
        self._starts = np.load(Path(folder) / "starts.npy")
        self._opened = functools.lru_cache(maxsize=64)(_open)

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        return [self._read(number) for number in numbers]

    def _read(self, number: int) -> bytes:
        block = int(np.searchsorted(self._starts, number, "right")) - 1
        return self._opened(self._files[block]).read([number - int(self._starts[block])])[0]


def close_store() -> None:
    """Closes the store: its file is about to go."""
    read_document.cache_clear()
    _reader.cache_clear()
