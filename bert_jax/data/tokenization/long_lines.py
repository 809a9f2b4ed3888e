"""Cut long lines, as scripts without spaces and sequences of proteins have them, for training."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

MAX_LINE_BYTES = 65_536  # lines above it are cut: training on them is slow
_PART_CHARACTERS = MAX_LINE_BYTES // 4


def cut_for_training(text: str) -> Iterator[str]:
    """The line, or its parts if it has more than 64 KiB."""
    long = len(text) > _PART_CHARACTERS and len(text.encode()) > MAX_LINE_BYTES
    return split_long(text, _PART_CHARACTERS) if long else iter((text,))


def split_long(text: str, max_characters: int) -> Iterator[str]:
    """Parts of at most so many characters: cut before a space, or if there is none before a letter,
    but not between a letter and its marks."""
    begin = 0
    while len(text) - begin > max_characters:
        end = begin + max_characters
        cut = text.rfind(" ", begin + 1, end + 1)
        if cut < 0:
            cut = end
            while cut > begin + 1 and unicodedata.category(text[cut]).startswith("M"):
                cut -= 1
            cut = cut if cut > begin + 1 else end
        yield text[begin:cut]
        begin = cut
    yield text[begin:]
