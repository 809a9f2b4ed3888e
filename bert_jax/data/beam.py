"""The two passes of `prepare` as Apache Beam pipelines, on any runner: the same corpus, in the
same order.

Only text travels through Beam. Results are files in the corpus's unfinished folder, which the
launcher and all workers must see; each is written beside its place and renamed, so that a
worker that runs twice does no harm.

    documents/00002-000005.array_record  a block of documents of the source 2 as tokens
    documents/00002-000005.npz           sentences and tokens of each document
    documents/00002.blocks               how many blocks the source has
    documents/00002.error                or why it cannot be read
    rows/000007.SPLIT                    the rows of consecutive units
    rows/000007.npz                      their counts
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam  # type: ignore[import-not-found]
import numpy as np
from apache_beam.options.pipeline_options import (  # type: ignore[import-not-found]
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.runner import create_runner  # type: ignore[import-not-found]
from array_record.python.array_record_module import ArrayRecordWriter

from bert_jax.data import documents, prepare, work_shards
from bert_jax.data import records as dataset
from bert_jax.data.documents import Document
from bert_jax.data.prepare import DocumentStore, PrepareConfig, SplitCounts
from bert_jax.data.tokenization import tokenizer
from bert_jax.data.work_shards import SPLITS, PrepareTask, TokenRecord, WorkShard

BLOCK = 16 << 20  # characters: what travels at once and is one file
# In this process. `DirectRunner` would fetch a program from the network first.
LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def options(flags: Sequence[str]) -> PipelineOptions:
    """Beam's own flags; ValueError: a runner that is not there, or a flag that the local one
    would leave unread."""
    asked = PipelineOptions([*flags])
    if named := asked.view_as(StandardOptions).runner:
        try:
            create_runner(named)
        except (ValueError, ImportError, AttributeError) as e:
            raise ValueError(f"--runner is {named}: Apache Beam cannot make it: {e}") from e
        return asked
    known = asked.get_all_options(retain_unknown_options=False)
    every = asked.get_all_options(retain_unknown_options=True)
    if unknown := sorted(set(every) - set(known)):
        raise ValueError(
            f"unknown flag --{unknown[0]}: neither prepare nor Apache Beam's local runner has it; "
            "name a runner by --runner=... for flags of its own"
        )
    return PipelineOptions([*flags, f"--runner={LOCAL}"])


def _run(flags: Sequence[str], items: Iterable[Any], *steps: Callable[..., Any]) -> None:
    """Each step maps an item to several; before each the items are spread over the workers."""
    with apache_beam.Pipeline(options=options(flags)) as pipeline:
        ahead = pipeline | apache_beam.Create(list(items))
        for number, step in enumerate(steps):
            ahead |= f"spread {number}" >> apache_beam.Reshuffle()
            ahead |= f"step {number}" >> apache_beam.FlatMap(step)


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: str) -> tokenizer.Tokenizer:
    return tokenizer.load_tokenizer(Path(folder) / "tokenizer")


def _place(folder: str, part: str) -> Path:
    place = Path(folder) / part
    if not place.is_dir():
        raise FileNotFoundError(
            f"this worker does not see {place}: choose an --out that all workers and the "
            "launcher share"
        )
    return place


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """A file that is whole or not there, whoever else writes the same one."""
    new = _unfinished(path)
    write(new)
    new.replace(path)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"new-{uuid.uuid4().hex}{path.suffix}")


def _write_records(path: Path, records: Iterable[bytes]) -> None:
    writer = ArrayRecordWriter(str(path), dataset.WRITER_OPTIONS)
    try:
        for data in records:
            writer.write(data)
    finally:
        writer.close()


def run(
    folder: Path, request: PrepareConfig, flags: Sequence[str]
) -> tuple[DocumentStore, dict[str, SplitCounts]]:
    """Both passes, into a folder that holds the tokenizer."""
    options(flags)
    stored = first_pass(folder, request.sources, request.strict, request.spaced, flags)
    job = request.job(stored.documents, folder / "documents")
    rows = second_pass(folder, job, stored, request.duplicates, flags)
    work_shards.close_store()
    for part in ("documents", "rows"):
        shutil.rmtree(folder / part)
    return stored, rows


# ---- pass 1


def first_pass(
    folder: Path, sources: Sequence[str], strict: bool, spaced: bool, flags: Sequence[str]
) -> DocumentStore:
    """As passes.first_pass; the store is the folder `documents`."""
    (folder / "documents").mkdir()
    read = functools.partial(_read, folder=str(folder), strict=strict, size=BLOCK)
    encode = functools.partial(_encode, folder=str(folder), spaced=spaced)
    _run(flags, enumerate(sources), read, encode)
    return _stored(folder / "documents", sources)


def _read(item, folder, strict, size):  # no hints: Beam would make rows of named tuples
    """(source, block, documents) of one source."""
    number, source = item
    place, blocks = _place(folder, "documents"), 0
    try:
        for block in _blocks(documents.read_source(source, strict), size):
            yield number, blocks, block
            blocks += 1
    except ValueError as e:  # for the launcher: Beam would bury it
        says = str(e)
        _replace(place / f"{number:05d}.error", lambda f: f.write_text(says, encoding="utf-8"))
        return
    _replace(place / f"{number:05d}.blocks", lambda f: f.write_text(str(blocks)))


def _blocks(texts: Iterable[Document], size: int) -> Iterator[list[Document]]:
    block: list[Document] = []
    room = size
    for text in texts:
        block.append(text)
        room -= sum(map(len, text.paragraphs))
        if room <= 0:
            yield block
            block, room = [], size
    if block:
        yield block


def _encode(item, folder, spaced):
    """Writes a block; nothing goes on."""
    source, number, block = item
    records: list[TokenRecord] = []
    for batch in _blocks(block, prepare.ENCODE_CHARACTERS):
        records += work_shards.encode_documents(batch, _tokenizer(folder), spaced)
    name = _place(folder, "documents") / f"{source:05d}-{number:06d}"
    counts = np.array([(r.sentences, r.tokens) for r in records], np.int64).reshape(-1, 2)
    replaced = sum(document.replaced for document in block)
    if records:
        path = name.with_suffix(".array_record")
        _replace(path, lambda f: _write_records(f, (r.data for r in records)))
    _replace(name.with_suffix(".npz"), lambda f: np.savez(f, counts=counts, replaced=replaced))
    return ()


def _stored(place: Path, sources: Sequence[str]) -> DocumentStore:
    """What the blocks say together; writes the numbers of their first documents."""
    stored, starts = DocumentStore(), []
    for number in range(len(sources)):
        error = place / f"{number:05d}.error"
        if error.exists():
            raise ValueError(error.read_text(encoding="utf-8"))
        for block in range(int((place / f"{number:05d}.blocks").read_text())):
            with np.load(place / f"{number:05d}-{block:06d}.npz") as found:
                if len(found["counts"]):
                    starts.append(stored.documents)
                for sentences, tokens in found["counts"].tolist():
                    stored.add(TokenRecord(b"", sentences, tokens))
                stored.replaced += int(found["replaced"])
    stored.close()
    np.save(place / "starts.npy", np.array(starts, np.int64))
    return stored


# ---- pass 2


def second_pass(
    folder: Path, job: PrepareTask, stored: DocumentStore, duplicates: int, flags: Sequence[str]
) -> dict[str, SplitCounts]:
    """As passes.second_pass. An item is consecutive units, about a shard of rows."""
    tok = tokenizer.load_tokenizer(folder / "tokenizer")
    tasks = prepare.list_work_shards(stored, duplicates)
    rows = duplicates * stored.tokens / job.row
    per_item = -(-len(tasks) * dataset.rows_per_shard(rows) // max(1, int(rows)))
    starts = range(0, len(tasks), per_item)
    items = [(i, [tuple(u) for u in tasks[s : s + per_item]]) for i, s in enumerate(starts)]
    (folder / "rows").mkdir()
    make = functools.partial(
        _make, folder=str(folder), job=job, pad_id=tok.pad_id, vocab=tok.vocab_size
    )
    _run(flags, items, make)
    return _collected(folder, len(items), job, tok.vocab_size)


def _make(item, folder, job, pad_id, vocab):
    """Writes the rows of some units; nothing goes on."""
    number, spans = item
    place = _place(folder, "rows")
    counts, sizes = dict.fromkeys(SPLITS, SplitCounts()), dict.fromkeys(SPLITS, 0)
    unigram = np.zeros(vocab, np.int64)
    parts = {split: place / f"{number:06d}.{split}" for split in SPLITS}
    new = {split: _unfinished(path) for split, path in parts.items()}
    writers = {
        split: ArrayRecordWriter(str(new[split]), dataset.WRITER_OPTIONS) for split in SPLITS
    }
    for span in spans:
        made = prepare.make_shard(WorkShard(*span), job, pad_id, vocab)
        for split, part in made.items():
            for example in part.examples:
                writers[split].write(example)
                sizes[split] += len(example)
            counts[split] += part.counts
        unigram += made["train"].unigram
    for split in SPLITS:
        writers[split].close()
        new[split].replace(parts[split])
    values = [[sizes[split], *dataclasses.astuple(counts[split])] for split in SPLITS]
    _replace(
        place / f"{number:06d}.npz",
        lambda f: np.savez(f, unigram=unigram, counts=np.array(values, np.int64)),
    )
    return ()


def _collected(folder: Path, items: int, job: PrepareTask, vocab: int) -> dict[str, SplitCounts]:
    """Names the shards, adds up the counts, writes the metadata."""
    place = folder / "rows"
    writers = {split: dataset.SplitWriter(folder, split) for split in SPLITS}
    totals = dict.fromkeys(SPLITS, SplitCounts())
    unigram = np.zeros(vocab, np.int64)
    for number in range(items):
        with np.load(place / f"{number:06d}.npz") as found:
            unigram += found["unigram"]
            for split, (size, *values) in zip(SPLITS, found["counts"].tolist(), strict=True):
                counts = SplitCounts(*values)
                totals[split] += counts
                if counts.rows:
                    writers[split].adopt(place / f"{number:06d}.{split}", counts.rows, size)
    for writer in writers.values():
        writer.close()
    np.save(folder / "unigram.npy", unigram)
    dataset.write_metadata(folder, writers, job.row, dataset.token_dtype(vocab), job.pack)
    return totals
