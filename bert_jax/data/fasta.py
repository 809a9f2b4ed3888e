"""Sequences of proteins, DNA and RNA: files with the suffix .fasta, .fa, .faa or .fna.

>sp|P69905|HBA_HUMAN        a header begins a sequence, and is left out
MVLSPADKTNVKAAWGKVGAHAG
EYGAEALERM FLSFPTTKTY FPH   the lines of a sequence are joined, and spaces in them left out
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SUFFIXES = (".fasta", ".fa", ".faa", ".fna")
HEADERS = (">", ";")


def is_fasta(file: str) -> bool:
    """Whether a file has such a suffix, perhaps before that of a compression."""
    return any(suffix in SUFFIXES for suffix in Path(file.lower()).suffixes[-2:])


def join_sequences(lines: Iterable[Any], max_characters: int) -> Iterator[Any]:
    """Of lines with the fields `text`, `replaced_bytes` and `number`, one per sequence. A sequence
    is cut after `max_characters`."""
    parts: list[Any] = []
    size = replaced_bytes = 0
    for line in lines:
        text = "".join(line.text.split())
        replaced_bytes += line.replaced_bytes
        header = text.startswith(HEADERS)
        if parts and (header or size >= max_characters):
            yield _join(parts, replaced_bytes)
            parts, size, replaced_bytes = [], 0, 0
        if text and not header:
            parts.append(line._replace(text=text))
            size += len(text)
    if parts:
        yield _join(parts, replaced_bytes)


def _join(parts: list[Any], replaced_bytes: int) -> Any:
    text = "".join(part.text for part in parts)
    return parts[0]._replace(text=text, replaced_bytes=replaced_bytes)
