"""Pass 2 of `prepare`: a shard of stored documents to serialized rows.

    documents of the shard -> rows (segments.py) -> packed rows (bin_packing.py) -> tf.Example

All functions are pure: every random number is keyed by (seed, duplicate, document number), or for
the balance of labels by (seed, shard). Random documents are read from the store by number, always
from the split of the row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from bert_jax.data import bin_packing, segments, splits
from bert_jax.data.corpus import SplitCounts
from bert_jax.data.segments import CONTINUES, Sentences, TokenRow
from bert_jax.data.sentence_pairs import (
    PAIR_KINDS,
    PairDraws,
    balance_labels,
    next_sentence_pairs,
    sentence_order_pairs,
)
from bert_jax.data.splits import SPLITS
from bert_jax.data.token_store import read_document
from bert_jax.data.work_shards import RowConfig, RowTask, ShardResult, WorkShard


def make_shard(shard: WorkShard, task: RowTask) -> dict[str, ShardResult]:
    """The serialized rows of a shard and their counts, by split.

    Sequences are packed with others of their shard only, so that a packed corpus does not depend
    on the engine either. Rows that stay open at the end of a shard have padding: few of its 2,048
    rows of 128 tokens, but one or two of its 32 rows of 8,192."""
    config = task.config
    length, pack = config.row_length, config.max_sequences
    results = {}
    for split, rows in make_rows(shard, task).items():
        packed = bin_packing.pack_rows(rows, length, pack) if pack else [[row] for row in rows]
        examples = [config.format.serialize(row) for row in packed]
        tokens = np.concatenate([row.tokens for row in rows] or [np.zeros(0, np.int32)])
        counts = SplitCounts.of_rows(packed, length, _count_words(tokens, config))
        unigram = np.bincount(tokens & ~CONTINUES, minlength=config.vocab_size)
        results[split] = ShardResult(examples, counts, unigram)
    return results


def _count_words(tokens: np.ndarray, config: RowConfig) -> int:
    """The number of words in joined rows, which begin with a special token."""
    if config.words is None:
        return 0
    is_text = ~np.isin(tokens, config.special_ids)
    stored = config.stores_words
    begins = tokens & CONTINUES == 0 if stored else config.words.begins_word(tokens)
    return int((begins & is_text).sum())


def make_rows(shard: WorkShard, task: RowTask) -> dict[str, list[TokenRow]]:
    """The rows of a shard's documents, by split. Validation rows are made for the first
    duplicate only; of their sentence pairs, as many have label 1 as label 0."""
    rows = {}
    for split in SPLITS if shard.duplicate == 0 else SPLITS[:1]:
        numbers = range(shard.start, shard.stop)
        mine = [n for n in numbers if splits.split_name(n, task.folds) == split]
        draws = PairDraws() if split == "train" else PairDraws.held_out()
        rows[split] = list(_rows_of_documents(mine, shard.duplicate, task, draws))
    if "validation" in rows and task.config.segments in PAIR_KINDS:
        rng = _philox(task.config.seed, _BALANCE_STREAM | shard.start)
        rows["validation"] = balance_labels(rows["validation"], rng)
    return rows


def _rows_of_documents(
    numbers: list[int], duplicate: int, task: RowTask, draws: PairDraws
) -> Iterator[TokenRow]:
    config = task.config
    if config.segments == "full":  # rows cross documents, but never shards
        stored = (read_document(task.store, n) for n in numbers)
        yield from segments.full_sentences(stored, config.length, config.special_tokens)
        return
    for number in numbers:
        rng = document_rng(config.seed, duplicate, number)
        yield from _rows_of_document(number, rng, task, draws)


def _rows_of_document(
    number: int, rng: np.random.Generator, task: RowTask, draws: PairDraws
) -> Iterator[TokenRow]:
    config, document = task.config, read_document(task.store, number)
    kind, length, special_tokens = config.segments, config.length, config.special_tokens
    other = functools.partial(draw_other, number, task)
    match kind:
        case "nsp":
            return next_sentence_pairs(document, length, special_tokens, rng, other, draws)
        case "sop":
            return sentence_order_pairs(document, length, special_tokens, rng, other, draws)
        case "electra" | "electra_original":
            scramble = kind == "electra_original"
            return segments.electra_segments(document, length, special_tokens, rng, scramble)
        case "doc":
            return segments.doc_sentences(document, length, special_tokens)
        case "single":
            return segments.single_segments(document, length, special_tokens)
    raise AssertionError(kind)


def draw_other(number: int, task: RowTask, rng: np.random.Generator) -> Sentences | None:
    """Another document of the split of document `number`, all equally likely; None if the split
    has no other one. BERT's code draws at most ten times, and keeps the document itself then."""
    split = splits.split_name(number, task.folds)
    others = splits.split_size(split, task.documents, task.folds) - 1
    if not others:
        return None
    drawn = int(rng.integers(others))
    drawn += drawn >= splits.index_in_split(number, task.folds)
    return read_document(task.store, splits.nth_in_split(split, drawn, task.folds))


# ---- random numbers: a counter-based stream for every document, and for the labels of a shard

_BALANCE_STREAM = 1 << 63  # beyond every (duplicate, document)


def document_rng(seed: int, duplicate: int, number: int) -> np.random.Generator:
    """The random numbers of one document in one duplicate."""
    return _philox(seed, (duplicate << 48) | number)


def _philox(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
