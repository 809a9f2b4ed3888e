"""Tokenized documents on disk: pass 1 of `prepare` writes them, pass 2 reads them by number.

a store    one ArrayRecord file, or a folder of them with blocks.npz (open_blocks)
a record   uint32: number of sentences, length of each, tokens of all
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_jax.data.corpus import SplitCounts
from bert_jax.data.records import Shards, open_records
from bert_jax.data.segments import Sentences
from bert_jax.data.splits import NUM_FOLDS, split_size
from bert_jax.data.tokenization.coverage import CharacterCounts

# A shard of work ends after so many documents or tokens, whichever comes first.
MAX_SHARD_DOCUMENTS = 1024
MAX_SHARD_TOKENS = 1 << 18
MAX_OPEN_BLOCKS = 64


class TokenRecord(NamedTuple):
    """One tokenized document, serialized."""

    data: bytes
    sentences: int
    tokens: int
    characters: CharacterCounts = CharacterCounts()

    @classmethod
    def from_sentences(
        cls,
        sentences: Sequence[Sequence[int]],
        characters: CharacterCounts = CharacterCounts(),  # noqa: B008, a tuple does not change
    ) -> TokenRecord:
        lengths = np.array([len(s) for s in sentences], np.uint32)
        tokens = np.array([i for s in sentences for i in s], np.uint32)
        count = np.array([len(sentences)], np.uint32)
        data = count.tobytes() + lengths.tobytes() + tokens.tobytes()
        return cls(data, len(lengths), len(tokens), characters)


def _parse(data: bytes) -> Sentences:
    values = np.frombuffer(data, np.uint32)
    count = int(values[0])
    return Sentences(values[1 + count :].astype(np.int32), values[1 : 1 + count])


@dataclass
class StoreIndex:
    """The totals of a store, and the ranges of documents that are one shard of work each."""

    documents: int = 0
    tokens: int = 0
    replaced_bytes: int = 0
    characters: int = 0
    unknown_characters: int = 0
    shards: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    open_shard_tokens: int = 0
    # by document number modulo NUM_FOLDS: with fewer documents than that, one number each
    sentences: list[int] = dataclasses.field(default_factory=lambda: [0] * NUM_FOLDS)

    @property
    def open_shard_start(self) -> int:
        return self.shards[-1][1] if self.shards else 0

    def add(self, record: TokenRecord) -> None:
        """Count the next document; close the open shard if it is full."""
        self.sentences[self.documents % NUM_FOLDS] += record.sentences
        self.documents += 1
        self.tokens += record.tokens
        self.characters += record.characters.total
        self.unknown_characters += record.characters.unknown
        self.open_shard_tokens += record.tokens
        if (
            self.documents - self.open_shard_start >= MAX_SHARD_DOCUMENTS
            or self.open_shard_tokens >= MAX_SHARD_TOKENS
        ):
            self._close_shard()

    def _close_shard(self) -> None:
        if self.open_shard_start < self.documents:
            self.shards.append((self.open_shard_start, self.documents))
            self.open_shard_tokens = 0

    def close(self) -> None:
        """Close the last shard. Raise ValueError if there are fewer than two documents."""
        self._close_shard()
        if self.documents < 2:
            raise ValueError(
                f"the text has {self.documents} document with words: expected at least two, "
                "one for training and one for validation; put blank lines between documents"
            )

    def counts(self, split: str) -> SplitCounts:
        """The documents and sentences of a split."""
        folds = min(NUM_FOLDS, self.documents)
        held_out = self.sentences[folds - 1]
        sentences = held_out if split == "validation" else sum(self.sentences) - held_out
        return SplitCounts(split_size(split, self.documents, folds), sentences)


# ---- reading


@functools.lru_cache(maxsize=8)
def read_document(store: str, number: int) -> Sentences:
    """The document with this number."""
    return _parse(_records(store)[number])


@functools.lru_cache(maxsize=1)
def _records(store: str) -> Shards:
    if Path(store).is_dir():
        return open_blocks(Path(store))
    return Shards([store], [open_records(store).num_records()])


def write_block_index(folder: Path, starts: Mapping[str, int]) -> None:
    """Write the index of a folder of ArrayRecord files: their names, in the order of the documents,
    and the number of the first document of each. Names do not tell the order, because numbers in
    them may have more digits than expected."""
    numbers = np.fromiter(starts.values(), np.int64)
    np.savez(folder / "blocks.npz", names=np.array(list(starts), str), starts=numbers)


def open_blocks(folder: Path) -> Shards:
    """Open a folder of ArrayRecord files as one (write_block_index)."""
    with np.load(folder / "blocks.npz") as index:
        files = [str(folder / name) for name in index["names"].tolist()]
        starts = index["starts"]
    last = open_records(files[-1]).num_records()
    return Shards(files, [*np.diff(starts).tolist(), last], max_open=MAX_OPEN_BLOCKS)


def close_store() -> None:
    """Close the open store, so that its files can be deleted."""
    read_document.cache_clear()
    _records.cache_clear()
