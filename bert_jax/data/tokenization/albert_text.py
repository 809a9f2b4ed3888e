"""ALBERT's text normalization, in Python and as steps of a `tokenizers` pipeline.

    text           cased, accents stripped    uncased, accents stripped    cased, accents kept
    "Möchte  ﬁn"   "Mochte fin"               "mochte fin"                 "Möchte fin"

An accent here is any character with a combining class, as in ALBERT's own code: the dakuten of が,
the virama and nukta of Indic scripts and the tone marks of Thai, but not their vowel signs.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import tokenizers
from tokenizers import normalizers

from bert_jax.data.tokenization.words import SPACE_MARK

_FIRST_MARK = 0x300  # the first character with a combining class
_HANGUL_VOWELS_AND_FINALS = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))


def clean_text(text: str, cased: bool, keep_accents: bool = False) -> str:
    """Normalize a text: single spaces, compatibility decomposition (NFKD), no combining marks
    unless `keep_accents`, lower case unless `cased` (albert, tokenization.preprocess_text), and
    composition (NFKC), which SentencePiece does next."""
    text = " ".join(text.split())
    ascii_only = text.isascii()
    if not ascii_only:
        text = unicodedata.normalize("NFKD", text)
        if not keep_accents:
            text = "".join(c for c in text if not unicodedata.combining(c))
    if not cased:
        # lower() would give a final capital sigma a letter of its own, unlike every pipeline
        text = text.replace("\u03a3", "\u03c3").lower()
    return text if ascii_only else unicodedata.normalize("NFKC", text)


def albert_normalizers(
    cased: bool, keep_accents: bool = False, keep_joiners: bool = True
) -> list[Any]:
    """`clean_text` as steps of a `tokenizers` pipeline. Without `keep_joiners` the model makes
    spaces of non-joiners and replacement characters (sentencepiece_rules.py)."""
    spaces = SPACE_MARK if keep_joiners else f"{SPACE_MARK}\u200c\ufffd"
    marks = normalizers.Replace(tokenizers.Regex(_combining_class()), "")
    return [
        # Python takes these for white space, the pipeline for control characters
        normalizers.Replace(tokenizers.Regex("[\\x0b\\x1c-\\x1f]"), " "),
        normalizers.NFKD(),
        *([] if keep_accents else [marks]),
        *([] if cased else [normalizers.Lowercase()]),
        normalizers.NFKC(),
        # SentencePiece makes them spaces; the pipeline would drop a mark that follows them
        normalizers.Replace(tokenizers.Regex(f"[{spaces}]"), " "),
    ]


def clusters(text: str) -> Iterator[tuple[int, int]]:
    """The begin and end of the parts of a text that are normalized independently of each other: a
    character and the marks, vowel signs or jamo that may compose with it. A space is one part."""
    begin = 0
    for i in range(1, len(text)):
        if text[i].isspace() or text[i - 1].isspace() or not _may_compose(text[i]):
            yield begin, i
            begin = i
    if text:
        yield begin, len(text)


def _may_compose(c: str) -> bool:
    """Whether a character may become part of the one before it."""
    if ord(c) < _FIRST_MARK:
        return False
    first = unicodedata.normalize("NFKD", c)[0]
    return bool(unicodedata.combining(first)) or first in _second_in_compositions()


@functools.cache
def _second_in_compositions() -> frozenset[str]:
    """The characters that canonical composition joins to the character before them."""
    pairs = (unicodedata.decomposition(chr(c)).split() for c in range(sys.maxunicode + 1))
    seconds = {chr(int(p[1], 16)) for p in pairs if len(p) == 2 and not p[0].startswith("<")}
    return frozenset(seconds | set(map(chr, _HANGUL_VOWELS_AND_FINALS)))


@functools.cache
def _combining_class() -> str:
    """A regex class of the characters that `unicodedata.combining` calls combining. StripAccents
    of `tokenizers` would also drop vowel signs and joiners, which ALBERT keeps."""
    all_points = range(_FIRST_MARK, sys.maxunicode + 1)
    points = [c for c in all_points if unicodedata.combining(chr(c))]
    ranges: list[list[int]] = []
    for point in points:
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "[" + "".join(f"\\x{{{a:x}}}-\\x{{{b:x}}}" for a, b in ranges) + "]"
