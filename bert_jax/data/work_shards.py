"""What `prepare` is configured with, and the shards of work that it hands to workers.

A `WorkShard` is a range of stored documents. Its rows follow from the shard and a `RowTask`
alone (shard_rows.make_shard), so they depend neither on how many workers there are nor on which
engine runs them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_jax.data import bin_packing
from bert_jax.data.corpus import SplitCounts
from bert_jax.data.documents import TEXT_FIELD
from bert_jax.data.encode_documents import TextConfig
from bert_jax.data.records import RowFormat
from bert_jax.data.splits import NUM_FOLDS
from bert_jax.data.token_store import StoreIndex
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.data.tokenization.words import WordEdges

logger = logging.getLogger(__name__)

SEGMENT_KINDS = ("nsp", "sop", "electra", "electra_original", "full", "doc", "single")
MIN_LENGTH = 8  # tokens of a row: two segments of two, and their special tokens
MAX_LENGTH = 65_536

# dupe_factor of BERT's and ALBERT's create_pretraining_data.py. Every duplicate cuts the text into
# other pairs, so a run sees new ones for so many epochs.
PUBLISHED_DUPLICATES = {"nsp": 10, "sop": 40}
# Tokens of text, over all duplicates, that these defaults write at most: 14 to 18 GB on disk.
MAX_DUPLICATED_TOKENS = 1 << 32


@dataclass(frozen=True)
class RowConfig:
    """How documents become rows. ValueError: a value is out of range."""

    segments: str  # one of SEGMENT_KINDS
    length: int  # max tokens of a sequence
    seed: int
    special_tokens: SpecialTokens
    pad_id: int
    vocab_size: int
    pack: int | None = 0  # max sequences in a row; 0: one (no packing); None: by the lengths
    packed_length: int | None = None  # tokens of a packed row; None: `length`
    stores_words: bool = False  # rows say where their words begin (encode_documents.CONTINUES)
    words: WordEdges | None = None  # of the vocabulary, to count words
    special_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.segments not in SEGMENT_KINDS:
            raise ValueError(
                f"segments is {self.segments!r}: expected one of {', '.join(SEGMENT_KINDS)}"
            )
        if not MIN_LENGTH <= self.length <= MAX_LENGTH:
            raise ValueError(
                f"length is {self.length}: expected {MIN_LENGTH} to {MAX_LENGTH} tokens per row"
            )
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed is {self.seed}: expected 0 to 2^63 - 1")
        if self.pack and not 2 <= self.pack <= bin_packing.MAX_SEQUENCES:
            raise ValueError(
                f"pack is {self.pack}: expected 2 to {bin_packing.MAX_SEQUENCES} sequences per "
                "row, or 0 for no packing"
            )
        if self.packed_length is None:
            return
        if self.pack == 0:
            raise ValueError(
                f"row_length is {self.packed_length}, but rows are not packed: add --pack"
            )
        if not self.length <= self.packed_length <= MAX_LENGTH:
            raise ValueError(
                f"row_length is {self.packed_length}: expected {self.length} (the length of a "
                f"sequence) to {MAX_LENGTH} tokens"
            )

    @property
    def row_length(self) -> int:
        """Tokens of a row, padding included."""
        return self.packed_length or self.length

    @property
    def max_sequences(self) -> int:
        """Sequences of a packed row; 0: rows are not packed."""
        if self.pack is None:
            return bin_packing.default_sequences(self.length, self.row_length)
        return self.pack

    @property
    def format(self) -> RowFormat:
        """The form of the rows on disk."""
        return RowFormat(
            self.row_length, self.pad_id, self.vocab_size, self.max_sequences, self.stores_words
        )


@dataclass(frozen=True)
class PrepareConfig:
    """What `prepare` does, whichever engine runs it."""

    sources: list[str]
    rows: RowConfig
    duplicates: int | None  # None: as published, see num_duplicates
    strict: bool  # refuse bytes that are not UTF-8
    text: TextConfig
    field: str = TEXT_FIELD  # of records, which holds the text

    def __post_init__(self) -> None:
        if self.duplicates is None:
            return
        if self.duplicates < 1:
            raise ValueError(f"duplicates is {self.duplicates}: expected at least 1")
        if self.duplicates > 1 and self.rows.segments in ("full", "doc", "single"):
            raise ValueError(
                f"duplicates is {self.duplicates}, but {self.rows.segments} draws no random "
                "numbers, so every duplicate would have the same rows: leave duplicates at 1; "
                "masks are drawn during training"
            )

    def row_task(self, index: StoreIndex, store: Path) -> RowTask:
        """What the rows of stored documents follow from."""
        return RowTask(self.rows, index.documents, str(store))

    def num_duplicates(self, tokens: int) -> int:
        """The duplicates of a text of so many tokens: as set, or by default as published, but at
        most as many as MAX_DUPLICATED_TOKENS allow, and at least 1."""
        if self.duplicates is not None:
            return self.duplicates
        published = PUBLISHED_DUPLICATES.get(self.rows.segments, 1)
        return max(1, min(published, MAX_DUPLICATED_TOKENS // max(1, tokens)))


@dataclass(frozen=True)
class RowTask:
    """Everything that the rows of a shard follow from, except the shard."""

    config: RowConfig
    documents: int
    store: str  # as in token_store.read_document

    @property
    def folds(self) -> int:
        return min(NUM_FOLDS, self.documents)


class WorkShard(NamedTuple):
    """Documents start to stop, in one of the duplicates of the corpus."""

    duplicate: int
    start: int
    stop: int


class ShardResult(NamedTuple):
    """The rows of a shard that belong to one split."""

    examples: list[bytes]
    counts: SplitCounts
    unigram: np.ndarray  # int64[V]: how often each id occurs


def estimate_rows(index: StoreIndex, shards: Sequence[WorkShard], config: RowConfig) -> float:
    """About how many rows the shards will have. Where rows do not cross documents, each document
    has a row, or is one of at most so many sequences of a packed row. A row of pairs takes a
    sentence or more, however long."""
    rows = index.tokens / config.row_length
    if config.segments not in ("full", "doc", "single"):
        rows = min(rows, sum(index.sentences))
    if config.segments != "full":
        rows = max(rows, index.documents / max(1, config.max_sequences))
    return (1 + shards[-1].duplicate) * rows


def list_work_shards(index: StoreIndex, config: PrepareConfig) -> list[WorkShard]:
    """The shards of pass 2, in the order of their rows. Say so if there are fewer duplicates than
    were published."""
    duplicates = config.num_duplicates(index.tokens)
    published = PUBLISHED_DUPLICATES.get(config.rows.segments, 1)
    if config.duplicates is None and duplicates < published:
        logger.info(
            "writing %d duplicates of the text (%s tokens), not %d as published: the default is at "
            "most %s tokens in total; to write all, use --duplicates %d",
            duplicates,
            f"{index.tokens:,}",
            published,
            f"{MAX_DUPLICATED_TOKENS:,}",
            published,
        )
    return [WorkShard(d, start, stop) for d in range(duplicates) for start, stop in index.shards]
