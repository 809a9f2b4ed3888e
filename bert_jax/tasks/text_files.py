"""Lines and JSON records of a file, each with its location."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from bert_jax.tasks.fields import Location, shown
from bert_jax.utils.text_lines import decode_line, without_end

LocatedRecord = tuple[Location, dict[str, Any]]


def require_file(file: Path, what: str) -> None:
    """ValueError: there is no such file, or it is a folder. It may be a pipe."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder: expected {what}")
    if not file.exists():
        raise ValueError(f"{file} does not exist: expected {what}; check the path")


def read_lines(file: Path, keep_ends: bool = False) -> Iterator[tuple[Location, str]]:
    """The lines of a UTF-8 file, split at newlines only, without their ends (\\n or \\r\\n) unless
    `keep_ends`. ValueError: missing or not UTF-8."""
    require_file(file, "a file")
    with file.open("rb") as f:
        for number, raw in enumerate(f, 1):
            line = decode_line(raw, number, file)
            location = Location(str(file), f"line {number}")
            yield location, line if keep_ends else without_end(line)


def words_of(line: str) -> list[str]:
    """The parts between spaces and tabs. Other white space is a part of words: 1\u202f000."""
    return re.findall(r"[^ \t\r\n]+", line)


def read_json_lines(file: Path) -> Iterator[tuple[Location, dict[str, Any]]]:
    """The JSON objects of a file, one per line; blank lines are skipped.

    ValueError: a line that is not a JSON object, or as `read_lines`.
    """
    for location, line in read_lines(file):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{location}: not JSON: {e}; fix the line") from None
        if not isinstance(record, dict):
            raise ValueError(f"{location} is {shown(record)}: expected one JSON object per line")
        yield location, record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
