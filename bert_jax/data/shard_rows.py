"""Pass 2 of `prepare`: a shard of stored documents to serialized rows.

    documents of the shard -> rows (segments.py) -> packed rows (bin_packing.py) -> tf.Example

All functions are pure: every random number is keyed by (seed, duplicate, document number), and
random documents are read from the store by number.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from bert_jax.data import bin_packing, records, segments, splits
from bert_jax.data.corpus import SplitCounts
from bert_jax.data.segments import Sentences, TokenRow
from bert_jax.data.splits import SPLITS
from bert_jax.data.token_store import read_document
from bert_jax.data.work_shards import RowTask, ShardResult, WorkShard


def make_shard(shard: WorkShard, task: RowTask) -> dict[str, ShardResult]:
    """The serialized rows of a shard and their counts, by split.

    Sequences are packed with others of their shard only, so that a packed corpus does not depend
    on the engine either; the rows that stay open at the end are under a hundredth of all."""
    config = task.config
    length, pad_id, pack = config.row_length, config.pad_id, config.max_sequences
    dtype = records.token_dtype(config.vocab_size)
    results = {}
    for split, rows in make_rows(shard, task).items():
        if pack:
            packed = bin_packing.pack_rows(rows, length, pack)
            examples = [
                records.serialize_packed_row(row, length, pack, pad_id, dtype) for row in packed
            ]
        else:
            packed = [[row] for row in rows]
            examples = [records.serialize_row(row, length, pad_id, dtype) for row in rows]
        tokens = np.concatenate([row.tokens for row in rows] or [np.zeros(0, np.int32)])
        unigram = np.bincount(tokens, minlength=config.vocab_size)
        results[split] = ShardResult(examples, SplitCounts.of_rows(packed, length), unigram)
    return results


def make_rows(shard: WorkShard, task: RowTask) -> dict[str, list[TokenRow]]:
    """The rows of a shard's documents, by split. Validation rows are made for the first
    duplicate only."""
    rows = {}
    for split in SPLITS if shard.duplicate == 0 else SPLITS[:1]:
        numbers = range(shard.start, shard.stop)
        mine = [n for n in numbers if splits.split_name(n, task.folds) == split]
        rows[split] = list(_rows_of_documents(mine, shard.duplicate, task))
    return rows


def _rows_of_documents(numbers: list[int], duplicate: int, task: RowTask) -> Iterator[TokenRow]:
    config = task.config
    if config.segments == "full":  # rows cross documents, but never shards
        stored = (read_document(task.store, n) for n in numbers)
        yield from segments.full_sentences(stored, config.length, config.special_tokens)
        return
    for number in numbers:
        yield from _rows_of_document(number, document_rng(config.seed, duplicate, number), task)


def _rows_of_document(number: int, rng: np.random.Generator, task: RowTask) -> Iterator[TokenRow]:
    config, document = task.config, read_document(task.store, number)
    kind, length, special_tokens = config.segments, config.length, config.special_tokens
    draw = functools.partial(_draw_other, number, task)
    match kind:
        case "nsp":
            return segments.next_sentence_pairs(document, length, special_tokens, rng, draw)
        case "sop":
            return segments.sentence_order_pairs(document, length, special_tokens, rng, draw)
        case "electra" | "electra_original":
            scramble = kind == "electra_original"
            return segments.electra_segments(document, length, special_tokens, rng, scramble)
        case "doc":
            return segments.doc_sentences(document, length, special_tokens)
        case "single":
            return segments.single_segments(document, length, special_tokens)
    raise AssertionError(kind)


def document_rng(seed: int, duplicate: int, number: int) -> np.random.Generator:
    """The random numbers of one document in one duplicate: a counter-based stream of its own."""
    key = np.array([seed, (duplicate << 48) | number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _draw_other(number: int, task: RowTask, rng: np.random.Generator) -> Sentences:
    """Another document of the same split, in up to ten draws as in BERT's code; of the whole
    corpus where the split has only this one."""
    split = splits.split_name(number, task.folds)
    count = splits.split_size(split, task.documents, task.folds)
    drawn = number
    for _ in range(10):
        if count > 1:
            drawn = splits.nth_in_split(split, int(rng.integers(count)), task.folds)
        else:
            drawn = int(rng.integers(task.documents))
        if drawn != number:
            break
    return read_document(task.store, drawn)
