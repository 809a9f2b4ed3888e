"""Documents to tokens, in batches: pass 1 of `prepare`, for every engine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bert_jax.data.documents import Document
from bert_jax.data.segments import CONTINUES
from bert_jax.data.sentences import check_language, spaced_sentences, split_sentences
from bert_jax.data.token_store import TokenRecord
from bert_jax.data.tokenization.coverage import CharacterCounts
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


@dataclass(frozen=True)
class TextConfig:
    """How documents become tokens. ValueError: unknown language."""

    language: str = "en"  # whose rules split sentences
    segmented: bool = False  # white space separates words, in scripts without spaces too
    whole_lines: bool = False  # a line of the text is encoded whole, not split into sentences
    # Put a space before each sentence that follows white space in its document, such as the end of
    # a line. Byte-level BPE encodes it: without it, sentences would be glued to each other.
    space_sentences: bool = False

    def __post_init__(self) -> None:
        check_language(self.language)

    def split(self, document: Document) -> list[str]:
        """The sentences of a document, or its lines."""
        if self.whole_lines:
            return list(document.paragraphs)
        sentences: list[str] = []
        for paragraph in document.paragraphs:
            parts = split_sentences(paragraph, self.language, self.segmented)
            if self.space_sentences:
                parts = spaced_sentences(paragraph, parts)
                if sentences and parts:
                    parts[0] = f" {parts[0]}"
            sentences += parts
        return sentences


def encode_documents(
    batch: Sequence[Document], tokenizer: Tokenizer, config: TextConfig
) -> list[TokenRecord]:
    """Split documents into sentences and encode these; drop documents without a single token."""
    split = [config.split(document) for document in batch]
    texts = [s for sentences in split for s in sentences]
    marked = config.segmented and tokenizer.kind == "wordpiece"
    encoded = iter(_encode_words(texts, tokenizer) if marked else tokenizer.encode_batch(texts))
    records = []
    for sentences in split:
        tokens = [next(encoded) for _ in sentences]
        plain = [[i & ~CONTINUES for i in ids] for ids in tokens] if marked else tokens
        characters = CharacterCounts.of(tokenizer, sentences, plain)
        if any(tokens):
            records.append(TokenRecord.from_sentences([t for t in tokens if t], characters))
    return records


def _encode_words(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The ids of texts that are segmented into words. Ids that continue a word have the bit
    CONTINUES, because WordPiece does not tell: it takes every Chinese character for a word."""
    split = [text.split() for text in texts]
    encoded = iter(tokenizer.encode_batch([word for words in split for word in words]))
    return [
        [i | (CONTINUES if n else 0) for _ in words for n, i in enumerate(next(encoded))]
        for words in split
    ]
