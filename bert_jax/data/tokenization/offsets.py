"""The characters of a text that each of its pieces stands for.

    text     Zoë's  café           every kind of tokenizer; a piece that stands for no character
    pieces   zoe ' s  cafe         of its own (a lone mark of a space) has an empty span
    spans    0 3 4 5  7 11

Pieces cover the text but for white space and what the clean-up drops. Several pieces may stand
for one character (an emoji in bytes, a ligature taken apart); they share its span.
"""

from __future__ import annotations

import unicodedata

import numpy as np

from bert_jax.data.tokenization.backends import (
    SPACE_MARK,
    SentencePieceBackend,
    TokenizersBackend,
    clean_text,
)

_MARKS = ("Mn", "Mc", "Me", "Cf")  # categories of what stands on, or joins, the letter before


def encode_with_offsets(
    backend: TokenizersBackend | SentencePieceBackend, text: str
) -> tuple[list[int], np.ndarray]:
    """The ids that `backend.encode` gives, and int32 [n 2]: first character and end of each."""
    if isinstance(backend, SentencePieceBackend):
        ids, spans = _sentencepiece(backend, text)
    else:
        encoding = backend.core.encode(text, add_special_tokens=False)
        ids, spans = encoding.ids, [_trimmed(text, *span) for span in encoding.offsets]
    begins = [*(begin for begin, _ in spans), len(text)][1:]
    spans = [
        (begin, _with_marks(text, end, limit) if begin < end else end)
        for (begin, end), limit in zip(spans, begins, strict=True)
    ]
    return ids, np.array(spans, np.int32).reshape(-1, 2)


def _trimmed(text: str, begin: int, end: int) -> tuple[int, int]:
    """Without white space, which byte-level pieces and marks of a space take along."""
    while begin < end and text[begin].isspace():
        begin += 1
    while begin < end and text[end - 1].isspace():
        end -= 1
    return begin, end


def _with_marks(text: str, end: int, limit: int) -> int:
    """A letter keeps its accents and joiners, which the clean-up drops."""
    while end < limit and unicodedata.category(text[end]) in _MARKS:
        end += 1
    return end


def _sentencepiece(
    backend: SentencePieceBackend, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Word by word, as `SentencePiece.encode_batch` does it."""
    cleaned, owners = _cleaned(text, backend.cased)
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    at = 0
    for word in cleaned.split(" "):
        for piece, begin, end in _pieces(backend, word):
            ids.append(piece)
            if begin < end:
                spans.append((owners[at + begin], owners[at + end - 1] + 1))
            else:
                here = owners[at + begin] if at + begin < len(owners) else len(text)
                spans.append((here, here))
        at += len(word) + 1
    return ids, spans


def _cleaned(text: str, cased: bool) -> tuple[str, list[int]]:
    """`clean(text)`, and the character of `text` behind each of its characters. Cleaning works
    character by character, so they can be cleaned one at a time."""
    characters: list[str] = []
    owners: list[int] = []
    for i in range(len(text) - len(text.lstrip()), len(text.rstrip())):
        new = clean_text(text[i], cased)
        if text[i].isspace():
            new = "" if text[i - 1].isspace() else " "
        characters += new
        owners += [i] * len(new)
    return "".join(characters), owners


def _pieces(backend: SentencePieceBackend, word: str) -> list[tuple[int, int, int]]:
    """id, first character and end of each piece of a cleaned word."""
    mapping = backend._processor.encode_as_offset_mapping(word)
    found: list[tuple[int, int, int]] = []
    for i, (begin, end) in zip(mapping["ids"], mapping["offsets"], strict=True):
        parts = backend._split_commas([i])
        for part in parts:
            size = len(backend.pieces[part].replace(SPACE_MARK, ""))
            stop = end if len(parts) == 1 else min(begin + size, end)
            found.append((part, begin, stop))
            begin = stop
    return _shared(backend, found)


def _shared(
    backend: SentencePieceBackend, found: list[tuple[int, int, int]]
) -> list[tuple[int, int, int]]:
    """Parts of one character come with their span on the last of them: each gets it."""
    for k in range(len(found) - 2, -1, -1):
        i, begin, end = found[k]
        if begin == end and backend.pieces[i] != SPACE_MARK and found[k + 1][1] == begin:
            found[k] = (i, begin, found[k + 1][2])
    return found
