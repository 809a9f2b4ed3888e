"""What `prepare` says about a corpus: its counts, and what its splits lack."""

from __future__ import annotations

import logging

from bert_jax.data.corpus import CorpusInfo, SplitCounts
from bert_jax.data.sentence_pairs import PAIR_KINDS

logger = logging.getLogger(__name__)

MIN_DOCUMENTS = 20  # of a split, below which `prepare` warns
MAX_SINGLE_SHARE = 0.5  # of rows of one sentence, above which `prepare` warns
# Of the text, beyond the length of a row in a sentence, above which `prepare` warns. Prose with a
# few lists loses 3 % in rows of 512 tokens and 10 % in rows of 64.
MAX_OVERLONG_SHARE = 0.15
MAX_WORD_TOKENS = 6  # per word of segmented text, above which `prepare` warns


def describe_split(info: CorpusInfo, split: str) -> list[str]:
    """Lines with the counts of a split."""
    counts = info.counts(split)
    packed = f" of {counts.sequences} sequences" if info.packed else ""
    duplicates = info.duplicates if split == "train" else 1
    passes = f" in {duplicates} duplicates" if duplicates > 1 else ""
    pairs = f", {counts.label_share:.1%} of pairs with label 1" if counts.labeled_pairs else ""
    lines = [
        f"{split}: {counts.documents} documents, {counts.rows} rows{packed}{passes}, "
        f"{counts.tokens} tokens, {info.padding(split):.1%} padding{pairs}"
    ]
    if counts.sequences:
        unit, row = _unit(info), "sequence" if info.packed else "row"
        lines.append(
            f"  {counts.sentences / counts.documents:.1f} {unit}s per document; "
            f"{counts.words / counts.sequences:.1f} words per {row}; {counts.single_sentences} "
            f"{row}s ({_single_share(counts):.1%}) of only one {unit}"
        )
    if counts.text_tokens:
        share = f"{counts.dropped_share:.1%}"
        lines.append(f"  {share} of the text is in no row, because sentences are truncated")
    return lines


def _unit(info: CorpusInfo) -> str:
    return "line" if info.separators == "line" else "sentence"


def _single_share(counts: SplitCounts) -> float:
    return counts.single_sentences / max(1, counts.sequences)


def log_split(split: str, info: CorpusInfo) -> None:
    """Warn of a split of few documents, of rows of one sentence, of sentences that are longer than
    a row, and of `segmented` text that is not; say how many pairs have no label, and why."""
    counts, unlabeled = info.counts(split), info.unlabeled_pairs(split)
    if counts.documents < MIN_DOCUMENTS:
        logger.warning(
            "%s has only %d document%s, so its metrics are unreliable (recommended: at least %d): "
            "give more text, or put blank lines between the documents",
            split,
            counts.documents,
            "s" if counts.documents > 1 else "",
            MIN_DOCUMENTS,
        )
    if info.segments in PAIR_KINDS and _single_share(counts) > MAX_SINGLE_SHARE:
        logger.warning(
            "%.0f %% of the rows of %s have only one sentence, which says little about sentence "
            "pairs: check that --language %s is the language of the text, and that blank lines "
            "stand between documents, not paragraphs; or use longer rows",
            100 * _single_share(counts),
            split,
            info.language,
        )
    if split == "train" and counts.overlong_share > MAX_OVERLONG_SHARE:
        logger.warning(
            "%.0f %% of the text of %s is in no row, because its sentences are longer than a row, "
            "and rows of %s truncate them: check that --language %s is the language of the text, "
            "end sentences with stops or lines, use longer rows, or --segments full, doc or "
            "single, which split such sentences",
            100 * counts.overlong_share,
            split,
            info.segments,
            info.language,
        )
    if info.segmented and counts.tokens > MAX_WORD_TOKENS * counts.words > 0:
        logger.warning(
            "%s has %.1f tokens between two spaces on average, and --segmented takes these for one "
            "word: expected text in which a segmenter has separated the words by spaces",
            split,
            counts.tokens / counts.words,
        )
    if not unlabeled:
        return
    if counts.documents == 1:
        logger.warning(
            "%s has one document, so segments cannot be drawn from another one: %d of its %d pairs "
            "have no label, and %d have label 1",
            split,
            unlabeled,
            counts.sequences,
            counts.random_pairs,
        )
    elif not counts.random_pairs:
        logger.warning(
            "the %d pairs of %s get no label, because all would have the same one: a single "
            "sentence fills a row; use longer rows",
            unlabeled,
            split,
        )
    else:
        logger.info(
            "%s has %d pairs of each label; the labels of %d other pairs were removed to balance "
            "them (their text is still used)",
            split,
            counts.random_pairs,
            unlabeled,
        )
