"""`evaluate`: how well a model predicts masked text, beside baselines made of counts.

rows of a corpus    hidden tokens, sentence pairs, replaced tokens (ELECTRA)
a text              hidden tokens, replaced tokens, bits per character
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert_jax.config.ranges import check_seed
from bert_jax.data.corpus import Corpus
from bert_jax.data.documents import read_documents
from bert_jax.data.text_sources import TEXT_FIELD, field_for
from bert_jax.data.tokenization.normalization import Fold
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.inference.evaluation import notes, token_rows
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
from bert_jax.inference.evaluation.pair_scores import (
    OrderScores,
    SegmentCounts,
    order_scores,
    pair_scores,
)
from bert_jax.inference.evaluation.replaced_tokens import ReplacedScores, replaced_scores
from bert_jax.inference.evaluation.result import Evaluation
from bert_jax.inference.evaluation.text_counts import (
    MAX_COUNT_TOKENS,
    TextReader,
    count_file,
    count_halves,
    document_text,
    unknown_share,
)
from bert_jax.inference.evaluation.token_rows import TokenRows
from bert_jax.inference.model import Model

MAX_ROWS = 1000  # that are scored by default
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
    _check_numbers(seed, rows=max_rows, maskings=maskings)
    _check_corpus(model, corpus)
    info = corpus.info
    if not info.validation.rows:
        raise ValueError(f"{corpus.path} has no validation rows: prepare more documents")
    total = info.validation.sequences
    if info.packed or info.segments == "sop":  # a row may hold many; few pairs are untrimmed
        rows = token_rows.corpus_rows(corpus, "validation", MAX_COUNT_TOKENS // info.length)
        sample = rows.take(_sample(len(rows), max_rows, seed))
    else:
        numbers = _sample(total, max_rows, seed)
        rows = sample = token_rows.corpus_rows(corpus, "validation", numbers=numbers)
    made_from = "the training rows"
    if counts is None:
        counts, made_from = count_corpus(corpus)
    by_row = CountsByRow.same(counts, len(sample))
    unknown = unknown_share(sample.tokens, model.tokenizer)
    masked, replaced = _restoration(model, by_row, sample, maskings, seed)
    pairs = pair_scores(model, sample, info.train.label_share)
    order = _order(model, corpus, rows)
    return Evaluation(
        f"validation rows of {corpus.path}",
        made_from,
        len(sample),
        total,
        maskings,
        masked,
        pairs,
        info.segments,
        order,
        replaced,
        length=info.sequence_length or info.length,
        unknown_tokens=unknown,
        notes=(
            *notes.unknown_note(unknown),
            *notes.pair_note(model, corpus, sample, pairs),
            *notes.order_note(info.segments, rows, pairs, order),
            *notes.replaced_note(model, replaced),
            "bits per character need raw text, and a corpus holds token ids: use --text FILE",
        ),
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
    field: str = TEXT_FIELD,
) -> Evaluation:
    """Evaluate a model on a text, in rows of `length` tokens (default: 128, or fewer if the model
    takes fewer or was trained on shorter rows; a run on packed rows does not know how long their
    sequences were). Counts are made from `counts_file`; without it each
    half of the text is scored by the counts of the other. `fold` removes case or accents from the
    texts first. `field` of records (JSONL, parquet) holds the text.

    ValueError: a model without a masked-word head, a length that it does not take, a text that is
    missing or too short.
    """
    check_mask_filler(model)
    _check_numbers(seed, rows=max_rows, maskings=maskings, words=max_words)
    max_length = model.config.encoder.max_length
    if length is None:  # positions beyond the rows of training may never have been seen
        length = min(TEXT_LENGTH, max_length, model.config.data.length or max_length)
    if not 8 <= length <= max_length:
        raise ValueError(f"the length is {length}: expected 8 to {max_length} tokens")
    counted = file if counts_file is None else counts_file
    documents = list(read_documents([file], field=field_for(file, field, counted)))
    reader = TextReader(model.tokenizer, length, fold, field_for(counted, field, file))
    if counts_file is None:
        counts = count_halves(documents, file, reader)
    else:
        counts = count_file(documents, file, counts_file, reader)
    chosen = _sample(len(counts.rows), max_rows, seed)
    sample, by_row = counts.rows.take(chosen), counts.by_row.take(chosen)
    unknown = unknown_share(sample.tokens, model.tokenizer)
    masked, replaced = _restoration(model, by_row, sample, maskings, seed)
    texts = [document_text(document) for document in documents]
    bits = bits_per_character(model, texts, max_words, fold, seed, counts.by_word, length)
    return Evaluation(
        str(file),
        counts.made_from,
        len(chosen),
        len(counts.rows),
        maskings,
        masked,
        replaced=replaced,
        bits=bits,
        length=length,
        unknown_tokens=unknown,
        notes=(
            *notes.replaced_bytes_note(documents),
            *notes.unknown_note(unknown),
            *counts.notes,
            *notes.replaced_note(model, replaced),
            *notes.dropped_note(bits),
        ),
    )


def count_corpus(corpus: Corpus) -> tuple[NeighborCounts, str]:
    """The neighbor counts of a corpus's training rows, and a description of these rows."""
    info = corpus.info
    max_rows = MAX_COUNT_TOKENS // info.length
    rows = token_rows.corpus_rows(corpus, "train", max_rows)
    distinct = token_rows.without_random_segments(rows, info.segments, info.pad_id)
    kinds = TokenKinds.of(corpus.tokenizer)
    tokens = int((~kinds.excluded[rows.tokens]).sum())
    part = ", drawn evenly" if info.train.rows / info.duplicates > max_rows else ""
    made_from = f"the training rows, {tokens:,} tokens{part}"
    return NeighborCounts.fit(rows.tokens, kinds, distinct.tokens), made_from


def _restoration(
    model: Model, counts: CountsByRow, rows: TokenRows, maskings: int, seed: int
) -> tuple[MaskedScores, ReplacedScores | None]:
    tokenizer = model.tokenizer
    kinds = TokenKinds.of(tokenizer)
    masked = mask_rows(rows, Vocabulary.of(tokenizer), maskings, seed)
    return (
        masked_scores(model, counts, masked, kinds),
        replaced_scores(model, counts, masked, kinds, seed),
    )


def _order(model: Model, corpus: Corpus, rows: TokenRows) -> OrderScores | None:
    network, _ = model.objective.encoder(model.params)
    if corpus.info.segments != "sop" or "pair" not in network.heads:
        return None
    tokenizer = model.tokenizer
    train = token_rows.corpus_rows(corpus, "train", MAX_COUNT_TOKENS // corpus.info.length)
    counts = SegmentCounts.fit(train, tokenizer.special_tokens, tokenizer.vocab_size)
    return order_scores(model, rows, counts)


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
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def _check_numbers(seed: int, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"the number of {name} is {value}: expected at least 1")
    check_seed(seed)
