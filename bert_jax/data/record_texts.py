"""The texts of records: JSON lines, Parquet files and datasets of TFDS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from bert_jax.data import text_formats, tfds_folder
from bert_jax.data.corpus_lines import Line, decode
from bert_jax.data.text_sources import split_tfds
from bert_jax.utils.errors import first_line

MAX_JSON_BYTES = 1 << 24  # bytes of a line of JSON, which in memory may take 30 times that
EXAMPLES_PER_READ = 64  # of a TFDS dataset
HALF_SURROGATE = re.compile("[\ud800-\udfff]")


def json_texts(lines: Iterable[Line], file: str, strict: bool, field: str) -> Iterator[Line]:
    """The text of each line, which is one object. ValueError: a line is none, or lacks the
    `field`."""
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


def parquet_texts(file: str, strict: bool, field: str) -> Iterator[Line]:
    """The texts of a column. ValueError: a file that cannot be read, or without the column."""
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


def tfds_texts(source: str, strict: bool, field: str) -> Iterator[Line]:
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
