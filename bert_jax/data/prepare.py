"""Text to a corpus: documents become tokens (pass 1), then tokens become rows (pass 2).

    text -> documents -> sentences -> tokens -> token_store.py      encode_documents
    a shard of stored documents -> rows -> tf.Example               shard_rows.make_shard

Both are pure functions, of a batch of documents and of a shard. An engine maps them over the
text and keeps the order: worker processes of this machine (run_local) or Apache Beam (beam.py).
So a corpus depends neither on the engine nor on the number of workers.

The corpus is written to a hidden sibling folder, which is renamed when everything is there.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from bert_jax.data import corpus_report, documents, records, token_store
from bert_jax.data.corpus import Corpus, CorpusInfo, SplitCounts, open_corpus
from bert_jax.data.documents import Document
from bert_jax.data.encode_documents import (
    ENCODE_CHARACTERS,
    TextConfig,
    batch_documents,
    cached_tokenizer,
    encode_documents,
)
from bert_jax.data.sentences import note_general_rules
from bert_jax.data.shard_rows import make_shard
from bert_jax.data.splits import SPLITS
from bert_jax.data.text_sources import expand_texts, require_text
from bert_jax.data.token_store import StoreIndex, TokenRecord
from bert_jax.data.tokenization import pretrained
from bert_jax.data.tokenization.tokenizer import Tokenizer, load_tokenizer
from bert_jax.data.work_shards import (
    PrepareConfig,
    RowConfig,
    RowTask,
    WorkShard,
    estimate_rows,
    list_work_shards,
)
from bert_jax.data.worker_pool import Progress, Workers
from bert_jax.utils import extras, hub, io

logger = logging.getLogger(__name__)


def prepare_corpus(
    texts: Sequence[str],
    tokenizer_dir: str | Path,
    segments: str,
    length: int,
    out: str | Path,
    workers: int = 1,
    seed: int = 0,
    duplicates: int | None = None,
    strict: bool = False,
    engine: str = "local",
    progress: bool = True,
    flags: Sequence[str] = (),
    pack: int | None = 0,
    row_length: int | None = None,
    language: str = "en",
    segmented: bool = False,
    separators: str | None = None,
    field: str = documents.TEXT_FIELD,
) -> Corpus:
    """Write a corpus to the new folder `out`, and open it.

    `texts` are files, globs and datasets (documents.py), whose `field` holds the text; `flags`
    go to Beam's runner. With `pack`, up to so many sequences of `length` tokens share a row of
    `row_length` tokens; None chooses a number (bin_packing.default_sequences). `duplicates`
    None is 10 for nsp and 40 for sop, as published, fewer for long texts, and 1 for the other
    kinds. `language` is whose rules split sentences (sentences.py). `segmented` says that white
    space separates the words of the text, in scripts without spaces too. `separators` is where
    RoBERTa's rows (`full`, `doc`) have them: after each `line`, which is encoded whole, as in
    fairseq, or after each `sentence`.

    ValueError: an option is out of range, or the text, the tokenizer or `out` cannot be used.
    """
    _check_engine(engine, workers, flags)
    require_text(texts)  # before a tokenizer is downloaded
    out = Path(out)
    io.require_new(out)
    tokenizer = load_tokenizer(_tokenizer_dir(tokenizer_dir))
    separators = _check_separators(segments, separators)
    # WordPiece takes every Chinese character for a word, so ids do not tell where words begin.
    stores_words = segmented and tokenizer.kind == "wordpiece"
    rows = RowConfig(
        segments,
        length,
        seed,
        tokenizer.special_tokens,
        tokenizer.pad_id,
        tokenizer.vocab_size,
        pack,
        row_length,
        stores_words,
        tokenizer.word_edges("spaces" if segmented else "script"),
        tokenizer.special_ids,
    )
    # RoBERTa's own rows put </s> between lines, which are encoded without spaces around them.
    space_sentences = tokenizer.marks_spaces and separators is None
    text = TextConfig(language, segmented, separators == "line", space_sentences)
    if not text.whole_lines:
        note_general_rules(language)
    config = PrepareConfig([], rows, duplicates, strict, text, field)
    if engine == "beam":
        run = functools.partial(_import_beam().run, flags=flags)
    else:
        run = functools.partial(run_local, workers=workers, progress=progress)
    # After all checks of options: datasets of the Hub are downloaded.
    sources, hub_rows = expand_texts(texts, field)
    documents.check_sources(sources, strict, field, progress)
    config = dataclasses.replace(config, sources=sources)
    with io.atomic_dir(out) as folder:
        tokenizer.save(folder / "tokenizer")
        index, counts = run(folder, config)
        info = _corpus_info(config, tokenizer, index, counts, separators)
        info = dataclasses.replace(info, hub_rows=hub_rows)
        json_text = json.dumps(dataclasses.asdict(info), indent=2) + "\n"
        (folder / "corpus.json").write_text(json_text, encoding="utf-8")
    if index.replaced_bytes:
        logger.warning("replaced %d bytes that were not UTF-8 by U+FFFD", index.replaced_bytes)
    for split in SPLITS:
        corpus_report.log_split(split, info)
    return open_corpus(out)


def _corpus_info(
    config: PrepareConfig,
    tokenizer: Tokenizer,
    index: StoreIndex,
    counts: dict[str, SplitCounts],
    separators: str | None,
) -> CorpusInfo:
    rows = config.rows
    return CorpusInfo(
        rows.segments,
        rows.row_length,
        rows.seed,
        config.num_duplicates(index.tokens),
        tokenizer.kind,
        tokenizer.fingerprint,
        rows.vocab_size,
        rows.pad_id,
        index.replaced_bytes,
        train=index.counts("train") + counts["train"],
        validation=index.counts("validation") + counts["validation"],
        packed=rows.max_sequences,
        sequence_length=rows.length if rows.row_length > rows.length else None,
        language=config.text.language,
        segmented=config.text.segmented,
        separators=separators,
        stores_words=rows.stores_words,
        characters=index.characters,
        unknown_characters=index.unknown_characters,
    )


def _tokenizer_dir(given: str | Path) -> Path:
    """The folder of a tokenizer, also a run's; it is downloaded for OWNER/NAME or hf:NAME."""
    is_name = isinstance(given, str) and ("/" in given or given.startswith(hub.PREFIX))
    if is_name and hub.parse_name(given) is not None:
        return pretrained.tokenizer_folder(given)
    return pretrained.inner_folder(Path(given))


