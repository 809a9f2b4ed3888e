"""The two passes of `prepare`: units of work mapped over workers, written in order."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from bert_jax.data import bin_packing, documents, work_shards
from bert_jax.data import records as dataset
from bert_jax.data.documents import Document
from bert_jax.data.segments import TokenRow
from bert_jax.data.tokenization import tokenizer
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.data.work_shards import NUM_FOLDS, SPLITS, PrepareTask, TokenRecord, WorkShard
from bert_jax.data.workers import Progress, Workers

ENCODE_CHARACTERS = 1 << 19  # characters that a worker encodes at a time
_STATE: dict[str, tokenizer.Tokenizer] = {}  # of a worker process


@dataclass(frozen=True)
class SplitCounts:
    """Of one split. Rows and tokens are over all duplicates."""

    documents: int = 0
    sentences: int = 0
    rows: int = 0
    tokens: int = 0  # real ones, specials included
    short_rows: int = 0  # with padding
    random_pairs: int = 0  # label 1: random (NSP), swapped (SOP)
    sequences: int = 0  # in the rows; as many unless they are packed

    def __add__(self, other: SplitCounts) -> SplitCounts:
        ours, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return SplitCounts(*(a + b for a, b in zip(ours, theirs, strict=True)))


@dataclass(frozen=True)
class PrepareConfig:
    """What `prepare` is asked for, whatever engine does it."""

    sources: list[str]
    segments: str
    length: int
    seed: int
    duplicates: int
    special_tokens: SpecialTokens
    strict: bool
    spaced: bool  # as in units.records_of
    pack: int = 0  # as in units.Job
    row_length: int | None = None

    def job(self, documents: int, store: Path) -> PrepareTask:
        how = (self.segments, self.length, self.seed, self.special_tokens)
        return PrepareTask(*how, documents, str(store), self.pack, self.row_length)


def run(
    folder: Path, request: PrepareConfig, workers: int, progress: bool
) -> tuple[DocumentStore, dict[str, SplitCounts]]:
    """Both passes on this machine, into a folder that holds the tokenizer."""
    store = folder / "documents.array_record"
    texts = itertools.chain.from_iterable(
        documents.read_source(source, request.strict) for source in request.sources
    )
    with Workers(workers, load_tokenizer, folder / "tokenizer") as pool:
        stored = first_pass(texts, store, pool, progress, request.spaced)
        job = request.job(stored.documents, store)
        rows = second_pass(folder, job, stored, request.duplicates, pool, progress)
    work_shards.close_store()
    store.unlink()
    return stored, rows


def load_tokenizer(folder: Path) -> None:
    """What every worker does first."""
    _STATE["tokenizer"] = tokenizer.load_tokenizer(folder)


# ---- pass 1: documents to tokens


@dataclass
class DocumentStore:
    """What pass 1 leaves behind, beside the file of documents."""

    documents: int = 0
    tokens: int = 0
    replaced: int = 0
    units: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    unit_tokens: int = 0  # of the unit that is still open
    # by document number modulo FOLDS: with fewer documents than that, one number each
    sentences: list[int] = dataclasses.field(default_factory=lambda: [0] * NUM_FOLDS)

    def add(self, record: TokenRecord) -> None:
        self.sentences[self.documents % NUM_FOLDS] += record.sentences
        self.documents += 1
        self.tokens += record.tokens
        self.unit_tokens += record.tokens
        start = self.units[-1][1] if self.units else 0
        if (
            self.documents - start >= work_shards.MAX_SHARD_DOCUMENTS
            or self.unit_tokens >= work_shards.MAX_SHARD_TOKENS
        ):
            self.close_unit()

    def close_unit(self) -> None:
        start = self.units[-1][1] if self.units else 0
        if start < self.documents:
            self.units.append((start, self.documents))
            self.unit_tokens = 0

    def close(self) -> None:
        """To be called after the last document; ValueError where there are too few."""
        self.close_unit()
        if self.documents < 2:
            raise ValueError(
                f"the text is {self.documents} document with words in it: expected at least two, "
                "one for training and one for validation; put blank lines between documents"
            )

    def counts(self, split: str) -> SplitCounts:
        folds = min(NUM_FOLDS, self.documents)
        held_out = self.sentences[folds - 1]
        sentences = held_out if split == "validation" else sum(self.sentences) - held_out
        return SplitCounts(work_shards.split_size(split, self.documents, folds), sentences)


def first_pass(
    texts: Iterable[Document], store: Path, pool: Workers, progress: bool, spaced: bool = False
) -> DocumentStore:
    """Encodes the documents and stores them by number."""
    stored = DocumentStore()
    writer = ArrayRecordWriter(str(store), dataset.WRITER_OPTIONS)
    try:
        with Progress("encoding", "MB", shown=progress) as bar:
            for task in pool.map(functools.partial(_encode, spaced=spaced), _batches(texts)):
                for record in task.records:
                    writer.write(record.data)
                    stored.add(record)
                stored.replaced += task.replaced
                bar.add(task.characters / 1e6)
    finally:
        writer.close()
    stored.close()
    return stored


class _Encoded(NamedTuple):
    records: list[TokenRecord]
    characters: int
    replaced: int


def _batches(texts: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += sum(map(len, text.paragraphs))
        if size >= ENCODE_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(batch: list[Document], spaced: bool) -> _Encoded:
    records = work_shards.encode_documents(batch, _STATE["tokenizer"], spaced)
    characters = sum(len(p) for document in batch for p in document.paragraphs)
    return _Encoded(records, characters, sum(document.replaced for document in batch))


# ---- pass 2: tokens to rows


def list_work_shards(stored: DocumentStore, duplicates: int) -> list[WorkShard]:
    """The units of pass 2, in the order of their rows."""
    return [WorkShard(d, *span) for d in range(duplicates) for span in stored.units]


class ShardResult(NamedTuple):
    """The rows of a unit, of one split."""

    examples: list[bytes]
    counts: SplitCounts
    unigram: np.ndarray  # int64[V]


def second_pass(
    folder: Path,
    job: PrepareTask,
    stored: DocumentStore,
    duplicates: int,
    pool: Workers,
    progress: bool,
) -> dict[str, SplitCounts]:
    """Makes the rows and writes them, the metadata and the unigram counts."""
    tok = tokenizer.load_tokenizer(folder / "tokenizer")
    dtype = dataset.token_dtype(tok.vocab_size)
    per_shard = dataset.rows_per_shard(duplicates * stored.tokens / job.row)
    writers = {split: dataset.SplitWriter(folder, split, per_shard) for split in SPLITS}
    totals = dict.fromkeys(SPLITS, SplitCounts())
    unigram = np.zeros(tok.vocab_size, np.int64)
    tasks = list_work_shards(stored, duplicates)
    task = functools.partial(make_shard, job=job, pad_id=tok.pad_id, vocab=tok.vocab_size)
    with Progress("making rows", "units", total=len(tasks), shown=progress) as bar:
        for made in pool.map(task, tasks):
            for split, part in made.items():
                writers[split].add(part.examples)
                totals[split] += part.counts
            unigram += made["train"].unigram
            bar.add(1)
    for writer in writers.values():
        writer.close()
    np.save(folder / "unigram.npy", unigram)
    dataset.write_metadata(folder, writers, job.row, dtype, job.pack)
    return totals


def make_shard(
    unit: WorkShard, job: PrepareTask, pad_id: int, vocab: int
) -> dict[str, ShardResult]:
    """A unit's rows as they are written, and their counts, by split. Sequences are packed with
    those of their unit: so a packed corpus, too, is the same whatever made it, and what is not
    full at the end of each is under a hundredth of its rows."""
    made, dtype = {}, dataset.token_dtype(vocab)
    for split, rows in work_shards.make_rows(unit, job).items():
        if job.pack:
            full = bin_packing.pack_rows(rows, job.row, job.pack)
            how = (job.row, job.pack, pad_id, dtype)
            examples = [dataset.serialize_packed_row(pack, *how) for pack in full]
        else:
            full = [[row] for row in rows]
            examples = [dataset.serialize_row(row, job.row, pad_id, dtype) for row in rows]
        tokens = np.concatenate([row.tokens for row in rows] or [np.zeros(0, np.int32)])
        unigram = np.bincount(tokens, minlength=vocab)
        made[split] = ShardResult(examples, _count(full, job.row), unigram)
    return made


def _count(packs: list[list[TokenRow]], length: int) -> SplitCounts:
    tokens = [sum(len(row.tokens) for row in pack) for pack in packs]
    return SplitCounts(
        rows=len(packs),
        tokens=sum(tokens),
        short_rows=sum(n < length for n in tokens),
        random_pairs=sum(row.pair == 1 for pack in packs for row in pack),
        sequences=sum(map(len, packs)),
    )
