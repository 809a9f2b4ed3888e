"""What a tokenizer does to a text before it splits it into pieces."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from bert_jax.data.tokenization.tokenizer import Tokenizer

Fold = Literal["case", "accents"]
FOLDS: tuple[Fold, ...] = ("case", "accents")


def normalize(tokenizer: Tokenizer, text: str) -> str:
    """The text that the pieces spell."""
    return tokenizer._backend.normalize(text)


def folds(tokenizer: Tokenizer) -> tuple[Fold, ...]:
    """Which distinctions the tokenizer removes."""
    removes = {
        "case": normalize(tokenizer, "A") == "a",
        "accents": not tokenizer.keeps_accents,
    }
    return tuple(f for f in FOLDS if removes[f])


def fold_text(text: str, fold: Sequence[Fold]) -> str:
    """The text without these distinctions, as long as before: a character whose lower case has
    another length stays, and so does an accent that is a character of its own."""
    return text.translate({ord(c): _fold_character(c, fold) for c in set(text)})


def _fold_character(c: str, fold: Sequence[Fold]) -> str:
    if "accents" in fold:
        base, *marks = unicodedata.normalize("NFD", c)
        c = base if all(unicodedata.category(m) == "Mn" for m in marks) else c
    lower = c.lower()
    return lower if "case" in fold and len(lower) == 1 else c


def lost_characters(tokenizer: Tokenizer, counts: Counter[str]) -> Counter[str]:
    """Of the counts of a text's characters those that lose more than their case: control characters
    and marks that are removed, letters that lose an accent, white space that no longer separates
    words."""
    return Counter({c: n for c, n in counts.items() if _loses(tokenizer, c)})


def _loses(tokenizer: Tokenizer, character: str) -> bool:
    """Whether a character loses more than its case, or is white space that no longer separates
    words: WordPiece drops form feeds and other control characters."""
    if character.isspace():
        return normalize(tokenizer, f"a{character}a") == "aa"
    return _size(normalize(tokenizer, character).strip()) < _size(character)


def _size(text: str) -> int:
    return len(unicodedata.normalize("NFKD", text))