def _check_separators(segments: str, separators: str | None) -> str | None:
    """Where RoBERTa's rows have separators; None for other rows."""
    if segments not in ("full", "doc"):
        if separators is not None:
            raise ValueError(
                f"separators is {separators!r}, but only full and doc have separators between "
                f"lines: leave it out for {segments}"
            )
        return None
    if separators not in (None, "line", "sentence"):
        raise ValueError(f"separators is {separators!r}: expected line or sentence")
    return separators or "line"


def _check_engine(engine: str, workers: int, flags: Sequence[str]) -> None:
    if engine not in ("local", "beam"):
        raise ValueError(f"engine is {engine!r}: expected local or beam")
    if workers < 1:
        raise ValueError(f"workers is {workers}: expected at least 1")
    if engine == "beam" and workers > 1:
        raise ValueError(
            f"workers is {workers}, but only the local engine has workers: use the flags of "
            "Beam's runner, e.g. --direct_num_workers=2 --direct_running_mode=multi_processing"
        )
    if engine == "local" and flags:
        raise ValueError(f"{flags[0]} is a flag of Beam's runner: add --engine beam")


def _import_beam() -> Any:
    try:
        from bert_jax.data import beam
    except ImportError as e:
        # --engine local makes the same corpus
        raise extras.missing("--engine beam", f"Apache Beam ({e})", "beam") from None
    return beam


# ---- the local engine


def run_local(
    folder: Path, config: PrepareConfig, workers: int, progress: bool
) -> tuple[StoreIndex, dict[str, SplitCounts]]:
    """Run both passes on this machine, into a folder that holds the tokenizer."""
    store = folder / "documents.array_record"
    try:
        with Workers(workers) as pool:
            index = _first_pass(folder, config, store, pool, progress)
            task = config.row_task(index, store)
            shards = list_work_shards(index, config)
            counts = _second_pass(folder, task, index, shards, pool, progress)
    finally:
        token_store.close_store()
    store.unlink()
    return index, counts


def _first_pass(
    folder: Path, config: PrepareConfig, store: Path, pool: Workers, progress: bool
) -> StoreIndex:
    """Encode the documents and store them by number."""
    texts = itertools.chain.from_iterable(
        documents.read_source(source, config.strict, config.field) for source in config.sources
    )
    encode = functools.partial(
        _encode_batch, tokenizer_dir=folder / "tokenizer", config=config.text
    )
    index = StoreIndex()
    writer = ArrayRecordWriter(str(store), records.WRITER_OPTIONS)
    try:
        with Progress("encoding", "M characters", shown=progress) as bar:
            for batch in pool.map(encode, batch_documents(texts, ENCODE_CHARACTERS)):
                for record in batch.records:
                    writer.write(record.data)
                    index.add(record)
                index.replaced_bytes += batch.replaced_bytes
                bar.add(batch.characters / 1e6)
    finally:
        writer.close()
    index.close()
    return index


def _second_pass(
    folder: Path,
    task: RowTask,
    index: StoreIndex,
    shards: Sequence[WorkShard],
    pool: Workers,
    progress: bool,
) -> dict[str, SplitCounts]:
    """Make the rows; write them, their metadata and the unigram counts."""
    config = task.config
    rows = estimate_rows(index, shards, config)
    per_file = records.rows_per_shard(rows)
    records.check_disk(folder, rows, config.format)
    writers = {split: records.SplitWriter(folder, split, per_file) for split in SPLITS}
    totals = dict.fromkeys(SPLITS, SplitCounts())
    unigram = np.zeros(config.vocab_size, np.int64)
    with Progress("making rows", "shards", total=len(shards), shown=progress) as bar:
        for results in pool.map(functools.partial(make_shard, task=task), shards):
            for split, result in results.items():
                writers[split].add(result.examples)
                totals[split] += result.counts
            unigram += results["train"].unigram
            bar.add(1)
    records.finish_dataset(folder, writers, unigram, config.format)
    return totals


# ---- pass 1: documents to tokens


class _EncodedBatch(NamedTuple):
    records: list[TokenRecord]
    characters: int
    replaced_bytes: int


def _encode_batch(batch: list[Document], tokenizer_dir: Path, config: TextConfig) -> _EncodedBatch:
    encoded = encode_documents(batch, cached_tokenizer(tokenizer_dir), config)
    characters = sum(document.characters for document in batch)
    return _EncodedBatch(encoded, characters, sum(document.replaced_bytes for document in batch))
