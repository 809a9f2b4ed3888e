"""`evaluate`: how well a model restores text, beside what scores the same without it.

rows of a corpus    hidden tokens, sentence pairs, replaced tokens (ELECTRA)
a text              hidden tokens, replaced tokens, bits per character
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bert_jax.data.corpus import Corpus
from bert_jax.data.documents import Document, read_documents
from bert_jax.data.tokenization.normalization import Fold, fold_text
from bert_jax.inference.evaluation import token_rows
from bert_jax.inference.evaluation.bits_per_character import MAX_WORDS, bits_per_character
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.masked_places import (
    MASKINGS,
    SEED,
    MaskedScores,
    check_mask_filler,
    mask_rows,
    masked_scores,
)
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds
from bert_jax.inference.evaluation.pair_scores import pair_scores
from bert_jax.inference.evaluation.replaced_tokens import ReplacedScores, replaced_scores
from bert_jax.inference.evaluation.result import Evaluation
from bert_jax.inference.evaluation.token_rows import TokenRows
from bert_jax.inference.model import Model

MAX_ROWS = 1000  # that are scored by default
MAX_COUNT_TOKENS = 20_000_000  # about a gigabyte of tables
TEXT_LENGTH = 128  # tokens of a row of text by default


def evaluate_corpus(
    model: Model,
    corpus: Corpus,
    max_rows: int = MAX_ROWS,
    maskings: int = MASKINGS,
    seed: int = SEED,
    counts: NeighborCounts | None = None,
) -> Evaluation:
    """Evaluate a model on a corpus's validation rows, of which a sample of `max_rows` is drawn. The
    counts are those of the training rows unless given (`count_corpus`).

    ValueError: a model without a masked-word head, or a corpus of another tokenizer, of longer rows
    than the model takes, or without validation rows.
    """
    check_mask_filler(model)
    _check_corpus(model, corpus)
    info = corpus.info
    rows = token_rows.corpus_rows(corpus, "validation")
    if not len(rows):
        raise ValueError(f"{corpus.path} has no validation rows: prepare more documents")
    sample = rows.take(_sample(len(rows), max_rows, seed))
    made_from = "the training rows"
    if counts is None:
        counts, made_from = count_corpus(corpus)
    by_row = CountsByRow.same(counts, len(sample))
    masked, replaced = _restoration(model, by_row, sample, maskings, seed)
    share = info.train.label_share
    return Evaluation(
        f"validation rows of {corpus.path}",
        made_from,
        len(sample),
        len(rows),
        maskings,
        masked,
        pair_scores(model, sample, share),
        info.segments,
        replaced,
    )


def evaluate_text(
    model: Model,
    file: str | Path,
    counts_file: str | Path | None = None,
    length: int | None = None,
    max_rows: int = MAX_ROWS,
    max_words: int = MAX_WORDS,
    fold: Sequence[Fold] = (),
    maskings: int = MASKINGS,
    seed: int = SEED,
) -> Evaluation:
    """Evaluate a model on a text, in rows of `length` tokens (default: 128, or what the model
    takes). Counts are made from `counts_file`; without it each half of the text is scored by the
    counts of the other. `fold` removes case or accents from the texts first.

    ValueError: a model without a masked-word head, a length that it does not take, a text that is
    missing or too short.
    """
    check_mask_filler(model)
    max_length = model.config.encoder.max_length
    length = min(TEXT_LENGTH, max_length) if length is None else length
    if not 8 <= length <= max_length:
        raise ValueError(f"the length is {length}: expected 8 to {max_length} tokens")
    documents = list(read_documents([file]))
    folded = (_folded(document, fold) for document in documents)
    parts = token_rows.text_rows(folded, model.tokenizer, length)
    rows = _concatenate(parts, file)
    chosen = _sample(len(rows), max_rows, seed)
    kinds = TokenKinds.of(model.tokenizer)
    if counts_file is None:
        middle = _middle([len(part) for part in parts], file)
        halves = [rows.tokens[:middle], rows.tokens[middle:]]
        counts = [NeighborCounts.fit(_limit(half), kinds) for half in reversed(halves)]
        by_row = CountsByRow(counts, (chosen >= middle).astype(int))
        made_from = "the other half of the text (each half is scored by the other)"
    else:
        if Path(counts_file).resolve() == Path(file).resolve():
            raise ValueError(f"{file} cannot be counted to predict itself: give another --counts")
        counted = (_folded(document, fold) for document in read_documents([counts_file]))
        counted_rows = _limited_rows(counted, model, length, counts_file)
        counts = [NeighborCounts.fit(counted_rows.tokens, kinds)]
        by_row = CountsByRow.same(counts[0], len(chosen))
        made_from = f"{counts_file}, {int((~kinds.excluded[counted_rows.tokens]).sum()):,} tokens"
    masked, replaced = _restoration(model, by_row, rows.take(chosen), maskings, seed)
    texts = [" ".join(document.paragraphs) for document in documents]
    return Evaluation(
        str(file),
        made_from,
        len(chosen),
        len(rows),
        maskings,
        masked,
        replaced=replaced,
        bits=bits_per_character(model, texts, max_words, fold, seed),
    )


def count_corpus(corpus: Corpus) -> tuple[NeighborCounts, str]:
    """The neighbor counts of a corpus's training rows, and a description of these rows."""
    info = corpus.info
    max_rows = MAX_COUNT_TOKENS // info.length
    rows = token_rows.corpus_rows(corpus, "train", max_rows)
    distinct = token_rows.without_random_segments(rows, info.segments, info.pad_id)
    kinds = TokenKinds.of(corpus.tokenizer)
    tokens = int((~kinds.excluded[rows.tokens]).sum())
    part = "the first " if info.train.rows / info.duplicates > max_rows else ""
    made_from = f"the training rows, {part}{tokens:,} tokens"
    return NeighborCounts.fit(rows.tokens, kinds, distinct.tokens), made_from


