"""Both passes of `prepare` as Apache Beam pipelines, on any runner: the same rows in the same order
as the local engine's.

Only text travels through Beam. Results are files in the corpus's unfinished folder, which the
launcher and all workers must share. Each file is written under a temporary name and renamed, so
that a worker that runs twice does no harm.

    documents/00002-000005.array_record  block 5 of the documents of source 2, as tokens
    documents/00002-000005.npz           sentences, tokens and characters of each document
    documents/00002.blocks               how many blocks the source has
    documents/00002.error                or why it cannot be read
    rows/000007.SPLIT                    the rows of consecutive work shards
    rows/000007.npz                      their counts
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
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

from bert_jax.data import documents, encode_documents, records, shard_rows, token_store
from bert_jax.data.corpus import SplitCounts
from bert_jax.data.splits import SPLITS
from bert_jax.data.text_sources import TFDS
from bert_jax.data.token_store import StoreIndex, TokenRecord
from bert_jax.data.tokenization.coverage import CharacterCounts
from bert_jax.data.work_shards import (
    PrepareConfig,
    RowTask,
    WorkShard,
    estimate_rows,
    list_work_shards,
)

BLOCK_CHARACTERS = 16 << 20  # of a block, which travels at once and is one file
# Runs in this process. `DirectRunner` would fetch a program from the network first.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def pipeline_options(flags: Sequence[str]) -> PipelineOptions:
    """Parse Beam's own flags. ValueError: the runner does not exist, or no runner is named and
    the local one does not know a flag."""
    options = PipelineOptions([*flags])
    if runner := options.view_as(StandardOptions).runner:
        try:
            create_runner(runner)
        except (ValueError, ImportError, AttributeError) as e:
            raise ValueError(f"--runner is {runner}: Apache Beam cannot create it: {e}") from e
        return options
    known = options.get_all_options(retain_unknown_options=False)
    parsed = options.get_all_options(retain_unknown_options=True)
    if unknown := sorted(set(parsed) - set(known)):
        raise ValueError(
            f"unknown flag --{unknown[0]}: neither prepare nor Apache Beam's local runner has it; "
            "to pass flags to another runner, name it with --runner=..."
        )
    return PipelineOptions([*flags, f"--runner={LOCAL_RUNNER}"])


def run(
    folder: Path, config: PrepareConfig, flags: Sequence[str]
) -> tuple[StoreIndex, dict[str, SplitCounts]]:
    """Run both passes, into a folder that holds the tokenizer."""
    pipeline_options(flags)
    try:
        index = _first_pass(folder, config, flags)
        task = config.row_task(index, folder / "documents")
        counts = _second_pass(folder, task, index, list_work_shards(index, config), flags)
    finally:
        token_store.close_store()
    for part in ("documents", "rows"):
        shutil.rmtree(folder / part)
    return index, counts


def _run_pipeline(flags: Sequence[str], items: Iterable[Any], *steps: Callable[..., Any]) -> None:
    """Each step maps an item to several; before each the items are spread over the workers."""
    with apache_beam.Pipeline(options=pipeline_options(flags)) as pipeline:
        collection = pipeline | apache_beam.Create(list(items))
        for number, step in enumerate(steps):
            collection |= f"spread {number}" >> apache_beam.Reshuffle()
            collection |= f"step {number}" >> apache_beam.FlatMap(step)


def _shared_dir(folder: str, part: str) -> Path:
    shared = Path(folder) / part
    if not shared.is_dir():
        raise FileNotFoundError(
            f"this worker does not see {shared}: choose an --out that all workers and the "
            "launcher share"
        )
    return shared


def _write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is complete or absent, even if several workers write it."""
    temporary = _temporary_path(path)
    write(temporary)
    temporary.replace(path)


def _temporary_path(path: Path) -> Path:
    return path.with_name(f"new-{uuid.uuid4().hex}{path.suffix}")


def _write_records(path: Path, serialized: Iterable[bytes]) -> None:
    writer = ArrayRecordWriter(str(path), records.WRITER_OPTIONS)
    try:
        for data in serialized:
            writer.write(data)
    finally:
        writer.close()


# ---- pass 1


def _first_pass(folder: Path, config: PrepareConfig, flags: Sequence[str]) -> StoreIndex:
    """As prepare._first_pass; the store is the folder `documents`."""
    (folder / "documents").mkdir()
    read = functools.partial(
        _read_source,
        folder=str(folder),
        strict=config.strict,
        field=config.field,
        characters=BLOCK_CHARACTERS,
    )
    encode = functools.partial(_encode_block, folder=str(folder), text=config.text)
    # Workers may have another current folder.
    sources = [s if s.startswith(TFDS) else os.path.abspath(s) for s in config.sources]
    _run_pipeline(flags, enumerate(sources), read, encode)
    return _index_blocks(folder / "documents", len(config.sources))


def _read_source(
    item, folder, strict, field, characters
):  # no hints: Beam would make rows of tuples
    """Yield (source, block, documents) of one source."""
    number, source = item
    shared, blocks = _shared_dir(folder, "documents"), 0
    try:
        texts = documents.read_source(source, strict, field)
        for block in encode_documents.batch_documents(texts, characters):
            yield number, blocks, block
            blocks += 1
    except ValueError as e:  # in a file for the launcher: Beam would bury it in a traceback
        message = str(e)
        _write_atomic(
            shared / f"{number:05d}.error", lambda f: f.write_text(message, encoding="utf-8")
        )
        return
    _write_atomic(shared / f"{number:05d}.blocks", lambda f: f.write_text(str(blocks)))


