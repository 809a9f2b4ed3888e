"""Sequences of proteins, DNA and RNA: files with the suffix .fasta, .fa, .faa or .fna.

>sp|P69905|HBA_HUMAN        a header begins a sequence, and is left out
MVLSPADKTNVKAAWGKVGAHAG
EYGAEALERM FLSFPTTKTY FPH   the lines of a sequence are joined, and spaces in them left out

`fa` is also the code of Persian: a file whose first line is no header is refused, since plain text
would lose its spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bert_jax.data.text_formats import as_plain_text, format_suffix

SUFFIXES = (".fasta", ".fa", ".faa", ".fna")
HEADERS = (">", ";")


def is_fasta(file: str) -> bool:
    """Whether a file's name ends with such a suffix, perhaps before that of a compression."""
    return format_suffix(file) in SUFFIXES


def check_header(lines: Iterable[Any], file: str) -> Iterator[Any]:
    """The lines of a file, unchanged. ValueError: the first one that is not blank is no header."""
    remaining = iter(lines)
    for line in remaining:
        text = line.text.strip()
        if text and not text.startswith(HEADERS):
            raise ValueError(
                f"{file} is a FASTA file by its name, but line {line.number} is no header: "
                f"expected > or ; at its beginning; if it is plain text, rename it to "
                f"{as_plain_text(file)}"
            )
        yield line
        if text:
            break
    yield from remaining


def join_sequences(lines: Iterable[Any], max_characters: int) -> Iterator[Any]:
    """Of lines with the fields `text`, `replaced_bytes` and `number`, one per sequence. A sequence
    is cut after `max_characters`."""
    parts: list[Any] = []
    size = replaced_bytes = header_number = 0
    for line in lines:
        text = "".join(line.text.split())
        replaced_bytes += line.replaced_bytes
        # a very long header comes in parts, which have one number
        header = text.startswith(HEADERS) or line.number == header_number
        if header:
            header_number = line.number
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
