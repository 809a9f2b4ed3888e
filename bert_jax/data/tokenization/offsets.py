"""The character offsets of the pieces of a text, for every kind of tokenizer.

    text     Zoë's  café           a piece without a character of its own (a lone mark of a
    pieces   zoe ' s  cafe         space) has an empty span
    offsets  0 3 4 5  7 11

Pieces cover the text except white space and what normalization drops. If several pieces are parts
of one character (an emoji in bytes, a decomposed ligature), each has the span of the character.
"""

from __future__ import annotations

import unicodedata

import numpy as np

from bert_jax.data.tokenization.albert_text import clean_text, clusters
from bert_jax.data.tokenization.backends import Backend, SentencePieceBackend
from bert_jax.data.tokenization.words import SPACE_MARK
from bert_jax.utils.text_lines import without_surrogates

_MARKS = ("Mn", "Mc", "Me", "Cf")  # Unicode categories of marks and joiners


def encode_with_offsets(backend: Backend, text: str) -> tuple[list[int], np.ndarray]:
    """The ids of `backend.encode`, and int32 [n 2]: start and end character of each."""
    text = without_surrogates(text)
    if isinstance(backend, SentencePieceBackend):
        ids, spans = _encode_sentencepiece(backend, text)
    else:
        ids, offsets = backend.encode_with_offsets(text)
        spans = [_trim_spaces(text, *span) for span in offsets]
    begins = [*(begin for begin, _ in spans), len(text)][1:]
    spans = [
        (begin, _include_marks(text, end, limit) if begin < end else end)
        for (begin, end), limit in zip(spans, begins, strict=True)
    ]
    return ids, np.array(spans, np.int32).reshape(-1, 2)


def _trim_spaces(text: str, begin: int, end: int) -> tuple[int, int]:
    """Exclude white space, which byte-level pieces and marks of a space include."""
    while begin < end and text[begin].isspace():
        begin += 1
    while begin < end and text[end - 1].isspace():
        end -= 1
    return begin, end


def _include_marks(text: str, end: int, limit: int) -> int:
    """Include the marks and joiners after a letter, which normalization drops."""
    while end < limit and unicodedata.category(text[end]) in _MARKS:
        end += 1
    return end


def _encode_sentencepiece(
    backend: SentencePieceBackend, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Encode word by word, as `SentencePieceBackend.encode_batch` does."""
    cleaned, sources = _clean_with_sources(text, backend.cased, backend.keep_accents)
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    at = 0
    for word in cleaned.split(" "):
        for piece, begin, end in _encode_word(backend, word):
            ids.append(piece)
            if begin < end:
                spans.append((sources[at + begin][0], sources[at + end - 1][1]))
            else:
                here = sources[at + begin][0] if at + begin < len(sources) else len(text)
                spans.append((here, here))
        at += len(word) + 1
    return ids, spans


def _clean_with_sources(
    text: str, cased: bool, keep_accents: bool
) -> tuple[str, list[tuple[int, int]]]:
    """`clean_text(text)`, and for each of its characters the begin and end in `text` of what it
    comes from. Characters that do not compose are cleaned alone, which gives the same text."""
    characters: list[str] = []
    sources: list[tuple[int, int]] = []
    offset = len(text) - len(text.lstrip())
    for begin, end in clusters(text.strip()):
        begin, end = begin + offset, end + offset
        cleaned = clean_text(text[begin:end], cased, keep_accents)
        if text[begin].isspace():
            cleaned = "" if text[begin - 1].isspace() else " "
        characters += cleaned
        if cleaned == text[begin:end]:  # nothing was composed
            sources += [(i, i + 1) for i in range(begin, end)]
        else:
            sources += [(begin, end)] * len(cleaned)
    return "".join(characters), sources


def _encode_word(backend: SentencePieceBackend, word: str) -> list[tuple[int, int, int]]:
    """The id, start and end of each piece of a cleaned word."""
    mapping = backend._processor.encode_as_offset_mapping(word)
    pieces: list[tuple[int, int, int]] = []
    for i, (begin, end) in zip(mapping["ids"], mapping["offsets"], strict=True):
        parts = backend._split_commas([i])
        for part in parts:
            size = len(backend.pieces[part].replace(SPACE_MARK, ""))
            stop = end if len(parts) == 1 else min(begin + size, end)
            pieces.append((part, begin, stop))
            begin = stop
    return _share_spans(backend, pieces)


def _share_spans(
    backend: SentencePieceBackend, pieces: list[tuple[int, int, int]]
) -> list[tuple[int, int, int]]:
    """SentencePiece gives the span of a character to the last of its pieces: give it to each."""
    for k in range(len(pieces) - 2, -1, -1):
        i, begin, end = pieces[k]
        if begin == end and backend.pieces[i] != SPACE_MARK and pieces[k + 1][1] == begin:
            pieces[k] = (i, begin, pieces[k + 1][2])
    return pieces
