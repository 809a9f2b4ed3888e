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
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.data import fasta, text_formats, tfds_folder
from bert_jax.data.corpus_lines import Line, decode, read_lines, split_at_byte_limit
from bert_jax.data.text_sources import TEXT_FIELD, TFDS, expand_texts, split_tfds
from bert_jax.data.worker_pool import Progress
from bert_jax.utils.errors import first_line

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 20  # bytes
MAX_JSON_BYTES = 1 << 24  # bytes of a line of JSON, which in memory may take 30 times that
MAX_DOCUMENT_CHARACTERS = 4 << 20  # characters
WITHOUT_TEXT = "expected text; remove it from the arguments"
MAX_NAMED = 5  # files in a message
LOOKED_AT = 1 << 16  # characters at the beginning of a file
EXAMPLES_PER_READ = 64  # of a TFDS dataset
UNDIVIDED_CHARACTERS = 1 << 16  # characters of a document of a file without blank lines
HALF_SURROGATE = re.compile("[\ud800-\udfff]")
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
        return _parquet_texts(source, strict, field)
    if text_formats.is_json_lines(source):
        return _json_texts(read_lines(source, strict, MAX_JSON_BYTES), source, strict, field)
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
        return _documents_of_texts(_tfds_texts(source, strict, field), source, MAX_LINE_BYTES)
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


def _json_texts(lines: Iterable[Line], file: str, strict: bool, field: str) -> Iterator[Line]:
    filled = (line for line in lines if line.text.strip())
    for i, line in enumerate(filled):
        if i == 0 and _begins_array(line.text, file):
            raise ValueError(
                f"{file} is one JSON array: expected one object per line; convert it, for example "
                "with jq -c '.[]'"
            )
        try:
            record = json.loads(line.text)
        except (ValueError, RecursionError) as e:  # e.g. a number too long, nesting too deep
            if len(line.text) > MAX_JSON_BYTES // 8 and not line.text.endswith(("\n", "\r")):
                raise ValueError(
                    f"{file}, line {line.number}: the record has more than {MAX_JSON_BYTES >> 20} "
                    "MiB: write such records as .parquet, or several of them"
                ) from None
            raise ValueError(
                f"{file}, line {line.number}: not JSON: {e}; expected one object per line, of at "
                f"most {MAX_JSON_BYTES >> 20} MiB"
            ) from e
        has_field = isinstance(record, dict) and field in record
        text = ("" if record[field] is None else record[field]) if has_field else None  # as Parquet
        if not isinstance(text, str):
            raise ValueError(
                f"{file}, line {line.number}: no field `{field}` with a string; name the field "
                "with --field"
            )
        halves = len(HALF_SURROGATE.findall(text))  # escaped in JSON, and no characters
        if halves and strict:
            raise ValueError(
                f"{file}, line {line.number}: half of a surrogate pair is no character; convert "
                "the file, or remove --strict to replace it"
            )
        text = HALF_SURROGATE.sub("\ufffd", text)
        yield line._replace(text=text, replaced_bytes=line.replaced_bytes + halves)


def _begins_array(line: str, file: str) -> bool:
    """Whether the first line of a `.json` file, which is often a single value, begins an array."""
    return text_formats.format_suffix(file) == ".json" and line.lstrip().startswith("[")


def _parquet_texts(file: str, strict: bool, field: str) -> Iterator[Line]:
    import pyarrow
    import pyarrow.parquet

    try:
        # Without buffers ahead: they hold the column of whole row groups.
        small: Any = dict(pre_buffer=False, buffer_size=1 << 20)
        with pyarrow.parquet.ParquetFile(file, **small) as table:
            if field not in table.schema_arrow.names:
                columns = ", ".join(table.schema_arrow.names)
                raise ValueError(
                    f"{file} has no column `{field}`: name one of its columns with --field "
                    f"({columns})"
                )
            batches = table.iter_batches(batch_size=64, columns=[field])
            cells = (cell for batch in batches for cell in batch.column(0))
            for number, cell in enumerate(cells, 1):
                yield _parquet_text(cell, number, file, strict, field)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as e:
        reason = first_line(e)
        raise ValueError(f"{file} cannot be read: {reason}; check that it is a Parquet file") from e


def _parquet_text(cell: Any, number: int, file: str, strict: bool, field: str) -> Line:
    """The text of a cell, whose bytes PyArrow has not checked; "" of a missing one."""
    import pyarrow

    try:
        text = cell.as_py()
    except UnicodeDecodeError:
        value = cell.value if isinstance(cell, pyarrow.DictionaryScalar) else cell
        if not isinstance(value, pyarrow.StringScalar):
            raise
        return decode(value.as_buffer().to_pybytes(), number, file, strict, "row")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{file}, row {number}: `{field}` is not a string; convert it")
    return Line(text or "", 0, number)


def _tfds_texts(source: str, strict: bool, field: str) -> Iterator[Line]:
    """The texts of `tfds:NAME/SPLIT`, where NAME may be a folder that TFDS wrote. Prepare the
    dataset in ArrayRecord if it is not there."""
    name, split = split_tfds(source)
    with tfds_folder.open_builder(source, name, "tfds:NAME/SPLIT") as builder:
        examples = builder.as_data_source(split=split)
    if field not in (builder.info.features or {}):
        raise ValueError(f"{source} has no feature `{field}`: name the feature with --field")
    count = len(examples)
    parts = (
        range(i, min(i + EXAMPLES_PER_READ, count)) for i in range(0, count, EXAMPLES_PER_READ)
    )
    read = (example for part in parts for example in examples.__getitems__(part))
    for number, example in enumerate(read):
        text = example[field]
        if not isinstance(text, bytes):
            raise ValueError(
                f"{source}, example {number + 1}: `{field}` is not a string: name another feature "
                "with --field"
            )
        yield decode(text, number + 1, source, strict, "example")
