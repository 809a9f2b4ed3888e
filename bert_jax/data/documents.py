"""Stream files to documents; memory does not grow with the text.

    TEXT                       a document is                    its paragraphs are
    plain text                 what stands between blank lines  its lines
    .fasta .fa .faa .fna       a sequence (fasta.py)            one line
    .jsonl .ndjson .json       a record's field `text`          the text's lines
    .parquet                   a row's column `text`            the text's lines
    tfds:NAME/SPLIT            an example's feature `text`      the text's lines
    hf:datasets/.../SPLIT      a row's column `text`            the text's lines

The first three may be compressed: .gz .bz2 .xz .zst. A file of JSON has one record per line.

A file without blank lines is one document. To bound memory, a line (but that of a FASTA sequence)
is split at about 1 MiB and a document at 4 MiB of text; the rest is the next line or document. A
file that has no blank line in its first 4 MiB does not say where its documents end. It is cut at
line ends into documents of 64 KiB up to its first blank line, so that a twentieth of it can be held
out.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bert_jax.data import fasta, record_texts, text_formats
from bert_jax.data.corpus_lines import Line, read_lines, split_at_byte_limit
from bert_jax.data.text_sources import TEXT_FIELD, TFDS, expand_texts
from bert_jax.data.worker_pool import Progress

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 20  # bytes
MAX_DOCUMENT_CHARACTERS = 4 << 20  # characters
WITHOUT_TEXT = "expected text; remove it from the arguments"
MAX_NAMED = 5  # files in a message
LOOKED_AT = 1 << 16  # characters at the beginning of a file
UNDIVIDED_CHARACTERS = 1 << 16  # characters of a document of a file without blank lines
LINE_END = re.compile(r"\r\n|\r|\n")  # as in a plain file (corpus_lines.py)


class Document(NamedTuple):
    """The paragraphs of a document, and how it was read."""

    paragraphs: tuple[str, ...]
    replaced_bytes: int = 0  # bytes that were not UTF-8, each replaced by U+FFFD

    @property
    def characters(self) -> int:
        """The number of its characters."""
        return sum(map(len, self.paragraphs))


def read_documents(
    patterns: Sequence[str | Path], strict: bool = False, field: str = TEXT_FIELD
) -> Iterator[Document]:
    """Stream the documents of files, globs and datasets in this order; the files of a glob are
    sorted by name. `strict` refuses bytes that are not UTF-8 instead of replacing them. `field` of
    records holds the text.
    ValueError: a file is missing (raised at once) or damaged (raised when it is reached)."""
    sources = expand_texts(patterns, field).sources
    return itertools.chain.from_iterable(read_source(source, strict, field) for source in sources)


def read_source(source: str, strict: bool = False, field: str = TEXT_FIELD) -> Iterator[Document]:
    """The documents of one file or TFDS dataset."""
    empty, replaced = True, 0
    for document in _read_any_format(source, strict, field):
        empty = False
        replaced += document.replaced_bytes
        yield document
    if empty:
        raise ValueError(f"{source} is empty: {WITHOUT_TEXT}")
    if replaced:
        logger.warning(
            "%s: replaced %d bytes that were not UTF-8 by U+FFFD; if that is much, convert the "
            "file, for example with iconv",
            *(source, replaced),
        )


def check_sources(sources: Sequence[str], strict: bool, field: str, progress: bool = False) -> None:
    """Look at the beginning of every file, before hours of reading. ValueError: files that are
    empty or of another format, with their number."""
    wrong: list[str] = []
    files = [source for source in sources if not source.startswith(TFDS)]
    shown = progress and len(files) > 100
    with Progress("looking at files", "files", total=len(files), shown=shown) as bar:
        for file in files:
            try:
                if not _begins_with_text(file, strict, field):
                    wrong.append(f"{file} is empty: {WITHOUT_TEXT}")
            except ValueError as e:
                wrong.append(str(e))
            bar.add(1)
    if len(wrong) > 1:
        more = "" if len(wrong) <= MAX_NAMED else f"; and {len(wrong) - MAX_NAMED} more"
        raise ValueError(
            f"{len(wrong)} of {len(sources)} files cannot be read: "
            f"{'; '.join(wrong[:MAX_NAMED])}{more}"
        )
    if wrong:
        raise ValueError(wrong[0])


def _begins_with_text(file: str, strict: bool, field: str) -> bool:
    """Whether a file has text. Warns of one that begins in another encoding."""
    characters = replaced = 0
    found = False
    for line in _texts(file, strict, field):
        characters, replaced = characters + len(line.text), replaced + line.replaced_bytes
        found = found or bool(line.text.strip())
        if found and characters >= LOOKED_AT:
            break
    if replaced > characters / 10:
        logger.warning(
            "%s is probably in another encoding than UTF-8: %d of its first %d characters are read "
            "as U+FFFD; convert it, for example with iconv -f CP1251 -t UTF-8",
            *(file, replaced, characters),
        )
    return found


def _texts(source: str, strict: bool, field: str) -> Iterable[Line]:
    """The texts of records, or the lines of a file."""
    if Path(source).suffix.lower() == ".parquet":
        return record_texts.parquet_texts(source, strict, field)
    if text_formats.is_json_lines(source):
        lines = read_lines(source, strict, record_texts.MAX_JSON_BYTES)
        return record_texts.json_texts(lines, source, strict, field)
    lines = read_lines(source, strict, MAX_LINE_BYTES)
    return fasta.check_header(lines, source) if fasta.is_fasta(source) else lines


def is_plain(source: str) -> bool:
    """Whether a source is a file of plain text that is not compressed, by its name."""
    suffix = Path(source).suffix.lower()
    others = (*text_formats.COMPRESSIONS, *text_formats.NOT_READ)
    named = suffix in others or text_formats.has_fields(source) or fasta.is_fasta(source)
    return Path(source).is_file() and not named


def _read_any_format(source: str, strict: bool, field: str) -> Iterator[Document]:
    if source.startswith(TFDS):
        examples = record_texts.tfds_texts(source, strict, field)
        return _documents_of_texts(examples, source, MAX_LINE_BYTES)
    texts = _texts(source, strict, field)
    if text_formats.has_fields(source):
        return _documents_of_texts(texts, source, MAX_LINE_BYTES)
    if fasta.is_fasta(source):
        sequences = fasta.join_sequences(texts, MAX_DOCUMENT_CHARACTERS)
        return _documents_of_texts(sequences, source, None)
    return _group_lines(texts, source, divided=False)


def _group_lines(lines: Iterable[Line], source: str, divided: bool) -> Iterator[Document]:
    """Group lines into documents: up to a blank line, or up to the maximum size. Text that is not
    `divided` into documents and reaches that size without a blank line is cut into small ones."""
    paragraphs: list[str] = []
    size = replaced_bytes = 0
    limit = MAX_DOCUMENT_CHARACTERS
    for text, line_replaced_bytes, _ in lines:
        text = text.strip()
        replaced_bytes += line_replaced_bytes
        if text:
            paragraphs.append(text)
            size += len(text)
        elif paragraphs:
            divided, limit = True, MAX_DOCUMENT_CHARACTERS
        if paragraphs and (not text or size >= limit):
            if divided:
                yield Document(tuple(paragraphs), replaced_bytes)
            else:
                if limit == MAX_DOCUMENT_CHARACTERS:
                    _warn_undivided(source)
                    limit = UNDIVIDED_CHARACTERS
                yield from _cut(paragraphs, replaced_bytes)
            paragraphs, size, replaced_bytes = [], 0, 0
    if paragraphs:
        yield Document(tuple(paragraphs), replaced_bytes)


def _cut(paragraphs: list[str], replaced_bytes: int) -> Iterator[Document]:
    """Documents of UNDIVIDED_CHARACTERS or a little more; the last one may be shorter."""
    begin = size = 0
    for end, text in enumerate(paragraphs, 1):
        size += len(text)
        if size >= UNDIVIDED_CHARACTERS or end == len(paragraphs):
            yield Document(tuple(paragraphs[begin:end]), replaced_bytes)
            begin, size, replaced_bytes = end, 0, 0


def _warn_undivided(source: str) -> None:
    logger.warning(
        "%s has no blank line in its first %d MiB, so it is cut into documents of %d KiB: put "
        "blank lines between documents",
        source,
        MAX_DOCUMENT_CHARACTERS >> 20,
        UNDIVIDED_CHARACTERS >> 10,
    )


def _documents_of_texts(
    texts: Iterable[Line], source: str, longest: int | None
) -> Iterator[Document]:
    """One document per text; blank lines do not end it. Lines of more than `longest` bytes are
    split as in a plain file. Texts without a character are counted."""
    empty = 0
    for text, replaced_bytes, number in texts:
        empty += not text.strip()
        parts: Iterable[str] = LINE_END.split(text)
        if longest is not None:
            parts = (part for line in parts for part in split_at_byte_limit(line, longest))
        lines = (Line(part, 0, number) for part in parts if part.strip())
        for document in _group_lines(lines, source, divided=True):
            yield document._replace(replaced_bytes=replaced_bytes)
            replaced_bytes = 0
    if empty:
        logger.warning("%s: %d texts are empty and were left out", source, empty)