def _encode_block(item, folder, text):
    """Write a block; yield nothing."""
    source, number, block = item
    tokenizer = encode_documents.cached_tokenizer(Path(folder) / "tokenizer")
    encoded: list[TokenRecord] = []
    for batch in encode_documents.batch_documents(block, encode_documents.ENCODE_CHARACTERS):
        encoded += encode_documents.encode_documents(batch, tokenizer, text)
    path = _shared_dir(folder, "documents") / f"{source:05d}-{number:06d}"
    rows = [(r.sentences, r.tokens, *r.characters) for r in encoded]
    counts = np.array(rows, np.int64).reshape(-1, 4)
    replaced_bytes = sum(document.replaced_bytes for document in block)
    if encoded:
        _write_atomic(
            path.with_suffix(".array_record"),
            lambda f: _write_records(f, (r.data for r in encoded)),
        )
    _write_atomic(
        path.with_suffix(".npz"),
        lambda f: np.savez(f, counts=counts, replaced_bytes=replaced_bytes),
    )
    return ()


def _index_blocks(shared: Path, sources: int) -> StoreIndex:
    """Add up the counts of all blocks; write the number of the first document of each."""
    index, starts = StoreIndex(), dict[str, int]()
    for number in range(sources):
        error = shared / f"{number:05d}.error"
        if error.exists():
            raise ValueError(error.read_text(encoding="utf-8"))
        for block in range(int((shared / f"{number:05d}.blocks").read_text())):
            name = f"{number:05d}-{block:06d}"
            with np.load(shared / f"{name}.npz") as saved:
                if len(saved["counts"]):
                    starts[f"{name}.array_record"] = index.documents
                for sentences, tokens, *characters in saved["counts"].tolist():
                    index.add(TokenRecord(b"", sentences, tokens, CharacterCounts(*characters)))
                index.replaced_bytes += int(saved["replaced_bytes"])
    index.close()
    token_store.write_block_index(shared, starts)
    return index


# ---- pass 2


def _second_pass(
    folder: Path,
    task: RowTask,
    index: StoreIndex,
    shards: Sequence[WorkShard],
    flags: Sequence[str],
) -> dict[str, SplitCounts]:
    """As prepare._second_pass. An item is consecutive work shards, about one file of rows."""
    rows = estimate_rows(index, shards, task.config)
    records.check_disk(folder, rows, task.config.format)
    per_item = -(-len(shards) * records.rows_per_shard(rows) // max(1, int(rows)))
    starts = range(0, len(shards), per_item)
    items = [(i, [tuple(s) for s in shards[k : k + per_item]]) for i, k in enumerate(starts)]
    (folder / "rows").mkdir()
    _run_pipeline(flags, items, functools.partial(_make_rows, folder=str(folder), task=task))
    return _collect_rows(folder, len(items), task)


def _make_rows(item, folder, task):
    """Write the rows of some work shards; yield nothing."""
    number, shards = item
    shared = _shared_dir(folder, "rows")
    counts, sizes = dict.fromkeys(SPLITS, SplitCounts()), dict.fromkeys(SPLITS, 0)
    unigram = np.zeros(task.config.vocab_size, np.int64)
    paths = {split: shared / f"{number:06d}.{split}" for split in SPLITS}
    temporary = {split: _temporary_path(path) for split, path in paths.items()}
    writers = {
        split: ArrayRecordWriter(str(path), records.WRITER_OPTIONS)
        for split, path in temporary.items()
    }
    for shard in shards:
        results = shard_rows.make_shard(WorkShard(*shard), task)
        for split, result in results.items():
            for example in result.examples:
                writers[split].write(example)
                sizes[split] += len(example)
            counts[split] += result.counts
        unigram += results["train"].unigram
    for split in SPLITS:
        writers[split].close()
        temporary[split].replace(paths[split])
    values = [[sizes[split], *dataclasses.astuple(counts[split])] for split in SPLITS]
    _write_atomic(
        shared / f"{number:06d}.npz",
        lambda f: np.savez(f, unigram=unigram, counts=np.array(values, np.int64)),
    )
    return ()


def _collect_rows(folder: Path, items: int, task: RowTask) -> dict[str, SplitCounts]:
    """Name the files of rows, add up the counts, write the metadata."""
    config = task.config
    writers = {split: records.SplitWriter(folder, split) for split in SPLITS}
    totals = dict.fromkeys(SPLITS, SplitCounts())
    unigram = np.zeros(config.vocab_size, np.int64)
    for number in range(items):
        with np.load(folder / "rows" / f"{number:06d}.npz") as saved:
            unigram += saved["unigram"]
            for split, (size, *values) in zip(SPLITS, saved["counts"].tolist(), strict=True):
                counts = SplitCounts(*values)
                totals[split] += counts
                if counts.rows:
                    path = folder / "rows" / f"{number:06d}.{split}"
                    writers[split].adopt(path, counts.rows, size)
    records.finish_dataset(folder, writers, unigram, config.format)
    return totals
