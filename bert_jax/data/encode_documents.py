"""Documents to tokens, in batches: pass 1 of `prepare`, for every engine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bert_jax.data import documents
from bert_jax.data.documents import Document
from bert_jax.data.token_store import TokenRecord
from bert_jax.data.tokenization.tokenizer import Tokenizer, load_tokenizer

ENCODE_CHARACTERS = 1 << 19  # that a worker encodes at a time


@functools.lru_cache(maxsize=1)
def cached_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, loaded once per worker process."""
    return load_tokenizer(folder)


def batch_documents(texts: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """Consecutive documents in lists of at least so many characters."""
    batch: list[Document] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += text.characters
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode_documents(
    batch: Sequence[Document], tokenizer: Tokenizer, space_sentences: bool = False
) -> list[TokenRecord]:
    """Split documents into sentences and encode these; drop documents without a single token.

    `space_sentences` puts back the space before every sentence but a document's first, which
    byte-level BPE encodes: without it, sentences that follow each other would be glued."""
    split = [[s for p in d.paragraphs for s in documents.split_sentences(p)] for d in batch]
    if space_sentences:
        split = [[*d[:1], *(f" {s}" for s in d[1:])] for d in split]
    encoded = iter(tokenizer.encode_batch([s for sentences in split for s in sentences]))
    tokens = [[ids for ids in (next(encoded) for _ in sentences) if ids] for sentences in split]
    return [TokenRecord.from_sentences(sentences) for sentences in tokens if sentences]
