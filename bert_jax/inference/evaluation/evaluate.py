"""`evaluate`: how well a model predicts masked text, beside baselines made of counts.

rows of a corpus    hidden tokens, sentence pairs, replaced tokens (ELECTRA)
a text              hidden tokens, replaced tokens, bits per character
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert_jax.data.corpus import Corpus
from bert_jax.data.documents import Document, read_documents
from bert_jax.data.sentence_pairs import PAIR_KINDS
from bert_jax.data.text_sources import TEXT_FIELD, field_for
from bert_jax.data.tokenization.normalization import Fold
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.inference.evaluation import token_rows
from bert_jax.inference.evaluation.bits_per_character import (
    MAX_WORDS,
    BitsPerCharacter,
    bits_per_character,
)
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
    PairScores,
    SegmentCounts,
    order_scores,
    pair_scores,
    untrimmed_neighbors,
)
from bert_jax.inference.evaluation.replaced_tokens import (
    ReplacedScores,
    detects_replaced_tokens,
    replaced_scores,
)
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
from bert_jax.objectives import ReplacedTokensObjective

MAX_ROWS = 1000  # that are scored by default
NOTED_SHARE = 0.001  # of unknown tokens
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
    rows = token_rows.corpus_rows(corpus, "validation")
    if not len(rows):
        raise ValueError(f"{corpus.path} has no validation rows: prepare more documents")
    sample = rows.take(_sample(len(rows), max_rows, seed))
    made_from = "the training rows"
    if counts is None:
        counts, made_from = count_corpus(corpus)
    by_row = CountsByRow.same(counts, len(sample))
    masked, replaced = _restoration(model, by_row, sample, maskings, seed)
    pairs = pair_scores(model, sample, info.train.label_share)
    order = _order(model, corpus, rows)  # of all rows: few are untrimmed
    return Evaluation(
        f"validation rows of {corpus.path}",
        made_from,
        len(sample),
        len(rows),
        maskings,
        masked,
        pairs,
        info.segments,
        order,
        replaced,
        length=info.sequence_length or info.length,
        unknown_tokens=unknown_share(sample.tokens, model.tokenizer),
        notes=(
            *_unknown_note(sample, model),
            *_pair_note(model, corpus, sample, pairs),
            *_order_note(info.segments, rows, pairs, order),
            *_replaced_note(model, replaced),
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
        unknown_tokens=unknown_share(sample.tokens, model.tokenizer),
        notes=(
            *_replaced_bytes_note(documents),
            *_unknown_note(sample, model),
            *counts.notes,
            *_replaced_note(model, replaced),
            *_dropped_note(bits),
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
    part = "the first " if info.train.rows / info.duplicates > max_rows else ""
    made_from = f"the training rows, {part}{tokens:,} tokens"
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
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"the seed is {seed}: expected a number from 0 to 2^63 - 1")


# ---- notes


def _unknown_note(rows: TokenRows, model: Model) -> tuple[str, ...]:
    share = unknown_share(rows.tokens, model.tokenizer)
    if share < NOTED_SHARE:
        return ()
    return (f"{share:.1%} of the tokens are unknown pieces, which are neither masked nor counted",)


def _pair_note(
    model: Model, corpus: Corpus, rows: TokenRows, pairs: PairScores | None
) -> tuple[str, ...]:
    if corpus.info.segments not in PAIR_KINDS or pairs is not None:
        return ()
    network, _ = model.objective.encoder(model.params)
    if "pair" not in network.heads:
        return ("the model has no head for the corpus's sentence pairs",)
    zero, one = ((rows.pair == label).sum() for label in (0, 1))
    return (f"no sentence pairs are scored: {zero} have label 0, and {one} have label 1",)


def _order_note(
    segments: str, rows: TokenRows, pairs: PairScores | None, order: OrderScores | None
) -> tuple[str, ...]:
    if segments != "sop" or pairs is None or order is not None:
        return ()
    return (
        f"the order of neighbors is not scored: {len(untrimmed_neighbors(rows))} rows have "
        "untrimmed neighbors, and none are left when their lengths are balanced; give more text",
    )


def _replaced_note(model: Model, replaced: ReplacedScores | None) -> tuple[str, ...]:
    if replaced is not None or not isinstance(model.objective, ReplacedTokensObjective):
        return ()
    if not detects_replaced_tokens(model.objective):
        target = model.objective.config.target
        return (f"the discriminator is not scored: it was trained for the target {target}",)
    return ("the discriminator is not scored: the generator replaced no token, or all of them",)


def _replaced_bytes_note(documents: Sequence[Document]) -> tuple[str, ...]:
    count = sum(document.replaced_bytes for document in documents)
    if not count:
        return ()
    return (f"{count:,} bytes of the text are not UTF-8 and were replaced by U+FFFD",)


def _dropped_note(bits: BitsPerCharacter) -> tuple[str, ...]:
    dropped, total = bits.dropped_characters, bits.text_characters
    if not dropped:
        return ()
    advice = (
        "; only compare with models that drop the same" if dropped >= NOTED_SHARE * total else ""
    )
    return (
        f"normalization drops or changes {dropped:,} of the text's {total:,} characters "
        f"({dropped / total:.1%}), which are not scored{advice}",
    )
