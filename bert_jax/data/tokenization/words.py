"""Where words begin: what whole-word, n-gram and span masking hide together.

    text     The cats  東京へ行く   ฝนตก
    pieces   ▁The ▁cat s  ▁東京 へ 行く  ▁ฝน ตก
    begins    x    x       x   x  x     x  x

Two pieces belong to one word unless the second is marked (`▁`, `Ġ`, no `##`), or one of them
touches the other with a character of a script that writes no spaces. There every piece is a word,
as every Chinese character is in BERT; so it is in a vocabulary of characters without a mark, which
was trained on sequences without spaces. Text that was split into words by white space needs the
marks alone (`spaces`).
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

WordRule = Literal["script", "spaces", "albert"]

# First and last code points of scripts that write no spaces between words: Thai, Lao, Tibetan,
# Burmese, Khmer; then Han and kana with their marks, half widths and extensions.
UNSPACED = (
    (0x0E00, 0x0E7F),
    (0x0E80, 0x0EFF),
    (0x0F00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x2E80, 0x2FDF),
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3031, 0x3035),
    (0x3038, 0x303B),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x9FFF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)
SPACE_MARK = "▁"  # stands for a space in SentencePiece
BYTE_SPACE = "Ġ"  # and in byte-level BPE
_SPACE_BYTES = re.compile("[Ġĉ-č]")  # GPT-2's letters for the bytes of space, \t \n \v \f \r
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")  # of SentencePiece's byte fallback
_ASCII_LETTERS = frozenset(string.ascii_letters)
# as in ALBERT's create_pretraining_data.py, without the apostrophe and < = >
_ALBERT_PUNCTUATION = frozenset('!"#$%&()*+,-./:;?@[\\]^_`{|}~€£')


class WordEdges(NamedTuple):
    """Per piece: whether it begins a word wherever it stands, and whether the next piece does."""

    starts: np.ndarray  # bool [v]
    ends: np.ndarray  # bool [v]

    @classmethod
    def marked(cls, starts: np.ndarray) -> WordEdges:
        """Edges of pieces of which `starts` says all."""
        return cls(starts, np.zeros_like(starts))

    def begins_word(self, tokens: Any) -> Any:
        """Which of the tokens [... l] begin a word: bool [... l], for NumPy and JAX arrays. The
        first token of a row is one that `starts` a word, or not."""
        xp = tokens.__array_namespace__()
        starts, ends = xp.asarray(self.starts)[tokens], xp.asarray(self.ends)[tokens]
        before = xp.concatenate([xp.zeros_like(ends[..., :1]), ends[..., :-1]], axis=-1)
        return starts | before


def word_edges(
    kind: str,
    pieces: Sequence[str],
    added: Collection[str] = (),
    special: Collection[int] = (),
    rule: WordRule = "script",
    marks_spaces: bool | None = None,
) -> WordEdges:
    """The edges of a vocabulary's pieces.

    `script` is the rule above; `spaces` leaves out what it says of scripts; `albert` is the rule of
    ALBERT's code for Unigram, made for English: a piece that contains a digit, an apostrophe or a
    letter beyond a to z is a word, and so is a punctuation mark. For the other kinds it is
    `script`. `added` pieces are whole words. If the mark stands for the space before a word
    (`marks_spaces`; by default in every BPE), the first word after one of the `special` ids has no
    mark, and begins there."""
    if kind == "unigram" and rule == "albert":
        starts = [p in added or _starts_word_in_albert(p) for p in pieces]
        return WordEdges.marked(np.array(starts, bool))
    spaced = kind != "chars" or SPACE_MARK in pieces
    starts = np.array([p in added or not spaced or _is_marked(kind, p) for p in pieces], bool)
    ends = np.zeros(len(pieces), bool)
    if rule != "spaces":
        for i, piece in enumerate(pieces):
            data = _text_bytes(kind, piece)
            starts[i] |= _is_unspaced(data[: _char_length(data[:1])])
            ends[i] = _is_unspaced(_last_char(data), whole=True)
    if kind.endswith("bpe") if marks_spaces is None else marks_spaces:
        ends[list(special)] = True
    return WordEdges(starts, ends)


def _is_marked(kind: str, piece: str) -> bool:
    """Whether a piece is marked as the beginning of a word."""
    if kind == "bpe":
        return bool(_SPACE_BYTES.match(piece))
    if kind in ("unigram", "sentencepiece_bpe", "chars"):
        return piece.startswith(SPACE_MARK)
    return not piece.startswith("##")


def _starts_word_in_albert(piece: str) -> bool:
    return (
        piece.startswith((SPACE_MARK, "<"))
        or piece in _ALBERT_PUNCTUATION
        or not all(c in _ASCII_LETTERS or c in _ALBERT_PUNCTUATION for c in piece)
    )


# ---- scripts


def has_unspaced(text: str) -> bool:
    """Whether a text has a character of a script that writes no spaces between words."""
    return any(begin <= ord(c) <= end for c in text for begin, end in UNSPACED)


def _text_bytes(kind: str, piece: str) -> bytes:
    """The UTF-8 bytes of the text of a piece, without marks of words. A piece of byte-level BPE may
    begin or end within a character."""
    if kind == "bpe":
        letters = byte_letters()
        return bytes(letters[c] for c in piece if c in letters).lstrip()
    if kind == "wordpiece":
        return piece.removeprefix("##").encode()
    if byte := _BYTE_PIECE.fullmatch(piece):
        return bytes.fromhex(byte[1])
    return piece.strip(SPACE_MARK).encode()


@functools.cache
def byte_letters() -> dict[str, int]:
    """The byte that each letter of byte-level BPE stands for (gpt-2, encoder.py): printable ones
    are themselves, the others follow from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (b for b in range(256) if b not in printable)
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def _char_length(lead: bytes) -> int:
    """The bytes of a character, by its first one; 0 for a byte that begins none."""
    if not lead or 0x80 <= lead[0] < 0xC0:
        return 0
    return 1 + sum(lead[0] >= limit for limit in (0xC0, 0xE0, 0xF0))


def _last_char(data: bytes) -> bytes:
    for i in range(1, min(4, len(data)) + 1):
        if _char_length(data[-i:][:1]):
            return data[-i:]
    return b""


def _is_unspaced(char: bytes, whole: bool = False) -> bool:
    """Whether the first bytes of a character, or its `whole` bytes, say that it is of a script
    without spaces."""
    length = _char_length(char[:1])
    if not length or (whole and len(char) < length):
        return False
    first = char[0] & (0x7F >> length if length > 1 else 0x7F)
    low = functools.reduce(lambda point, byte: point << 6 | byte & 0x3F, char[1:], first)
    missing = 6 * (length - len(char))
    low, high = low << missing, (low + 1 << missing) - 1
    return any(begin <= low and high <= end for begin, end in UNSPACED)
