"""How well a tokenizer covers a text: its unknown tokens, its words, and what it drops."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.utils.text_lines import text_chunks

logger = logging.getLogger(__name__)

MAX_UNKNOWN = 0.02  # share of unknown tokens, or of characters in them, above which it warns
_LINES_PER_BATCH = 1000
_CHARACTERS_PER_BATCH = 1 << 19


class Coverage(NamedTuple):
    """Counts of the tokens of texts, without special tokens, and of the texts' characters."""

    tokens: int = 0
    unknown: int = 0
    words: int = 0  # as whole-word masking sees them (words.py)
    characters: int = 0  # without white space; 0 where the texts are not at hand
    unknown_characters: int = 0  # of these, those in unknown tokens

    def __str__(self) -> str:
        per_word = self.tokens / max(1, self.words)
        shown = f"{self.unknown_share:.3%} unknown tokens, {per_word:.2f} pieces per word"
        return shown + self.lost_text

    @property
    def lost_text(self) -> str:
        """What to add where text is in unknown tokens; else empty."""
        return f", {self.lost_share:.3%} of the text unknown" if self.unknown_characters else ""

    @property
    def unknown_share(self) -> float:
        """The share of unknown tokens; 0 without tokens."""
        return self.unknown / max(1, self.tokens)

    @property
    def lost_share(self) -> float:
        """The share of the text in unknown tokens, each of which may stand for a long word; 0 if
        the characters were not counted."""
        return self.unknown_characters / max(1, self.characters)

    def add(self, other: Coverage) -> Coverage:
        """The counts of both."""
        return Coverage(*(a + b for a, b in zip(self, other, strict=True)))


def of_ids(tokenizer: Tokenizer, rows: Iterable[Sequence[int]]) -> Coverage:
    """The coverage of rows of ids, with or without special tokens."""
    parts = [np.asarray([tokenizer.cls_id, *row]) for row in rows]
    if not parts:
        return Coverage()
    ids = np.concatenate(parts)
    text = ~np.isin(ids, tokenizer.special_ids)
    begins = tokenizer.word_edges().begins_word(ids)
    return Coverage(int(text.sum()), int((ids == tokenizer.unk_id).sum()), int(begins[text].sum()))


def of_rows(tokenizer: Tokenizer, rows: Iterable[dict[str, Any]]) -> Coverage:
    """The coverage of encoded examples, whose `tokens` are one row or several."""
    tokens = (row["tokens"] for row in rows if len(row["tokens"]))
    return of_ids(tokenizer, (part for t in tokens for part in ([t] if np.ndim(t[0]) == 0 else t)))


def of_texts(tokenizer: Tokenizer, texts: Iterable[str]) -> Coverage:
    """The coverage of texts."""
    total = Coverage()
    for batch in batches(texts):
        total = total.add(of_encoded(tokenizer, batch, tokenizer.encode_batch(batch)))
    return total


def of_encoded(
    tokenizer: Tokenizer, texts: Sequence[str], rows: Sequence[Sequence[int]]
) -> Coverage:
    """The coverage of texts, whose ids are `rows`."""
    characters = CharacterCounts.of(tokenizer, texts, rows)
    return of_ids(tokenizer, rows)._replace(
        characters=characters.total, unknown_characters=characters.unknown
    )


class CharacterCounts(NamedTuple):
    """How many characters texts have without white space, and how many are in unknown tokens."""

    total: int = 0
    unknown: int = 0

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, texts: Sequence[str], rows: Sequence[Sequence[int]]
    ) -> CharacterCounts:
        """The counts of texts, whose ids are `rows`."""
        unknown = 0
        for text, ids in zip(texts, rows, strict=True):
            if tokenizer.unk_id in ids:  # only then are offsets worth their time
                found, spans = tokenizer.encode_with_offsets(text)
                for begin, end in spans[np.array(found) == tokenizer.unk_id]:
                    unknown += _visible(text[begin:end])
        return cls(sum(map(_visible, texts)), unknown)


def _visible(text: str) -> int:
    return sum(map(len, text.split()))


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists, which are short where texts are long: memory holds one list."""
    return text_chunks(texts, _LINES_PER_BATCH, _CHARACTERS_PER_BATCH)


def show_characters(characters: Iterable[str]) -> str:
    """Characters with spaces between them; those that cannot be seen as U+200E."""
    invisible = ("Cc", "Cf", "Cn", "Co", "Zs", "Zl", "Zp")
    seen = (f"U+{ord(c):04X}" if unicodedata.category(c) in invisible else c for c in characters)
    return " ".join(seen)


def longest_word(texts: Iterable[str]) -> int:
    """The most characters between white space."""
    return max((len(word) for text in texts for word in text.split()), default=0)


def unknown_reason(tokenizer: Tokenizer, characters: Counter[str], longest: int) -> str:
    """Why a text with these characters, whose longest word has `longest`, has unknown tokens:
    characters that the vocabulary lacks, the most frequent first, and words that are too long."""
    counts = characters.most_common()
    unknown = [c for c, _ in counts if not c.isspace() and tokenizer.unk_id in tokenizer.encode(c)]
    reasons = []
    if unknown:
        shown = show_characters(unknown[:10])
        reasons.append(f"{len(unknown)} characters are not in the vocabulary, such as {shown}")
    limit = tokenizer.max_word_characters
    if limit is not None and longest > limit:
        reasons.append(
            f"words have up to {longest} characters, and those of more than {limit} are unknown "
            "(bert-jax tokenizer --max-input-chars-per-word N raises the limit)"
        )
    if not reasons and tokenizer.kind == "wordpiece":
        reasons.append("words have characters that the vocabulary does not have within a word")
    return "; ".join(reasons) or "characters are not in the vocabulary"


def warn_of_unknown(coverage: Coverage, where: str, reason: str) -> None:
    """Warn if more than 2 % of the tokens are unknown, or if they hold more than 2 % of the text:
    WordPiece takes a whole word, or in a script without spaces a clause, for one token."""
    if max(coverage.unknown_share, coverage.lost_share) > MAX_UNKNOWN:
        lost = f", with {coverage.lost_share:.1%} of the characters" if coverage.characters else ""
        logger.warning(
            "%.1f %% of the tokens of %s are unknown%s, so the model cannot tell them apart: %s; "
            "use a tokenizer that was trained on such text, with more pieces, or --kind bpe",
            *(100 * coverage.unknown_share, where, lost.replace("%", " %"), reason),
        )


def log_rows(tokenizer: Tokenizer, where: str, coverage: Coverage) -> None:
    """Say how well encoded rows are covered."""
    logger.info("%s: %s", where, coverage)
    reason = "their characters are not in the vocabulary, or their words are too long"
    warn_of_unknown(coverage, where, reason)