def _restoration(
    model: Model, counts: CountsByRow, rows: TokenRows, maskings: int, seed: int
) -> tuple[MaskedScores, ReplacedScores | None]:
    if maskings < 1:
        raise ValueError(f"the number of maskings is {maskings}: expected at least 1")
    tokenizer = model.tokenizer
    kinds = TokenKinds.of(tokenizer)
    masked = mask_rows(rows, token_rows.vocabulary(tokenizer), maskings, seed)
    return (
        masked_scores(model, counts, masked, kinds),
        replaced_scores(model, counts, masked, kinds, seed),
    )


def _check_corpus(model: Model, corpus: Corpus) -> None:
    if corpus.info.tokenizer_fingerprint != model.tokenizer.fingerprint:
        raise ValueError(
            f"{corpus.path} was prepared with another tokenizer than the model's: evaluate on raw "
            "text with --text FILE"
        )
    length = corpus.info.sequence_length or corpus.info.length
    max_length = model.config.encoder.max_length
    if length > max_length:
        raise ValueError(
            f"{corpus.path} has rows of {length} tokens, but the model takes {max_length}: prepare "
            f"a corpus with --length {max_length}"
        )


def _sample(count: int, limit: int, seed: int) -> np.ndarray:
    """The numbers of at most `limit` of `count` rows, ascending."""
    if limit < 1:
        raise ValueError(f"the number of rows is {limit}: expected at least 1")
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


# ---- text


def _folded(document: Document, fold: Sequence[Fold]) -> Document:
    if not fold:
        return document
    return document._replace(paragraphs=tuple(fold_text(p, fold) for p in document.paragraphs))


def _concatenate(parts: Sequence[TokenRows], file: str | Path) -> TokenRows:
    if not parts:
        raise ValueError(f"{file} has no text that the tokenizer knows: give another text")
    return TokenRows.concatenate(parts)


def _middle(rows: Sequence[int], file: str | Path) -> int:
    """Where the second half begins: between the documents nearest to the middle, or within one
    where this would leave less than a quarter to one side."""
    ends = np.cumsum(rows)
    total = int(ends[-1])
    if total < 4:
        raise ValueError(
            f"{file} gives only {total} rows, too few for counts: give a longer text, or --counts"
        )
    end = int(ends[np.abs(ends - total / 2).argmin()])
    return end if total / 4 <= end <= total * 3 / 4 else total // 2


def _limit(tokens: np.ndarray) -> np.ndarray:
    return tokens[: max(2, MAX_COUNT_TOKENS // tokens.shape[1])]


def _limited_rows(
    documents: Iterator[Document], model: Model, length: int, file: str | Path
) -> TokenRows:
    """The rows of the first documents, up to the limit of tokens to count."""
    parts: list[TokenRows] = []
    count = 0
    for document in documents:
        parts += token_rows.text_rows([document], model.tokenizer, length)
        count += len(parts[-1]) * length if parts else 0
        if count >= MAX_COUNT_TOKENS:
            break
    return _concatenate(parts, file)
